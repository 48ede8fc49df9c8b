"""Resampling of PSFs: convolution with the pixel, and the grid used by networks."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.stamps import PSF_GRID, PSF_GRID_OVERSAMPLING


def normalise(psf: Float[Tensor, "*b k k"]) -> Float[Tensor, "*b k k"]:
    """Returns PSFs scaled to sum 1."""
    return psf / psf.sum((-2, -1), keepdim=True)


def convolve_pixel(psf: Float[Tensor, "b k k"], oversampling: int) -> Float[Tensor, "b k k"]:
    """Convolves PSFs with the detector's pixel (trapezium rule within the samples)."""
    if oversampling == 1:
        weights = [1 / 8, 6 / 8, 1 / 8]
    else:
        inner = [1.0 / oversampling] * (oversampling - 1 + oversampling % 2)
        edge = 0.5 / oversampling
        weights = [edge, *inner, edge] if oversampling % 2 == 0 else inner
    return convolve_separable(psf, weights)


def convolve_separable(images: Float[Tensor, "b ny nx"], weights: list[float]) -> Tensor:
    """Convolves images with a short symmetric kernel along both axes, repeating the edges.

    Implemented as shifted sums, several times faster on a CPU than `conv2d` with one channel.
    """
    reach = len(weights) // 2
    for dim in (1, 2):
        side = images.shape[dim]
        first, last = images.narrow(dim, 0, 1), images.narrow(dim, side - 1, 1)
        padded = torch.cat([first] * reach + [images] + [last] * reach, dim)
        images = weights[reach] * padded.narrow(dim, reach, side)
        for i in range(reach):
            pair = padded.narrow(dim, i, side) + padded.narrow(dim, 2 * reach - i, side)
            images = images + weights[i] * pair
    return images


def to_network_grid(
    psf: Float[Tensor, "b py px"], oversampling: int, psf_includes_pixel: bool = True
) -> Float[Tensor, "b 43 43"]:
    """Resamples PSFs onto the grid used by networks.

    The resampling is done in Fourier space, which is exact for a well-sampled PSF: the spectrum is
    padded or cut to two samples per pixel. Light outside the grid is cut off without rescaling, so
    that the sum is the fraction of light inside.

    Args:
        psf: PSFs, odd-sided, with shape (B, Py, Px).
        oversampling: Samples per pixel of the PSFs.
        psf_includes_pixel: Whether the PSFs include the detector's pixel; if not, it is convolved.

    Returns:
        PSFs on the grid, with shape (B, 43, 43). [fraction of the light per sample]
    """
    pixels = math.ceil(max(max(psf.shape[-2:]) / oversampling, PSF_GRID / PSF_GRID_OVERSAMPLING))
    pixels += 4 + pixels % 2
    source = pixels * oversampling
    target = pixels * PSF_GRID_OVERSAMPLING
    py, px = psf.shape[-2:]
    padded = torch.nn.functional.pad(psf, (0, source - px, 0, source - py))
    centred = torch.roll(padded, (-(py // 2), -(px // 2)), (-2, -1))
    spectrum = torch.fft.fftshift(torch.fft.fft2(centred), dim=(-2, -1))
    low = min(source, target)
    cut = spectrum[
        ...,
        (source - low) // 2 : (source + low) // 2,
        (source - low) // 2 : (source + low) // 2,
    ]
    pad = (target - low) // 2
    wide = torch.nn.functional.pad(cut, (pad, pad, pad, pad))
    wide = torch.fft.ifftshift(wide, dim=(-2, -1))
    if not psf_includes_pixel:
        k = torch.fft.fftfreq(target, 1.0 / PSF_GRID_OVERSAMPLING, dtype=psf.dtype).to(psf.device)
        wide = wide * torch.sinc(k) * torch.sinc(k)[:, None]
    fine = torch.fft.ifft2(wide).real
    half = PSF_GRID // 2
    return torch.roll(fine, (half, half), (-2, -1))[..., :PSF_GRID, :PSF_GRID].contiguous()
