"""How correlated an image's noise is, measured where no source is."""

import math
from typing import Literal, NamedTuple

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_at_least_one
from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.noise_maps import MAD_TO_SIGMA, clipped_mad

BLOCK = 8
"""Side of the blocks whose sums are compared, well beyond the reach of drizzling. [px]"""

FEWEST = 100
"""Pairs of blocks needed: c is then good to some 15 %."""

_LIMIT = 50.0
"""Beyond it the noise map is wrong; no drizzling comes near."""

_CLIP = 3.5
_SOURCE = 4.0


class _Blocks(NamedTuple):
    """Sums over blocks in units of independent noise, and which blocks can be used."""

    sums: Array
    good: Array


def given_or_measured(
    value: float | Literal["measure"], image: Array, noise: Array, mask: Array
) -> tuple[float, list[str]]:
    """Returns c as it was given, or as :func:`measure_noise_correlation` finds it, and remarks.

    Args:
        value: c, or ``"measure"``.
        image: With shape (H, W), as the others.
        noise: 1-sigma map of the background.
        mask: True = ignore.

    Raises:
        InputError: If it is no number, or cannot be measured.
        RangeError: If it is less than 1.
    """
    if value != "measure":
        return check_at_least_one(value, "noise_correlation"), []
    c = measure_noise_correlation(image, noise, mask)
    return c, [f"noise correlation {c:.2f} measured on the stamp"]


def measure_noise_correlation(image: Array, noise: Array, mask: Array) -> float:
    """Returns the variance of the noise of sums over many pixels, over that of independent ones.

    From the differences of sums over adjacent blocks of 8 x 8 px, in which neither a sky nor its
    slope is seen, and of pixels 8 px apart; what is bright is clipped, so that sources may be in
    the image if they fill less than some half of it. From 8 px to any number of pixels it goes as
    for noise whose correlation falls off as a Gaussian. Independent means as the noise map says: a
    map that was scaled up for the correlation gives 1.

    Args:
        image: With shape (H, W). [image units]
        noise: 1-sigma map of the background, with shape (H, W). [image units]
        mask: True = ignore, with shape (H, W).

    Returns:
        c, from 1 to 50; good to 10 % on a stamp of 128 px. Sources too faint to be clipped, and
        the outskirts of galaxies, raise it: by 0.1 if they leave most of the stamp empty.

    Raises:
        InputError: If there are fewer than 100 pairs of blocks without a source, no noise in
            them, or c exceeds 50.

    References:
        | WFPC2 observations of the Hubble Deep Field South (Casertano et al., 2000)
        | https://arxiv.org/abs/astro-ph/0010245
    """
    good = ~mask
    relative = np.where(good, image / np.where(good, noise, 1.0), 0.0)
    shifts = [(y, x) for y in (0, BLOCK // 2) for x in (0, BLOCK // 2)]
    grids = [_without_sources(_block_sums(relative[y:, x:], good[y:, x:])) for y, x in shifts]
    blocks, pairs = grids[0], np.concatenate([_differences(grid, 1) for grid in grids])
    if len(pairs) < len(shifts) * FEWEST:
        raise InputError(
            f"the noise's correlation cannot be measured: {len(pairs) // len(shifts)} pairs of "
            f"{BLOCK} x {BLOCK} px without a source, expected at least {FEWEST}. Give a number, or "
            "a larger stamp."
        )
    empty = np.kron(blocks.good, np.ones((BLOCK, BLOCK), dtype=bool))
    rows, columns = empty.shape
    single = _Blocks(relative[:rows, :columns], good[:rows, :columns] & empty)
    pixel = clipped_mad(_differences(single, BLOCK), _CLIP) ** 2
    if pixel == 0.0:
        raise InputError(
            "the noise's correlation cannot be measured: there is no noise where no source is. "
            "Give a number."
        )
    c = pixel * _extrapolated(clipped_mad(pairs, _CLIP) ** 2 / pixel)
    if c > _LIMIT:
        raise InputError(
            f"the noise's correlation cannot be measured: sums over pixels vary {c:.0f} times as "
            f"much as the noise map says, expected up to {_LIMIT:.0f}. Check the noise, or give a "
            "number."
        )
    return max(c, 1.0)


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


def _differences(blocks: _Blocks, lag: int) -> Array:
    """Differences of blocks some blocks apart along either axis, over the square root of two."""
    found = []
    for values, good in ((blocks.sums, blocks.good), (blocks.sums.T, blocks.good.T)):
        both = good[lag:] & good[:-lag]
        change = (values[lag:] - values[:-lag])[both]
        found.append(change - np.median(change) if change.size else change)  # the sky's slope
    joined: Array = np.concatenate(found) / math.sqrt(2.0)
    return joined


def _extrapolated(ratio: float) -> float:
    """Returns c of noise of unit variance from that of differences of adjacent blocks' sums.

    The noise's correlation at a distance l along an axis is exp(-l^2/(4 w^2)): w is found by
    bisection, and c is the sum over all distances along both axes.
    """
    lag = np.arange(-40 * BLOCK, 40 * BLOCK + 1)

    def sums(width: float) -> tuple[float, float]:
        correlation = np.exp(-((lag / (2.0 * width)) ** 2))
        own = np.maximum(1.0 - np.abs(lag) / BLOCK, 0.0)
        next_ = np.maximum(1.0 - np.abs(lag - BLOCK) / BLOCK, 0.0)
        block, shared = float((correlation * own).sum()), float((correlation * next_).sum())
        return block * (block - shared), float(correlation.sum()) ** 2

    low, high = 0.05, float(BLOCK) / 2.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if sums(middle)[0] < ratio else (low, middle)
    return sums(low)[1]
