"""What tables say of a galaxy's rivals, the point source and the blank sky."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rivals:
    """How one galaxy fares against its rivals; see :mod:`deeplegato_pp.inference.refine.evidence`.

    Attributes:
        star_probability: Probability of a point source, of the two, under `star_odds`.
        star_odds: Prior odds, point source to galaxy.
        star_log_evidence: ln Z of the point source.
        star_log_evidence_error: Its standard error; NaN where it is Laplace's approximation.
        detection: ln of the Bayes factor of the better of the two over blank sky.
        flux_limit: Flux below which an undetected source lies with 95 %; NaN if it was detected.
            [nJy]
        magnitude_limit: The same as a magnitude. [mag]
    """

    star_probability: float
    star_odds: float
    star_log_evidence: float
    star_log_evidence_error: float
    detection: float
    flux_limit: float = math.nan
    magnitude_limit: float = math.nan


COLUMNS: dict[str, tuple[str, str]] = {
    "star_probability": ("", "probability of a point source rather than a galaxy"),
    "star_odds": ("", "its prior odds, point source to galaxy"),
    "star_log_evidence": ("", "natural logarithm of the point source's evidence"),
    "star_log_evidence_error": ("", "its standard error; unknown where far below the galaxy's"),
    "detection": ("", "ln of the Bayes factor of galaxy or point source over blank sky"),
    "flux_limit": ("nJy", "95 % upper limit on the flux density of an undetected galaxy"),
    "magnitude_limit": ("mag", "the same as a magnitude: no brighter than this, with 95 %"),
}
"""Unit and meaning of the columns, in their order: the attributes of :class:`Rivals`."""
