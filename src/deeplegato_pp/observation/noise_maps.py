"""Noise maps: conversion to 1-sigma, estimation from the border, and plausibility checks."""

import math

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_choice
from deeplegato_pp.errors import InputError

NOISE_TYPES = ("sigma", "variance", "ivar", "weight")
"""1-sigma; variance; inverse variance; inverse variance up to an unknown factor."""

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of a normal distribution divided by its median absolute deviation."""

CORRELATION_LIMIT = 0.5
"""Pixel-to-pixel correlation of variance and data above which a noise map was made from the data.

Measured on 300 simulated galaxies with S/N 3-3000 and gains of 0.3-300: such maps give 0.80-1.00;
maps from the model, background gradients and exposure maps at most 0.17; maps from data smoothed
with a Gaussian of 1 px at most 0.43. With noise correlated over 0.6 px: 0.57-1.00, 0.28 and 0.68.
"""

VARIATION_LIMIT = 1e-3
"""Pixel-to-pixel variation of the variance below which it is harmless.

Weighting by a variance of relative scatter ``a`` that follows the noise biases a flux measured on
N background pixels by ``a sqrt(N)`` sigma: 0.1 sigma for the 10^4 pixels of a whole stamp.
"""


SENTINEL_RATIO = 1000.0
"""Ratio to the map's median (either way) beyond which a noise value is a placeholder."""

ENOUGH = 6000
"""Number of pixels sampled for the image's scatter."""

OFF_RATIO = 10.0
"""Ratio of scatter to noise (either way) beyond which a map has the wrong type or unit."""


def sigma_from_map(array: Array, noise_type: str, image: Array, mask: Array) -> tuple[Array, Array]:
    """Converts a noise map of any type to 1-sigma.

    Args:
        array: The map, with shape (H, W).
        noise_type: One of ``NOISE_TYPES``. A ``weight`` is an inverse variance up to a factor,
            which is chosen so that the border of the image, in units of the noise, has unit
            clipped MAD.
        image: The image, with shape (H, W). Used for ``weight`` only.
        mask: True = ignore, with shape (H, W).

    Returns:
        The 1-sigma map (NaN where the map gives no number), and where the map itself says
        *ignore*: exactly zero, unless it is zero everywhere. Both with shape (H, W).

    Raises:
        InputError: If ``noise_type`` is unknown.
    """
    check_choice(noise_type, NOISE_TYPES, "noise_type")
    zero = (array == 0) & bool((array != 0).any())
    if noise_type == "sigma":
        return np.where(zero, np.nan, array), zero
    # Negative values stay negative, so that the check of the noise counts and names them.
    root = np.sign(array) * np.sqrt(np.abs(array))
    if noise_type == "variance":
        return np.where(zero, np.nan, root), zero
    ignore = array == 0
    with np.errstate(divide="ignore"):
        sigma = np.where(ignore, np.nan, 1 / root)
    if noise_type == "weight":
        good = ~mask & ~ignore & np.isfinite(image) & (root > 0)
        if good.any():
            sigma *= border_sigma(image * np.where(good, root, 0.0), ~good)
    return sigma, ignore


def sentinels(sigma: Array, mask: Array) -> Array:
    """Returns where a 1-sigma map holds a placeholder (1e10, 1e-8) instead of noise.

    Args:
        sigma: 1-sigma map, with shape (H, W).
        mask: True = ignore, with shape (H, W).
    """
    known = ~mask & np.isfinite(sigma) & (sigma > 0)
    if not known.any():
        return np.zeros(sigma.shape, dtype=bool)
    values = sigma[known]
    if values.max() <= SENTINEL_RATIO * values.min():
        return np.zeros(sigma.shape, dtype=bool)
    middle = float(np.median(values))
    with np.errstate(invalid="ignore"):
        far: Array = (sigma > SENTINEL_RATIO * middle) | (sigma < middle / SENTINEL_RATIO)
    return far & known


def scatter_over_noise(image: Array, sigma: Array, mask: Array) -> float | None:
    """Returns the ratio of the image's pixel-to-pixel scatter to its noise, if far from 1.

    A noise map that is too small is detected with second differences, of which the quietest quarter
    is used, so that sources do not count; one that is too large with differences over 4 px, which
    correlated noise does not reduce.

    Args:
        image: With shape (H, W).
        sigma: 1-sigma map, with shape (H, W).
        mask: True = ignore, with shape (H, W).

    Returns:
        The ratio if it is beyond ``OFF_RATIO`` either way, else None; also None with fewer than
        100 usable pixels.
    """
    if min(image.shape) < 9:
        return None
    step = max(1, image.shape[0] * image.shape[1] // ENOUGH)  # a few thousand pixels suffice
    image, sigma, mask = image[::step], sigma[::step], mask[::step]
    good = ~(mask[:, :-4] | mask[:, 1:-3] | mask[:, 2:-2] | mask[:, 3:-1] | mask[:, 4:])
    if np.count_nonzero(good) < 100:
        return None
    level = sigma[:, 2:-2][good]
    bend = (image[:, 1:-3] - 2 * image[:, 2:-2] + image[:, 3:-1])[good]
    small = _quantile(np.abs(bend) / level, 0.25) / 0.31864 / math.sqrt(6)
    if small > OFF_RATIO:
        return small
    large = _quantile(np.abs((image[:, 4:] - image[:, :-4])[good]) / level, 0.75)
    large /= 1.15035 * math.sqrt(2)
    return large if 0 < large < 1 / OFF_RATIO else None


def _quantile(values: Array, part: float) -> float:
    place = int(part * (values.size - 1))
    return float(np.partition(values, place)[place])


def border_sigma(image: Array, mask: Array) -> float:
    """Estimates the noise from the image's border, as a clipped median absolute deviation.

    The border has a width of a tenth of the shorter side, at least 2 px. Correlated noise and
    neighbours are not corrected for.

    Args:
        image: Image, with shape (H, W).
        mask: True for pixels to ignore, with shape (H, W). With fewer than 16 border pixels, all
            unmasked pixels are used.

    Returns:
        1-sigma noise per pixel, in image units.

    Raises:
        InputError: If the pixels are all equal, so that no noise can be measured.
    """
    width = max(2, round(min(image.shape) / 10))
    border = np.ones(image.shape, dtype=bool)
    border[width:-width, width:-width] = False
    good = border & ~mask
    values = image[good] if good.sum() >= 16 else image[~mask]
    sigma = clipped_mad(values, 3.0)
    if not sigma > 0:
        raise InputError(
            "the noise cannot be estimated: the pixels at the image's border are all equal, and no "
            "noise was given. Give it as a number or a map (noise=, --noise FILE|NUMBER)."
        )
    return sigma


def clipped_mad(values: Array, clip: float) -> float:
    """Returns the median absolute deviation with clipped outliers, as a standard deviation.

    Args:
        values: At least one value, with shape (N,).
        clip: Clipping threshold, in standard deviations from the median.
    """
    for _ in range(10):
        offset = np.abs(values - np.median(values))
        sigma = MAD_TO_SIGMA * float(np.median(offset))
        kept = values[offset <= clip * sigma]
        if sigma == 0 or kept.size == values.size:
            break
        values = kept
    return sigma


def noise_follows_data(image: Array, noise: Array, mask: Array) -> bool:
    """Returns whether a noise map was made from the noisy image pixel by pixel."""
    return noise_data_correlation(image, noise, mask) > CORRELATION_LIMIT


def noise_data_slope(image: Array, noise: Array, mask: Array) -> float:
    """Returns the slope of the variance with the data from pixel to pixel, 0 if there is none.

    Where each pixel's variance is its own data over a gain (and background), the inverse of that
    gain, in the units of the image.

    Args:
        image: Image, with shape (H, W).
        noise: 1-sigma map, with shape (H, W).
        mask: True = ignore, with shape (H, W).
    """
    found = _pixel_to_pixel(image, noise, mask)
    if found is None:
        return 0.0
    data, change, level = found
    usual = np.abs(data) < 4 * _scatter(data)
    data, change = data[usual], (change * level)[usual]
    return max(0.0, float((data * change).sum() / (data * data).sum()))


def noise_data_correlation(image: Array, noise: Array, mask: Array) -> float:
    """Computes the pixel-to-pixel correlation of variance and data, with smooth trends removed.

    Both maps are filtered with the 5-point Laplacian, which removes a background map or a smoothed
    model of the galaxy. Pixels where the light itself is curved on the pixel scale (cusps, stars:
    the Laplacian of the 3 x 3 averaged image exceeds that of the noise) are excluded; the others
    are divided by the noise, so that no pixel dominates.

    Args:
        image: Image, with shape (H, W).
        noise: 1-sigma map, with shape (H, W).
        mask: True = ignore, with shape (H, W).

    Returns:
        Pearson's coefficient, or 0 if it cannot be measured: fewer than 100 pixels, or a variance
        that varies by less than ``VARIATION_LIMIT`` from pixel to pixel.
    """
    found = _pixel_to_pixel(image, noise, mask)
    if found is None:
        return 0.0
    data, change, _ = found
    # Outliers (a hot pixel, a seam between exposures) must not dominate the coefficient.
    data = np.clip(data / _scatter(data), -4, 4)
    change = np.clip(change / _scatter(change), -4, 4)
    return float(np.corrcoef(data, change)[0, 1])


def _pixel_to_pixel(image: Array, noise: Array, mask: Array) -> tuple[Array, Array, Array] | None:
    """Returns pixel-to-pixel variations of data and variance, over the noise, and the noise.

    None if they cannot be measured, see :func:`noise_data_correlation`.
    """
    if min(image.shape) < 7 or mask.all():
        return None
    # In units of the typical noise, so that squares of extreme values do not overflow.
    typical = float(np.median(noise[~mask]))
    safe = np.where(mask, 0.0, image) / typical
    noise = np.where(mask, 1.0, noise / typical)
    variance, level = noise**2, noise[2:-2, 2:-2]
    masked = sum(_neighbourhood(mask.astype(float), 2)) > 0
    bend = _laplacian(_box3(safe)) / level
    # After 3 x 3 averaging, white noise has a Laplacian of 0.157 sigma rms: keep such pixels.
    keep = ~masked & (np.abs(bend) < 4 * 0.157)
    if keep.sum() < 100:
        return None
    data = (_laplacian(safe)[1:-1, 1:-1] / level)[keep]
    change = (_laplacian(variance)[1:-1, 1:-1] / level**2)[keep]
    if not (_scatter(change) > VARIATION_LIMIT and _scatter(data) > 0):
        return None
    return data, change, typical * level[keep]


def _scatter(values: Array) -> float:
    """Returns the root mean square without the largest hundredth of the values."""
    cut = np.quantile(np.abs(values), 0.99)
    return math.sqrt(float(np.mean(np.clip(values, -cut, cut) ** 2)))


def _neighbourhood(array: Array, reach: int) -> list[Array]:
    """Returns the array's interior shifted by every offset of up to ``reach`` pixels per axis."""
    height, width = (size - 2 * reach for size in array.shape)
    steps = range(2 * reach + 1)
    return [array[i : i + height, j : j + width] for i in steps for j in steps]


def _box3(array: Array) -> Array:
    """Returns the 3 x 3 average of the interior, with shape (H - 2, W - 2)."""
    average: Array = np.mean(_neighbourhood(array, 1), axis=0)
    return average


def _laplacian(array: Array) -> Array:
    """Returns pixel minus mean of its four neighbours, with shape (H - 2, W - 2)."""
    centre = array[1:-1, 1:-1]
    sides = array[:-2, 1:-1] + array[2:, 1:-1] + array[1:-1, :-2] + array[1:-1, 2:]
    high: Array = centre - sides / 4
    return high
