"""Means, standard deviations and quantiles of weighted draws, also for angles.

Pure functions of arrays. Weights are normalised to sum 1; None means equally weighted draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import NumericalError, RangeError
from deeplegato_pp.stats.circular import circular_mean, unwrap

QUANTILES: dict[str, float] = {"q025": 0.025, "q16": 0.16, "q50": 0.5, "q84": 0.84, "q975": 0.975}
"""Quantiles in every table, by the suffix of their column."""


@dataclass(frozen=True)
class Summary:
    """Summary of one parameter's posterior.

    Attributes:
        value: Mean; circular mean for circular parameters.
        std: Standard deviation; about the circular mean for circular parameters.
        quantiles: One per entry of :data:`QUANTILES`, in its order. Quantiles of a circular
            parameter are computed from draws unwrapped about the mean and then reduced to [0,
            period), so that a lower one may exceed an upper one.
    """

    value: float
    std: float
    quantiles: tuple[float, ...]


def normalised_weights(log_weights: Float[Array, "*b s"]) -> Float[Array, "*b s"]:
    """Converts log-weights to weights with sum 1 along the last axis; -inf is a weight of zero.

    Raises:
        NumericalError: If a weight is NaN or +inf, or all weights of a row are zero.

    Example:
        >>> normalised_weights(np.log([1.0, 3.0])).round(3).tolist()
        [0.25, 0.75]
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    if np.isnan(log_weights).any() or np.isposinf(log_weights).any():
        raise NumericalError(
            "log weights must be finite or -inf, got NaN or +inf. Weights are never dropped: "
            "find out which draw has no likelihood."
        )
    largest = log_weights.max(axis=-1, keepdims=True)
    if np.isneginf(largest).any():
        raise NumericalError("all weights are zero: no draw has any likelihood.")
    weights = np.exp(log_weights - largest)
    total: Array = weights / weights.sum(axis=-1, keepdims=True)
    return total


def effective_sample_size(weights: Float[Array, " s"]) -> float:
    """Returns Kish's effective sample size, 1 / sum w^2.

    Example:
        >>> effective_sample_size(np.full(4, 0.25))
        4.0
    """
    return float(1.0 / np.sum(np.square(weights)))


def mean(draws: Float[Array, "s *c"], weights: Float[Array, " s"] | None = None) -> Array:
    """Returns the weighted mean along the first axis, with shape (*c,).

    The mean is limited to the range of the draws, so that rounding cannot move it beyond a bound.
    """
    found = np.average(draws, axis=0, weights=weights)
    return np.asarray(np.clip(found, draws.min(axis=0), draws.max(axis=0)))


def std(draws: Float[Array, "s *c"], weights: Float[Array, " s"] | None = None) -> Array:
    """Returns the weighted standard deviation along the first axis, with shape (*c,)."""
    deviation = draws - mean(draws, weights)
    return np.asarray(np.sqrt(np.average(deviation**2, axis=0, weights=weights)))


def quantiles(
    draws: Float[Array, " s"],
    probabilities: tuple[float, ...] | Float[Array, " q"],
    weights: Float[Array, " s"] | None = None,
) -> Float[Array, " q"]:
    """Returns weighted quantiles.

    Each sorted draw is placed at the centre of its weight, with linear interpolation between draws;
    for equal weights this is Hazen's rule. Draws of zero weight are ignored.

    Args:
        draws: Draws, with shape (S,).
        probabilities: Probabilities between 0 and 1, with shape (Q,).
        weights: Weights with sum 1, with shape (S,).

    References:
        | Sample quantiles in statistical packages (Hyndman & Fan, 1996)
        | https://doi.org/10.2307/2684934

    Example:
        >>> quantiles(np.array([1.0, 2.0, 3.0, 4.0]), (0.5,)).tolist()
        [2.5]
    """
    if weights is None:
        weights = np.full(len(draws), 1.0 / len(draws))
    used = weights > 0
    order = np.argsort(draws[used], kind="stable")
    ordered, mass = draws[used][order], weights[used][order]
    return np.interp(probabilities, np.cumsum(mass) - 0.5 * mass, ordered)


def wrap(angle: float, period: float) -> float:
    """Returns an angle reduced to [0, period).

    Example:
        >>> wrap(-10.0, 180.0), wrap(180.0, 180.0)
        (170.0, 0.0)
    """
    wrapped = float(angle) % period
    return 0.0 if wrapped == period else wrapped  # -1e-20 % 180 rounds up to 180


def summarise(
    draws: Float[Array, " s"],
    weights: Float[Array, " s"] | None = None,
    period: float | None = None,
) -> Summary:
    """Returns value, standard deviation and quantiles of one parameter.

    Args:
        draws: Draws, with shape (S,).
        weights: Weights with sum 1, with shape (S,), or None.
        period: The parameter's period, or None if it is not circular.

    Returns:
        The summary; all NaN if a draw of the parameter is NaN.
    """
    probabilities = tuple(QUANTILES.values())
    if np.isnan(draws).any():
        return Summary(math.nan, math.nan, (math.nan,) * len(probabilities))
    if period is None:
        values = quantiles(draws, probabilities, weights)
        return Summary(
            float(mean(draws, weights)), float(std(draws, weights)), tuple(values.tolist())
        )
    center = float(circular_mean(draws, period, weights))
    turned = unwrap(draws, center, period)
    width = math.sqrt(float(np.average((turned - center) ** 2, weights=weights)))
    values = quantiles(turned, probabilities, weights)
    return Summary(center, width, tuple(wrap(v, period) for v in values.tolist()))


def resample(weights: Float[Array, " s"], number: int, generator: np.random.Generator) -> Array:
    """Returns indices of equally weighted draws by systematic resampling, in random order.

    Args:
        weights: Weights with sum 1, with shape (S,).
        number: Number of indices; each draw occurs `number * weight` times, rounded up or down.
        generator: Source of randomness.

    Raises:
        RangeError: If `number` is not positive.

    References:
        | Resampling in particle filtering: comparison of schemes (Douc, Cappe & Moulines, 2005)
        | https://arxiv.org/abs/cs/0507025
    """
    if number < 1:
        raise RangeError(f"the number of draws must be at least 1, got {number}.")
    edges = np.cumsum(weights)
    points = (generator.random() + np.arange(number)) / number * edges[-1]
    index = np.minimum(np.searchsorted(edges, points, side="right"), len(weights) - 1)
    return generator.permutation(index)
