"""Selection of a catalogue's rows by quality, flag, name and conditions on columns."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.report.rows import Rows

_OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
}

_CONDITION = re.compile(r"(\w+)\s*(<=|>=|!=|==|=|<|>)\s*(-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")


def fulfil(rows: Rows, text: str) -> Array:
    """Returns the rows that satisfy conditions such as ``snr > 30, sersic_index < 2``.

    Args:
        rows: Rows of the catalogue.
        text: Conditions on numeric columns, joined by commas or ``and``; unknown numbers satisfy
            none.

    Returns:
        True for rows that satisfy the conditions, with shape (N,).

    Raises:
        InputError: If a condition cannot be parsed, or names no numeric column.
    """
    chosen = np.ones(len(rows), dtype=bool)
    for part in filter(None, (p.strip() for p in re.split(r",|\band\b", text))):
        found = _CONDITION.fullmatch(part)
        if found is None:
            raise InputError(
                f"condition '{part}' is not understood, expected column, operator and number, such "
                "as snr > 30."
            )
        name, symbol, number = found.groups()
        values = rows.columns.get(name)
        if values is None or values.dtype.kind not in "fiu":
            raise InputError(f"condition '{part}' names no numeric column.")
        chosen &= np.isfinite(values) & _OPERATORS[symbol](values, float(number))
    return chosen


def select(
    rows: Rows,
    qualities: Collection[str],
    flag: str = "",
    name: str = "",
    where: str = "",
    scene: str = "",
) -> Array:
    """Returns the indices of the rows that pass all filters, with shape (K,).

    Args:
        rows: Rows of the catalogue.
        qualities: Qualities to select.
        flag: Required flag; empty for any.
        name: Part of the name, in upper or lower case.
        where: Conditions, see :func:`fulfil`.
        scene: Required best scene; empty for any.

    Raises:
        InputError: If the conditions cannot be parsed.
    """
    chosen = fulfil(rows, where)
    chosen &= np.isin(rows.columns["quality"].astype(str), list(qualities))
    if flag:
        chosen &= np.array([flag in text.split(",") for text in rows.columns["flag_names"]])
    if scene:
        chosen &= rows.columns["best_scene"].astype(str) == scene
    if name:
        part = name.lower()
        chosen &= np.array([part in text.lower() for text in rows.columns["name"]])
    return np.flatnonzero(chosen)
