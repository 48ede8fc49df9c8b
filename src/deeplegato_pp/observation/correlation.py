"""Stationary noise correlation: given lags, drizzled images, or the Gaussian family."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_finite
from deeplegato_pp.errors import InputError, RangeError, ShapeError

REACH = 8
"""Largest lag along an axis. [px]"""

LARGEST = 50.0
"""Largest variance of sums over many pixels relative to independent pixels."""

FLOOR = 1e-3
"""Minimum power of the noise at any frequency, relative to the mean.

Drizzled noise may have no power at the Nyquist frequency, where a model would be infinitely well
constrained. At pixfrac/scale = 2 the floor lowers the mean chi-square by 3 %, below 1.7 by nothing.
"""

NEGATIVE = 0.05
"""Most negative power, relative to the mean, that is attributed to rounding of the given lags."""

_GRID = 128
"""Number of frequencies along an axis at which power is evaluated."""

_KERNEL = REACH // 2
"""Radius of the smoothing kernel of the Gaussian family. [px]"""


@dataclass(frozen=True, eq=False)
class NoiseCorrelation:
    r"""Correlation of the noise of two pixels as a function of their separation in x and y.

    The noise covariance is :math:`C = D^{1/2} P D^{1/2}`, with D the squared noise map and P this
    correlation. Its power at each frequency is at least :data:`FLOOR` of the mean: where the given
    lags have less, white noise is added.

    Args:
        lags: Correlation at lags (y, x), with shape (K, K), K odd and at most 17: lag zero in the
            middle, with value 1, symmetric under a half-turn, positive definite.

    Raises:
        ShapeError: If it is not a square array of odd side.
        InputError: If it is not a valid correlation.

    Example:
        >>> found = NoiseCorrelation(np.outer([0.25, 1.0, 0.25], [0.25, 1.0, 0.25]))
        >>> found.total
        2.25
    """

    lags: Array

    def __post_init__(self) -> None:
        lags = _checked_lags(self.lags)
        lowest = float(_power(lags).min())
        if lowest < -NEGATIVE:
            raise InputError(
                "noise_correlation must be a positive-definite function of the lag, got one whose "
                f"power is {lowest:.3g} of its mean at some frequency. Let it fall to 0 smoothly, "
                "or use 'measure'."
            )
        if lowest < FLOOR:
            lags = lags * ((1.0 - FLOOR) / (1.0 - lowest))
            lags[lags.shape[0] // 2, lags.shape[1] // 2] = 1.0
        lags.setflags(write=False)
        object.__setattr__(self, "lags", lags)

    @property
    def total(self) -> float:
        """Variance of sums over many pixels relative to independent pixels."""
        return float(self.lags.sum())

    @property
    def reach(self) -> int:
        """Largest lag along an axis. [px]"""
        return self.lags.shape[0] // 2

    @property
    def padded_lags(self) -> Array:
        """Lags padded with zeros, with shape (17, 17)."""
        return np.pad(self.lags, REACH - self.reach)

    def block_variance(self, side: int) -> float:
        """Returns the variance of sums over square blocks relative to independent pixels.

        Args:
            side: Side of the blocks. [px]
        """
        share = np.maximum(1.0 - np.abs(np.arange(-self.reach, self.reach + 1)) / side, 0.0)
        return float(share @ self.lags @ share)

    def binned(self, factor: int) -> NoiseCorrelation:
        """Returns the correlation of block sums.

        Args:
            factor: Side of the blocks. [px]
        """
        if factor == 1:
            return self
        number = -(-(self.reach + 1) // factor)
        lag = np.arange(-self.reach, self.reach + 1)
        apart = factor * np.arange(-number, number + 1)[:, None]
        share = np.maximum(factor - np.abs(lag - apart), 0.0)
        sums = share @ self.lags @ share.T
        return NoiseCorrelation(sums / sums[number, number])

    def diluted(self, share: float) -> NoiseCorrelation:
        """Returns the correlation after adding independent noise.

        Args:
            share: Fraction of the variance that is correlated as here, in [0, 1].
        """
        lags = share * self.lags
        lags[self.reach, self.reach] = 1.0
        return NoiseCorrelation(lags)

    @classmethod
    def nearest(cls, lags: Array) -> NoiseCorrelation:
        """Returns the valid correlation nearest to measured lags: negative power is set to 0.

        Args:
            lags: Measured lags, with shape (17, 17).
        """
        power = _power(lags).clip(0.0)
        power /= power.mean()
        along = np.arange(-REACH, REACH + 1)
        found = np.fft.irfft2(power, (_GRID, _GRID))[along[:, None], along]
        return cls(found / found[REACH, REACH])

    @classmethod
    def drizzle(cls, scale: float, pixfrac: float) -> NoiseCorrelation:
        """Returns the correlation of drizzled noise, averaged over dithers.

        Valid for the square kernel and many dithers; the total is that of Casertano et al.

        Args:
            scale: Side of an output pixel divided by that of a detector pixel.
            pixfrac: Side of a drop divided by that of a detector pixel, in (0, 1].

        Raises:
            RangeError: If a number is invalid, or drops are too wide for :data:`REACH`.

        References:
            | Drizzle: a method for the linear reconstruction of undersampled images
            | (Fruchter & Hook, 2002), https://arxiv.org/abs/astro-ph/9808087
            | WFPC2 observations of the Hubble Deep Field South (Casertano et al., 2000)
            | https://arxiv.org/abs/astro-ph/0010245

        Example:
            >>> round(NoiseCorrelation.drizzle(1.0, 1.0).total, 4)
            2.25
        """
        scale, pixfrac = check_finite(scale, "scale"), check_finite(pixfrac, "pixfrac")
        if not (scale > 0.0 and 0.0 < pixfrac <= 1.0 and pixfrac / scale <= REACH):
            raise RangeError(
                "drizzle takes SCALE > 0 (output over detector pixel) and PIXFRAC in (0, 1], at "
                f"most {REACH} times SCALE, got {scale:g},{pixfrac:g}. Write drizzle:0.6,0.8."
            )
        drop = pixfrac / scale
        reach = math.ceil(1.0 + drop) - 1
        lag = np.arange(-reach, reach + 1)
        # Triangles of half widths 1 and drop, convolved: sums of cubes.
        line = sum(
            (1, -2, 1)[i + 1] * (1, -2, 1)[j + 1] * np.abs(lag + i + j * drop) ** 3
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
        )
        line = line / line[reach]
        return cls(np.outer(line, line))

    @classmethod
    def gaussian(cls, total: float) -> NoiseCorrelation:
        """Returns the correlation of white noise smoothed by a Gaussian.

        Args:
            total: Variance of sums over many pixels relative to independent pixels, from 1 to 50.

        Raises:
            RangeError: If it lies outside that range.

        Example:
            >>> found = NoiseCorrelation.gaussian(2.25)
            >>> round(float(found.lags[8, 9]), 3), round(found.total, 6)
            (0.235, 2.25)
        """
        return cls(gaussian_lags(np.array([total]))[0])


def gaussian_lags(total: Float[Array, " b"]) -> Float[Array, "b 17 17"]:
    """Returns correlations of white noise smoothed by Gaussians, truncated at 4 px.

    Args:
        total: Variances of sums over many pixels relative to independent pixels, from 1 to 50.

    Raises:
        RangeError: If a value lies outside that range.
    """
    total = np.asarray(total, dtype=np.float64)
    if not bool(((total >= 1.0) & (total <= LARGEST)).all()):
        raise RangeError(
            f"noise_correlation must lie in [1, {LARGEST:g}], got {total.min():g} to "
            f"{total.max():g}: it is the variance of sums over many pixels over that of "
            "independent ones. Check the noise map, or give the correlation at each lag."
        )
    k = np.arange(-_KERNEL, _KERNEL + 1)
    low, high = np.full(total.shape, 0.05), np.full(total.shape, 4.0 * _KERNEL)
    for _ in range(50):  # bisection
        middle = 0.5 * (low + high)
        kernel = np.exp(-0.5 * (k / middle[:, None]) ** 2)
        kernel /= np.linalg.norm(kernel, axis=1, keepdims=True)
        narrow = kernel.sum(1) ** 4 < total
        low, high = np.where(narrow, middle, low), np.where(narrow, high, middle)
    power = np.abs(np.fft.rfft(kernel, _GRID, axis=1)) ** 2
    line = np.fft.irfft(power, _GRID, axis=1)[:, np.arange(-REACH, REACH + 1)]
    lags = line[:, :, None] * line[:, None, :]
    lowest = np.minimum(power.min(1) ** 2, FLOOR)[:, None, None]
    lags = np.where(lowest < FLOOR, lags * ((1.0 - FLOOR) / (1.0 - lowest)), lags)
    lags[:, REACH, REACH] = 1.0
    lags[total == 1.0] = independent_lags()
    return lags


def independent_lags() -> Float[Array, "17 17"]:
    """Returns the correlation of independent pixels."""
    lags = np.zeros((2 * REACH + 1, 2 * REACH + 1))
    lags[REACH, REACH] = 1.0
    return lags


def _checked_lags(given: Array) -> Array:
    """Returns the lags as float64; raises an error if they are invalid."""
    lags = np.array(given, dtype=np.float64)
    if lags.ndim != 2 or lags.shape[0] != lags.shape[1] or lags.shape[0] % 2 == 0:
        raise ShapeError(
            f"noise_correlation must be a square array of odd side, one value per lag (y, x), got "
            f"shape {lags.shape}. Put lag zero in its middle."
        )
    middle = lags.shape[0] // 2
    if middle > REACH:
        raise InputError(
            f"noise_correlation reaches {middle} px, expected up to {REACH}. Cut it where it is "
            "negligible, or bin the image."
        )
    if not np.isfinite(lags).all() or abs(lags[middle, middle] - 1.0) > 1e-6:
        raise InputError(
            "noise_correlation must be finite and 1 at lag zero, its middle, got "
            f"{lags[middle, middle]:g} there. Divide it by that value."
        )
    if np.abs(lags - lags[::-1, ::-1]).max() > 1e-3:
        raise InputError(
            "noise_correlation must be the same at lags (y, x) and (-y, -x), got differences up to "
            f"{np.abs(lags - lags[::-1, ::-1]).max():.3g}. Average it with its half turn."
        )
    return 0.5 * (lags + lags[::-1, ::-1])


def _power(lags: Array) -> Array:
    """Returns the power at each frequency, with mean 1."""
    middle = lags.shape[0] // 2
    grid = np.zeros((_GRID, _GRID))
    grid[: lags.shape[0], : lags.shape[1]] = lags
    found: Array = np.fft.rfft2(np.roll(grid, (-middle, -middle), (0, 1))).real
    return found
