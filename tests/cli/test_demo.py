from __future__ import annotations

import pytest
from astropy.table import QTable
from matplotlib.image import imread

import deeplegato_pp.inference.predictor as predictor_module
from deeplegato_pp.cli.app import main
from fake_model import TRUTH, FakeModel


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    """A network that answers at once stands in for the packaged one, and is not refined."""
    monkeypatch.setattr(
        predictor_module.Predictor,
        "from_pretrained",
        classmethod(lambda cls, *a, **k: cls(FakeModel(TRUTH), "cpu", None)),
    )
    monkeypatch.setattr(
        predictor_module.Predictor, "refine", lambda self, posterior, *a, **k: posterior
    )


def test_the_demo_measures_the_packaged_galaxy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo.ecsv", "demo.png"]
    (row,) = QTable.read("demo.ecsv")
    assert row["name"] == "hst_galaxy"
    assert row["zero_point"].value == pytest.approx(25.94, abs=0.01)
    assert imread("demo.png").shape[0] > 500
    printed = capsys.readouterr().out
    assert "Written: demo.ecsv and demo.png." in printed
    assert "deeplegato predict galaxy.fits -o table.ecsv --plot galaxy.png" in printed


def test_the_demo_wants_a_folder_that_exists(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
