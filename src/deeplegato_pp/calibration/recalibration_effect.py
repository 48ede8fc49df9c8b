"""Effect of recalibration, fitted to one half of the simulations and evaluated on the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri

from deeplegato_pp.arrays import Array
from deeplegato_pp.calibration.galaxies import MeasuredGalaxies
from deeplegato_pp.diagnostics import central_levels, expected_coverage
from deeplegato_pp.inference.posterior.covariates import SNR, class_of
from deeplegato_pp.inference.recalibration import SCORES, Recalibration
from deeplegato_pp.scene.parameters import NAMES

FEWEST = 1000
"""Minimum number of galaxies for a map, to distinguish a per cent or two from noise."""


def fit_recalibration(galaxies: MeasuredGalaxies, draws: int) -> Recalibration:
    """Fits the map of quantiles by class of S/N to all galaxies."""
    return Recalibration.fit(galaxies.ranks, draws, SNR, galaxies.estimates[:, 0])


def effect(
    galaxies: MeasuredGalaxies, draws: int, levels: tuple[float, ...]
) -> dict[str, Any] | None:
    """Returns coverage before and after, on galaxies not used for the map.

    Args:
        galaxies: MeasuredGalaxies of the model's own simulations, with network posteriors.
        draws: Number of draws per galaxy.
        levels: Levels at which the largest deviation is determined.

    Returns:
        Largest deviation from nominal per parameter, before and after; None for too few galaxies.
    """
    if len(galaxies) < FEWEST:
        return None
    fitted = fit_recalibration(galaxies[::2], draws)
    rest = galaxies[1::2]
    after = mended_ranks(fitted, rest.ranks, rest.estimates[:, 0])
    return {
        "fitted_on": len(galaxies[::2]),
        "judged_on": len(rest),
        "before": _largest(rest.ranks, levels),
        "after": _largest(after, levels),
    }


def mended_ranks(
    recalibration: Recalibration, ranks: Float[Array, "b 7"], values: Float[Array, " b"]
) -> Float[Array, "b 7"]:
    """Returns the ranks of truths among recalibrated draws, without moving draws.

    A quantile of score z is moved to the draws' quantile of score m(z), so a truth at score s is
    afterwards at m^-1(s); the shift is constant beyond the ends of the map.

    Args:
        recalibration: The map.
        ranks: Ranks, with shape (B, 7).
        values: Values of the covariate, with shape (B,).
    """
    scores, moved = np.array(SCORES), np.empty_like(ranks)
    own = ndtri(np.clip(ranks, 1e-12, 1.0 - 1e-12))
    number = class_of(values, recalibration.edges)
    for i in np.unique(number):
        rows = number == i
        for j in range(ranks.shape[1]):
            m, s = recalibration.maps[i, j], own[rows, j]
            beyond = np.where(s < m[0], s - m[0], np.where(s > m[-1], s - m[-1], 0.0))
            moved[rows, j] = ndtr(np.interp(s, m, scores) + beyond)
    return moved


def _largest(ranks: Float[Array, "b 7"], levels: tuple[float, ...]) -> dict[str, float]:
    difference = expected_coverage(central_levels(ranks), levels) - np.array(levels)[:, None]
    worst = np.abs(difference).argmax(axis=0)
    return dict(zip(NAMES, difference[worst, np.arange(len(NAMES))].tolist(), strict=True))
