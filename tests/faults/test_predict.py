"""A run of `deeplegato predict` that is stopped loses nothing that it has finished."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import fake_model
from deeplegato_pp.cli.app import main
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference import predictor
from deeplegato_pp.models import storage
from faults import slowly
from faults.stopping import stop

NAMES = [f"g{i}.fits" for i in range(4)]
CALL = ["predict", *NAMES, "--no-refine", "--samples", "20", "--psf-fwhm", "3", "-o", "t.json"]
JOURNAL = ".t.json.rows"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, "find", lambda name: Path(name or "default"))
    monkeypatch.setattr(predictor.Predictor, "from_pretrained", classmethod(slowly.load))
    for i, name in enumerate(NAMES):
        image = fake_model.truth_image(slowly.SIDE, seed=i).numpy()
        header = fits.Header({"PIXSCALE": 0.25, "MAGZERO": 30.5})
        noise = fits.ImageHDU(np.ones_like(image), name="UNCERT")
        fits.HDUList([fits.PrimaryHDU(image, header), noise]).writeto(tmp_path / name)
    return tmp_path


def rows_of(path="t.json") -> list[dict]:
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_with_a_line_and_nothing_is_lost(folder, number, status, word):
    found, message = stop(number, CALL, JOURNAL, lines=2)
    assert found == status
    assert message == (
        f"deeplegato: {word}. Finished rows are safe in {JOURNAL}; go on with --resume.\n"
    )
    assert not Path("t.json").exists()
    measured = []
    load = slowly.load

    def spy(cls, *arguments, **options):
        made = load(cls)
        measured.append(made.model.batches)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor.Predictor, "from_pretrained", classmethod(spy))
        assert main([*CALL, "--resume"]) == 0
    assert measured == [[3]]
    assert not Path(JOURNAL).exists()
    resumed = rows_of()
    assert [row["file"] for row in resumed] == NAMES
    assert main(CALL) == 0
    for row, whole in zip(resumed, rows_of(), strict=True):
        assert row["magnitude"] == pytest.approx(whole["magnitude"], rel=1e-6)


def test_kill_9_loses_nothing_and_a_line_cut_short_does_not_count(folder):
    assert stop(signal.SIGKILL, CALL, JOURNAL, lines=2)[0] == -signal.SIGKILL
    with Path(JOURNAL).open("a") as file:
        file.write('{"image": "g1.fits", "row": {"fi')
    assert main([*CALL, "--resume"]) == 0
    assert [row["file"] for row in rows_of()] == NAMES
    assert all(row["magnitude"] is not None for row in rows_of())


class Stop(KeyboardInterrupt):
    """Ctrl-C after some rows."""


def stopped_after(monkeypatch, rows: int) -> None:
    add = slowly.Journal.add
    seen = []

    def added(self, images, new):
        add(self, images, new)
        seen.extend(new)
        if len(seen) >= rows:
            raise Stop

    monkeypatch.setattr(slowly.measuring, "CHUNK", 1)
    monkeypatch.setattr(slowly.Journal, "add", added)


def test_an_image_that_has_changed_is_measured_again(folder, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        assert main(CALL) == 130
    with fits.open("g0.fits", mode="update") as hdus:
        hdus[0].data[:] *= 2.0
    os.utime("g0.fits", (1e9, 1e9))
    assert main([*CALL, "--resume"]) == 0
    first, second = (row["magnitude"] for row in rows_of()[:2])
    assert first == pytest.approx(second, abs=0.01)  # of the fake network, whatever the image
    assert rows_of()[0]["chi2"] > 1.5 * rows_of()[1]["chi2"]


def test_other_options_are_not_mixed_in(folder, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        assert main(CALL) == 130
    assert main([*CALL, "--resume", "--seed", "3"]) == 2
    assert f"{JOURNAL} holds rows made with other options (seed)" in capsys.readouterr().err
    assert main([*CALL, "--resume", "--samples-output", "s.npz"]) == 2
    assert "--samples-output) are not kept" in capsys.readouterr().err
    assert main(CALL) == 0  # afresh
    assert not Path(JOURNAL).exists()
    with slowly.Journal(Path("t.json"), {"seed": 1}, False):
        pass
    with pytest.raises(ConfigError, match="other options"):
        slowly.Journal(Path("t.json"), {"seed": 2}, True)


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_two_runs_at_once_do_not_write_one_table(folder, capsys, resume):
    with slowly.Journal(Path("t.json"), {"seed": 1}, False):
        before = Path(JOURNAL).read_bytes()
        assert main([*CALL, *resume]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"deeplegato: another run keeps its rows in {JOURNAL}.")
        assert error.count("\n") == 1
        assert Path(JOURNAL).read_bytes() == before
    assert main(CALL) == 0


def test_names_that_are_no_utf_8_are_rows_too(folder, capsys):
    odd = os.fsdecode(b"g-\xe9.fits")
    os.rename("g0.fits", odd)
    for output in ("t.json", "t.ecsv", "t.fits", "t.parquet"):
        assert (
            main(["predict", odd, "g1.fits", "--no-refine", "--samples", "20", "-o", output]) == 0
        )
    assert "g-\\xe9" in capsys.readouterr().out
    assert rows_of()[0]["file"] == "g-\\xe9.fits"
