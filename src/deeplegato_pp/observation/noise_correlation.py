"""How correlated an image's noise is, measured where no source is."""

import math
from typing import NamedTuple

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.correlation import LARGEST, REACH, NoiseCorrelation
from deeplegato_pp.observation.noise_maps import MAD_TO_SIGMA, clipped_mad

BLOCK = 8
"""Side of the blocks whose sums are compared, well beyond the reach of drizzling. [px]"""

FEWEST = 100
"""Pairs of blocks needed: c is then good to some 15 %."""

_CLIP = 3.5
_SOURCE = 4.0

_FAR = REACH + 4
"""Largest lag looked at. [px]"""

_SIGNIFICANT = 4.0
"""Correlation of one lag that counts, times the root of the number of pairs."""

_SCALED_UP = 0.9
"""Variance of pixels, over the noise map's, below which the map was scaled up."""


class _Blocks(NamedTuple):
    """Sums over blocks in units of independent noise, and which blocks can be used."""

    sums: Array
    good: Array


def measure_correlation(image: Array, noise: Array, mask: Array) -> NoiseCorrelation | None:
    """Returns the correlation of the noise where no source is; None if none is seen.

    From squared differences of pixels up to 8 px apart, over those of pixels farther apart than
    noise is seen to correlate, a slope of the sky removed: pixels in blocks of 8 x 8 px that stand
    out are left out, so sources may be in the image if they fill less than some half of it. It is
    taken to be the same at lags (y, x) and (y, -x), and (x, y) where nothing speaks against it.
    Where the noise map is larger than the pixels' scatter, as maps that were scaled up for the
    correlation are, the excess counts as correlation that is accounted for.

    Args:
        image: With shape (H, W). [image units]
        noise: 1-sigma map of the background, with shape (H, W). [image units]
        mask: True = ignore, with shape (H, W).

    Returns:
        The correlation; that of single lags is good to 0.01 on a stamp of 128 px, the total to
        10 %. Sources too faint to be left out, and the outskirts of galaxies, raise it.

    Raises:
        InputError: If there are fewer than 100 pairs of blocks without a source, no noise in
            them, or sums vary more than 50 times as much as the noise map says.

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
    """Returns the variance of the noise of sums over many pixels, over that of independent ones.

    The sum of what :func:`measure_correlation` finds, which see; 1 where pixels are independent.
    """
    found = measure_correlation(image, noise, mask)
    return 1.0 if found is None else found.total


def _flattened(values: Array, used: Array) -> tuple[Array, Array]:
    """The pixels less a plane, and which are used once outliers are left out; 0 elsewhere."""
    y, x = np.indices(values.shape)
    plane = np.stack([np.ones(values.shape), x / values.shape[1], y / values.shape[0]], -1)
    for _ in range(3):
        solution = np.linalg.lstsq(plane[used], values[used], rcond=None)[0]
        left = values - plane @ solution
        used = used & (np.abs(left) <= _CLIP * clipped_mad(left[used], _CLIP))
    return np.where(used, left, 0.0), used


def _structure(values: Array, used: Array) -> tuple[Array, Array]:
    """Half the mean squared difference of pixels at lags (y, x), and the pairs it is the mean of.

    Lags (y, x) and (y, -x) are taken together; each result has shape (13, 13).
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
    """The largest lag along an axis at which correlation is seen. [px]"""
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
    """Sums over whole blocks, divided by what independent pixels give; those with most pixels."""
    rows, columns = (n // BLOCK for n in relative.shape)

    def gathered(values: Array) -> Array:
        cut = values[: rows * BLOCK, : columns * BLOCK].astype(float)
        total: Array = cut.reshape(rows, BLOCK, columns, BLOCK).sum((1, 3))
        return total

    pixels = gathered(good)
    return _Blocks(gathered(relative) / np.sqrt(np.maximum(pixels, 1.0)), pixels > 0.75 * BLOCK**2)


def _without_sources(blocks: _Blocks) -> _Blocks:
    """Leaves out blocks that stand out above the others."""
    good = blocks.good
    for _ in range(10):
        kept = blocks.sums[good]
        if kept.size == 0:
            break
        level = np.median(kept)
        # Light only adds: the lower half tells the noise.
        below = level - kept[kept <= level]
        spread = MAD_TO_SIGMA * float(np.median(below))
        fewer = good & (blocks.sums - level <= _SOURCE * spread)
        if fewer.sum() == good.sum():
            break
        good = fewer
    return _Blocks(blocks.sums, good)
