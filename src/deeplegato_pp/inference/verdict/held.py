"""Which of the verdict's objections honest error bars answer."""

from __future__ import annotations

import math

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening

NOISE_RANGE = (0.5, 3.0)
"""Noise over its map's that error bars can answer for: beyond, the map is of something else."""

HARMLESS = 0.5
"""Pull of light that is not the galaxy's, in honest standard deviations, that does not count: it
adds an eighth to the squared error, and what of that light was not seen may pull as much."""

STRUCTURE = 0.2
"""Part of the light within 1.5 R_e that structure may put where the model has none, or take away.
Of simulated galaxies with as much structure as real ones have (`configs/second_edition.yaml`) it is
0.08 in the median, 0.16 in 84 % and 0.22 in 95 %; of two galaxies, one or two R_e apart and fitted
as one, it is more than this in three of four."""

_ANSWERED = (
    (Flag.NOISE_MISMATCH, Flag.NOISE_MEASURED),
    (Flag.NEIGHBOUR, Flag.NEIGHBOUR_HELD),
    (Flag.GROSS_MISFIT, Flag.MISFIT_HELD),
    (Flag.NOISE_FROM_DATA, Flag.NOISE_FROM_DATA_HELD),
)


def held_by_widths(
    flags: int, widening: Widening | None, residual_fraction: float = math.inf
) -> int:
    """Returns flags in which objections that honest widths answer are replaced by remarks.

    Wrong noise is answered where the widths are those of the noise that was measured; light
    beside the galaxy where it pulls no parameter by more than half of its honest width; light
    that the model misses where that is no more than structure; a noise map made from the data
    where weights that follow the noise pull no parameter by more than half of its honest width.

    Args:
        flags: Sum of a row's flags.
        widening: What gives its draws honest widths; None where they are the stated noise's.
        residual_fraction: Light of the residual over the model's; infinite where it is not known.
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
