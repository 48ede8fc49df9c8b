"""Point-spread functions of telescopes, from the wavefront in an obscured pupil."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

AIRY_FWHM = 1.029
"""Width of the pattern of a clear circular pupil. [lambda/D]"""

PUPIL_CELLS = 64
"""Cells across the pupil; the pattern repeats after as many lambda/D, far outside of a PSF."""

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
"""The aberrations, Noll's numbers 4 to 11, as functions of the pupil's radius (1 at its edge) and
angle, each with rms 1 over the clear pupil.

References:
    | Zernike polynomials and atmospheric turbulence (Noll, 1976)
    | https://doi.org/10.1364/JOSA.66.000207
"""


def telescope_psfs(
    size: int,
    oversampling: int,
    fwhm: Float[Tensor, " b"],
    obscuration: Float[Tensor, " b"],
    waves: Float[Tensor, "b 8"],
    vanes: Float[Tensor, "b 3"],
    jitter: Float[Tensor, " b"],
    centre: Float[Tensor, "b 2"],
) -> Float[Tensor, "b size size"]:
    """Diffraction patterns of aberrated pupils in monochromatic light, blurred by jitter.

    The Fourier transform from pupil to image is a product with two matrices, so that each PSF is
    sampled where it is wanted whatever its width.

    Args:
        size: Side of the arrays, odd. [samples]
        oversampling: Samples per pixel.
        fwhm: Width of the pattern of a clear pupil without aberrations, with shape (B,). [px]
        obscuration: Diameter of the secondary's shadow, with shape (B,). [pupil diameter]
        waves: Amplitudes of `ZERNIKES`, with shape (B, 8). [wavelength rms]
        vanes: Of the secondary's mount, straight across the whole pupil: how many, the thickness
            of one [pupil diameter] and the angle of the spike of one [deg], with shape (B, 3).
        jitter: FWHM of the Gaussian blur, with shape (B,). [px]
        centre: x and y of the middle, with shape (B, 2). [px]

    Returns:
        PSFs with peaks of about 1, with shape (B, size, size).

    References:
        | Fast computation of Lyot-style coronagraph propagation (Soummer et al., 2007)
        | https://arxiv.org/abs/0711.0368
    """
    pupil = _pupil(fwhm, obscuration, waves, vanes)
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
    sigma = oversampling * jitter / math.sqrt(8.0 * math.log(2.0))
    blur = (-0.5 * ((a[:, None] - a) / sigma[:, None, None]) ** 2).exp()
    blur = blur / blur.sum(2, keepdim=True)
    return blur @ light @ blur.mT


def _cells(like: Tensor) -> Tensor:
    """Returns the middles of the pupil's cells along one axis. [pupil diameter]"""
    a = torch.arange(PUPIL_CELLS, dtype=like.dtype, device=like.device)
    return (a + 0.5) / PUPIL_CELLS - 0.5


def _pupil(
    fwhm: Tensor, obscuration: Tensor, waves: Tensor, vanes: Tensor
) -> Complex[Tensor, "b cells cells"]:
    """Returns the complex amplitude in the pupil, edges as soft as a cell is wide."""
    u = _cells(fwhm)
    y, x = torch.meshgrid(u, u, indexing="ij")
    radius, theta = (x**2 + y**2).sqrt(), torch.atan2(y, x)

    def within(depth: Tensor) -> Tensor:
        return (depth * PUPIL_CELLS + 0.5).clamp(0.0, 1.0)

    light = within(0.5 - radius) * within(radius - 0.5 * obscuration[:, None, None])
    number, thickness, angle = vanes[:, :, None, None].unbind(1)
    for arm in range(int(number.max()) if len(number) else 0):
        t = torch.deg2rad(angle) + math.pi * arm / number.clamp_min(1.0)
        across = (x * t.cos() + y * t.sin()).abs()  # a vane lies square to its spike
        shadow = within(0.5 * thickness - across).minimum(thickness * PUPIL_CELLS)
        light = light * (1.0 - shadow * (arm < number))
    modes = torch.stack([mode(2.0 * radius, theta) for mode in ZERNIKES.values()])
    phase = 2.0 * math.pi * torch.einsum("bk,kyx->byx", waves, modes)
    return torch.complex(light * phase.cos(), light * phase.sin())
