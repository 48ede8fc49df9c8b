"""Rows of a catalogue as plain values, and what a page says of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.columns import descriptions, units
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.report.panels import Row
from deeplegato_pp.report.profile import interval_svg
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
"""Columns of a table at first; others can be added."""

QUANTILES = ("_q025", "_q16", "_q50", "_q84", "_q975")
"""Endings of the columns that a galaxy's page draws."""


class Rows(Sequence[Row]):
    """The rows of a table of results, made into plain dictionaries one at a time.

    Numbers that are not finite are None. Each row has ``name`` (its ``id``, its ``name`` or its
    number), ``quality``, ``flag_names`` and ``reason``.

    Args:
        table: ``QTable`` of results, a row per galaxy.

    Raises:
        InputError: If the table is empty or no table of results.
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
        """Columns of numbers that a table or a plot may show, quantiles and flags left out."""
        return [
            name
            for name, column in self.columns.items()
            if name != "flags"
            and not name.endswith(QUANTILES)
            and column.dtype.kind in "fiu"
            and np.isfinite(column).any()
        ]

    @property
    def flag_names(self) -> list[str]:
        """Names of the flags that some row has, sorted."""
        return sorted({f for text in self.columns["flag_names"] for f in text.split(",") if f})


def _plain(column: Any) -> Array:
    values = np.asarray(getattr(column, "value", column))
    if values.dtype.kind in "fiu":
        return values
    # A column from FITS decodes its bytes, its array does not.
    return np.array([str(v) for v in column], dtype=object)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def parameters_of(row: Row) -> list[dict[str, str]]:
    """Returns the seven parameters as a page prints them; nothing if they were not measured."""
    found = []
    for p in PARAMETERS:
        if row.get(p.name) is None:
            return []
        error = row.get(f"{p.name}_std") or 0.0
        digits = max(0, min(6, 1 - math.floor(math.log10(error)))) if error > 0 else 4
        middle = row.get(f"{p.name}_q50")
        found.append(
            {
                "name": p.name,
                "value": f"{row[p.name]:.{digits}f}",
                "error": f"{error:.{digits}f}",
                "median": "" if middle is None else f"{middle:.{digits}f}",
                "drawing": interval_svg(row, p.name),
                "unit": p.unit,
                "meaning": p.meaning,
            }
        )
    return found


def flags_of(row: Row) -> list[dict[str, str]]:
    """Returns a row's flags with level and meaning."""
    return [
        {"name": f.name.lower(), "level": f.level, "meaning": f.meaning}
        for f in Flag
        if f.name and int(row.get("flags") or 0) & f
    ]


def others_of(row: Row) -> list[tuple[str, str, str]]:
    """Returns what a page has not shown already: name, value with error and unit, meaning."""
    known, meanings = units(), descriptions()
    skip = {p.name for p in PARAMETERS} | {"name", "quality", "flags", "flag_names", "reason"}
    found = []
    for name, value in row.items():
        hidden = name.endswith(("_std", *QUANTILES)) or name.startswith("prior_")
        if name in skip or hidden or value is None or value == "":
            continue
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        error = row.get(f"{name}_std")
        if isinstance(error, float):
            text += f" ± {error:.2g}"
        found.append((name, f"{text} {known.get(name, '')}".strip(), meanings.get(name, "")))
    return found
