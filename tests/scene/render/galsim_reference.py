"""Galaxies drawn by GalSim, code that this project did not write, with tight accuracies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import galsim
import numpy as np
import torch
from torch import Tensor

from deeplegato_pp.scene.render.wings import Galaxies

ACCURATE = galsim.GSParams(
    folding_threshold=5e-5,
    maxk_threshold=1e-6,
    kvalue_accuracy=1e-8,
    integration_relerr=1e-8,
    integration_abserr=1e-10,
    maximum_fft_size=32768,
)
"""Tight enough that the reference is not the limit; the defaults fold 5e-3 of the light."""

LARGE = ACCURATE.withParams(folding_threshold=1e-3, maxk_threshold=1e-5, maximum_fft_size=16384)
"""For steep large galaxies, whose transforms would take 30 GB at the parameters above. The light
that folds is spread over a square of some 10,000 px, of which a stamp is a thousandth: it adds less
than 1e-6 of the flux there."""

N_RANGE = (0.3, 6.2)
"""The Sérsic indices that GalSim draws."""


@dataclass(frozen=True)
class AnalyticPSF:
    """A PSF that GalSim convolves analytically and the renderer gets as samples.

    Attributes:
        kind: ``"gaussian"`` or ``"moffat"``.
        fwhm: Full width at half maximum. [px]
        beta: Moffat's exponent; from 3.5 on, less than 2e-6 of the light lies outside the array.
    """

    kind: str
    fwhm: float
    beta: float = 4.0

    def galsim(self) -> galsim.GSObject:
        if self.kind == "gaussian":
            return galsim.Gaussian(fwhm=self.fwhm, gsparams=ACCURATE)
        return galsim.Moffat(beta=self.beta, fwhm=self.fwhm, gsparams=ACCURATE)

    def samples(self, oversampling: int, reach: int = 60) -> Tensor:
        """The density at the samples' centres, out to `reach` pixels: no sum is forced to 1."""
        a = torch.arange(-reach * oversampling, reach * oversampling + 1).double() / oversampling
        r2 = a[:, None] ** 2 + a**2
        if self.kind == "gaussian":
            variance = self.fwhm**2 / (8 * math.log(2))
            density = (-0.5 * r2 / variance).exp() / (2 * math.pi * variance)
        else:
            core2 = self.fwhm**2 / 4 / (2 ** (1 / self.beta) - 1)
            density = (1 + r2 / core2) ** -self.beta * (self.beta - 1) / (math.pi * core2)
        return density / oversampling**2


def draw_galaxies(number: int, seed: int) -> Galaxies:
    """Random galaxies; every fourth is a large thin disc along a pixel axis."""
    rng = np.random.default_rng(seed)

    def log_uniform(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(math.log(low), math.log(high), number))

    n, radius = log_uniform(*N_RANGE), log_uniform(0.4, 40.0)
    q, angle = rng.uniform(0.1, 1.0, number), rng.uniform(0.0, 180.0, number)
    thin = np.arange(number) % 4 == 0
    radius[thin] = log_uniform(8.0, 40.0)[thin]
    n[thin] = log_uniform(0.3, 2.0)[thin]
    q[thin] = rng.uniform(0.1, 0.2, number)[thin]
    angle[thin] = rng.choice([0.0, 90.0], number)[thin]
    x, y = rng.uniform(-5.0, 5.0, (2, number))
    flux = log_uniform(10.0, 1e6)
    return Galaxies(*(torch.from_numpy(c) for c in (flux, radius, n, q, angle, x, y)))


def draw_psfs(number: int, seed: int, fwhm: tuple[float, float] = (2.5, 6.0)) -> list[AnalyticPSF]:
    """Gaussians and Moffats in turn."""
    rng = np.random.default_rng(seed)
    return [
        AnalyticPSF(("gaussian", "moffat")[i % 2], rng.uniform(*fwhm), rng.uniform(3.5, 5.0))
        for i in range(number)
    ]


def galsim_image(galaxy: list[float], psf: AnalyticPSF, size: int) -> np.ndarray:
    """One galaxy, (flux, radius, n, q, angle, x, y), through the PSF, at the pixels' centres."""
    flux, radius, n, q, angle, x, y = galaxy
    accuracy = LARGE if n > 3.5 and radius > 8 else ACCURATE
    profile = galsim.Sersic(
        n=n, half_light_radius=radius * math.sqrt(q), flux=flux, gsparams=accuracy
    )
    profile = profile.shear(q=q, beta=(angle + 90.0) * galsim.degrees).shift(x, y)
    image = galsim.Convolve(profile, psf.galsim(), gsparams=accuracy).drawImage(
        nx=size, ny=size, scale=1.0, method="no_pixel", dtype=float
    )
    return image.array
