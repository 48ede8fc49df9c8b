"""Figures by the names of what they belong to, as ``calibration.json`` holds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from deeplegato_pp.diagnostics import expected_coverage
from deeplegato_pp.scene.parameters import NAMES


def by_name(values: Float[np.ndarray, " p"], names: Sequence[str] = NAMES) -> dict[str, float]:
    """Returns numbers by name, the seven parameters' unless others are given."""
    return dict(zip(names, np.asarray(values).tolist(), strict=True))


def coverage_by_name(
    levels: Float[np.ndarray, "b p"], nominal: Sequence[float], names: Sequence[str] = NAMES
) -> dict[str, dict[str, float]]:
    """Returns the share of truths inside, by nominal level and name.

    Args:
        levels: Of the smallest regions that hold the truth, see `expected_coverage`.
        nominal: Probabilities.
        names: Of the columns of `levels`.

    Example:
        >>> coverage_by_name(np.array([[0.1], [0.6]]), (0.5,), ("joint",))
        {'0.5': {'joint': 0.5}}
    """
    covered = expected_coverage(levels, tuple(nominal))
    return {str(p): by_name(row, names) for p, row in zip(nominal, covered, strict=True)}
