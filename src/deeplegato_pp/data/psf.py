"""Point-spread functions: families for training, and the grid of the networks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.telescope import draw_telescopes, telescope_psfs
from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.psf_grid import convolve_pixel, normalise

FAMILIES = ("gaussian", "moffat", "kolmogorov", "core_halo", "telescope")
"""Names of the profiles in `draw_psfs`; the last is twice as frequent as each other one."""


def pixel_grid(size: int, oversampling: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns x and y of each PSF sample, each with shape (size, size). [px]"""
    a = torch.arange(size, dtype=like.dtype, device=like.device) - size // 2
    y, x = torch.meshgrid(a / oversampling, a / oversampling, indexing="ij")
    return x, y


def radial_grid(
    size: int,
    oversampling: int,
    axis_ratio: Tensor,
    angle: Tensor,
    centre: Float[Tensor, "b 2"] | None = None,
) -> Float[Tensor, "b size size"]:
    """Returns the area-preserving elliptical radius of each PSF sample. [px]

    Args:
        size: Side of the array, odd. [samples]
        oversampling: Samples per pixel.
        axis_ratio: Axis ratio b/a, with shape (B,).
        angle: Position angle, counter-clockwise from +y, with shape (B,). [deg]
        centre: x and y of the centre, with shape (B, 2), or None for the array's own. [px]
    """
    x, y = pixel_grid(size, oversampling, axis_ratio)
    if centre is not None:
        x, y = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    t = torch.deg2rad(angle + 90.0)[:, None, None]
    root = axis_ratio.sqrt()[:, None, None]
    u = (x * t.cos() + y * t.sin()) * root
    v = (y * t.cos() - x * t.sin()) / root
    return (u**2 + v**2 + 1e-12).sqrt()


def gaussian(r: Tensor, fwhm: Tensor) -> Tensor:
    """Returns a Gaussian with peak 1."""
    return (-4.0 * math.log(2.0) * (r / fwhm) ** 2).exp()


def moffat(r: Tensor, fwhm: Tensor, beta: Tensor | float) -> Tensor:
    """Returns a Moffat profile with peak 1.

    References:
        | A theoretical investigation of focal stellar images (Moffat, 1969)
    """
    return (1.0 + (2.0 ** (1.0 / beta) - 1.0) * (2.0 * r / fwhm) ** 2) ** (-beta)


def kolmogorov(r: Tensor, fwhm: Tensor) -> Tensor:
    """Returns long-exposure seeing as a sum of two Moffat profiles (beta 7 and 2).

    References:
        | The telescope point spread function (Racine, 1996)
        | https://doi.org/10.1086/133788
    """
    return 0.86 * moffat(r, fwhm, 7.0) + 0.14 * moffat(r, fwhm, 2.0)


def lopsided(
    size: int, oversampling: int, fwhm: Tensor, coma: Tensor, trefoil: Tensor
) -> Float[Tensor, "b size size"]:
    """Returns factors, 1 at the centre, that make a round PSF lopsided (coma) and triangular.

    Args:
        size: Side of the array, odd. [samples]
        oversampling: Samples per pixel.
        fwhm: FWHM of the PSF, the scale of the factors, with shape (B,). [px]
        coma: x and y components of the asymmetry, of length < 0.5, with shape (B, 2).
        trefoil: Cosine and sine components of the threefold asymmetry, with shape (B, 2).
    """
    x, y = pixel_grid(size, oversampling, fwhm)
    rise = torch.tanh((x**2 + y**2).sqrt() / fwhm[:, None, None])
    theta = torch.atan2(y, x)
    waves = torch.stack([theta.cos(), theta.sin(), (3 * theta).cos(), (3 * theta).sin()])
    amplitudes = torch.cat([coma, trefoil], 1)
    return 1.0 + rise * torch.einsum("bk,kyx->byx", amplitudes, waves)


def draw_psfs(
    fwhm: Float[Tensor, " b"],
    size: int,
    oversampling: int,
    generator: torch.Generator | None = None,
    spikes: float = 0.0,
    aberrated: float = 0.0,
    offset: float = 0.0,
) -> Float[Tensor, "b size size"]:
    """Draws PSFs of given widths from all families, including the pixel response.

    A third are telescopes, see `draw_telescopes`. The others are equally likely, elliptical with
    b/a from 0.8 to 1: Moffat's beta is uniform in 2-5, the halo has up to 9 % of the core's peak at
    2 to 4 times its width.

    Args:
        fwhm: FWHM of the optical profile without aberrations, with shape (B,). [px]
        size: Side of the arrays, odd. [samples]
        oversampling: Samples per pixel.
        generator: Source of randomness on the device of `fwhm`.
        spikes: Fraction of the telescopes with vanes, which cause diffraction spikes.
        aberrated: Fraction of the telescopes with aberrations, and of the others with lopsidedness,
            which shifts the centroid by a twentieth to a tenth of the width.
        offset: Standard deviation of the centre's x and y from the array's. [px]

    Returns:
        PSFs, each with sum 1, with shape (B, size, size).

    Raises:
        RangeError: If `size` is even.
    """
    if size % 2 == 0:
        raise RangeError(f"A PSF's side must be odd, got {size}.")
    draw = Draw(len(fwhm), generator, fwhm.dtype, fwhm.device)
    uniform = draw.uniform

    def pair(half_width: float) -> Tensor:
        return torch.stack([uniform(-half_width, half_width), uniform(-half_width, half_width)], 1)

    centre = pair(math.sqrt(3.0) * offset)
    axis_ratio, angle = 1.0 - 0.2 * uniform(0.0, 1.0) ** 2, uniform(0.0, 180.0)
    r = radial_grid(size, oversampling, axis_ratio, angle, centre)
    width = fwhm[:, None, None]
    beta, halo, spread = (
        u[:, None, None] for u in (uniform(2.0, 5.0), uniform(0.0, 0.3), uniform(2.0, 4.0))
    )
    chosen = draw.chance(aberrated)
    coma, trefoil = chosen[:, None] * pair(0.25), chosen[:, None] * pair(0.15)
    factors = lopsided(size, oversampling, fwhm, coma, trefoil)
    telescopes = draw_telescopes(draw, fwhm, centre, chosen, spikes)
    family = (uniform(0.0, 1.0) * (len(FAMILIES) + 1)).long().clamp_max(len(FAMILIES) - 1)
    psf = torch.empty_like(r)
    profiles = (
        lambda k: gaussian(r[k], width[k]),
        lambda k: moffat(r[k], width[k], beta[k]),
        lambda k: kolmogorov(r[k], width[k]),
        lambda k: (
            moffat(r[k], width[k], 3.5) + halo[k] ** 2 * moffat(r[k], width[k] * spread[k], 2.5)
        ),
    )
    for index, profile in enumerate(profiles):
        rows = (family == index).nonzero()[:, 0]
        psf[rows] = profile(rows) * factors[rows]
    rows = (family == len(profiles)).nonzero()[:, 0]
    psf[rows] = telescope_psfs(telescopes.at(rows), size, oversampling)
    return normalise(convolve_pixel(psf, oversampling))
