"""Celestial WCS of an image: read, corrected for common mistakes, or rejected."""

import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.flags import Flag

if TYPE_CHECKING:
    from astropy.io.fits import HDUList, Header

SMALLEST, LARGEST = 1e-4, 100.0
"""Plausible pixel scales [arcsec/px], from the finest of interferometers to all-sky surveys."""

MATRIX = re.compile(r"(CD|PC)\d_\d|CDELT\d|CROTA\d|CRVAL\d|CRPIX\d|EQUINOX")
"""Keywords that must be numbers for the WCS to be read correctly."""

SQUARE = 0.02
"""Relative difference of the two scales above which pixels are not square."""


def plausible_scale(scale: float | None) -> bool:
    """Returns whether a pixel scale [arcsec/px] is plausible for an image of a galaxy."""
    return scale is not None and math.isfinite(scale) and SMALLEST <= scale <= LARGEST


@dataclass(frozen=True)
class SkyCoordinates:
    """Celestial coordinates of a header.

    Attributes:
        wcs: Celestial ``astropy.wcs.WCS``, or None if it is missing or implausible.
        scale: Pixel scale, the geometric mean of both axes. [arcsec/px]
        flags: Sum of ``Flag`` bits.
        notes: Reasons for rejection or correction.
    """

    wcs: Any = None
    scale: float | None = None
    flags: int = 0
    notes: tuple[str, ...] = ()


def read_sky(header: "Header", hdus: "HDUList | None" = None) -> SkyCoordinates:
    """Returns the celestial WCS of a header, if it is plausible.

    Numbers written as text are read; if CDELT and a PC matrix both contain the scale, it is removed
    from the matrix. A WCS whose matrix is missing or singular, or with pixels outside 1e-4 to 100
    arcsec, is rejected, with a note.

    Args:
        header: Header of the image.
        hdus: The open file, for distortion tables.
    """
    if "CTYPE1" not in header:
        return SkyCoordinates()
    from astropy.wcs import WCS

    notes: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(_with_numbers(header, notes), fobj=hdus)
            if not wcs.has_celestial:
                return SkyCoordinates()
            wcs = wcs.celestial
            scales = _scales(wcs)
            if not plausible_scale(_mean(scales)) and _mend_twofold_scale(wcs):
                scales = _scales(wcs)
                notes.append("WCS mended: CDELT and the PC matrix both held the scale")
    except Exception as error:  # wcslib raises many types; the image is usable without WCS
        reason = " ".join(str(error).split())[:120].rstrip(".")
        return SkyCoordinates(notes=(*notes, f"WCS ignored: {reason}"))
    if not _has_matrix(header):
        note = "WCS ignored: it has no CD, PC or CDELT, and so no scale"
        return SkyCoordinates(flags=int(Flag.PIXEL_SCALE_CONFLICT), notes=(*notes, note))
    mean = _mean(scales)
    if not plausible_scale(mean) or max(scales) > 1e3 * min(scales):
        return SkyCoordinates(
            flags=int(Flag.PIXEL_SCALE_CONFLICT),
            notes=(
                *notes,
                f"WCS ignored: its pixels of {scales[0]:.4g} x {scales[1]:.4g} arcsec cannot be, "
                f"expected {SMALLEST:g} to {LARGEST:g}",
            ),
        )
    flags = 0
    if abs(scales[0] / scales[1] - 1) > 0.01:
        flags = Flag.NOT_SQUARE if abs(scales[0] / scales[1] - 1) > SQUARE else 0
        notes.append(
            f"pixels are not square ({scales[0]:.4g} x {scales[1]:.4g} arcsec): "
            "their geometric mean is the pixel scale"
        )
    return SkyCoordinates(wcs, mean, int(flags), tuple(notes))


def _with_numbers(header: "Header", notes: list[str]) -> "Header":
    """Returns the header with numbers written as text converted to numbers."""
    texts = [c for c in header.cards if isinstance(c.value, str) and MATRIX.fullmatch(c.keyword)]
    if not texts:
        return header
    mended = header.copy()
    for card in texts:
        try:
            mended[card.keyword] = float(card.value)
        except ValueError:
            del mended[card.keyword]
    notes.append(f"{', '.join(c.keyword for c in texts)} were texts, read as numbers")
    return mended


def _has_matrix(header: "Header") -> bool:
    """Returns whether the header states a scale; wcslib's default is one degree per pixel."""
    return any(re.fullmatch(r"(CD|PC)\d_\d|CDELT\d", str(key)) for key in header)


def _scales(wcs: Any) -> tuple[float, float]:
    """Returns the pixel scales of both axes [arcsec/px]; zeros for a singular matrix."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    matrix = np.asarray(wcs.pixel_scale_matrix, dtype=np.float64)
    scales = 3600 * np.asarray(proj_plane_pixel_scales(wcs), dtype=np.float64)
    area = 3600**2 * abs(float(np.linalg.det(matrix)))
    if not (np.isfinite(scales).all() and area > 1e-6 * float(scales[0] * scales[1])):
        return 0.0, 0.0
    return float(scales[0]), float(scales[1])


def _mean(scales: tuple[float, float]) -> float:
    return math.sqrt(scales[0] * scales[1])


def _mend_twofold_scale(wcs: Any) -> bool:
    """Removes the scale from a PC matrix that repeats CDELT; returns whether it did."""
    if wcs.wcs.has_cd():
        return False
    matrix = np.asarray(wcs.wcs.get_pc(), dtype=np.float64)
    size = math.sqrt(abs(float(np.linalg.det(matrix))))
    steps = math.sqrt(abs(float(np.prod(wcs.wcs.cdelt))))
    if not (size > 0 and steps > 0 and abs(size / steps - 1) < SQUARE):
        return False
    wcs.wcs.pc = matrix / size
    wcs.wcs.set()
    # Both contained signs: the parity of CDELT alone is the usual one.
    return plausible_scale(3600 * steps)
