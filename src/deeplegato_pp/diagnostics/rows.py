"""Shared functions of the diagnostics: checked arrays, statistics per row, continuous ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.scene.parameters import PARAMETERS
from deeplegato_pp.stats.circular import circular_mean, unwrap
from deeplegato_pp.stats.weighted import normalised_weights

BLOCK = 2**21
"""Maximum number of values processed at once, which limits memory to some tens of MB."""

Periods = Sequence[float | None] | None
"""Period of each parameter; None for parameters that are not angles.

None instead of a sequence means the periods of the Sérsic parameters if their number agrees, and no
angles otherwise.
"""

SET_ASIDE = 10
"""Every such draw is used to determine where an angle's circle is cut."""


@dataclass(frozen=True)
class Checked:
    """Corresponding draws, truths and normalised weights.

    Attributes:
        samples: Draws, with shape (B, S, D).
        truth: True parameters, with shape (B, D).
        weights: Weights with sum 1 in each row, with shape (B, S); None if all are equal.
        periods: Period of each parameter, None if it is not an angle, of length D.
    """

    samples: Float[Array, "b s d"]
    truth: Float[Array, "b d"]
    weights: Float[Array, "b s"] | None
    periods: tuple[float | None, ...]

    def column(self, index: int) -> Float[Array, "b s"]:
        """Returns one parameter's draws, contiguous in memory."""
        return np.ascontiguousarray(self.samples[..., index])

    def blocks(self) -> Iterator[Checked]:
        """Yields the rows in blocks of some tens of MB."""
        batch, *rest = self.samples.shape
        step = max(1, BLOCK // math.prod(rest))
        for start in range(0, batch, step):
            part = slice(start, start + step)
            weights = None if self.weights is None else self.weights[part]
            yield Checked(self.samples[part], self.truth[part], weights, self.periods)


def checked(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"] | None,
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Checked:
    """Converts arrays to float64, and weights to sum 1.

    Raises:
        ShapeError: If the shapes do not agree.
        InputError: If there are no draws, or a value is not finite.
        NumericalError: If weights are NaN, or all weights of a row are zero.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 3:
        raise ShapeError(f"samples must have shape (B, S, D), got {samples.shape}.")
    expected = (samples.shape[0], samples.shape[2])
    truth = np.zeros(expected) if truth is None else np.asarray(truth, dtype=np.float64)
    if truth.shape != expected:
        raise ShapeError(
            f"samples (B, S, D) and truth (B, D) must agree, got {samples.shape} and {truth.shape}."
        )
    if samples.size == 0:
        raise InputError(f"there is nothing to diagnose: samples have shape {samples.shape}.")
    for what, array in (("samples", samples), ("truth", truth)):
        if not np.isfinite(array).all():
            bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"{what} must be finite, got NaN or infinity in row {row}. "
                "Leave out galaxies that were not measured."
            )
    weights = row_weights(log_weights, samples.shape[:2])
    return Checked(samples, truth, weights, periods_of(samples.shape[2], periods))


def periods_of(dimensions: int, periods: Periods = None) -> tuple[float | None, ...]:
    """Returns the period of each parameter.

    Args:
        dimensions: Number of parameters.
        periods: Given periods, see :data:`Periods`.

    Raises:
        ShapeError: If their number is not that of the parameters.
        RangeError: If a period is not positive.
    """
    if periods is None:
        sersic = tuple(p.period for p in PARAMETERS)
        return sersic if dimensions == len(sersic) else (None,) * dimensions
    if len(periods) != dimensions:
        raise ShapeError(
            f"{len(periods)} periods were given for {dimensions} parameters. Give one for each, "
            "None where there is none."
        )
    for period in periods:
        if period is not None and not period > 0:
            raise RangeError(f"a period must be positive, or None, got {period!r}.")
    return tuple(periods)


def row_weights(
    log_weights: Float[Array, "b s"] | None, shape: tuple[int, ...]
) -> Float[Array, "b s"] | None:
    """Returns weights with sum 1 in each row, or None if all are equal.

    Raises:
        ShapeError: If the weights do not have the draws' shape.
        NumericalError: If a weight is NaN, or all weights of a row are zero.
    """
    if log_weights is None:
        return None
    log_weights = np.asarray(log_weights, dtype=np.float64)
    if log_weights.shape != shape:
        raise ShapeError(f"log_weights must have shape {shape}, got {log_weights.shape}.")
    return normalised_weights(log_weights)


def check_level(level: float) -> float:
    """Returns a level that lies strictly between 0 and 1.

    Raises:
        RangeError: If it does not.
    """
    if not 0.0 < level < 1.0:
        raise RangeError(f"a level is a probability between 0 and 1, got {level!r}.")
    return float(level)


def average(
    values: Float[Array, "b s *p"] | Bool[Array, "b s *p"], weights: Float[Array, "b s"] | None
) -> Float[Array, "b *p"]:
    """Returns the weighted mean over the draws."""
    if weights is None and values.dtype == np.bool_:
        return np.asarray(np.count_nonzero(values, axis=1) / values.shape[1])
    if weights is None:
        return np.asarray(values.mean(axis=1))
    return np.einsum("bs...,bs->b...", values, weights, dtype=np.float64, casting="unsafe")


def effective_size(weights: Float[Array, "b s"] | None, draws: int) -> Float[Array, "b"] | float:
    """Returns Kish's effective number of draws per row, or their number for equal weights."""
    return float(draws) if weights is None else 1.0 / np.square(weights).sum(axis=1)


def unwrapped(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"] | None,
    weights: Float[Array, "b s"] | None,
    periods: Periods = None,
) -> tuple[Float[Array, "b s d"], Float[Array, "b d"]]:
    """Returns draws and truths with angles unwrapped about the draws' circular mean.

    Args:
        samples: Draws, with shape (B, S, D).
        truth: True parameters, with shape (B, D), or None: the draws' circular mean is returned
            instead, and zero for other parameters.
        weights: Weights with sum 1 in each row, with shape (B, S).
        periods: See :data:`Periods`.
    """
    samples = samples.copy()
    turned = np.zeros((len(samples), samples.shape[2])) if truth is None else truth.copy()
    for j, period in enumerate(periods_of(samples.shape[2], periods)):
        if period is not None:
            center = circular_mean(samples[..., j], period, weights)
            turned[:, j] = unwrap(center if truth is None else truth[:, j], center, period)
            samples[..., j] = unwrap(samples[..., j], center[:, None], period)
    return samples, turned


def log_scaled(values: Float[Array, "*b 7"]) -> Float[Array, "*b 7"]:
    """Returns Sérsic parameters, with logarithms for those with a log-uniform prior.

    In these units, errors of radius and index are relative errors.
    """
    scaled = np.array(values, dtype=np.float64)
    for j, p in enumerate(PARAMETERS):
        if p.scale == "log":
            scaled[..., j] = np.log(scaled[..., j])
    return scaled


def row_quantiles(
    draws: Float[Array, "b s"],
    probabilities: Float[Array, " q"] | tuple[float, ...],
    weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "b q"]:
    """Returns each row's quantiles, as in :func:`~deeplegato_pp.stats.weighted.quantiles`.

    Each sorted draw is placed at the centre of its weight; draws of zero weight are ignored.
    """
    wanted = np.asarray(probabilities, dtype=np.float64)
    if weights is None:
        return np.quantile(draws, wanted, axis=1, method="hazen").T
    ordered, mass = sorted_rows(draws, weights)
    middle = np.cumsum(mass, axis=1) - 0.5 * mass
    last = np.count_nonzero(mass, axis=1) - 1
    index = search_rows(middle, np.broadcast_to(wanted, (len(draws), len(wanted))))
    right = np.minimum(index, last[:, None])
    left = np.minimum(np.maximum(index - 1, 0), last[:, None])
    x0, x1 = (np.take_along_axis(ordered, i, 1) for i in (left, right))
    p0, p1 = (np.take_along_axis(middle, i, 1) for i in (left, right))
    gap = np.where(p1 > p0, p1 - p0, 1.0)
    return x0 + np.clip((wanted - p0) / gap, 0.0, 1.0) * (x1 - x0)


def sorted_rows(
    draws: Float[Array, "b s"], weights: Float[Array, "b s"]
) -> tuple[Float[Array, "b s"], Float[Array, "b s"]]:
    """Returns each row's draws in ascending order with their weights, those of zero weight last.

    Draws of zero weight are replaced by the row's largest draw with non-zero weight.
    """
    order = np.argsort(np.where(weights > 0, draws, np.inf), axis=1, kind="stable")
    ordered, mass = np.take_along_axis(draws, order, 1), np.take_along_axis(weights, order, 1)
    last = np.count_nonzero(mass, axis=1, keepdims=True) - 1
    return np.where(mass > 0, ordered, np.take_along_axis(ordered, last, 1)), mass


def search_rows(edges: Float[Array, "b s"], values: Float[Array, "b q"]) -> Int[Array, "b q"]:
    """Returns for each value the number of its row's edges strictly below it.

    Args:
        edges: Edges in ascending order along each row, with shape (B, S).
        values: Values, with shape (B, Q).
    """
    low = min(float(edges.min()), float(values.min()))
    span = 2.0 * (max(float(edges.max()), float(values.max())) - low) + 1.0
    offset = span * np.arange(len(edges))[:, None] - low  # makes all rows one ascending sequence
    found = np.searchsorted((edges + offset).ravel(), (values + offset).ravel())
    local: Array = found.reshape(values.shape) - edges.shape[1] * np.arange(len(edges))[:, None]
    return np.clip(local, 0, edges.shape[1])


def spread_rank(
    below: Float[Array, "b *p"],
    equal: Float[Array, "b *p"],
    size: Float[Array, "*n"] | float,
    position: Float[Array, "b *p"],
) -> Float[Array, "b *p"]:
    """Returns continuous ranks, uniform in (0, 1) instead of on S + 1 values if calibrated.

    The truth counts as one more draw among N: it lies within its own fraction 1 / (N + 1), and
    within the fractions of draws equal to it, at `position`.

    Args:
        below: Fraction of the draws below the truth.
        equal: Fraction of the draws equal to it.
        size: (Effective) number of draws N, a number or with the leading axes of `below`.
        position: Value in [0, 1).
    """
    n = np.asarray(size)
    n = n.reshape(n.shape + (1,) * (below.ndim - n.ndim)) if n.ndim else n
    return (n * below + position * (1.0 + n * equal)) / (n + 1.0)


def positions(*arrays: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Returns a pseudo-random number in [0, 1) for each entry, from the last bits of arrays.

    It is a function of its arguments: independent of a seed, and of order and number of galaxies.
    The hash is that of SplitMix64.

    References:
        | Fast splittable pseudorandom number generators (Steele, Lea & Flood, 2014)
        | https://doi.org/10.1145/2660193.2660195
    """
    state = np.zeros(np.broadcast_shapes(*(a.shape for a in arrays)), dtype=np.uint64)
    for array in arrays:
        bits = np.ascontiguousarray(array, dtype=np.float64).view(np.uint64).reshape(array.shape)
        state = (state ^ bits) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)) * 2.0**-53
