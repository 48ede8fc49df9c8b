"""Sharpness: information content of posteriors, which coverage alone does not measure."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.diagnostics.intervals import equal_tailed_intervals
from deeplegato_pp.diagnostics.rows import (
    Checked,
    Periods,
    average,
    check_level,
    checked,
    search_rows,
    sorted_rows,
    unwrapped,
)
from deeplegato_pp.stats.circular import angular_difference


def errors(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, "b d"]:
    """Returns posterior mean minus truth; circular, within half a period, for angles.

    Args:
        samples: Draws, with shape (B, S, D): in physical units, or transformed by `log_scaled`.
        truth: True parameters in the same units, with shape (B, D).
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.
    """
    rows = checked(samples, truth, log_weights, periods)
    return np.concatenate([_errors(block) for block in rows.blocks()])


def _errors(rows: Checked) -> Float[Array, "b d"]:
    turned, centers = unwrapped(rows.samples, None, rows.weights, rows.periods)
    difference = average(turned, rows.weights) - rows.truth
    for j, period in enumerate(rows.periods):
        if period is not None:
            difference[:, j] = angular_difference(centers[:, j] - rows.truth[:, j], period)
    return difference


def rmse(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, " d"]:
    """Returns the root mean squared error of the posterior mean, per parameter.

    Blind to: everything except the mean; heavy-tailed errors are dominated by the few largest.

    See `errors` for arguments.
    """
    return np.sqrt(np.mean(np.square(errors(samples, truth, log_weights, periods)), axis=0))


def crps(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, "b d"]:
    r"""Returns the continuous ranked probability score, minimised in expectation by the truth.

    .. math:: E|X - y| - \tfrac{1}{2} E|X - X'|

    with X, X' from the posterior and y the truth, in the parameter's units: the absolute error
    minus half of the mean difference of two draws. Only pairs of different draws are used, so that
    the expectation does not depend on the number of draws. Distances of angles are circular.

    Blind to: nothing in single parameters (the score is proper), but the mean is dominated by
    poorly measured galaxies: evaluate it by class. Correlations are not tested.

    Args:
        samples: Draws, with shape (B, S, D): in physical units, or transformed by `log_scaled`.
        truth: True parameters in the same units, with shape (B, D).
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.

    Returns:
        Scores, with shape (B, D), in units of each parameter.

    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437
        | The continuous ranked probability score for circular variables (Grimit et al., 2006)
        | https://doi.org/10.1256/qj.05.235
        | Fair scores for ensemble forecasts (Ferro, 2014), https://doi.org/10.1002/qj.2270
    """
    rows = checked(samples, truth, log_weights, periods)
    return np.concatenate([_crps(block) for block in rows.blocks()])


def _crps(rows: Checked) -> Float[Array, "b d"]:
    shape = rows.samples.shape[:2]
    weights = np.full(shape, 1.0 / shape[1]) if rows.weights is None else rows.weights
    different = 1.0 - np.square(weights).sum(axis=1)  # probability that two draws differ
    different = np.where(different > 1e-12, different, 1.0)
    scores = np.empty(rows.truth.shape)
    for j, period in enumerate(rows.periods):
        draws, value = rows.column(j), rows.truth[:, j : j + 1]
        if period is None:
            distance, between = np.abs(draws - value), _mean_difference(draws, weights)
        else:
            distance = np.abs(angular_difference(draws - value, period))
            between = _mean_arc(draws, weights, period)
        scores[:, j] = (distance * weights).sum(axis=1) - 0.5 * between / different
    return scores


def _mean_difference(draws: Float[Array, "b s"], weights: Float[Array, "b s"]) -> Float[Array, "b"]:
    """Returns E|X - X'| from sorted draws by counting draws below and above each."""
    x, mass = sorted_rows(draws, weights)
    x = x - x[:, :1]  # small numbers preserve precision
    return 2.0 * (mass * x * (2.0 * np.cumsum(mass, axis=1) - mass - 1.0)).sum(axis=1)


def _mean_arc(
    draws: Float[Array, "b s"], weights: Float[Array, "b s"], period: float
) -> Float[Array, "b"]:
    """Returns E d(X, X') on a circle: |X - X'|, or the rest of the period if that is shorter."""
    x, mass = sorted_rows(draws % period, weights)
    zero = np.zeros((len(x), 1))
    reached = np.concatenate([zero, np.cumsum(mass, axis=1)], axis=1)
    moment = np.concatenate([zero, np.cumsum(mass * x, axis=1)], axis=1)
    here = np.arange(1, x.shape[1] + 1)[None]
    far = np.maximum(search_rows(x, x + 0.5 * period), here)  # first draw beyond half a turn

    def between(sums: Array, start: Array, stop: Array) -> Array:
        return np.take_along_axis(sums, stop, 1) - np.take_along_axis(sums, start, 1)

    here, end = np.broadcast_to(here, far.shape), np.full_like(far, x.shape[1])
    near_side = between(moment, here, far) - x * between(reached, here, far)
    far_side = (period + x) * between(reached, far, end) - between(moment, far, end)
    return 2.0 * (mass * (near_side + far_side)).sum(axis=1)


def mean_width(
    samples: Float[Array, "b s d"],
    level: float = 0.68,
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, " d"]:
    """Returns the mean width of the central intervals of a level, per parameter.

    Blind to: whether the intervals contain the truth; use it together with coverage.
    """
    ends = equal_tailed_intervals(samples, level, log_weights, periods)
    return np.asarray((ends[..., 1] - ends[..., 0]).mean(axis=0))


def interval_score(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    level: float = 0.68,
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, "b d"]:
    r"""Returns the score of central intervals: width plus a penalty for truths outside.

    .. math:: (u - l) + \frac{2}{1 - L} [(l - y)_+ + (y - u)_+]

    It is minimised in expectation by the correct interval of level L. Angles are unwrapped about
    the draws' circular mean.

    Blind to: the distribution inside the interval, and that of the draws beyond it.

    Args:
        samples: Draws, with shape (B, S, D): in physical units, or transformed by `log_scaled`.
        truth: True parameters in the same units, with shape (B, D).
        level: Probability L of the interval.
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.

    Returns:
        Scores, with shape (B, D), in units of each parameter.

    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting & Raftery, 2007)
        | https://doi.org/10.1198/016214506000001437
    """
    rows = checked(samples, truth, log_weights, periods)
    ends = equal_tailed_intervals(samples, check_level(level), log_weights, periods)
    lower, upper = ends[..., 0], ends[..., 1]
    value = _beside(rows, 0.5 * (lower + upper))
    outside = np.maximum(lower - value, 0.0) + np.maximum(value - upper, 0.0)
    return upper - lower + 2.0 / (1.0 - level) * outside


def _beside(rows: Checked, middle: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Returns truths with angles shifted by whole periods to lie close to `middle`."""
    value = rows.truth.copy()
    for j, period in enumerate(rows.periods):
        if period is not None:
            value[:, j] = middle[:, j] + angular_difference(rows.truth[:, j] - middle[:, j], period)
    return value
