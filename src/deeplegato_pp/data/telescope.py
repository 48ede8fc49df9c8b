"""Point-spread functions of telescopes, from the wavefront in an obscured pupil."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from deeplegato_pp.data.drawing import Draw

AIRY_FWHM = 1.029
"""FWHM of the pattern of a clear circular pupil. [lambda/D]"""

PUPIL_CELLS = 64
"""Number of cells across the pupil; the pattern repeats after as many lambda/D, outside the PSF."""

ZERNIKES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "defocus": lambda r, t: math.sqrt(3.0) * (2.0 * r**2 - 1.0),
    "astigmatism_sin": lambda r, t: math.sqrt(6.0) * r**2 * (2.0 * t).sin(),
    "astigmatism_cos": lambda r, t: math.sqrt(6.0) * r**2 * (2.0 * t).cos(),
    "coma_sin": lambda r, t: math.sqrt(8.0) * (3.0 * r**3 - 2.0 * r) * t.sin(),
    "coma_cos": lambda r, t: math.sqrt(8.0) * (3.0 * r**3 - 2.0 * r) * t.cos(),
    "trefoil_sin": lambda r, t: math.sqrt(8.0) * r**3 * (3.0 * t).sin(),
    "trefoil_cos": lambda r, t: math.sqrt(8.0) * r**3 * (3.0 * t).cos(),
    "spherical": lambda r, t: math.sqrt(5.0) * (6.0 * r**4 - 6.0 * r**2 + 1.0),
}
"""Zernike aberrations with Noll's indices 4 to 11, as functions of the pupil's radius (1 at its
edge) and angle, each with rms 1 over the clear pupil.

References:
    | Zernike polynomials and atmospheric turbulence (Noll, 1976)
    | https://doi.org/10.1364/JOSA.66.000207
"""


class Telescopes(NamedTuple):
    """Properties of the telescopes behind the PSFs of a batch.

    Attributes:
        fwhm: FWHM of the pattern of a clear pupil without aberrations, with shape (B,). [px]
        obscuration: Diameter of the central obscuration, with shape (B,). [pupil diameter]
        waves: Amplitudes of `ZERNIKES`, with shape (B, 8). [wavelength rms]
        vanes: Number of the secondary's vanes across the pupil, their thickness [pupil diameter],
            and the angle of one spike [deg], with shape (B, 3).
        jitter: FWHM of the Gaussian blur, with shape (B,). [px]
        centre: x and y of the centre, with shape (B, 2). [px]
    """

    fwhm: Float[Tensor, " b"]
    obscuration: Float[Tensor, " b"]
    waves: Float[Tensor, "b 8"]
    vanes: Float[Tensor, "b 3"]
    jitter: Float[Tensor, " b"]
    centre: Float[Tensor, "b 2"]

    def at(self, rows: Tensor) -> Telescopes:
        """Returns a subset of the telescopes."""
        return Telescopes(*(column[rows] for column in self))


def draw_telescopes(
    draw: Draw,
    fwhm: Float[Tensor, " b"],
    centre: Float[Tensor, "b 2"],
    aberrated: Bool[Tensor, " b"],
    spikes: float,
) -> Telescopes:
    """Draws telescopes for PSFs of given widths and centres.

    Obscuration is uniform in 0-0.4, jitter in 0.1 to 0.6 of the width. The amplitude of each of the
    eight aberrations is a normal deviate times a uniform number up to 0.06 waves, so that the total
    rms is 0 to 0.17. There are two or three vanes, 0.5 to 5 % of the pupil thick.

    Args:
        draw: Source of randomness for B rows.
        fwhm: FWHM, with shape (B,). [px]
        centre: Centres, with shape (B, 2). [px]
        aberrated: Whether telescopes have aberrations, with shape (B,).
        spikes: Fraction of those with vanes.
    """
    uniform = draw.uniform
    normal = draw.normal(len(ZERNIKES))
    waves = aberrated[:, None] * uniform(0.0, 0.06)[:, None] * normal
    has_vanes = draw.chance(spikes)
    number = has_vanes * (2 + draw.chance(0.5).long())
    vanes = torch.stack([number, 0.005 * 10.0 ** uniform(0.0, 1.0), uniform(0.0, 180.0)], 1)
    obscuration, jitter = uniform(0.0, 0.4), fwhm * uniform(0.1, 0.6)
    return Telescopes(fwhm, obscuration, waves, vanes, jitter, centre)


def telescope_psfs(
    telescopes: Telescopes, size: int, oversampling: int
) -> Float[Tensor, "b size size"]:
    """Computes monochromatic diffraction patterns of aberrated pupils, blurred by jitter.

    The Fourier transform from pupil to image is a product with two matrices, so that PSFs of any
    width are computed only at the required samples.

    Args:
        telescopes: B telescopes.
        size: Side of the arrays, odd. [samples]
        oversampling: Samples per pixel.

    Returns:
        PSFs, with shape (B, size, size), in units of the peak without aberrations and jitter.

    References:
        | Fast computation of Lyot-style coronagraph propagation (Soummer et al., 2007)
        | https://arxiv.org/abs/0711.0368
    """
    fwhm, centre = telescopes.fwhm, telescopes.centre
    pupil = _pupil(telescopes)
    a = torch.arange(size, dtype=fwhm.dtype, device=fwhm.device) - size // 2
    u = _cells(fwhm)
    resolution = (fwhm / AIRY_FWHM)[:, None, None]

    def wave(middle: Tensor) -> Complex[Tensor, "b size cells"]:
        position = (a / oversampling - middle[:, None])[:, :, None] / resolution
        phase = 2.0 * math.pi * position * u
        return torch.complex(phase.cos(), phase.sin())

    field = wave(centre[:, 1]) @ pupil @ wave(centre[:, 0]).mT
    light = field.real**2 + field.imag**2
    light = light / pupil.abs().sum((1, 2), keepdim=True) ** 2
    sigma = oversampling * telescopes.jitter / math.sqrt(8.0 * math.log(2.0))
    blur = (-0.5 * ((a[:, None] - a) / sigma[:, None, None]) ** 2).exp()
    blur = blur / blur.sum(2, keepdim=True)
    return blur @ light @ blur.mT


def _cells(like: Tensor) -> Tensor:
    """Returns the centres of the pupil's cells along one axis. [pupil diameter]"""
    a = torch.arange(PUPIL_CELLS, dtype=like.dtype, device=like.device)
    return (a + 0.5) / PUPIL_CELLS - 0.5


def _pupil(telescopes: Telescopes) -> Complex[Tensor, "b cells cells"]:
    """Returns the complex amplitude in the pupil, with edges softened over a cell."""
    u = _cells(telescopes.fwhm)
    y, x = torch.meshgrid(u, u, indexing="ij")
    radius, theta = (x**2 + y**2).sqrt(), torch.atan2(y, x)

    def within(depth: Tensor) -> Tensor:
        return (depth * PUPIL_CELLS + 0.5).clamp(0.0, 1.0)

    light = within(0.5 - radius) * within(radius - 0.5 * telescopes.obscuration[:, None, None])
    number, thickness, angle = telescopes.vanes[:, :, None, None].unbind(1)
    for arm in range(int(number.max()) if len(number) else 0):
        t = torch.deg2rad(angle) + math.pi * arm / number.clamp_min(1.0)
        across = (x * t.cos() + y * t.sin()).abs()  # a vane is perpendicular to its spike
        shadow = within(0.5 * thickness - across).minimum(thickness * PUPIL_CELLS)
        light = light * (1.0 - shadow * (arm < number))
    modes = torch.stack([mode(2.0 * radius, theta) for mode in ZERNIKES.values()])
    phase = 2.0 * math.pi * torch.einsum("bk,kyx->byx", telescopes.waves, modes)
    return torch.complex(light * phase.cos(), light * phase.sin())
