"""``deeplegato predict --bands``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits

import deeplegato_pp.inference.predictor as predictor_module
from band_galaxies import band_image, small_model
from deeplegato_pp.cli.app import main
from deeplegato_pp.models import storage


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two bands in the working directory, PSFs in files of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, "find", lambda name: name or "default")
    monkeypatch.setattr(
        predictor_module.Predictor,
        "from_pretrained",
        classmethod(lambda cls, *a, **k: cls(small_model(), "cpu")),
    )
    for i, (band, magnitude) in enumerate((("g", 20.5), ("r", 19.9))):
        image, psf = band_image(magnitude, 3.0 + i, seed=i)
        primary = fits.PrimaryHDU(image.astype(np.float32))
        primary.header["PIXSCALE"] = 0.25
        primary.writeto(f"{band}.fits")
        fits.PrimaryHDU(psf).writeto(f"psf_{band}.fits")
    return tmp_path


CALL = ["predict", "g.fits", "r.fits", "--bands", "g,r", "--noise", "1"]


def test_one_row_of_two_files(files, capsys):
    options = ["--psf", "psf_g.fits", "--psf", "psf_r.fits", "-o", "t.json", "--plot", "t.png"]
    zero_points = ["--zero-point", "30.5", "--zero-point", "31.0"]
    assert main([*CALL, *options, *zero_points, "--samples-output", "s.npz"]) == 0
    (row,) = json.loads((files / "t.json").read_text())
    assert row["file"] == "g.fits,r.fits"
    assert abs(row["g_minus_r"] - 0.1) < 5 * row["g_minus_r_std"]
    assert row["band_structure"] == "shared"
    assert "without WCS" in row["notes"]
    assert (files / "t.png").stat().st_size > 10_000
    assert np.load("s.npz")["samples"].shape[2] == 7
    assert "g_minus_r" in capsys.readouterr().out


def test_a_band_without_psf_is_flagged_by_its_name(files):
    options = ["--zero-point", "30.5", "--widths", "noise", "--refine-method", "laplace"]
    assert main([*CALL, *options, "-o", "t.json"]) == 0
    (row,) = json.loads((files / "t.json").read_text())
    assert row["method"] == "laplace"
    assert "no_psf" in row["flag_names_r"]
    assert "r: PSF: Moffat" in row["notes"]
    assert row["quality"] == "caution"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "g.fits", "--bands", "g,r"], "2 bands (g, r) need one file each, got 1"),
        (["predict", "g.fits", "r.fits", "--bands", "g,g"], "have one name"),
        (["predict", "g.fits", "--bands", "g"], "at least two"),
        ([*CALL, "--band-structure", "linear"], "one wavelength for each of 2 bands, got 0"),
        ([*CALL, "--wavelengths", "0.5"], "got 1"),
        ([*CALL, "--wavelengths", "0.5,red"], "numbers separated by commas"),
        ([*CALL, "--band-structure", "cubic"], "cubic"),
        ([*CALL, "--scene", "auto"], "--scene does not go with --bands"),
        ([*CALL, "--fix", "sersic_index=4"], "--fix does not go with --bands"),
        ([*CALL, "--no-refine"], "--no-refine does not go with --bands"),
        ([*CALL, "--resume", "-o", "t.json"], "--resume does not go with --bands"),
        ([*CALL, "--zero-point", "1", "--zero-point", "2", "--zero-point", "3"], "got 3"),
        (["predict", "g.fits", "--wavelengths", "1,2"], "--wavelengths belongs to several bands"),
        (["predict", "g.fits", "--band-structure", "free"], "belongs to several bands"),
        (["predict", "g.fits", "--noise", "1", "--noise", "2"], "--noise was given 2 times"),
        ([*CALL, "-o", "r.fits"], "would write over an input"),
    ],
)
def test_calls_that_make_no_sense(files, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
