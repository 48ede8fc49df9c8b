"""Two catalogues of the same sources: their differences, in units of their errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.scene.parameters import PARAMETERS, Parameter


@dataclass(frozen=True, eq=False)
class Difference:
    """How one parameter differs between two catalogues.

    Attributes:
        parameter: Which.
        plain: New minus old, with shape (N,), in the parameter's unit; circular ones the short
            way round.
        scaled: The same over the two errors added in quadrature, with shape (N,).
        width_ratio: New error over old, with shape (N,).
    """

    parameter: Parameter
    plain: Array
    scaled: Array
    width_ratio: Array

    def figures(self) -> dict[str, float]:
        """Returns medians and spreads; NaN where there is nothing to compare."""
        good = np.isfinite(self.scaled)
        if not good.any():
            names = ("median", "median_sigma", "spread_sigma", "beyond_3_sigma", "width_ratio")
            return dict.fromkeys(names, float("nan"))
        scaled = self.scaled[good]
        low, high = np.quantile(scaled, (0.16, 0.84))
        return {
            "median": float(np.median(self.plain[good])),
            "median_sigma": float(np.median(scaled)),
            "spread_sigma": float(high - low) / 2,
            "beyond_3_sigma": float(np.mean(np.abs(scaled) > 3)),
            "width_ratio": float(np.median(self.width_ratio[good])),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two catalogues side by side.

    Attributes:
        matched: Ids in both.
        only_old: How many ids are in the old one alone.
        only_new: How many are in the new one alone.
        both_measured: Of the matched, with shape (N,): measured in both.
        lost: How many were measured in the old one and are not in the new.
        gained: The other way round.
        differences: One per parameter, over the matched.
        magnitude: Of the old catalogue, with shape (N,).
    """

    matched: Array
    only_old: int
    only_new: int
    both_measured: Array
    lost: int
    gained: int
    differences: list[Difference]
    magnitude: Array


def compare(old: Any, new: Any) -> Comparison:
    """Compares two catalogues, matched by ``id``; of an id given twice the first row counts.

    Args:
        old: ``QTable`` as ``read_catalogue`` returns.
        new: The same.

    Raises:
        InputError: If a column is missing or no id is in both.
    """
    for table, what in ((old, "old"), (new, "new")):
        if "id" not in table.colnames or "magnitude_std" not in table.colnames:
            raise InputError(
                f"the {what} table has no columns id and magnitude_std: expected a catalogue. "
                "Give what deeplegato catalog wrote."
            )
    ids = [np.asarray(t["id"]).astype(str) for t in (old, new)]
    matched, i, j = np.intersect1d(ids[0], ids[1], return_indices=True)
    if len(matched) == 0:
        raise InputError(
            f"no id is in both catalogues ({ids[0][0]!r}... and {ids[1][0]!r}...). Were they made "
            "from the same list?"
        )
    order = np.argsort(i, kind="stable")
    matched, i, j = matched[order], i[order], j[order]
    one, two = old[i], new[j]
    measured = [np.isfinite(_values(t, "magnitude")) for t in (one, two)]
    unique = [len(np.unique(v)) for v in ids]
    return Comparison(
        matched=matched,
        only_old=unique[0] - len(matched),
        only_new=unique[1] - len(matched),
        both_measured=measured[0] & measured[1],
        lost=int((measured[0] & ~measured[1]).sum()),
        gained=int((measured[1] & ~measured[0]).sum()),
        differences=[_difference(one, two, p) for p in PARAMETERS],
        magnitude=_values(one, "magnitude"),
    )


def _values(table: Any, name: str) -> Array:
    column = table[name]
    return np.asarray(getattr(column, "value", column), dtype=np.float64)


def _difference(old: Any, new: Any, parameter: Parameter) -> Difference:
    name = parameter.name
    plain = _values(new, name) - _values(old, name)
    if parameter.period is not None:
        half = parameter.period / 2
        plain = (plain + half) % parameter.period - half
    before, after = (_values(t, f"{name}_std") for t in (old, new))
    with np.errstate(divide="ignore", invalid="ignore"):
        return Difference(parameter, plain, plain / np.hypot(before, after), after / before)
