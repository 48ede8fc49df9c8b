"""The notebooks run from top to bottom, and are kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pytest

from deeplegato_pp.models import DeepLeGAToPP
from tiny_model import TINY

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SHORT = [
    "training.batch_size=4",
    "training.max_steps=4",
    "training.steps_per_epoch=2",
    "training.accelerator=cpu",
    "training.precision=32-true",
    "validation.num_images=8",
    "validation.batch_size=4",
    "validation.num_posterior_samples=4",
    "logging.progress_bar=false",
]


def code_cells(path: Path) -> list[dict]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    return [c for c in content["cells"] if c["cell_type"] == "code"]


def execute(path: Path, parameters: dict[str, object]) -> dict[str, object]:
    """Runs the cells in one namespace; parameters are set after the cell that has that tag."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(path)):
        exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert set(parameters) <= set(namespace), "a parameter that the notebook has not"
            namespace |= parameters
    return namespace


@pytest.fixture
def run_training(tmp_path, monkeypatch):
    mpl.use("agg")
    path = tmp_path / "tiny.yaml"
    path.write_text(json.dumps(TINY))  # JSON is YAML
    monkeypatch.chdir(tmp_path)

    def run(**changes: object) -> dict[str, object]:
        (notebook,) = (p for p in NOTEBOOKS if p.name == "03_Training.ipynb")
        parameters = {"CONFIG": str(path), "OVERRIDES": SHORT, "BASE": str(tmp_path / "drive")}
        return execute(notebook, parameters | changes)

    yield run
    import matplotlib.pyplot as plt

    plt.close("all")


def test_the_training_notebook_runs_and_goes_on(run_training, tmp_path, capsys):
    first = run_training()
    assert "going on from: None" in capsys.readouterr().out
    assert len(first["rows"]) == 2
    drive = tmp_path / "drive"
    assert DeepLeGAToPP.from_pretrained(drive / "models" / "first").card["training"]["steps"] == 4
    again = run_training(OVERRIDES=[*SHORT, "training.max_steps=6"])
    assert f"going on from: {drive / 'runs' / 'first' / 'last.ckpt'}" in capsys.readouterr().out
    assert [int(r["step"]) for r in again["rows"]] == [2, 4, 6]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_are_kept_without_outputs(path):
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


def test_the_first_notebook_is_pinned_to_the_release_and_runs(tmp_path, monkeypatch, capsys):
    import matplotlib.pyplot as plt

    import deeplegato_pp
    from deeplegato_pp.inference import Predictor
    from fake_model import TRUTH, FakeModel

    (notebook,) = (p for p in NOTEBOOKS if p.name == "01_First_Galaxy.ipynb")
    assert f"deeplegato-pp=={deeplegato_pp.__version__}" in notebook.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    fake = Predictor(FakeModel(TRUTH), "cpu")
    monkeypatch.setattr(Predictor, "from_pretrained", classmethod(lambda cls: fake))
    monkeypatch.setattr(Predictor, "refine", lambda self, posterior: posterior)
    execute(notebook, {})
    plt.close("all")
    assert (tmp_path / "galaxy.ecsv").stat().st_size > 1000
    assert "arcsec" in capsys.readouterr().out
