"""Sources in several bands, cut out of one mosaic per band at the same sky position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deeplegato_pp.catalog.cutouts import Cutout, OpenedImages
from deeplegato_pp.catalog.positions import Position
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.observation.bands import Bands, MultiBandObservation
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.sky_frames import icrs_to_pixel, pixel_to_icrs

if TYPE_CHECKING:
    from deeplegato_pp.inference.refine.policy import Refining


def check_bands_refined(refining: Refining | None, neighbours: str | None) -> None:
    """Raises an error for settings that are incompatible with several bands.

    Args:
        refining: Settings of the refinement.
        neighbours: Treatment of overlapping sources.

    Raises:
        ConfigError: If sources are not all refined, parameters are fixed, or several components or
            neighbours are fitted.
    """
    if refining is None:
        raise ConfigError("bands are fitted by the exact posterior. Add refining (--refine).")
    wrong = {
        "the rule auto": refining.rule != "all",
        "fixed values": bool(refining.fixed),
        f"the scene {refining.scene}": refining.scene != "sersic",
        "neighbours that are fitted": neighbours == "fit",
    }
    for what, given in wrong.items():
        if given:
            raise ConfigError(
                f"{what} do not go with several bands, in which one Sérsic profile is fitted. "
                "Leave one of them out."
            )


def cutout_in_bands(
    scene: OpenedImages,
    bands: Sequence[str],
    sources: SourceList,
    i: int,
    position: Position,
    side: int,
    masked: bool,
) -> Cutout:
    """Returns the cutout of a source in the first band, with its observations in the others.

    Bands in which the source cannot be cut out are omitted, with a note.

    Args:
        scene: The images, one per band.
        bands: Names of the bands.
        sources: List of sources.
        i: Index of the source.
        position: Position of the source in the first image.
        side: Side of the first band's cutout; others cover at least the same area. [px]
        masked: Whether the segments of other sources are masked.
    """
    first = scene.cutout(sources, i, position, side, masked=masked)
    if first.observation is None:
        return first
    found: dict[str, Observation] = {}
    missing = []
    for k, name in enumerate(bands[1:], 1):
        there = _position_in(scene, position, k)
        other = scene.cutout(sources, i, there, side, masked=masked)
        if other.observation is None:
            missing.append(f"{name} is left out: {other.reason}")
        else:
            found[name] = other.observation
    if not found:
        return Cutout(position, reason=f"no band but {bands[0]}: {'; '.join(missing)}")
    noted = replace(first.observation, notes=[*first.observation.notes, *missing])
    return replace(first, observation=noted, bands=found)


def _position_in(scene: OpenedImages, position: Position, image: int) -> Position:
    """Returns the position in another image."""
    frame, mosaic = scene.mosaics[0], scene.mosaics[image]
    if frame.wcs is None or mosaic.wcs is None:
        reason = "without WCS, its image must have the first one's shape. Give one grid, or WCS"
        same = mosaic.shape == frame.shape
        return Position(image, position.x, position.y, "" if same else reason)
    (x,), (y,) = icrs_to_pixel(mosaic.wcs, *pixel_to_icrs(frame.wcs, position.x, position.y))
    height, width = mosaic.shape
    inside = -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5
    return Position(
        image, float(x), float(y), "" if inside else "the source lies outside its image"
    )


def galaxy_of(bands: Bands, cutout: Cutout) -> MultiBandObservation:
    """Returns the observations of a source in the bands that cover it."""
    assert cutout.observation is not None  # noqa: S101  # asked of what was cut out only
    seen = {bands.names[0]: cutout.observation, **cutout.bands}
    waves = bands.wavelengths
    if waves is not None:
        waves = tuple(w for name, w in zip(bands.names, waves, strict=True) if name in seen)
    return MultiBandObservation(seen, waves)
