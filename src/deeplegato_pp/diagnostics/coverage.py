"""Expected coverage: frequency with which credible regions contain the truth."""

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
"""Default levels."""

SIMULATIONS = 10_000


def central_coverage(ranks: Float[Array, "b *p"], level: float) -> Float[Array, "*p"]:
    """Returns the fraction of truths inside the central interval of a level, per parameter.

    Blind to: errors that affect both tails equally (a shift of all posteriors makes one tail too
    light and the other too heavy; to first order their sum is constant), and what ranks are blind
    to.

    Args:
        ranks: Ranks from `truth_ranks`.
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
    """Returns the level of the smallest central interval that contains the truth, per parameter."""
    return np.abs(2.0 * ranks - 1.0)


def expected_coverage(
    levels: Float[Array, "b *p"], nominal: Float[Array, " k"] | tuple[float, ...] = NOMINAL
) -> Float[Array, "k *p"]:
    """Returns the fraction of truths inside the regions of nominal levels.

    Args:
        levels: Level of the smallest region that contains the truth, with shape (B,) or (B, P),
            from `central_levels`, `highest_density_levels`, `marginal_density_levels` or
            `tarp_levels`.
        nominal: Nominal levels, with shape (K,).

    Example:
        >>> expected_coverage(np.array([0.1, 0.6]), (0.5,)).tolist()
        [0.5]
    """
    levels = check_ranks(levels)
    return np.stack([np.mean(levels <= level, axis=0) for level in nominal])


def binomial_error(level: float, number: int) -> float:
    """Returns the standard deviation of the coverage measured with `number` galaxies.

    Example:
        >>> round(binomial_error(0.68, 2000), 4)
        0.0104
    """
    return math.sqrt(level * (1.0 - level) / number)


def simultaneous_binomial_band(
    n_cells: int, n: int, p: float, level: float = 0.95
) -> tuple[float, float]:
    """Returns the band that contains the fractions of all cells simultaneously.

    Each cell has the binomial interval of level ``level ** (1 / n_cells)`` (Šidák): exact for
    independent cells, and conservative for dependent ones (parameters of one galaxy, levels of one
    curve).

    Args:
        n_cells: Number of cells.
        n: Number of galaxies in each cell.
        p: Expected fraction.
        level: Probability that all cells of a perfect posterior lie inside.

    Returns:
        Smallest and largest fraction.

    Raises:
        RangeError: If a number is not positive or a level is not a probability.

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
    """Deviation of coverage from nominal, averaged over levels, and its distribution by chance.

    Attributes:
        mean: Mean over the levels of abs(coverage - nominal), per parameter.
        largest: Largest deviation, per parameter.
        expected: Mean of `mean` for a perfect posterior and this number of galaxies.
        limit: 95 % quantile of `mean` for perfect posteriors.
        largest_limit: 95 % quantile of `largest` for perfect posteriors.
        p_value: Fraction of perfect posteriors with a larger `mean`, per parameter, to 1e-4.
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
    """Computes the mean and largest deviation of coverage from nominal, and those by chance.

    Blind to: the sign of errors (which the curve shows), and what the levels are blind to.

    Args:
        levels: Levels with shape (B,) or (B, P), see `expected_coverage`; ``central_levels(ranks)``
            for central intervals.
        nominal: Nominal levels.

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
    """Simulates mean and largest deviations of perfect posteriors, each with shape (10,000,)."""
    order = np.sort(nominal)
    steps = np.diff(np.concatenate([[0.0], order, [1.0]]))
    drawn = np.random.default_rng(0).multinomial(n, steps, size=SIMULATIONS)
    distance = np.abs(drawn.cumsum(axis=1)[:, :-1] / n - order)
    return distance.mean(axis=1), distance.max(axis=1)
