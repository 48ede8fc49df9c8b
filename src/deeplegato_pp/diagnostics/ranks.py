"""Rank statistics of the truth among posterior draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from deeplegato_pp.arrays import Array
from deeplegato_pp.diagnostics.rows import (
    SET_ASIDE,
    Checked,
    Periods,
    average,
    checked,
    effective_size,
    positions,
    spread_rank,
)
from deeplegato_pp.errors import InputError
from deeplegato_pp.stats.circular import angular_difference, circular_mean


def truth_ranks(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    log_weights: Float[Array, "b s"] | None = None,
    spread: bool = True,
    periods: Periods = None,
) -> Float[Array, "b d"]:
    r"""Returns the posterior probability below the truth, uniform in (0, 1) if calibrated.

    This is simulation-based calibration: for truths from the prior and data from the simulator,
    truth and draws of the correct posterior are exchangeable. The fraction of S draws below the
    truth has steps of 1/S; randomised within its step, it is exactly uniform for any S. Weighted
    draws count as their effective sample size.

    For an angle, the circle is cut opposite to the circular mean of every tenth of its draws, and
    the truth is ranked among the others: the cut depends on the data only, and neither on the truth
    nor on the draws that are counted (which lie closer to their own mean than the truth does).

    Blind to: errors that preserve all marginals (correlations between parameters); errors of
    opposite sign for different galaxies, unless evaluated by class; and uninformative posteriors:
    the prior passes the test.

    Args:
        samples: Draws in physical units, with shape (B, S, D).
        truth: True parameters, with shape (B, D).
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        spread: Whether ranks are randomised within their steps; False for the fraction below.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.

    Returns:
        Ranks, with shape (B, D).

    Raises:
        ShapeError: If the shapes do not agree.
        InputError: If a value is not finite.
        NumericalError: If weights are NaN, or all weights of a row are zero.

    References:
        | Validating Bayesian inference algorithms with simulation-based calibration
        | (Talts et al., 2018), https://arxiv.org/abs/1804.06788
    """
    rows = checked(samples, truth, log_weights, periods)
    return np.concatenate([_ranks(block, spread) for block in rows.blocks()])


def _ranks(rows: Checked, spread: bool) -> Float[Array, "b d"]:
    ranks = np.empty(rows.truth.shape)
    for j, period in enumerate(rows.periods):
        draws, value, weights = rows.column(j), rows.truth[:, j], rows.weights
        size = effective_size(weights, draws.shape[1])
        if period is not None:
            draws, value, weights, size = _cut(draws, value, weights, period)
        below = average(draws < value[:, None], weights)
        if not spread:
            ranks[:, j] = below
            continue
        equal = average(draws == value[:, None], weights)
        position = positions(rows.truth[:, j], rows.samples[:, 0, j])
        ranks[:, j] = spread_rank(below, equal, size, position)
    return ranks


def _cut(
    draws: Float[Array, "b s"],
    value: Float[Array, "b"],
    weights: Float[Array, "b s"] | None,
    period: float,
) -> tuple[Array, Array, Array | None, Array | float]:
    """Sets draws aside that determine where the circle is cut.

    Returns:
        The other draws and the truth, as differences from the centre; their weights and effective
        number, 0 if all weights are zero.
    """
    number = draws.shape[1]
    aside = np.arange(number) % SET_ASIDE == 0
    kept = ~aside if number > 1 else aside
    first, rest = (None, None) if weights is None else (weights[:, aside], weights[:, kept])
    center = circular_mean(draws[:, aside], period, first)
    turned = angular_difference(draws[:, kept] - center[:, None], period)
    value = angular_difference(value - center, period)
    if rest is None:
        return turned, value, None, float(kept.sum())
    total = rest.sum(axis=1)
    rest = rest / np.where(total > 0, total, 1.0)[:, None]
    sizes = np.where(total > 0, 1.0 / np.maximum(np.square(rest).sum(axis=1), 1e-300), 0.0)
    return turned, value, rest, sizes


@dataclass(frozen=True)
class RankTest:
    """Test of ranks for uniformity, one entry per parameter.

    Attributes:
        statistic: Largest distance of the ranks' distribution from the diagonal.
        p_value: Probability of a larger distance for a calibrated posterior.
    """

    statistic: Float[Array, "*p"]
    p_value: Float[Array, "*p"]


def rank_test(ranks: Float[Array, "b *p"]) -> RankTest:
    """Applies the Kolmogorov-Smirnov test for uniformity to ranks or levels of a coverage test.

    For seven parameters, one has p < 0.007 by chance in 5 % of cases.

    Blind to: what the ranks are blind to; insensitive to errors in the far tails, for which the
    band of :func:`~deeplegato_pp.diagnostics.ecdf.ecdf_band` is better.

    Args:
        ranks: Randomised ranks, with shape (B,) or (B, P).

    Raises:
        InputError: If there are no ranks, or they do not lie in [0, 1].

    References:
        | Evaluating Kolmogorov's distribution (Marsaglia, Tsang & Wang, 2003)
        | https://doi.org/10.18637/jss.v008.i18

    Example:
        >>> round(float(rank_test(np.linspace(0.005, 0.995, 100)).statistic), 4)
        0.005
    """
    ranks = check_ranks(ranks)
    number = len(ranks)
    ordered = np.sort(ranks, axis=0)
    upper = np.arange(1, number + 1).reshape(-1, *(1,) * (ranks.ndim - 1)) / number
    distance = np.maximum(upper - ordered, ordered - (upper - 1.0 / number)).max(axis=0)
    return RankTest(distance, np.asarray(stats.kstwo.sf(distance, number)))


def check_ranks(ranks: Float[Array, "b *p"]) -> Float[Array, "b *p"]:
    """Returns ranks as float64 after a check of number and range.

    Raises:
        InputError: If there are no ranks, or they do not lie in [0, 1].
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if ranks.size == 0 or not ((ranks >= 0) & (ranks <= 1)).all():
        raise InputError(
            f"ranks must be numbers in [0, 1], at least one, got shape {ranks.shape}"
            + (f" between {ranks.min()} and {ranks.max()}." if ranks.size else ".")
        )
    return ranks
