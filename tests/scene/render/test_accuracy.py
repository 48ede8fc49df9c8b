"""The renderer against GalSim and against quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, interpolate, special

from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.render.wings import Galaxies
from scene.render.galsim_reference import (
    AnalyticPSF,
    draw_galaxies,
    draw_psfs,
    galsim_image,
)

SIZE = 128


def check_against_galsim(
    galaxies: Galaxies, psfs: list[AnalyticPSF], oversampling: int, worst: float
) -> None:
    """Worst difference over the peak, and the flux of the stamp over the galaxy's."""
    for i, psf in enumerate(psfs):
        one = galaxies.at(slice(i, i + 1))
        row = [float(c) for c in one]
        reference = galsim_image(row, psf, SIZE)
        samples = psf.samples(oversampling)
        image = render_sersic(*one, samples, SIZE, oversampling=oversampling)[0].numpy()
        error = np.abs(image - reference).max() / reference.max()
        flux_error = abs(image.sum() - reference.sum()) / row[0]
        assert error <= worst, (row, psf)
        assert flux_error <= (2e-4 if row[2] > 4 and row[1] > 20 else 5e-5), (row, psf)


def test_a_few_galaxies_against_galsim():
    """Discs, boxes and thin discs: GalSim takes tens of seconds for each large de Vaucouleurs."""
    pool = draw_galaxies(40, seed=1)
    quick = (pool.sersic_index < 2).nonzero()[:8, 0]
    check_against_galsim(pool.at(quick), draw_psfs(8, seed=2), 2, 5e-5)


def test_undersampled_psfs_through_oversampling():
    pool = draw_galaxies(40, seed=3)
    quick = (pool.sersic_index < 2).nonzero()[:4, 0]
    check_against_galsim(pool.at(quick), draw_psfs(4, seed=4, fwhm=(1.3, 2.0)), 4, 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(12))
def test_many_galaxies_against_galsim(part):
    galaxies = draw_galaxies(120, seed=5).at(slice(10 * part, 10 * part + 10))
    check_against_galsim(galaxies, draw_psfs(120, seed=6)[10 * part : 10 * part + 10], 2, 5e-5)


@pytest.mark.slow
def test_many_undersampled_psfs_against_galsim():
    galaxies = draw_galaxies(24, seed=7)
    check_against_galsim(galaxies, draw_psfs(24, seed=8, fwhm=(1.3, 2.2)), 4, 2e-4)


def round_profile_by_quadrature(n: float, radius: float, sigma: float, r: np.ndarray) -> np.ndarray:
    """A round Sérsic profile of unit flux through a Gaussian, in real space.

    With I0e the scaled Bessel function, the convolution of a round profile is
    int I(s) exp(-(r-s)^2 / 2 sigma^2) I0e(r s / sigma^2) s ds / sigma^2: no transform in it.
    """
    bn = special.gammaincinv(2 * n, 0.5)
    log_i0 = 2 * n * np.log(bn) - special.gammaln(2 * n) - np.log(2 * np.pi * n * radius**2)
    t = np.linspace(math.log(1e-14), math.log(r.max() + 12 * sigma), 40_001)
    s = np.exp(t)
    light = np.exp(log_i0 - bn * (s / radius) ** (1 / n)) * s**2 / sigma**2
    kernel = [np.exp(-((a - s) ** 2) / (2 * sigma**2)) * special.i0e(a * s / sigma**2) for a in r]
    return np.array([integrate.simpson(light * k, x=t) for k in kernel])


@pytest.mark.parametrize(
    ("n", "radius"), [(8.0, 0.8), (8.0, 6.0), (8.0, 20.0), (8.0, 40.0), (6.5, 12.0), (0.3, 40.0)]
)
def test_steep_profiles_against_quadrature(n, radius):
    """Indices beyond GalSim's 6.2."""
    psf = AnalyticPSF("gaussian", 4.0)
    sigma = 4.0 / math.sqrt(8 * math.log(2))
    row = Galaxies(*torch.tensor([[1.0, radius, n, 1.0, 0.0, 0.5, 0.5]]).double().T)
    image = render_sersic(*row, psf.samples(2), SIZE, oversampling=2)[0].numpy()
    nodes = np.concatenate([np.linspace(0, 12, 121), np.linspace(12.5, 92, 160)])
    profile = round_profile_by_quadrature(n, radius, sigma, nodes)
    a = np.arange(SIZE) - (SIZE - 1) / 2 - 0.5
    r = np.hypot(a, a[:, None])
    expected = interpolate.CubicSpline(nodes, profile, bc_type=((1, 0.0), "not-a-knot"))(r)
    assert np.abs(image - expected).max() / expected.max() < 5e-5
    assert abs(image.sum() - expected.sum()) < (2e-4 if radius > 20 else 5e-5)


def test_a_thin_steep_disc_against_quadrature():
    """q = 0.15, n = 7: a quarter of its stamp by direct sums on a polar grid of the galaxy."""
    n, radius, q, fwhm = 7.0, 10.0, 0.15, 4.0
    variance = fwhm**2 / (8 * math.log(2))
    row = Galaxies(*torch.tensor([[1.0, radius, n, q, 25.0, 0.5, 0.5]]).double().T)
    samples = AnalyticPSF("gaussian", fwhm).samples(2)
    image = render_sersic(*row, samples, SIZE, oversampling=2)[0].numpy()
    bn = special.gammaincinv(2 * n, 0.5)
    log_i0 = 2 * n * np.log(bn) - special.gammaln(2 * n) - np.log(2 * np.pi * n * radius**2)
    t = np.linspace(math.log(1e-12), math.log(2e3), 3001)
    phi = (np.arange(720) + 0.5) * 2 * np.pi / 720
    rho = np.exp(t)[:, None]
    weight = np.exp(log_i0 - bn * (rho / radius) ** (1 / n)) * rho**2
    weight = weight * (t[1] - t[0]) * (phi[1] - phi[0])
    turn = math.radians(25.0 + 90.0)
    u, v = rho * np.cos(phi), q * rho * np.sin(phi)
    gx, gy = u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)
    for dx, dy in ((0, 0), (3, -1), (-8, 10), (-10, 18)):
        distance2 = (dx - gx) ** 2 + (dy - gy) ** 2
        star = np.exp(-distance2 / (2 * variance)) / (2 * np.pi * variance)
        expected = float((weight * star).sum())
        assert abs(image[64 + dy, 64 + dx] - expected) < 5e-5 * image.max()
