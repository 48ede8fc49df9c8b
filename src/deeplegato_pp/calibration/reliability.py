"""Coverage cell by cell: deciles of what a galaxy seems to be, against the goal and chance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deeplegato_pp.calibration.galaxies import ESTIMATES, Galaxies
from deeplegato_pp.calibration.naming import coverage_by_name
from deeplegato_pp.diagnostics import central_levels, simultaneous_binomial_band
from deeplegato_pp.scene.parameters import NAMES

Array = np.ndarray

GOAL_CELL = 0.03
"""Largest distance of coverage from nominal that is aimed at in any cell."""

DECILES = 10

COLUMNS = (*NAMES, "joint")
"""What is covered in each cell: the parameters' central intervals and the joint region."""


def reliability(galaxies: Galaxies, levels: tuple[float, ...]) -> dict[str, Any]:
    """Returns the coverage in every decile of the posterior's own estimates, beside the goal.

    A cell meets the goal if its coverage is within 3 % of nominal. What a finite number leaves
    open is in the band, which holds all cells of a perfect posterior together with 95 %.

    Args:
        galaxies: What was measured.
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
    galaxies: Galaxies, by: str, decile: int, values: Array, levels: tuple[float, ...]
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
    """Every number of every cell: the cell, its level, its column, coverage minus level."""
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
