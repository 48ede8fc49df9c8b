from __future__ import annotations

import json
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import QTable

import deeplegato_pp.inference.predictor as predictor_module
from deeplegato_pp.cli.app import main
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.recalibration import SCORES, Recalibration
from deeplegato_pp.models import storage
from fake_model import TRUTH, FakeModel, truth_image


@pytest.fixture
def stamps(tmp_path, monkeypatch):
    """Three files in the working directory: one that will do, one that is none, one without PSF."""
    monkeypatch.chdir(tmp_path)
    image = truth_image().numpy().astype(np.float32)
    primary = fits.PrimaryHDU(image)
    primary.header["PIXSCALE"] = 0.25
    primary.header["MAGZERO"] = 30.5
    noise = fits.ImageHDU(np.ones_like(image), name="UNCERT")
    fits.HDUList([primary, noise]).writeto("good.fits")
    (tmp_path / "bad.fits").write_text("no FITS at all")
    fits.PrimaryHDU(image).writeto("bare.fits")
    return tmp_path


def fake_predictor(cls, name=None, device=None, recalibrated=False):
    """A predictor of the fake network; recalibrated, its draws are spread twice as wide."""
    twice = Recalibration(2.0 * np.tile(SCORES, (1, 7, 1))) if recalibrated else None
    return cls(FakeModel(TRUTH), "cpu", twice)


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    """The fake network stands in for the packaged one."""
    monkeypatch.setattr(storage, "find", lambda name: name or "default")
    monkeypatch.setattr(
        predictor_module.Predictor,
        "from_pretrained",
        classmethod(fake_predictor),
    )


def test_one_file(stamps, capsys):
    status = main(["predict", "good.fits", "--psf-fwhm", "3", "--no-refine", "-o", "t.json"])
    captured = capsys.readouterr()
    assert status == 0
    assert captured.err == ""
    (row,) = json.loads((stamps / "t.json").read_text())
    assert row["file"] == "good.fits"
    assert row["name"] == "good"
    assert row["method"] == "amortized"
    assert row["effective_radius"] == pytest.approx(1.0, rel=0.02)
    for text in ("effective_radius", "arcsec", "95 % interval", "psf_from_fwhm", "amortized"):
        assert text in captured.out
    first = captured.out.splitlines()[0]
    assert first.startswith("good.fits: zero point 30.50 (MAGZERO), 0.25 arcsec/px (PIXSCALE), PSF")


def test_many_files_of_which_one_fails(stamps, capsys):
    status = main(["predict", "good.fits", "bad.fits", "bare.fits", "gone.fits", "--no-refine", "-o", "t.json"])  # noqa: E501  # fmt: skip
    captured = capsys.readouterr()
    assert status == 0
    assert captured.err.count("\n") == 2
    assert "bad.fits" in captured.err.splitlines()[0]
    assert "gone.fits" in captured.err.splitlines()[1]
    rows = json.loads((stamps / "t.json").read_text())
    assert [r["file"] for r in rows] == ["good.fits", "bad.fits", "bare.fits", "gone.fits"]
    assert [bool(r["flags"] & Flag.FAILED) for r in rows] == [False, True, False, True]
    assert rows[1]["magnitude"] is None
    assert "bad.fits" in rows[1]["reason"]
    assert rows[2]["flags"] & Flag.NO_PSF
    assert "no_psf" in captured.out
    assert len(captured.out.splitlines()) >= 5


def test_whatever_a_file_holds_costs_its_own_row_only(stamps, capsys):
    raw = (stamps / "good.fits").read_bytes()
    old = b"MAGZERO =                 30.5".ljust(80)
    assert old in raw
    (stamps / "card.fits").write_bytes(raw.replace(old, b"NANCARD =      NaN".ljust(80)))
    with zipfile.ZipFile("zip.fits", "w") as archive:
        archive.writestr("a", "b")
    (stamps / "old.fits").write_bytes(b"\x1f\x9d\x90" + raw[:3000])
    files = ["card.fits", "zip.fits", "good.fits", "old.fits"]
    status = main(["predict", *files, "--no-refine", "-o", "t.json"])
    assert status == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["card.fits", "zip.fits", "old.fits"]
    rows = json.loads((stamps / "t.json").read_text())
    assert [bool(r["flags"] & Flag.FAILED) for r in rows] == [True, True, False, True]


@pytest.mark.parametrize("option", ["-o", "--samples-output", "--plot"])
def test_inputs_are_not_written_over(stamps, capsys, monkeypatch, option):
    name = {"-o": "t.fits", "--samples-output": "s.npz", "--plot": "p.png"}[option]
    (stamps / name).symlink_to("good.fits")
    before = (stamps / "good.fits").read_bytes()
    for call in (["good.fits"], ["bare.fits", "--noise", "good.fits"]):
        assert main(["predict", *call, "--no-refine", option, name]) == 2
        err = capsys.readouterr().err
        assert "would write over an input" in err
        assert err.count("\n") == 1
    assert (stamps / "good.fits").read_bytes() == before


def test_a_name_with_a_line_break_is_told_in_one_line(stamps, capsys):
    assert main(["predict", "gone\r\nfile.fits", "--no-refine"]) == 2
    assert capsys.readouterr().err.startswith("deeplegato: gone file.fits: no such file")


def test_nothing_measured_is_status_2(stamps, capsys):
    assert main(["predict", "bad.fits", "--no-refine"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_every_output(stamps, capsys):
    call = "predict good.fits bare.fits --no-refine --samples 50 --seed 5 -o t.ecsv"
    status = main([*call.split(), "--samples-output", "s.parquet", "--plot", "p.png"])
    assert status == 0, capsys.readouterr().err
    assert QTable.read("t.ecsv")["magnitude"][0].value == pytest.approx(21.0, abs=0.05)
    assert pq.read_table("s.parquet").num_rows == 100
    made = {p.name for p in stamps.iterdir()} - {"good.fits", "bad.fits", "bare.fits"}
    assert made == {"t.ecsv", "s.parquet", "p-1-good.png", "p-2-bare.png"}


def test_options_reach_the_observation(stamps, capsys):
    fits.PrimaryHDU(np.full((128, 128), 4.0)).writeto("v.fits")
    mask = np.zeros((128, 128), dtype=np.int16)
    mask[0, :10] = 2
    mask[1, :10] = 1
    fits.PrimaryHDU(mask).writeto("m.fits")
    call = (
        "predict good.fits --no-refine -o t.json --noise v.fits --noise-type variance --mask m.fits"
        " --mask-bits 2 --gain 3 --pixel-scale 0.5 --zero-point 28 --sky-sigma 0.1 --psf-fwhm 2"
    )
    status = main(call.split())
    assert status == 0, capsys.readouterr().err
    (row,) = json.loads((stamps / "t.json").read_text())
    assert row["background"] == pytest.approx(2.0)
    assert row["pixel_scale"] == 0.5
    assert row["zero_point"] == 28.0
    assert row["sky_sigma"] == 0.1
    assert row["psf_fwhm"] == pytest.approx(2.0, rel=0.03)
    # 2.5 mag brighter by the zero point, and as much fainter as the noise is higher.
    assert row["magnitude"] == pytest.approx(21.0 - 2.5 - 2.5 * np.log10(2.0), abs=0.02)
    assert main(["predict", "good.fits", "--no-refine", "--noise", "0.5", "-o", "t.json"]) == 0
    assert json.loads((stamps / "t.json").read_text())[0]["background"] == 0.5


def test_the_seed_decides(stamps):
    def radius(seed: str) -> float:
        main(["predict", "good.fits", "--no-refine", "--seed", seed, "-o", "t.json"])
        return json.loads((stamps / "t.json").read_text())[0]["effective_radius"]

    assert radius("1") == radius("1") != radius("2")


def test_refining_is_the_default_and_auto_leaves_the_faint_alone(stamps, capsys, monkeypatch):
    called = []

    def refine(self, posterior, method="exact", **options):
        called.append((len(posterior), method))
        return posterior

    monkeypatch.setattr(predictor_module.Predictor, "refine", refine)
    assert main(["predict", "good.fits", "bare.fits"]) == 0
    assert main(["predict", "good.fits", "--refine-method", "laplace"]) == 0
    assert called == [(2, "exact"), (1, "laplace")]
    assert main(["predict", "good.fits", "--no-refine"]) == 0
    assert len(called) == 2
    assert main(["predict", "good.fits", "bad.fits", "--refine-rule", "auto"]) == 0
    assert called[2:] == [(1, "exact")]
    faint = TRUTH.clone()
    faint[0] = 27.5
    monkeypatch.setattr(
        predictor_module.Predictor,
        "from_pretrained",
        classmethod(lambda cls, name=None, **options: cls(FakeModel(faint), "cpu")),
    )
    noise = np.random.default_rng(0).normal(size=(64, 64))
    fits.PrimaryHDU(noise).writeto("faint.fits")
    assert main(["predict", "faint.fits", "--noise", "1", "--refine-rule", "auto"]) == 0
    assert len(called) == 3


def test_recalibration_is_of_the_bare_network(stamps, capsys):
    call = ["predict", "good.fits", "--psf-fwhm", "3", "-o", "t.json", "--recalibrated"]
    assert main(call) == 2
    assert "Add --no-refine" in capsys.readouterr().err
    assert main([*call, "--no-refine"]) == 0
    (row,) = json.loads((stamps / "t.json").read_text())
    assert row["method"] == "recalibrated"


def test_fixed_parameters_and_odds_reach_the_refinement(stamps, monkeypatch, capsys):
    seen = {}

    def refine(self, posterior, method, **options):
        seen.update(options, measurement=posterior.measurements[0])
        return posterior

    monkeypatch.setattr(predictor_module.Predictor, "refine", refine)
    options = ["--fix", "sersic_index=4", "--fix", "center_x=0.5", "--star-odds", "3"]
    options += ["--noise-correlation", "2.5", "--model-error", "0.05", "--psf-error", "0.1"]
    assert main(["predict", "good.fits", "--psf-fwhm", "3", *options]) == 0
    assert seen["fixed"] == {"sersic_index": 4.0, "center_x": 0.5}
    assert (seen["star_odds"], seen["model_error"]) == (3.0, 0.05)
    assert "noise_correlation" not in seen  # each observation has its own
    assert seen["measurement"].observation.noise_correlation == 2.5
    assert seen["measurement"].observation.psf_error == 0.1
    options[options.index("2.5")] = "measure"
    assert main(["predict", "good.fits", "--psf-fwhm", "3", *options]) == 0
    assert seen["measurement"].observation.noise_correlation < 1.3
    assert "measured on the stamp" in " ".join(seen["measurement"].observation.notes)
    assert main(["predict", "good.fits", "--noise-correlation", "much"]) == 2
    assert "got 'much', which is no file" in capsys.readouterr().err
    for wrong in (["--fix", "sersic=4"], ["--fix", "sersic_index"], [*options, "--no-refine"]):
        assert main(["predict", "good.fits", *wrong]) == 2
        assert "--fix" in capsys.readouterr().err
    assert main(["predict", "good.fits", "--psf-error", "0.5"]) == 2
    assert "psf_error must lie in [0, 0.5), got 0.5" in capsys.readouterr().err
    assert main(["predict", "good.fits", "--no-refine", "--model-error", "0.1"]) == 2
    assert "--model-error" in capsys.readouterr().err


def test_covariances_come_into_the_table(stamps, capsys):
    call = ["predict", "good.fits", "bad.fits", "--psf-fwhm", "3", "--no-refine", "--covariance"]
    assert main(call) == 2
    assert "--covariance adds columns to a table" in capsys.readouterr().err
    assert main([*call, "-o", "t.json"]) == 0
    good, bad = json.loads((stamps / "t.json").read_text())
    assert abs(good["cov_magnitude_effective_radius"]) > 0
    assert good["units"]["cov_magnitude_effective_radius"] == "mag arcsec"
    assert good["units"]["cov_center_x_center_y_noise"] == "pix2"
    assert bad["cov_magnitude_effective_radius"] is None
