"""Credible intervals of weighted draws: equal-tailed and highest-density, also for angles."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.diagnostics.rows import (
    Checked,
    Periods,
    check_level,
    checked,
    row_quantiles,
    search_rows,
    sorted_rows,
    unwrapped,
)


def equal_tailed_intervals(
    samples: Float[Array, "b s d"],
    level: float,
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, "b d 2"]:
    """Returns intervals with equal probabilities below and above.

    Args:
        samples: Draws in physical units, with shape (B, S, D).
        level: Probability of the interval.
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.

    Returns:
        Lower and upper ends, with shape (B, D, 2). Those of an angle are unwrapped about the draws'
        circular mean, so that the lower end is below the upper one and either may lie outside [0,
        period).

    Raises:
        RangeError: If the level is not a probability.
        ShapeError: If the shapes do not agree.
        InputError: If a value is not finite.

    Example:
        >>> draws = np.linspace(0, 100, 101)[None, :, None] * np.ones(2)
        >>> equal_tailed_intervals(draws, 0.8)[0, 0].round(1).tolist()
        [9.6, 90.4]
    """
    tail = 0.5 * (1.0 - check_level(level))
    rows = checked(samples, None, log_weights, periods)
    return np.concatenate([_quantiles(block, (tail, 1.0 - tail)) for block in rows.blocks()])


def central_quantiles(
    samples: Float[Array, "b s d"],
    probabilities: tuple[float, ...],
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, "b d q"]:
    """Returns quantiles of each parameter, unwrapped about the circular mean for angles.

    Args:
        samples: Draws in physical units, with shape (B, S, D).
        probabilities: Probabilities between 0 and 1.
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.
    """
    rows = checked(samples, None, log_weights, periods)
    return np.concatenate([_quantiles(block, probabilities) for block in rows.blocks()])


def _quantiles(rows: Checked, probabilities: tuple[float, ...]) -> Float[Array, "b d q"]:
    samples, _ = unwrapped(rows.samples, None, rows.weights, rows.periods)
    turned = Checked(samples, rows.truth, rows.weights, rows.periods)
    columns = [
        row_quantiles(turned.column(j), probabilities, rows.weights)
        for j in range(samples.shape[2])
    ]
    return np.stack(columns, axis=1)


def highest_density_intervals(
    samples: Float[Array, "b s d"],
    level: float,
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, "b d 2"]:
    """Returns the shortest interval with a given probability; the shortest arc for an angle.

    The highest-density region of a multimodal density may consist of several intervals; this is the
    shortest single one. It is biased short for few draws, because it is the minimum of S intervals
    (for 100 draws of a Gaussian, a 68 % interval contains about 63 %).

    Args:
        samples: Draws in physical units, with shape (B, S, D).
        level: Probability of the interval.
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.

    Returns:
        Lower and upper ends, with shape (B, D, 2). The lower end of an arc lies in [0, period); the
        upper one may lie beyond.

    Raises:
        RangeError: If the level is not a probability.
        ShapeError: If the shapes do not agree.
        InputError: If a value is not finite.

    References:
        | Monte Carlo estimation of Bayesian credible and HPD intervals (Chen & Shao, 1999)
        | https://doi.org/10.1080/10618600.1999.10474802

    Example:
        >>> draws = np.linspace(0, 1, 101)[None, :, None] ** 2 * np.ones(2)
        >>> highest_density_intervals(draws, 0.5)[0, 0].round(2).tolist()
        [0.0, 0.25]
    """
    check_level(level)
    rows = checked(samples, None, log_weights, periods)
    return np.concatenate([_shortest(block, level) for block in rows.blocks()])


def _shortest(rows: Checked, level: float) -> Float[Array, "b d 2"]:
    shape = rows.samples.shape[:2]
    weights = np.full(shape, 1.0 / shape[1]) if rows.weights is None else rows.weights
    columns = []
    for j, period in enumerate(rows.periods):
        draws = rows.column(j)
        if period is not None:  # two periods, so that an arc may cross any boundary
            draws = np.concatenate([draws % period, draws % period + period], axis=1)
            columns.append(_shortest_stretch(draws, np.tile(weights, 2), level))
        else:
            columns.append(_shortest_stretch(draws, weights, level))
    return np.stack(columns, axis=1)


def _shortest_stretch(
    draws: Float[Array, "b s"], weights: Float[Array, "b s"], level: float
) -> Float[Array, "b 2"]:
    ordered, mass = sorted_rows(draws, weights)
    reached = np.cumsum(mass, axis=1)
    wanted = reached - mass + level
    end = search_rows(reached, wanted - 1e-9)  # sums may miss the target by rounding
    possible = (end < draws.shape[1]) & (mass > 0)
    last = np.take_along_axis(ordered, np.minimum(end, draws.shape[1] - 1), 1)
    width = np.where(possible, last - ordered, np.inf)
    best = width.argmin(axis=1)[:, None]
    ends = [np.take_along_axis(a, best, 1)[:, 0] for a in (ordered, last)]
    return np.stack(ends, axis=1)
