"""A small mosaic with known galaxies, as FITS files and as arrays, and a network for workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS

from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.observation.effective_psf import moffat_psf
from fake_model import TRUTH, FakeModel

SIDE = 300
POSITIONS = np.array(
    [[70.0, 80.0], [201.3, 75.6], [150.2, 149.7], [88.0, 230.4], [230.0, 229.0], [12.0, 150.0]]
)
"""Columns and rows of the galaxies: the last one lies at the edge."""


@dataclass(frozen=True)
class Sky:
    """Pixels of the mosaic, its noise 1 everywhere, and its WCS."""

    image: np.ndarray
    psf: np.ndarray
    wcs: WCS


def make_wcs(size: int = SIDE) -> WCS:
    """North up, east left, 0.25 arcsec a pixel, about (150, 2) degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [size / 2 + 0.5, size / 2 + 0.5]
    wcs.wcs.cdelt = [-0.25 / 3600, 0.25 / 3600]
    return wcs


def make_sky(seed: int = 0) -> Sky:
    """Galaxies like `TRUTH` at `POSITIONS`, under a Moffat of FWHM 3 px and noise 1."""
    image = np.random.default_rng(seed).standard_normal((SIDE, SIDE))
    psf, _ = moffat_psf(3.0)
    params = TRUTH.clone()
    for x, y in POSITIONS:
        left, bottom = round(x) - 32, round(y) - 32
        params[5:] = torch.tensor([x - left - 31.5, y - bottom - 31.5])
        model = SersicSimulator(64).render(params[None], torch.from_numpy(psf))[0].numpy()
        y0, x0 = max(bottom, 0), max(left, 0)
        part = model[y0 - bottom :, x0 - left :][: SIDE - y0, : SIDE - x0]
        image[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] += part
    return Sky(image.astype(np.float32), psf, make_wcs())


def write_sky(folder: Path, sky: Sky) -> None:
    """Writes mosaic.fits (with noise as ERR), psf.fits and list.csv into a folder."""
    header = sky.wcs.to_header()
    header["MAGZERO"] = 30.5
    science = fits.ImageHDU(sky.image, header=header, name="SCI")
    noise = fits.ImageHDU(np.ones_like(sky.image), name="ERR")
    fits.HDUList([fits.PrimaryHDU(), science, noise]).writeto(folder / "mosaic.fits")
    fits.PrimaryHDU(sky.psf).writeto(folder / "psf.fits")
    lines = [f"{100 + i},{x},{y}" for i, (x, y) in enumerate(POSITIONS)]
    (folder / "list.csv").write_text("\n".join(["id,x,y", *lines]) + "\n")


def load_fake(device: str | None = None) -> object:
    """A predictor with the fake network; worker processes find it by its name.

    Its stamps are small and it passes no verdicts, which would take longer than all the rest.
    """
    from deeplegato_pp.inference.predictor import Predictor

    class Quick(Predictor):
        def _judge(self, row, measurement, drawn):
            return measurement

    model = FakeModel(TRUTH)
    model.image_size = 64
    return Quick(model, "cpu")


def same_values(row: dict, other: dict) -> None:
    """Compares two rows up to rounding: they were measured in different company or threads."""
    for name, value in row.items():
        if isinstance(value, float):
            # A chance has an exponential tail, in which the fit's own tolerance counts for more.
            rel = 1e-3 if name.endswith("_p") else 1e-6
            assert other[name] == pytest.approx(value, rel=rel, abs=1e-9), name
        else:
            assert other[name] == value, name
