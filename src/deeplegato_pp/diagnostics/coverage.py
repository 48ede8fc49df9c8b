"""Expected coverage: how often regions of a stated probability hold the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.diagnostics.ranks import check_ranks
from deeplegato_pp.diagnostics.rows import check_level

NOMINAL: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""The levels at which coverage is looked at if none are named."""

SIMULATIONS = 10_000


def central_coverage(ranks: Float[Array, "b *p"], level: float) -> Float[Array, "*p"]:
    """Returns the share of truths inside the central interval of a level, per parameter.

    Blind to: errors that move both tails alike (a shift of all posteriors makes one tail too light
    and the other too heavy; at first order their sum stays), and what ranks are blind to.

    Args:
        ranks: From `truth_ranks`.
        level: Probability of the interval, e.g. 0.68.

    References:
        | A trust crisis in simulation-based inference? (Hermans et al., 2022)
        | https://arxiv.org/abs/2110.06581

    Example:
        >>> central_coverage(np.linspace(0, 1, 1001)[:, None], 0.5).round(2).tolist()
        [0.5]
    """
    return np.mean(central_levels(ranks) <= level, axis=0)


def central_levels(ranks: Float[Array, "b *p"]) -> Float[Array, "b *p"]:
    """Returns the level of the smallest central interval that holds the truth, per parameter."""
    return np.abs(2.0 * ranks - 1.0)


def expected_coverage(
    levels: Float[Array, "b *p"], nominal: Float[Array, " k"] | tuple[float, ...] = NOMINAL
) -> Float[Array, "k *p"]:
    """Returns the share of truths inside the regions of some nominal levels.

    Args:
        levels: Level of the smallest region that holds the truth, with shape (B,) or (B, P): from
            `central_levels`, `highest_density_levels`, `marginal_density_levels` or `tarp_levels`.
        nominal: Probabilities, with shape (K,).

    Example:
        >>> expected_coverage(np.array([0.1, 0.6]), (0.5,)).tolist()
        [0.5]
    """
    levels = check_ranks(levels)
    return np.stack([np.mean(levels <= level, axis=0) for level in nominal])


def binomial_error(level: float, number: int) -> float:
    """Returns the standard deviation of a coverage measured on `number` galaxies.

    Example:
        >>> round(binomial_error(0.68, 2000), 4)
        0.0104
    """
    return math.sqrt(level * (1.0 - level) / number)


def simultaneous_binomial_band(
    n_cells: int, n: int, p: float, level: float = 0.95
) -> tuple[float, float]:
    """Returns the band in which the shares of all of several cells lie together.

    Each cell gets the binomial interval of level ``level ** (1 / n_cells)`` (Šidák): exact for
    cells that do not depend on each other, and too wide rather than too narrow for cells that do
    (parameters of one galaxy, levels of one curve).

    Args:
        n_cells: Number of cells looked at.
        n: Galaxies in each cell.
        p: Probability that they should show.
        level: Probability that all cells of a perfect posterior lie inside.

    Returns:
        Smallest and largest share.

    Raises:
        RangeError: If a number is not positive or a level no probability.

    References:
        | Rectangular confidence regions for the means of multivariate normal distributions
        | (Šidák, 1967), https://doi.org/10.1080/01621459.1967.10482935

    Example:
        >>> simultaneous_binomial_band(280, 5000, 0.68)
        (0.6552, 0.7046)
    """
    cells, number = check_positive_integer(n_cells, "n_cells"), check_positive_integer(n, "n")
    check_level(p)
    tail = -0.5 * math.expm1(math.log(check_level(level)) / cells)
    lower, upper = stats.binom.ppf(tail, number, p), stats.binom.isf(tail, number, p)
    return float(lower) / number, float(upper) / number


@dataclass(frozen=True)
class CalibrationError:
    """How far coverage lies from nominal, averaged over levels, and what chance alone gives.

    Attributes:
        mean: Mean over the levels of abs(coverage - nominal), per parameter.
        largest: The largest of them, per parameter.
        expected: What a perfect posterior shows on average for `mean`, from the finite number.
        limit: What 95 % of perfect posteriors stay below for `mean`.
        largest_limit: The same for `largest`.
        p_value: Share of perfect posteriors that show more than `mean`, per parameter, to 1e-4.
    """

    mean: Float[Array, "*p"]
    largest: Float[Array, "*p"]
    expected: float
    limit: float
    largest_limit: float
    p_value: Float[Array, "*p"]


def calibration_error(
    levels: Float[Array, "b *p"], nominal: tuple[float, ...] = NOMINAL
) -> CalibrationError:
    """Returns the mean and the largest distance of coverage from nominal, and what chance gives.

    Blind to: the sign of errors (the curve has it), and what the levels are blind to.

    Args:
        levels: With shape (B,) or (B, P), see `expected_coverage`; ``central_levels(ranks)`` for
            central intervals.
        nominal: Probabilities looked at.

    References:
        | Accurate uncertainties for deep learning using calibrated regression
        | (Kuleshov, Fenner & Ermon, 2018), https://arxiv.org/abs/1807.00263

    Example:
        >>> error = calibration_error(np.linspace(0, 1, 5001) ** 2)
        >>> float(error.mean.round(2)), round(error.limit, 3)
        (0.17, 0.009)
    """
    nominal = tuple(check_level(level) for level in nominal)
    coverage = expected_coverage(levels, nominal)
    distance = np.abs(coverage - np.reshape(nominal, (-1, *(1,) * (coverage.ndim - 1))))
    mean = np.asarray(distance.mean(axis=0))
    means, largest = _chance(len(levels), nominal)
    return CalibrationError(
        mean,
        distance.max(axis=0),
        float(means.mean()),
        float(np.quantile(means, 0.95)),
        float(np.quantile(largest, 0.95)),
        1.0 - np.searchsorted(np.sort(means), mean) / len(means),
    )


@lru_cache(maxsize=64)
def _chance(n: int, nominal: tuple[float, ...]) -> tuple[Array, Array]:
    """Mean and largest distances of simulated perfect posteriors, each with shape (10,000,)."""
    order = np.sort(nominal)
    steps = np.diff(np.concatenate([[0.0], order, [1.0]]))
    drawn = np.random.default_rng(0).multinomial(n, steps, size=SIMULATIONS)
    distance = np.abs(drawn.cumsum(axis=1)[:, :-1] / n - order)
    return distance.mean(axis=1), distance.max(axis=1)
