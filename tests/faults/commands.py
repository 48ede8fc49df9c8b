"""What the faults happen to: small runs of `predict` and `catalog` with the fake network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import fake_model
from deeplegato_pp.inference import predictor
from deeplegato_pp.models import storage
from faults import slowly
from small_sky import make_sky, write_sky

NAMES = [f"g{i}.fits" for i in range(5)]
PREDICT = ["predict", *NAMES, "--no-refine", "--samples", "20", "--psf-fwhm", "3"]
CATALOG = ["catalog", "mosaic.fits", "--sources", "list.csv", "--psf", "psf.fits"]
CATALOG += ["--samples", "20", "--chunk", "1"]


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the images of both commands into a folder, and loads the fake network from now on."""
    monkeypatch.setattr(storage, "find", lambda name: Path(name or "default"))
    monkeypatch.setattr(predictor.Predictor, "from_pretrained", classmethod(slowly.load))
    write_stamps(folder)
    write_sky(folder, make_sky())


def write_stamps(folder: Path) -> None:
    """Writes the stamps that `predict` measures."""
    for i, name in enumerate(NAMES):
        image = fake_model.truth_image(slowly.SIDE, seed=i).numpy()
        header = fits.Header({"PIXSCALE": 0.25, "MAGZERO": 30.5})
        noise = fits.ImageHDU(np.ones_like(image), name="UNCERT")
        fits.HDUList([fits.PrimaryHDU(image, header), noise]).writeto(folder / name)
