"""DS9 region files of catalogues: half-light ellipses, coloured by quality."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_choice
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.files import check_output, written_whole

COLOURS = {"good": "green", "caution": "yellow", "bad": "red"}
"""Colours of the ellipses by quality; white for unknown quality."""

SYSTEMS = ("image", "icrs")


def write_regions(table: Any, path: str | Path, system: str = "image") -> int:
    """Writes the half-light ellipses of a table as a DS9 region file.

    Args:
        table: ``QTable`` of results, a row per galaxy.
        path: Region file, ``.reg``.
        system: ``image`` (pixels, counted from 1 as DS9 does) or ``icrs``.

    Returns:
        Number of ellipses: galaxies that were measured and have a position.

    Raises:
        InputError: If the table lacks a column, the system is unknown or the file cannot be
            written.

    References:
        | SAOImageDS9 reference manual, Regions (Smithsonian Astrophysical Observatory)
    """
    path = check_output(path, (".reg",), "region file")
    check_choice(system, SYSTEMS, "system")
    sky = system == "icrs"
    names = ("ra", "dec", "effective_radius", "axis_ratio", "position_angle_sky")
    if not sky:
        names = ("x", "y", "effective_radius_pix", "axis_ratio", "position_angle")
    missing = [name for name in names if name not in table.colnames]
    if missing:
        raise InputError(
            f"regions in {system} need the columns {', '.join(names)}; {', '.join(missing)} is "
            f"missing. Choose the other system ({' or '.join(SYSTEMS)}), or another table."
        )
    x, y, radius, ratio, angle = (_values(table, name) for name in names)
    labels = _texts(table, "id") or _texts(table, "name") or [""] * len(table)
    qualities = _texts(table, "quality") or [""] * len(table)
    lines = ["# Region file format: DS9 version 4.1", "global width=1", system]
    for i in range(len(table)):
        if not all(map(math.isfinite, (x[i], y[i], radius[i], ratio[i], angle[i]))):
            continue
        # DS9 measures the first radius's angle from the x axis, or from west, counter-clockwise.
        unit = '"' if sky else ""
        place = f"{x[i]:.7f},{y[i]:.7f}" if sky else f"{x[i] + 1:.3f},{y[i] + 1:.3f}"
        shape = f"{radius[i]:.4g}{unit},{radius[i] * ratio[i]:.4g}{unit},{angle[i] + 90:.2f}"
        colour = COLOURS.get(qualities[i], "white")
        label = labels[i].replace("{", "(").replace("}", ")")
        tag = f" tag={{{qualities[i]}}}" if qualities[i] else ""
        lines.append(f"ellipse({place},{shape}) # color={colour} text={{{label}}}{tag}")
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines) - 3


def _values(table: Any, name: str) -> Array:
    column = table[name]
    return np.asarray(getattr(column, "value", column), dtype=np.float64)


def _texts(table: Any, name: str) -> list[str]:
    """Returns a column as texts; empty if the table lacks it."""
    return [str(value) for value in table[name]] if name in table.colnames else []
