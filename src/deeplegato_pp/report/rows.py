"""Rows of a catalogue as plain values, and their descriptions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.columns import descriptions, units
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.scene_record import parameter_columns
from deeplegato_pp.report.panels import Row
from deeplegato_pp.report.profile import interval_svg
from deeplegato_pp.scene.galaxy_scene import SCENES
from deeplegato_pp.scene.parameters import PARAMETERS

SHOWN = (
    "magnitude",
    "effective_radius",
    "sersic_index",
    "axis_ratio",
    "position_angle",
    "snr",
    "chi2",
)
"""Columns shown initially in a table."""

QUANTILES = ("_q025", "_q16", "_q50", "_q84", "_q975")
"""Suffixes of the columns drawn on a galaxy's page."""


class Rows(Sequence[Row]):
    """Rows of a table of results, converted to dictionaries one at a time.

    Non-finite numbers are None. Each row has ``name`` (its ``id``, its ``name`` or its number),
    ``quality``, ``flag_names`` and ``reason``.

    Attributes:
        columns: Values of each column, with shape (N,).
        units: Unit of each column; empty for dimensionless numbers.
        meanings: Description of each column in one line.

    Args:
        table: ``QTable`` of results, one row per galaxy.

    Raises:
        InputError: If the table is empty or has no results.
    """

    def __init__(self, table: Any) -> None:
        needed = ("magnitude", "quality")
        missing = [name for name in needed if name not in table.colnames]
        if missing or not len(table):
            raise InputError(
                f"a table of results with at least one row is needed, got {len(table)} rows and no "
                f"column {', '.join(missing) or 'missing'}. Give what deeplegato predict or "
                "deeplegato catalog wrote."
            )
        self.columns = {name: _plain(table[name]) for name in table.colnames}
        names = self.columns.get("id", self.columns.get("name"))
        numbers = [str(i) for i in range(len(table))]
        given = numbers if names is None else [str(n) for n in names]
        self.columns["name"] = np.array(
            [n or number for n, number in zip(given, numbers, strict=True)], dtype=object
        )
        known, lines = units(), descriptions()
        self.units = {n: _unit(table[n]) or known.get(n, "") for n in table.colnames}
        self.meanings = {n: table[n].info.description or lines.get(n, "") for n in table.colnames}
        for name in ("flag_names", "reason"):
            self.columns.setdefault(name, np.full(len(table), "", dtype=object))

    def __len__(self) -> int:
        return len(self.columns["name"])

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return {name: _value(column[index]) for name, column in self.columns.items()}

    @property
    def numeric(self) -> list[str]:
        """Numeric columns for tables and plots, without quantiles and flags."""
        return [
            name
            for name, column in self.columns.items()
            if name != "flags"
            and not name.endswith(QUANTILES)
            and column.dtype.kind in "fiu"
            and np.isfinite(column).any()
        ]

    @property
    def scenes(self) -> list[str]:
        """Best scenes of the rows, sorted; empty if every galaxy is a single profile."""
        found = {str(name) for name in self.columns.get("best_scene", ())} - {""}
        return sorted(found) if found - {"sersic"} else []

    @property
    def flag_names(self) -> list[str]:
        """Names of the flags that occur, sorted."""
        return sorted({f for text in self.columns["flag_names"] for f in text.split(",") if f})


def _unit(column: Any) -> str:
    unit = getattr(column, "unit", None)
    return "" if unit is None else str(unit)


def _plain(column: Any) -> Array:
    values = np.asarray(getattr(column, "value", column))
    if values.dtype.kind in "fiu":
        return values
    # A column from FITS decodes its bytes, but its array does not.
    return np.array([str(v) for v in column], dtype=object)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def parameters_of(row: Row) -> list[dict[str, str]]:
    """Returns the seven parameters for printing; empty if they were not measured."""
    if any(row.get(p.name) is None for p in PARAMETERS):
        return []
    return [_printed(row, p.name, p.unit, p.meaning, p.period) for p in PARAMETERS]


def components_of(row: Row) -> list[dict[str, str]]:
    """Returns the columns of the best scene's components for printing; empty for one profile."""
    return [
        _printed(row, name, *about)
        for name, about in component_columns(row).items()
        if row.get(name) is not None
    ]


def component_columns(row: Row) -> dict[str, tuple[str, str, float | None]]:
    """Returns unit, meaning and period of the columns of the best scene's components."""
    best = row.get("best_scene")
    return parameter_columns([best]) if best in SCENES else {}


def _printed(row: Row, name: str, unit: str, meaning: str, period: float | None) -> dict[str, str]:
    error = row.get(f"{name}_std") or 0.0
    digits = max(0, min(6, 1 - math.floor(math.log10(error)))) if error > 0 else 4
    middle = row.get(f"{name}_q50")
    return {
        "name": name,
        "value": f"{row[name]:.{digits}f}",
        "error": "fixed" if row.get(f"{name}_std") == 0.0 else f"{error:.{digits}f}",
        "median": "" if middle is None else f"{middle:.{digits}f}",
        "drawing": interval_svg(row, name, period),
        "unit": unit,
        "meaning": meaning,
    }


def flags_of(row: Row) -> list[dict[str, str]]:
    """Returns a row's flags with their levels and meanings, worst first."""
    return [
        {"name": str(f.name).lower(), "level": level, "meaning": f.meaning}
        for f, level in Flag.levels_of_row(row).items()
    ]


def others_of(row: Row, rows: Rows) -> list[tuple[str, str, str]]:
    """Returns the columns that are not shown elsewhere: name, value with error and unit, meaning.

    Args:
        row: The row.
        rows: Rows of the catalogue, with the units.
    """
    skip = {p.name for p in PARAMETERS} | {"name", "quality", "flags", "flag_names", "reason"}
    skip |= set(component_columns(row))
    found = []
    for name, value in row.items():
        hidden = name.endswith(("_std", *QUANTILES)) or name.startswith("prior_")
        if name in skip or hidden or value is None or value == "":
            continue
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        error = row.get(f"{name}_std")
        if isinstance(error, float):
            text += f" ± {error:.2g}"
        found.append((name, f"{text} {rows.units[name]}".strip(), rows.meanings[name]))
    return found
