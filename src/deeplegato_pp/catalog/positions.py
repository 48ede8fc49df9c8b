"""Positions of sources: image and pixel."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.mosaics import Mosaic
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.observation.sky_frames import icrs_to_pixel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Position:
    """Position of a source: image and pixel.

    Attributes:
        image: Number of the image; -1 if it is in none.
        x: Column, 0-based. [px]
        y: Row, 0-based. [px]
        reason: Reason why it cannot be measured, or empty.
    """

    image: int
    x: float
    y: float
    reason: str = ""


def find_positions(mosaics: list[Mosaic], sources: SourceList) -> list[Position]:
    """Returns the position of each source; in several images, the one farthest from the edge.

    With one image, pixels take precedence over RA and Dec; with several, RA and Dec are used.
    """
    if sources.file is not None:
        return [Position(-1, math.nan, math.nan) for _ in range(len(sources))]
    pixels = np.stack([sources.x, sources.y], 1)
    if len(mosaics) == 1:
        x, y = to_pixels(mosaics[0], sources)
        known = np.isfinite(pixels).all(1)
        candidates = [np.where(known[:, None], pixels, np.stack([x, y], 1))]
    else:
        candidates = [np.stack(to_pixels(m, sources), 1) for m in mosaics]
    return [_place(mosaics, sources, i, [c[i] for c in candidates]) for i in range(len(sources))]


def _place(
    mosaics: list[Mosaic], sources: SourceList, i: int, candidates: Sequence[Array]
) -> Position:
    best, depth = -1, -math.inf
    for k, (x, y) in enumerate(candidates):
        height, width = mosaics[k].shape
        inside = min(x + 0.5, width - 0.5 - x, y + 0.5, height - 0.5 - y)
        if math.isfinite(inside) and inside > depth + 1e-3:  # the first of equivalent images
            best, depth = k, inside
    if best < 0:
        return Position(-1, math.nan, math.nan, _no_position(mosaics, sources, i))
    x, y = (float(v) for v in candidates[best])
    if depth < 0:
        height, width = mosaics[best].shape
        where = f"({x:.1f}, {y:.1f}) px lies outside the image of {width} x {height} px"
        what = "the position" if len(mosaics) == 1 else "in the nearest image, the position"
        return Position(-1, x, y, f"{what} {where}. Is the WCS, or the list, of another image?")
    return Position(best, x, y)


def _no_position(mosaics: list[Mosaic], sources: SourceList, i: int) -> str:
    if math.isfinite(sources.ra[i]) and math.isfinite(sources.dec[i]):
        if all(m.wcs is None for m in mosaics):
            return "the position is in RA and Dec, and the image has no usable WCS. Give x and y."
        return "RA and Dec cannot be projected onto the image. Is its WCS right?"
    return "the position is not finite. Give x and y, or RA and Dec."


def to_pixels(mosaic: Mosaic, sources: SourceList) -> tuple[Array, Array]:
    """Converts RA and Dec to 0-based pixels; NaN where they are not given."""
    nothing = np.full(len(sources), np.nan)
    known = np.isfinite(sources.ra) & np.isfinite(sources.dec) & (np.abs(sources.dec) <= 90)
    if mosaic.wcs is None or not known.any():
        return nothing, nothing.copy()
    x, y = nothing, nothing.copy()
    ra, dec = sources.ra[known], sources.dec[known]
    x[known], y[known] = icrs_to_pixel(mosaic.wcs, ra, dec)
    return x, y


def checked_positions(mosaics: list[Mosaic], sources: SourceList) -> SourceList:
    """Warns if the list seems to belong to another image or disagrees with the WCS.

    Pixels that differ by one from their own RA and Dec are 1-based and are converted to 0-based.

    Args:
        mosaics: The images.
        sources: The list.

    Returns:
        The list, with 0-based pixels.
    """
    if sources.file is not None or not mosaics:
        return sources
    sample = sources[slice(0, 10_000)]
    positions = find_positions(mosaics, sample)
    lost = sum(p.image < 0 for p in positions)
    if lost > len(positions) / 2:
        logger.warning(
            "%d of the first %d sources lie outside the images: is the list or the WCS another's?",
            lost, len(positions),
        )  # fmt: skip
    if len(mosaics) > 1 or mosaics[0].wcs is None:
        return sources
    x, y = to_pixels(mosaics[0], sample)
    off = np.stack([sample.x - x, sample.y - y], 1)
    off = off[np.isfinite(off).all(1)]
    if not len(off):
        return sources
    middle = np.median(off, axis=0)
    scatter = np.median(np.abs(off - middle))
    if np.abs(middle - 1.0).max() < 0.3 and scatter < 0.3:
        logger.warning(
            "x and y of the list lie (%.2f, %.2f) px from its ra, dec by the image's WCS: they "
            "count from 1, as FITS and SExtractor do, and 1 is subtracted.",
            middle[0], middle[1],
        )  # fmt: skip
        return replace(sources, x=sources.x - 1.0, y=sources.y - 1.0)
    apart = float(np.median(np.hypot(off[:, 0], off[:, 1])))
    if apart > 0.5:
        logger.warning(
            "x, y and ra, dec of the list are %.1f px apart by the image's WCS: x, y are used.",
            apart,
        )
    return sources
