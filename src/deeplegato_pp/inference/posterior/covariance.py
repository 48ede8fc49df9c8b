"""Covariances of pairs of parameters, and their columns in tables."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.inference.posterior.scene_record import OF_THE_SUM
from deeplegato_pp.scene.parameters import INDEX, NUM_PARAMETERS, PARAMETERS, Parameter
from deeplegato_pp.stats.circular import angular_difference, circular_mean
from deeplegato_pp.stats.weighted import mean

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.base import PosteriorBase


PAIRS: tuple[tuple[Parameter, Parameter], ...] = tuple(combinations(PARAMETERS, 2))
"""All pairs of parameters, in the table's order."""


def names_of(first: Parameter, second: Parameter) -> tuple[str, str]:
    """Returns the columns of a pair: the reported covariance, and that with the stated noise.

    Example:
        >>> names_of(*PAIRS[0])[0]
        'cov_magnitude_effective_radius'
    """
    name = f"cov_{first.name}_{second.name}"
    return name, f"{name}_noise"


def units() -> dict[str, str]:
    """Returns the unit of every covariance: the product of the two parameters' units."""
    found: dict[str, str] = {}
    for a, b in PAIRS:
        unit = f"{a.unit}2" if a.unit == b.unit and a.unit else f"{a.unit} {b.unit}".strip()
        found |= dict.fromkeys(names_of(a, b), unit)
    return found


def descriptions() -> dict[str, str]:
    """Returns the description of every covariance column."""
    lines = {}
    for a, b in PAIRS:
        reported, noise = names_of(a, b)
        lines[reported] = f"covariance of {a.name} and {b.name}"
        lines[noise] = f"that of {a.name} and {b.name} if the stated noise were all"
    return lines


def covariance_of(
    draws: Float[Array, "s 7"], weights: Float[Array, " s"] | None = None
) -> Float[Array, "7 7"]:
    """Returns the covariance of weighted draws; NaN if a draw is NaN.

    Deviations of the position angle are circular, within 90 degrees, so that the diagonal contains
    the squares of the standard deviations in the tables.

    Args:
        draws: Physical parameters, in the table's order.
        weights: Weights with sum 1; None for equal weights.

    Example:
        >>> angles = np.zeros((2, 7))
        >>> angles[:, 4] = 178.0, 2.0
        >>> float(round(covariance_of(angles)[4, 4], 6))
        4.0
    """
    if np.isnan(draws).any():
        return np.full((NUM_PARAMETERS, NUM_PARAMETERS), math.nan)
    deviation = draws - mean(draws, weights)
    for i, p in enumerate(PARAMETERS):
        if p.period is not None:
            middle = circular_mean(draws[:, i], p.period, weights)
            deviation[:, i] = angular_difference(draws[:, i] - middle, p.period)
    share = np.full(len(draws), 1.0 / len(draws)) if weights is None else weights
    return deviation.T @ (share[:, None] * deviation)


def covariance_matrix(
    posterior: PosteriorBase, row: int = 0, *, noise: bool = False
) -> Float[Array, "7 7"]:
    """Returns the covariance of one galaxy's parameters, as reported in its row.

    If a scene of several components is the best, magnitude, radius and centre describe their sum,
    but index, axis ratio and angle describe the single profile: covariances between the two groups
    are NaN.

    Args:
        posterior: Posterior of one galaxy or many.
        row: Index of the galaxy.
        noise: Whether to use the draws with the widths of the stated noise.
    """
    still = posterior.under_noise() if noise else posterior
    found = covariance_of(still.batch_samples[row].numpy(), still.weights(row))
    scene = posterior.measurements[row].scene
    columns = {} if scene is None else scene.noise_draws if noise else scene.draws
    summed = [name for name in OF_THE_SUM if name in columns]
    if scene is None or not summed:
        return found
    places = [INDEX[name] for name in summed]
    draws = np.zeros((len(columns[summed[0]]), NUM_PARAMETERS))
    draws[:, places] = np.stack([columns[name] for name in summed], 1)
    own = np.isin(np.arange(NUM_PARAMETERS), places)
    found[own[:, None] != own] = math.nan
    found[np.ix_(places, places)] = covariance_of(draws, scene.weights)[np.ix_(places, places)]
    return found


def columns_of(posterior: PosteriorBase, row: int) -> dict[str, Any]:
    """Returns one galaxy's covariances by column; NaN if it was not measured."""
    matrices = [covariance_matrix(posterior, row, noise=noise) for noise in (False, True)]
    return {
        name: float(matrix[INDEX[a.name], INDEX[b.name]])
        for a, b in PAIRS
        for name, matrix in zip(names_of(a, b), matrices, strict=True)
    }
