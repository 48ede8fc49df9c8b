"""Which of the verdict's objections honest error bars answer."""

from __future__ import annotations

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening

NOISE_RANGE = (0.5, 3.0)
"""Noise over its map's that error bars can answer for: beyond, the map is of something else."""

HARMLESS = 0.5
"""Pull of light that is not the galaxy's, in honest standard deviations, that does not count: it
adds an eighth to the squared error, and what of that light was not seen may pull as much."""

_ANSWERED = (
    (Flag.NOISE_MISMATCH, Flag.NOISE_MEASURED),
    (Flag.NEIGHBOUR, Flag.NEIGHBOUR_HELD),
)


def held_by_widths(flags: int, widening: Widening | None) -> int:
    """Returns flags in which objections that honest widths answer are replaced by remarks.

    Wrong noise is answered where the widths are those of the noise that was measured; light
    beside the galaxy where it pulls no parameter by more than half of its honest width.

    Args:
        flags: Sum of a row's flags.
        widening: What gives its draws honest widths; None where they are the stated noise's.
    """
    if widening is None or not widening.judged:
        return flags
    low, high = NOISE_RANGE
    answers = (low <= widening.noise <= high, widening.light <= HARMLESS)
    for (objection, remark), answered in zip(_ANSWERED, answers, strict=True):
        if answered and flags & int(objection):
            flags = Flag.without(flags, int(objection)) | int(remark)
    return flags
