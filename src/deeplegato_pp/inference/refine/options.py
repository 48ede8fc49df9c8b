"""Settings of the refinement that are rarely changed."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("exact", "laplace")

PIXEL_BUDGET = 4e8
"""Default limit of pixels rendered per galaxy: 15,600 compact galaxies on 128 px.

The median galaxy needs 5e6. A render of 128 px with a PSF oversampled five times takes 6e5 to 4e6,
so that sampling would take minutes.
"""


@dataclass(frozen=True)
class RefineOptions:
    """Rarely changed settings of :func:`refine_batch`.

    Attributes:
        pilot: Number of the network's draws evaluated first, from which the mode search starts.
        starts: Number of searches per galaxy.
        mask_neighbours: Whether pixels that the galaxy cannot explain are masked first.
        interpolate: Whether ln L of draws is emulated from a few rendered images if its error is
            below 0.03 (see `inference.fit.emulator`).
        fallback: Whether a Markov chain is run if importance sampling fails.
        chain_steps: Maximum length of such a chain. [steps of 40 walkers]
        star_odds: Prior odds of a point source against a galaxy; if given, no chain is run if the
            point source is far more probable (see `inference.refine.fallback`).
        pixel_budget: Maximum number of pixels rendered per galaxy.
        honest: Whether the widening to honest widths is computed, and structure is kept from being
            fitted by the PSF's width.
    """

    pilot: int = 24
    starts: int = 2
    mask_neighbours: bool = True
    interpolate: bool = True
    fallback: bool = True
    chain_steps: int = 300
    star_odds: float | None = None
    pixel_budget: float = PIXEL_BUDGET
    honest: bool = False
