"""How the sources of a catalogue are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplegato_pp.catalog.bands import check_bands_refined
from deeplegato_pp.catalog.cutouts import Scene
from deeplegato_pp.catalog.mosaics import Mosaic
from deeplegato_pp.checks import check_choice, check_positive_integer
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.observation.bands import Bands

if TYPE_CHECKING:
    from deeplegato_pp.inference.refine.policy import Refining

NEIGHBOURS = ("fit", "mask", "keep")
"""What may become of sources that overlap."""


@dataclass(frozen=True)
class Options:
    """How sources are measured.

    Attributes:
        samples: Draws of the network per source.
        seed: Random seed, with each source's id and position.
        refining: How sources are refined, or None for the bare network.
        draws: Equally weighted draws kept per source in the table; 0 for none.
        batch: Sources that go through the network together.
        widths: Of what is not refined, ``honest`` or ``noise``.
        neighbours: What becomes of sources that overlap: ``fit`` them together, ``mask`` them by
            their segments, or ``keep`` them; None: ``fit`` where sources are refined, else
            ``mask`` where a segmentation is known, else ``keep``.
        bands: The images are these bands of one sky, fitted together; None: of one band each.
        covariance: Whether rows hold the covariances of all pairs of parameters.
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
        """Returns the images in which sources are looked for: of bands the first."""
        return mosaics if self.bands is None else mosaics[:1]

    @property
    def scene(self) -> str:
        """What sources are fitted with, see :meth:`Predictor.refine`."""
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


def check_neighbours(options: Options, scene: Scene) -> None:
    """Refuses to mask neighbours by a segmentation that is not there.

    Raises:
        InputError: If there is none.
    """
    if options.neighbours == "mask" and not scene.segmented:
        raise InputError(
            "neighbours are masked by their segments, and no segmentation was given. Give one "
            "(--segmentation), find the sources with --detect, or fit or keep neighbours."
        )
