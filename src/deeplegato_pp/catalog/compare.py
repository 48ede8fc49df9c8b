"""Comparison of two catalogues of the same sources: differences in units of their errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.scene.parameters import PARAMETERS, Parameter


@dataclass(frozen=True, eq=False)
class Difference:
    """Differences of one parameter between two catalogues.

    Attributes:
        parameter: The parameter.
        plain: New minus old, with shape (N,), in the parameter's unit; within half a period for
            circular parameters.
        scaled: The same divided by both errors added in quadrature, with shape (N,).
        width_ratio: New error divided by old error, with shape (N,).
    """

    parameter: Parameter
    plain: Array
    scaled: Array
    width_ratio: Array

    def figures(self) -> dict[str, float]:
        """Returns medians and spreads; NaN if there is nothing to compare."""
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
    """Comparison of two catalogues.

    Attributes:
        matched: Ids in both catalogues.
        only_old: Number of ids in the old catalogue only.
        only_new: Number of ids in the new catalogue only.
        both_measured: Whether matched sources were measured in both, with shape (N,).
        lost: Number of sources measured in the old catalogue but not in the new one.
        gained: Number of sources measured in the new catalogue but not in the old one.
        differences: Differences of matched sources, one entry per parameter.
        magnitude: Magnitude in the old catalogue, with shape (N,).
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
    """Compares two catalogues, matched by ``id``; the first row of a repeated id is used.

    Args:
        old: ``QTable`` from ``read_catalogue``.
        new: ``QTable`` from ``read_catalogue``.

    Raises:
        InputError: If a column is missing or no id is in both catalogues.
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
