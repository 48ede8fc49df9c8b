"""Flags that do not apply to honest error bars, because these include the effect."""

from __future__ import annotations

import math

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening

NOISE_RANGE = (0.5, 3.0)
"""Largest ratio of noise to its map that error bars can include; beyond it, the map is wrong."""

HARMLESS = 0.5
"""Largest tolerated shift by foreign light or weights, in honest standard deviations.

It adds a quarter to the squared error, and undetected foreign light may add as much.
"""

STRUCTURE = 0.2
"""Largest fraction of the light within 1.5 R_e that structure may add or remove.

For simulated galaxies with realistic structure (`configs/second_edition.yaml`) it is 0.08 in the
median, 0.16 at 84 % and 0.22 at 95 %; for two galaxies one or two R_e apart, fitted as one, it is
larger in three of four."""

_ANSWERED = (
    (Flag.NOISE_MISMATCH, Flag.NOISE_MEASURED),
    (Flag.NEIGHBOUR, Flag.NEIGHBOUR_HELD),
    (Flag.GROSS_MISFIT, Flag.MISFIT_HELD),
    (Flag.NOISE_FROM_DATA, Flag.NOISE_FROM_DATA_HELD),
)


def held_by_widths(
    flags: int, widening: Widening | None, residual_fraction: float = math.inf
) -> int:
    """Replaces flags whose effect is included in honest widths by remarks.

    A wrong noise map is included if the widths use the measured noise; light beside the galaxy, and
    a noise map made from the data, if they shift no parameter by more than half of its honest
    width; residual light if it is no more than structure.

    Args:
        flags: Sum of a row's flags.
        widening: Widening of its draws; None if they have the stated noise's widths.
        residual_fraction: Residual light divided by the model's; infinite if unknown.
    """
    if widening is None or not widening.judged:
        return flags
    low, high = NOISE_RANGE
    answers = (
        low <= widening.noise <= high,
        widening.light <= HARMLESS,
        residual_fraction < STRUCTURE and not flags & int(Flag.UNDETECTED),
        widening.weights <= HARMLESS,
    )
    for (objection, remark), answered in zip(_ANSWERED, answers, strict=True):
        if answered and flags & int(objection):
            flags = Flag.without(flags, int(objection)) | int(remark)
    return flags
