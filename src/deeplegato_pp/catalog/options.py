"""Settings for the measurement of a catalogue's sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplegato_pp.catalog.bands import check_bands_refined
from deeplegato_pp.catalog.cutouts import OpenedImages
from deeplegato_pp.catalog.mosaics import Mosaic
from deeplegato_pp.checks import check_choice, check_positive_integer
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.observation.bands import Bands

if TYPE_CHECKING:
    from deeplegato_pp.inference.refine.policy import Refining

NEIGHBOURS = ("fit", "mask", "keep")
"""Treatments of overlapping sources."""


@dataclass(frozen=True)
class Options:
    """Settings of the measurement.

    Attributes:
        samples: Number of the network's draws per source.
        seed: Random seed, combined with each source's id and position.
        refining: Settings of the refinement, or None for the network's posterior.
        draws: Number of equally weighted draws stored per source; 0 for none.
        batch: Number of sources per forward pass.
        widths: Widths of unrefined posteriors, ``honest`` or ``noise``.
        neighbours: Treatment of overlapping sources: ``fit`` them together, ``mask`` them by their
            segments, or ``keep`` them; None: ``fit`` if sources are refined, else ``mask`` if
            there is a segmentation, else ``keep``.
        bands: Bands of the images if they are fitted together; None for one band.
        covariance: Whether rows contain the covariances of all pairs of parameters.
    """

    samples: int = 1000
    seed: int = 0
    refining: Refining | None = None
    draws: int = 0
    batch: int = 64
    widths: str = "honest"
    neighbours: str | None = None
    bands: Bands | None = None
    covariance: bool = False

    def searched(self, mosaics: list[Mosaic]) -> list[Mosaic]:
        """Returns the images in which sources are located: the first one for several bands."""
        return mosaics if self.bands is None else mosaics[:1]

    @property
    def scene(self) -> str:
        """Scene fitted to the sources, see :meth:`Predictor.refine`."""
        return "sersic" if self.refining is None else self.refining.scene

    @property
    def fits_neighbours(self) -> bool:
        """Whether sources that overlap are fitted together."""
        alone = self.bands is None and self.refining is not None
        return self.neighbours == "fit" or (self.neighbours is None and alone)

    def __post_init__(self) -> None:
        if self.neighbours is not None:
            check_choice(self.neighbours, NEIGHBOURS, "neighbours")
        if self.neighbours == "fit" and self.refining is None:
            raise ConfigError(
                "neighbours are fitted by the exact posterior, and nothing is refined. Refine "
                "(--refine), or mask or keep neighbours."
            )
        if self.bands is not None:
            check_bands_refined(self.refining, self.neighbours)
        check_positive_integer(self.samples, "samples")
        check_positive_integer(self.batch, "batch")
        check_choice(self.widths, WIDTHS, "widths")


def check_neighbours(options: Options, scene: OpenedImages) -> None:
    """Raises an error if neighbours are to be masked without segmentation.

    Raises:
        InputError: If there is no segmentation.
    """
    if options.neighbours == "mask" and not scene.segmented:
        raise InputError(
            "neighbours are masked by their segments, and no segmentation was given. Give one "
            "(--segmentation), find the sources with --detect, or fit or keep neighbours."
        )
