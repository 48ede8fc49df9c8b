"""Measurement of the noise correlation of an image, in regions without sources."""

import math
from typing import NamedTuple

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.correlation import LARGEST, REACH, NoiseCorrelation
from deeplegato_pp.observation.noise_maps import MAD_TO_SIGMA, clipped_mad

BLOCK = 8
"""Side of the blocks whose sums are compared, much larger than drizzle's correlation. [px]"""

FEWEST = 100
"""Minimum number of pairs of blocks: c is then accurate to some 15 %."""

_CLIP = 3.5
_SOURCE = 4.0

_FAR = REACH + 4
"""Largest lag considered. [px]"""

_SIGNIFICANT = 4.0
"""Significance of the correlation at one lag, times the square root of the number of pairs."""

_SCALED_UP = 0.9
"""Ratio of pixel variance to the noise map's below which the map was scaled up."""


class _Blocks(NamedTuple):
    """Block sums in units of independent noise, and which blocks can be used."""

    sums: Array
    good: Array


def measure_correlation(image: Array, noise: Array, mask: Array) -> NoiseCorrelation | None:
    """Measures the correlation of the noise in regions without sources; None if there is none.

    Uses squared differences of pixels up to 8 px apart, relative to those of pixels beyond the
    correlation length, after removing a plane. Blocks of 8 x 8 px that stand out are excluded, so
    the image may contain sources that fill less than about half of it. The correlation is assumed
    to be the same at lags (y, x) and (y, -x), and at (x, y) if the data agree. If the noise map
    exceeds the pixels' scatter, as in maps scaled up for correlation, the excess counts as
    correlation already accounted for.

    Args:
        image: With shape (H, W). [image units]
        noise: 1-sigma map of the background, with shape (H, W). [image units]
        mask: True = ignore, with shape (H, W).

    Returns:
        The correlation; single lags are accurate to 0.01 on a stamp of 128 px, the total to 10 %.
        Sources too faint to be excluded, and the outskirts of galaxies, raise it.

    Raises:
        InputError: If there are fewer than 100 pairs of blocks without a source, they have no
            noise, or sums vary more than 50 times as much as expected from the noise map.

    References:
        | WFPC2 observations of the Hubble Deep Field South (Casertano et al., 2000)
        | https://arxiv.org/abs/astro-ph/0010245
    """
    good = ~mask
    relative = np.where(good, image / np.where(good, noise, 1.0), 0.0)
    blocks = _without_sources(_block_sums(relative, good))
    pairs = sum(int((g[1:] & g[:-1]).sum()) for g in (blocks.good, blocks.good.T))
    if pairs < FEWEST:
        raise InputError(
            f"the noise's correlation cannot be measured: {pairs} pairs of "
            f"{BLOCK} x {BLOCK} px without a source, expected at least {FEWEST}. Give a number, or "
            "a larger stamp."
        )
    empty = np.kron(blocks.good, np.ones((BLOCK, BLOCK), dtype=bool))
    rows, columns = empty.shape
    used = good[:rows, :columns] & empty
    values, used = _flattened(relative[:rows, :columns], used)
    half, number = _structure(values, used)
    if not half[0, _FAR] > 0.0:
        raise InputError(
            "the noise's correlation cannot be measured: there is no noise where no source is. "
            "Give a number."
        )
    if abs(half[0, 1] - half[1, 0]) < _SIGNIFICANT * half[0, _FAR] / math.sqrt(number[0, 1]):
        half = 0.5 * (half + half.T)
    reach = _reach(half, number)
    beyond = np.maximum.outer(np.arange(_FAR + 1), np.arange(_FAR + 1))
    variance = float(half[(beyond > reach) & (beyond <= reach + 3)].mean())
    quadrant = np.where(beyond <= reach, 1.0 - half / variance, 0.0)[: REACH + 1, : REACH + 1]
    index = np.abs(np.arange(-REACH, REACH + 1))
    found = NoiseCorrelation.nearest(quadrant[index[:, None], index])
    sums = variance * found.total
    if sums > LARGEST:
        raise InputError(
            f"the noise's correlation cannot be measured: sums over pixels vary {sums:.0f} times "
            f"as much as the noise map says, expected up to {LARGEST:.0f}. Check the noise, or "
            "give a number."
        )
    if reach == 0 or found.total <= 1.0:
        return None
    if variance > _SCALED_UP:
        return found
    share = (sums - 1.0) / (found.total - 1.0)
    return found.diluted(share) if share > 0.0 else None


def measure_noise_correlation(image: Array, noise: Array, mask: Array) -> float:
    """Measures the variance of sums over many pixels relative to independent pixels.

    Returns the total of :func:`measure_correlation`; 1 if pixels are independent.
    """
    found = measure_correlation(image, noise, mask)
    return 1.0 if found is None else found.total


def _flattened(values: Array, used: Array) -> tuple[Array, Array]:
    """Returns the pixels minus a plane, and those used after clipping outliers; 0 elsewhere."""
    y, x = np.indices(values.shape)
    plane = np.stack([np.ones(values.shape), x / values.shape[1], y / values.shape[0]], -1)
    for _ in range(3):
        solution = np.linalg.lstsq(plane[used], values[used], rcond=None)[0]
        left = values - plane @ solution
        used = used & (np.abs(left) <= _CLIP * clipped_mad(left[used], _CLIP))
    return np.where(used, left, 0.0), used


def _structure(values: Array, used: Array) -> tuple[Array, Array]:
    """Returns half the mean squared difference at lags (y, x), and the number of pairs.

    Lags (y, x) and (y, -x) are combined; each result has shape (13, 13).
    """
    shape = [n + _FAR for n in values.shape]
    ones, first, second = (np.fft.rfft2(a, shape) for a in (used.astype(float), values, values**2))

    def lags(product: Array) -> Array:
        found = np.fft.irfft2(product, shape)
        along = np.arange(_FAR + 1)
        both: Array = found[along[:, None], along] + found[along[:, None], -along]
        return both

    number = lags(ones * ones.conj()).round()
    squares = lags((second * ones.conj()).real)
    products = lags(first * first.conj())
    return (squares - products) / np.maximum(number, 1.0), number


def _reach(half: Array, number: Array) -> int:
    """Returns the largest lag along an axis with significant correlation. [px]"""
    found = 0
    for lag in range(1, REACH + 1):
        far = 0.5 * (half[0, lag + 1 : lag + 4].mean() + half[lag + 1 : lag + 4, 0].mean())
        seen = 1.0 - 0.5 * (half[0, lag] + half[lag, 0]) / far
        if seen > _SIGNIFICANT / math.sqrt(number[0, lag]):
            found = lag
        elif lag > found + 1:
            break
    return found


def _block_sums(relative: Array, good: Array) -> _Blocks:
    """Returns block sums divided by the independent pixels' expectation, for well-filled blocks."""
    rows, columns = (n // BLOCK for n in relative.shape)

    def gathered(values: Array) -> Array:
        cut = values[: rows * BLOCK, : columns * BLOCK].astype(float)
        total: Array = cut.reshape(rows, BLOCK, columns, BLOCK).sum((1, 3))
        return total

    pixels = gathered(good)
    return _Blocks(gathered(relative) / np.sqrt(np.maximum(pixels, 1.0)), pixels > 0.75 * BLOCK**2)


def _without_sources(blocks: _Blocks) -> _Blocks:
    """Excludes blocks that are brighter than the others."""
    good = blocks.good
    for _ in range(10):
        kept = blocks.sums[good]
        if kept.size == 0:
            break
        level = np.median(kept)
        # Sources only add light, so the lower half of the values measures the noise.
        below = level - kept[kept <= level]
        spread = MAD_TO_SIGMA * float(np.median(below))
        fewer = good & (blocks.sums - level <= _SOURCE * spread)
        if fewer.sum() == good.sum():
            break
        good = fewer
    return _Blocks(blocks.sums, good)
