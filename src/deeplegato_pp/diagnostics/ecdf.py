"""Empirical distribution of ranks, and its simultaneous band for a calibrated posterior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.diagnostics.ranks import check_ranks
from deeplegato_pp.diagnostics.rows import check_level

SIMULATIONS = 10_000
"""Number of simulated sets of ranks, which determine the band's level to 0.2 %."""


@dataclass(frozen=True)
class EcdfBand:
    """Simultaneous band of the cumulative distribution of ranks.

    Attributes:
        points: Ranks at which the distribution is evaluated, with shape (K,).
        lower: Lower edge of the band, with shape (K,). [fraction of ranks]
        upper: Upper edge of the band, with shape (K,). [fraction of ranks]
    """

    points: Float[Array, " k"]
    lower: Float[Array, " k"]
    upper: Float[Array, " k"]

    def outside(self, ranks: Float[Array, "b *p"]) -> np.ndarray:
        """Returns per parameter whether the ranks leave the band at any point."""
        shares = ecdf(ranks, self.points)
        shape = (-1, *(1,) * (shares.ndim - 1))
        lower, upper = self.lower.reshape(shape), self.upper.reshape(shape)
        return np.asarray(((shares < lower) | (shares > upper)).any(axis=0))


def ecdf(ranks: Float[Array, "b *p"], points: Float[Array, " k"]) -> Float[Array, "k *p"]:
    """Returns the fraction of ranks at or below given points.

    Args:
        ranks: Ranks, with shape (B,) or (B, P).
        points: Points, with shape (K,).

    Raises:
        InputError: If ranks do not lie in [0, 1].

    Example:
        >>> ecdf(np.array([0.1, 0.2, 0.9]), np.array([0.5])).round(2).tolist()
        [0.67]
    """
    ordered = np.sort(check_ranks(ranks), axis=0)
    columns = ordered.reshape(len(ordered), -1).T
    counts = np.stack([np.searchsorted(column, points, side="right") for column in columns], axis=1)
    return counts.reshape(len(points), *ordered.shape[1:]) / len(ordered)


@lru_cache(maxsize=64)
def ecdf_band(n: int, level: float = 0.95, points: int = 100) -> EcdfBand:
    """Returns the band that contains the entire distribution of ranks with a given probability.

    At each point the band is an interval of the binomial distribution, with the same pointwise
    level everywhere, chosen such that the curve of uniform ranks stays inside at all points with
    probability `level`. It is computed by simulation (the counts between points are multinomial),
    with the same result at each call. Each of seven parameters has its own probability to leave the
    band: use ``level=1 - 0.05 / 7`` for all jointly.

    Args:
        n: Number of ranks (galaxies).
        level: Probability to lie inside at all points.
        points: Number of equally spaced points.

    Raises:
        RangeError: If the level is not a probability, or a number is not positive.

    References:
        | Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation
        | and multiple sample comparison (Säilynoja, Bürkner & Vehtari, 2022)
        | https://arxiv.org/abs/2103.10522

    Example:
        >>> band = ecdf_band(1000)
        >>> band.points.shape, bool(band.outside(np.linspace(0, 1, 1000)))
        ((99,), False)
    """
    n, points = check_positive_integer(n, "n"), check_positive_integer(points, "points")
    check_level(level)
    z = np.arange(1, points) / points
    counts = np.arange(n + 1)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, np.full(points, 1.0 / points), size=SIMULATIONS).cumsum(axis=1)
    smallest = np.ones(SIMULATIONS)
    for i, probability in enumerate(z):
        below = stats.binom.cdf(counts, n, probability)
        above = 1.0 - np.concatenate([[0.0], below[:-1]])
        tail = 2.0 * np.minimum(below, above)
        smallest = np.minimum(smallest, tail[drawn[:, i]])
    gamma = float(np.quantile(smallest, 1.0 - level))
    lower, upper = (stats.binom.ppf(p, n, z) / n for p in (0.5 * gamma, 1.0 - 0.5 * gamma))
    return EcdfBand(z, lower, upper)
