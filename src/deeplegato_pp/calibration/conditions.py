"""Coverage by what a stamp is like: width of the PSF, gain, noise, masked pixels, neighbours.

All but the last are part of the data, so that a right posterior covers nominally in each of their
classes. Where the neighbours are is not; but they are drawn without regard to the galaxy, and a
posterior that is right about them covers nominally there too, unless their light is taken for the
galaxy's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplegato_pp.calibration.galaxies import Galaxies
from deeplegato_pp.calibration.naming import coverage_by_name
from deeplegato_pp.diagnostics import binomial_error, central_levels

Array = np.ndarray

LEVELS = (0.68, 0.95)

FEWEST = 50
"""Galaxies of which a coverage is told."""


@dataclass(frozen=True)
class Condition:
    """A class of stamps: those with low <= value < high; with low = high, exactly that.

    Attributes:
        label: In words.
        by: Name of the column of `Galaxies`.
        low: Lower edge.
        high: Upper edge.
    """

    label: str
    by: str
    low: float
    high: float

    def holds(self, values: Array) -> Array:
        """Returns which values are in the class, with shape (B,)."""
        if self.low == self.high:
            return np.asarray(values == self.low)
        return np.asarray((values >= self.low) & (values < self.high))


CONDITIONS = (
    Condition("PSF narrower than 2 px", "psf_fwhm", 0.0, 2.0),
    Condition("PSF of 2-3 px", "psf_fwhm", 2.0, 3.0),
    Condition("PSF of 3-4.5 px", "psf_fwhm", 3.0, 4.5),
    Condition("PSF wider than 4.5 px", "psf_fwhm", 4.5, math.inf),
    Condition("gain below 10", "gain", 0.0, 10.0),
    Condition("gain of 10-100", "gain", 10.0, 100.0),
    Condition("gain of 100-1,000", "gain", 100.0, 1e3),
    Condition("gain above 1,000", "gain", 1e3, math.inf),
    Condition("no gain", "gain", math.inf, math.inf),
    Condition("independent noise", "noise_correlation", 1.0, 1.0),
    Condition("noise correlated by less than 2", "noise_correlation", 1.0 + 1e-9, 2.0),
    Condition("noise correlated by 2 and more", "noise_correlation", 2.0, math.inf),
    Condition("nothing masked", "masked", 0.0, 0.0),
    Condition("less than 3 % masked", "masked", 1e-9, 0.03),
    Condition("3-20 % masked", "masked", 0.03, 0.2),
    Condition("more than 20 % masked", "masked", 0.2, math.inf),
    Condition("a neighbour within 15 px", "nearest", 0.0, 15.0),
    Condition("nearest neighbour at 15-30 px", "nearest", 15.0, 30.0),
    Condition("nearest neighbour at 30-60 px", "nearest", 30.0, 60.0),
    Condition("nearest neighbour beyond 60 px", "nearest", 60.0, math.inf),
    Condition("no neighbour", "nearest", math.inf, math.inf),
)
"""PSFs by the FWHM of their optics, gains in electrons per background sigma, noise by the variance
of its sums over many pixels over that of independent ones."""


def by_condition(galaxies: Galaxies) -> list[dict[str, Any]]:
    """Returns the coverage of central intervals in every class that has galaxies enough.

    Returns:
        Per class its label, galaxies, coverage by level and parameter, and the standard error
        that a right posterior's coverage has there.
    """
    levels = central_levels(galaxies.ranks)
    found = []
    for condition in CONDITIONS:
        rows = condition.holds(getattr(galaxies, condition.by))
        number = int(rows.sum())
        if number < FEWEST:
            continue
        found.append(
            {
                "label": condition.label,
                "by": condition.by,
                "galaxies": number,
                "coverage": coverage_by_name(levels[rows], LEVELS),
                "binomial_error": {str(level): binomial_error(level, number) for level in LEVELS},
            }
        )
    return found
