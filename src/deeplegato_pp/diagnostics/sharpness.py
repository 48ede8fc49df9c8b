"""Sharpness: how much a posterior says, so that a wide one cannot look good by its coverage."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deeplegato_pp.diagnostics.intervals import equal_tailed_intervals
from deeplegato_pp.diagnostics.rows import (
    Checked,
    average,
    check_level,
    checked,
    search_rows,
    sorted_rows,
    unwrapped,
)
from deeplegato_pp.scene.parameters import NUM_PARAMETERS, PARAMETERS
from deeplegato_pp.stats.circular import angular_difference

Array = np.ndarray


def errors(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    log_weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "b 7"]:
    """Returns posterior mean minus truth; of an angle the circular mean, within half a period.

    Args:
        samples: Draws, with shape (B, S, 7): in physical units, or both through `log_scaled`.
        truth: True parameters in the same units, with shape (B, 7).
        log_weights: Logarithms of the draws' weights, with shape (B, S), or None.
    """
    rows = checked(samples, truth, log_weights)
    return np.concatenate([_errors(block) for block in rows.blocks()])


def _errors(rows: Checked) -> Float[Array, "b 7"]:
    turned, centers = unwrapped(rows.samples, None, rows.weights)
    difference = average(turned, rows.weights) - rows.truth
    for j, p in enumerate(PARAMETERS):
        if p.period is not None:
            difference[:, j] = angular_difference(centers[:, j] - rows.truth[:, j], p.period)
    return difference


def rmse(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    log_weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "7"]:
    """Returns the root of the mean squared error of the posterior mean, per parameter.

    Blind to: everything but the mean; of heavy-tailed errors it shows the few largest.

    See `errors` for arguments.
    """
    return np.sqrt(np.mean(np.square(errors(samples, truth, log_weights)), axis=0))


def crps(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    log_weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "b 7"]:
    r"""Returns the continuous ranked probability score: least, on average, for right posteriors.

    .. math:: E|X - y| - \tfrac{1}{2} E|X - X'|

    with X, X' from the posterior and y the truth, in the parameter's units: the absolute error,
    with credit for honest width. Pairs of different draws only, so that few draws are no worse on
    average than many. Of an angle, distances are taken round the circle.

    Blind to: nothing in one parameter at a time (the score is proper), but badly measured galaxies
    outweigh the others in a mean: look at it by class. Correlations do not enter.

    Args:
        samples: Draws, with shape (B, S, 7): in physical units, or both through `log_scaled`.
        truth: True parameters in the same units, with shape (B, 7).
        log_weights: Logarithms of the draws' weights, with shape (B, S), or None.

    Returns:
        Scores, with shape (B, 7); in units of each parameter.

    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437
        | The continuous ranked probability score for circular variables (Grimit et al., 2006)
        | https://doi.org/10.1256/qj.05.235
        | Fair scores for ensemble forecasts (Ferro, 2014), https://doi.org/10.1002/qj.2270
    """
    rows = checked(samples, truth, log_weights)
    return np.concatenate([_crps(block) for block in rows.blocks()])


def _crps(rows: Checked) -> Float[Array, "b 7"]:
    shape = rows.samples.shape[:2]
    weights = np.full(shape, 1.0 / shape[1]) if rows.weights is None else rows.weights
    different = 1.0 - np.square(weights).sum(axis=1)  # probability that two draws are not the same
    different = np.where(different > 1e-12, different, 1.0)
    scores = np.empty((shape[0], NUM_PARAMETERS))
    for j, p in enumerate(PARAMETERS):
        draws, value = rows.column(j), rows.truth[:, j : j + 1]
        if p.period is None:
            distance, between = np.abs(draws - value), _mean_difference(draws, weights)
        else:
            distance = np.abs(angular_difference(draws - value, p.period))
            between = _mean_arc(draws, weights, p.period)
        scores[:, j] = (distance * weights).sum(axis=1) - 0.5 * between / different
    return scores


def _mean_difference(draws: Float[Array, "b s"], weights: Float[Array, "b s"]) -> Float[Array, "b"]:
    """E|X - X'|, from sorted draws: each stands above what lies below it and below the rest."""
    x, mass = sorted_rows(draws, weights)
    x = x - x[:, :1]  # small numbers keep their digits
    return 2.0 * (mass * x * (2.0 * np.cumsum(mass, axis=1) - mass - 1.0)).sum(axis=1)


def _mean_arc(
    draws: Float[Array, "b s"], weights: Float[Array, "b s"], period: float
) -> Float[Array, "b"]:
    """E d(X, X') round a circle: |X - X'|, or what is left of the period if that is shorter."""
    x, mass = sorted_rows(draws % period, weights)
    zero = np.zeros((len(x), 1))
    reached = np.concatenate([zero, np.cumsum(mass, axis=1)], axis=1)
    moment = np.concatenate([zero, np.cumsum(mass * x, axis=1)], axis=1)
    here = np.arange(1, x.shape[1] + 1)[None]
    far = np.maximum(search_rows(x, x + 0.5 * period), here)  # first beyond half a turn from here

    def between(sums: Array, start: Array, stop: Array) -> Array:
        return np.take_along_axis(sums, stop, 1) - np.take_along_axis(sums, start, 1)

    here, end = np.broadcast_to(here, far.shape), np.full_like(far, x.shape[1])
    near_side = between(moment, here, far) - x * between(reached, here, far)
    far_side = (period + x) * between(reached, far, end) - between(moment, far, end)
    return 2.0 * (mass * (near_side + far_side)).sum(axis=1)


def mean_width(
    samples: Float[Array, "b s 7"],
    level: float = 0.68,
    log_weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "7"]:
    """Returns the mean width of the central intervals of a level, per parameter.

    Blind to: whether the intervals hold the truth; it means something beside coverage only.
    """
    ends = equal_tailed_intervals(samples, level, log_weights)
    return np.asarray((ends[..., 1] - ends[..., 0]).mean(axis=0))


def interval_score(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    level: float = 0.68,
    log_weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "b 7"]:
    r"""Returns the score of central intervals: width, and a fine for each truth outside.

    .. math:: (u - l) + \frac{2}{1 - L} [(l - y)_+ + (y - u)_+]

    Smallest on average for the right interval of level L. An angle is unwrapped about the draws'
    circular mean.

    Blind to: what happens inside the interval, and to how the draws beyond it lie.

    Args:
        samples: Draws, with shape (B, S, 7): in physical units, or both through `log_scaled`.
        truth: True parameters in the same units, with shape (B, 7).
        level: Probability L of the interval.
        log_weights: Logarithms of the draws' weights, with shape (B, S), or None.

    Returns:
        Scores, with shape (B, 7); in units of each parameter.

    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437
    """
    rows = checked(samples, truth, log_weights)
    ends = equal_tailed_intervals(samples, check_level(level), log_weights)
    lower, upper = ends[..., 0], ends[..., 1]
    value = _beside(rows.truth, 0.5 * (lower + upper))
    outside = np.maximum(lower - value, 0.0) + np.maximum(value - upper, 0.0)
    return upper - lower + 2.0 / (1.0 - level) * outside


def _beside(truth: Float[Array, "b 7"], middle: Float[Array, "b 7"]) -> Float[Array, "b 7"]:
    """Returns truths with angles shifted by whole periods to lie next to `middle`."""
    value = truth.copy()
    for j, p in enumerate(PARAMETERS):
        if p.period is not None:
            value[:, j] = middle[:, j] + angular_difference(truth[:, j] - middle[:, j], p.period)
    return value
