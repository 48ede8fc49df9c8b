"""Spatially correlated noise, given by one number per galaxy or by its full correlation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.observation.correlation import REACH, gaussian_lags


def lags_of(noise_correlation: Float[Tensor, " b"]) -> Float[Tensor, "b 17 17"]:
    """Returns the Gaussian correlations that correspond to noise-correlation totals.

    These are the correlations of white noise smoothed by a Gaussian, see
    `NoiseCorrelation.gaussian`.

    Args:
        noise_correlation: Variance of sums over many pixels relative to independent pixels, (B,).

    Raises:
        RangeError: If a value lies outside 1 to 50.
    """
    lags = gaussian_lags(noise_correlation.detach().double().cpu().numpy())
    return torch.from_numpy(lags).to(noise_correlation)


def correlate(
    white: Float[Tensor, "b n n"],
    lags: Float[Tensor, "b 17 17"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b n n"]:
    """Returns noise of a given correlation, made from white noise of unit variance.

    Noise smoothed in from beyond the edges is drawn separately, so that opposite edges are
    uncorrelated.

    Args:
        white: White noise, with shape (B, N, N).
        lags: Correlation at lags (y, x), positive definite, with shape (B, 17, 17).
        generator: Random generator, on the noise's device.
    """
    batch, size = len(white), white.shape[-1]
    side = max(size + REACH, 2 * REACH + 1)
    around = torch.randn(
        batch, side, side, generator=generator, device=white.device, dtype=white.dtype
    )
    around[:, :size, :size] = white
    grid = white.new_zeros(batch, side, side)
    index = torch.arange(-REACH, REACH + 1, device=white.device) % side
    grid[:, index[:, None], index] = lags.to(white)
    power = torch.fft.rfft2(grid).real.clamp_min(0.0)
    noise = torch.fft.irfft2(torch.fft.rfft2(around) * power.sqrt(), s=(side, side))
    return noise[:, :size, :size]


def block_scatter(lags: Float[Tensor, "b 17 17"], side: int) -> Float[Tensor, " b"]:
    """Returns the standard deviation of sums over square blocks relative to independent pixels.

    Args:
        lags: Correlation at lags (y, x), with shape (B, 17, 17).
        side: Side of the blocks. [px]

    Example:
        >>> found = block_scatter(lags_of(torch.tensor([1.0, 4.0])), 1000)
        >>> [round(x, 2) for x in found.tolist()]
        [1.0, 2.0]
    """
    sums = _between_blocks(lags, side)
    middle = sums.shape[-1] // 2
    return sums[:, middle, middle].sqrt()


def independent_share(lags: Float[Tensor, "b 17 17"], side: int) -> Float[Tensor, " b"]:
    """Returns the effective number of independent block sums, divided by their number.

    Args:
        lags: Correlation at lags (y, x), with shape (B, 17, 17).
        side: Side of the blocks; 1 for single pixels. [px]

    Example:
        >>> [round(x, 2) for x in independent_share(lags_of(torch.tensor([1.0, 4.0])), 1).tolist()]
        [1.0, 0.52]
    """
    sums = _between_blocks(lags, side)
    middle = sums.shape[-1] // 2
    return sums[:, middle, middle] ** 2 / (sums**2).sum((-2, -1))


def _between_blocks(lags: Float[Tensor, "b 17 17"], side: int) -> Float[Tensor, "b k k"]:
    """Returns the covariance of block sums per pixel of a block, at lags (y, x) in blocks."""
    number = -(-REACH // side)
    lag = torch.arange(-REACH, REACH + 1).to(lags)
    apart = side * torch.arange(-number, number + 1).to(lags)[:, None]
    share = (1.0 - (lag - apart).abs() / side).clamp_min(0.0)
    return share @ lags @ share.T
