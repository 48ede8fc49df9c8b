"""Detection of placeholder pixels, and of sky left in an image."""

import math

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.observation.noise_maps import clipped_mad

REPEATS = 10
"""Minimum number of pixels with the same value for a placeholder."""

DISTINCT = 0.95
"""Minimum fraction of distinct values among the other pixels; quantised images are exempt."""

SKY_LIMIT = 0.5
"""Median of every corner, in units of the noise, above which sky was left in the image."""


def placeholders(image: Array, mask: Array) -> tuple[Array, list[float]]:
    """Returns the pixels that hold placeholders (0, -999, -1e30), and their values.

    A value is a placeholder if it fills at least ten pixels of an image whose other values differ,
    and it is 0 with other values below it, or more than 5 sigma below the sky, or beyond 1e20.

    Args:
        image: With shape (H, W), finite where unmasked.
        mask: True for pixels to ignore, with shape (H, W).
    """
    nothing = np.zeros(image.shape, dtype=bool)
    seen = image[~mask]
    if seen.size == 0:
        return nothing, []
    candidates = {0.0, float(seen.min()), float(seen.max())}
    if all(np.count_nonzero(seen == value) < REPEATS for value in candidates):
        return nothing, []
    values, counts = np.unique(seen, return_counts=True)
    repeated = values[counts >= REPEATS]
    if repeated.size == 0 or repeated.size > 3:
        return nothing, []
    rest = seen[~np.isin(seen, repeated)]
    if rest.size < 100 or len(values) - len(repeated) < DISTINCT * rest.size:
        return nothing, []
    sky, sigma = float(np.median(rest)), clipped_mad(rest, 3.0)
    below = float(np.mean(rest < 0))
    found = [
        float(v)
        for v in repeated
        if (v == 0 and below > 0.05) or v < sky - max(5 * sigma, 0) or abs(v) > 1e20
    ]
    if not found:
        return nothing, []
    return np.isin(image, found) & ~mask, found


def sky_left(image: Array, noise: Array, mask: Array) -> float | None:
    """Returns the sky left in an image (light of one sign in every corner), or None.

    Args:
        image: With shape (H, W).
        noise: 1-sigma map, with shape (H, W).
        mask: True for pixels to ignore, with shape (H, W).
    """
    side = max(3, min(image.shape) // 8)
    medians, errors, levels = [], [], []
    for rows in (slice(None, side), slice(-side, None)):
        for columns in (slice(None, side), slice(-side, None)):
            good = ~mask[rows, columns]
            if np.count_nonzero(good) < 9:
                continue
            sigma = float(np.mean(noise[rows, columns][good]))
            level = float(np.median(image[rows, columns][good]))
            levels.append(level)
            medians.append(level / sigma)
            errors.append(1.2533 / math.sqrt(np.count_nonzero(good)))
    if len(medians) < 3:
        return None
    faintest = min(medians, key=abs)
    same_sign = len({m > 0 for m in medians}) == 1
    if not same_sign or abs(faintest) < max(SKY_LIMIT, 5 * max(errors)):
        return None
    return min(levels, key=abs)
