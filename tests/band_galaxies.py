"""One galaxy in several bands on small stamps, and a network that knows roughly where it is."""

from __future__ import annotations

import numpy as np
import torch

from deeplegato_pp import MultiBandObservation, Observation
from deeplegato_pp.scene.render.renderer import render_sersic
from fake_model import FakeModel
from simulated_galaxies import make_psf

SIZE = 48
TRUTH = torch.tensor([20.5, 0.75, 1.5, 0.6, 40.0, 0.4, -0.3], dtype=torch.float64)
"""In the first band, at the reference instrument: 0.75 arcsec are 3 px."""


class SmallModel(FakeModel):
    """The network that knows the answer, on small stamps."""

    image_size = SIZE


def small_model() -> SmallModel:
    """A network whose draws scatter about `TRUTH` by a twentieth of the prior."""
    return SmallModel(TRUTH, 0.05)


def band_image(magnitude: float, fwhm: float = 3.0, angle: float = 40.0, seed: int = 0):
    """The image of the galaxy in one band with noise 1, turned about the stamp's middle."""
    _, radius, n, q, pa, x, y = TRUTH
    turn = torch.deg2rad(torch.tensor(angle - 40.0, dtype=torch.float64))
    moved = (x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos())
    flux = torch.tensor(10 ** (0.4 * (30.5 - magnitude)), dtype=torch.float64)
    columns = [flux, radius / 0.25, n, q, pa + angle - 40.0, *moved]
    psf = make_psf(fwhm, 15)
    image = render_sersic(*(c[None] for c in columns), psf, SIZE)[0].numpy()
    noise = np.random.default_rng(seed).normal(size=image.shape)
    return image + noise, psf.numpy()


def observe(magnitude: float, fwhm: float = 3.0, angle: float = 40.0, seed: int = 0, wcs=None):
    """An observation of :func:`band_image`."""
    image, psf = band_image(magnitude, fwhm, angle, seed)
    return Observation.from_array(
        image, psf, 1.0, pixel_scale=0.25, zero_point=30.5, wcs=wcs, name="galaxy"
    )


def two_bands(colour: float = 0.6) -> MultiBandObservation:
    """The galaxy in g and r, the latter brighter by `colour`."""
    r = TRUTH[0].item() - colour
    return MultiBandObservation(
        {"g": observe(TRUTH[0].item()), "r": observe(r, 4.0, seed=1)}, [0.48, 0.62]
    )
