"""What a FITS header says about scale and zero point, each answer with its source.

Works on any mapping from keywords to values: nothing here needs a FITS library.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

Header = Mapping[str, Any]

SCALE_KEYWORDS = ("PIXSCALE", "PIXSCAL", "PIXELSCL")
"""Keywords holding arcsec per pixel, the first found wins."""

ZERO_POINT_KEYWORDS = ("MAGZERO", "MAGZPT", "ZEROPT", "ZP", "PHOTZP")
"""Keywords holding the AB magnitude of one image unit, the first found wins."""

UNIT_ZERO_POINTS = {
    "nanomaggy": 22.5,
    "nanomaggies": 22.5,
    "nmgy": 22.5,
    "Jy": 8.9,
    "mJy": 16.4,
    "uJy": 23.9,
    "nJy": 31.4,
}
"""AB magnitude of one unit, for fluxes per pixel (3631 Jy is magnitude 0, to 0.0003 mag)."""

ARCSEC2_PER_STERADIAN = (180 / math.pi * 3600) ** 2


def header_number(header: Header, keyword: str) -> float | None:
    """Returns the finite number under ``keyword``, or None."""
    try:
        number = float(header[keyword])
    except (KeyError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def find_pixel_scale(header: Header, wcs_scale: float | None = None) -> tuple[float, str] | None:
    """Returns arcsec per pixel and where it was found, or None.

    Args:
        header: The image's header.
        wcs_scale: Scale of the image's WCS, if it has one. [arcsec/px]
    """
    for keyword in SCALE_KEYWORDS:
        value = header_number(header, keyword)
        if value is not None and value > 0:
            return value, f"keyword {keyword}"
    if wcs_scale is not None and math.isfinite(wcs_scale) and wcs_scale > 0:
        return wcs_scale, "the WCS"
    return None


def find_zero_point(header: Header, pixel_scale: float | None = None) -> tuple[float, str] | None:
    """Returns the AB magnitude of one image unit and where it was found, or None.

    Tried in turn: the usual keywords; HST's PHOTFLAM and PHOTPLAM, with EXPTIME where the image
    is not a rate; LSST's and HSC's FLUXMAG0; surface brightness in MJy/sr with JWST's PIXAR_SR or
    the pixel scale; fluxes in nanomaggies or Jy.

    Args:
        header: The image's header.
        pixel_scale: Needed for MJy/sr without PIXAR_SR. [arcsec/px]

    References:
        | ACS Data Handbook, section 5.1.1 (zero points from PHOTFLAM and PHOTPLAM)
        | https://hst-docs.stsci.edu/acsdhb
    """
    for keyword in ZERO_POINT_KEYWORDS:
        value = header_number(header, keyword)
        if value is not None:
            return value, f"keyword {keyword}"
    unit = str(header.get("BUNIT", "")).replace(" ", "")
    return (
        _zero_point_hst(header, unit)
        or _zero_point_fluxmag0(header)
        or _zero_point_surface_brightness(header, unit, pixel_scale)
        or _zero_point_unit(unit)
    )


def _zero_point_hst(header: Header, unit: str) -> tuple[float, str] | None:
    flam, plam = header_number(header, "PHOTFLAM"), header_number(header, "PHOTPLAM")
    if flam is None or plam is None or flam <= 0 or plam <= 0:
        return None
    zero_point = -2.5 * math.log10(flam) - 5 * math.log10(plam) - 2.408
    if unit and not re.search(r"/s|s\^?(\*\*)?-1", unit.lower()):  # counts, not a rate
        exposure = header_number(header, "EXPTIME")
        if exposure is None or exposure <= 0:
            return None
        return zero_point + 2.5 * math.log10(exposure), "PHOTFLAM, PHOTPLAM and EXPTIME"
    return zero_point, "PHOTFLAM and PHOTPLAM"


def _zero_point_fluxmag0(header: Header) -> tuple[float, str] | None:
    flux = header_number(header, "FLUXMAG0")
    return None if flux is None or flux <= 0 else (2.5 * math.log10(flux), "keyword FLUXMAG0")


def _zero_point_surface_brightness(
    header: Header, unit: str, pixel_scale: float | None
) -> tuple[float, str] | None:
    if not re.fullmatch(r"MJy(/|[.*]?)sr(\*\*|\^)?(-1)?", unit):
        return None
    area, source = header_number(header, "PIXAR_SR"), "MJy/sr and PIXAR_SR"
    if area is None and pixel_scale is not None:
        area, source = pixel_scale**2 / ARCSEC2_PER_STERADIAN, "MJy/sr and the pixel scale"
    if area is None or area <= 0:
        return None
    return -2.5 * math.log10(1e6 * area / 3631), source


def _zero_point_unit(unit: str) -> tuple[float, str] | None:
    flux = re.sub(r"/pix(el)?$", "", unit)
    zero_point = UNIT_ZERO_POINTS.get(flux, UNIT_ZERO_POINTS.get(flux.lower()))
    return None if zero_point is None else (zero_point, f"the unit {unit}")
