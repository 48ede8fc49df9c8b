"""Coverage in classes of galaxies: by observing conditions, and by estimates of the posterior.

PSF width, gain, noise and masked pixels are part of the data, so a correct posterior has nominal
coverage in each of their classes. The distance of neighbours is not part of the data, but
neighbours are drawn independently of the galaxy: a posterior that models them correctly also has
nominal coverage, unless their light is attributed to the galaxy.

The cells of :func:`reliability` are deciles of the posterior's own estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.calibration.galaxies import ESTIMATES, MeasuredGalaxies
from deeplegato_pp.diagnostics import (
    binomial_error,
    central_levels,
    expected_coverage,
    simultaneous_binomial_band,
)
from deeplegato_pp.scene.parameters import NAMES


def by_name(values: Float[np.ndarray, " p"], names: Sequence[str] = NAMES) -> dict[str, float]:
    """Returns numbers by name, by default those of the seven parameters."""
    return dict(zip(names, np.asarray(values).tolist(), strict=True))


def coverage_by_name(
    levels: Float[np.ndarray, "b p"], nominal: Sequence[float], names: Sequence[str] = NAMES
) -> dict[str, dict[str, float]]:
    """Returns the fraction of truths inside, by nominal level and name.

    Args:
        levels: Levels of the smallest regions that contain the truth, see `expected_coverage`.
        nominal: Nominal levels.
        names: Names of the columns of `levels`.

    Example:
        >>> coverage_by_name(np.array([[0.1], [0.6]]), (0.5,), ("joint",))
        {'0.5': {'joint': 0.5}}
    """
    covered = expected_coverage(levels, tuple(nominal))
    return {str(p): by_name(row, names) for p, row in zip(nominal, covered, strict=True)}


LEVELS = (0.68, 0.95)

FEWEST = 50
"""Minimum number of galaxies in a class."""


@dataclass(frozen=True)
class Condition:
    """A class of stamps: those with low <= value < high; with low = high, exactly that.

    Attributes:
        label: Description.
        by: Name of the column of `MeasuredGalaxies`.
        low: Lower edge.
        high: Upper edge.
    """

    label: str
    by: str
    low: float
    high: float

    def holds(self, values: Array) -> Array:
        """Returns whether values are in the class, with shape (B,)."""
        if self.low == self.high:
            return np.asarray(values == self.low)
        return np.asarray((values >= self.low) & (values < self.high))


CONDITIONS = (
    Condition("PSF narrower than 2 px", "psf_fwhm", 0.0, 2.0),
    Condition("PSF of 2-3 px", "psf_fwhm", 2.0, 3.0),
    Condition("PSF of 3-4.5 px", "psf_fwhm", 3.0, 4.5),
    Condition("PSF wider than 4.5 px", "psf_fwhm", 4.5, math.inf),
    Condition("gain below 10", "gain", 0.0, 10.0),
    Condition("gain of 10-100", "gain", 10.0, 100.0),
    Condition("gain of 100-1,000", "gain", 100.0, 1e3),
    Condition("gain above 1,000", "gain", 1e3, math.inf),
    Condition("no gain", "gain", math.inf, math.inf),
    Condition("independent noise", "noise_correlation", 1.0, 1.0),
    Condition("noise correlated by less than 2", "noise_correlation", 1.0 + 1e-9, 2.0),
    Condition("noise correlated by 2 and more", "noise_correlation", 2.0, math.inf),
    Condition("nothing masked", "masked", 0.0, 0.0),
    Condition("less than 3 % masked", "masked", 1e-9, 0.03),
    Condition("3-20 % masked", "masked", 0.03, 0.2),
    Condition("more than 20 % masked", "masked", 0.2, math.inf),
    Condition("a neighbour within 15 px", "nearest", 0.0, 15.0),
    Condition("nearest neighbour at 15-30 px", "nearest", 15.0, 30.0),
    Condition("nearest neighbour at 30-60 px", "nearest", 30.0, 60.0),
    Condition("nearest neighbour beyond 60 px", "nearest", 60.0, math.inf),
    Condition("no neighbour", "nearest", math.inf, math.inf),
)
"""Classes of PSFs by FWHM of the optics, gain in electrons per background sigma, and noise by the
variance of sums over many pixels relative to that of independent pixels."""


def by_condition(galaxies: MeasuredGalaxies) -> list[dict[str, Any]]:
    """Returns the coverage of central intervals in every class with enough galaxies.

    Returns:
        Per class its label, number of galaxies, coverage by level and parameter, and the standard
        error of that coverage for a correct posterior.
    """
    levels = central_levels(galaxies.ranks)
    found = []
    for condition in CONDITIONS:
        rows = condition.holds(getattr(galaxies, condition.by))
        number = int(rows.sum())
        if number < FEWEST:
            continue
        found.append(
            {
                "label": condition.label,
                "by": condition.by,
                "galaxies": number,
                "coverage": coverage_by_name(levels[rows], LEVELS),
                "binomial_error": {str(level): binomial_error(level, number) for level in LEVELS},
            }
        )
    return found


GOAL_CELL = 0.03
"""Goal: maximum deviation of coverage from nominal in any cell."""

DECILES = 10

COLUMNS = (*NAMES, "joint")
"""Quantities whose coverage is computed in each cell: parameters and joint region."""


def reliability(galaxies: MeasuredGalaxies, levels: tuple[float, ...]) -> dict[str, Any]:
    """Returns the coverage in deciles of the posterior's own estimates, with goal and band.

    A cell meets the goal if its coverage is within 3 % of nominal. The band contains all cells of a
    perfect posterior simultaneously with 95 % probability.

    Args:
        galaxies: Measured galaxies.
        levels: Nominal levels.
    """
    cells: list[dict[str, Any]] = []
    smallest = len(galaxies)
    for by, values in zip(ESTIMATES, galaxies.estimates.T, strict=True):
        order = np.argsort(values, kind="stable")
        for decile, rows in enumerate(np.array_split(order, DECILES)):
            smallest = min(smallest, len(rows))
            cells.append(_cell(galaxies[rows], by, decile, values[rows], levels))
    number = len(cells) * len(COLUMNS) * len(levels)
    bands = {level: simultaneous_binomial_band(number, smallest, level) for level in levels}
    return {
        "goal": GOAL_CELL,
        "levels": levels,
        "cells": cells,
        "number_of_cells": number,
        "galaxies_per_cell": smallest,
        "band": {"probability": 0.95, **{str(level): band for level, band in bands.items()}},
        "worst": _worst(cells),
        **_standing(cells, bands),
    }


def _cell(
    galaxies: MeasuredGalaxies, by: str, decile: int, values: Array, levels: tuple[float, ...]
) -> dict[str, Any]:
    held = np.concatenate([central_levels(galaxies.ranks), galaxies.hpd[:, None]], axis=1)
    return {
        "by": by,
        "decile": decile + 1,
        "low": float(values.min()),
        "high": float(values.max()),
        "galaxies": len(galaxies),
        "coverage": coverage_by_name(held, levels, COLUMNS),
    }


def _entries(cells: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str, str, float]]:
    """Returns all numbers of all cells: cell, level, column, and coverage minus level."""
    return [
        (cell, level, name, value - float(level))
        for cell in cells
        for level, row in cell["coverage"].items()
        for name, value in row.items()
    ]


def _worst(cells: list[dict[str, Any]]) -> dict[str, Any]:
    cell, level, name, difference = max(_entries(cells), key=lambda entry: abs(entry[3]))
    kept = {key: cell[key] for key in ("by", "decile", "low", "high", "galaxies")}
    return {**kept, "parameter": name, "level": float(level), "difference": difference}


def _standing(
    cells: list[dict[str, Any]], bands: dict[float, tuple[float, float]]
) -> dict[str, float]:
    entries = _entries(cells)
    met = sum(abs(difference) <= GOAL_CELL for *_, difference in entries)
    within = 0
    for _, level, _, difference in entries:
        lower, upper = bands[float(level)]
        low, high = lower - float(level) - GOAL_CELL, upper - float(level) + GOAL_CELL
        within += low <= difference <= high
    rms = math.sqrt(sum(difference**2 for *_, difference in entries) / len(entries))
    return {
        "share_meeting_goal": met / len(entries),
        "share_within_goal_and_band": within / len(entries),
        "rms_difference": rms,
    }
