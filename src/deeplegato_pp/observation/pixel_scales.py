"""Pixel scales, reconciled from the WCS, keywords and the pixel's area."""

import math

from deeplegato_pp.flags import Flag
from deeplegato_pp.io.header_keywords import Claim, Header, Taken, header_number, number_with_unit
from deeplegato_pp.io.wcs_header import LARGEST, SMALLEST, plausible_scale

KEYWORDS = (
    "PIXSCALE", "PIXSCAL", "PIXELSCL", "PIXSCAL1", "PIXSCAL2", "PIXSCL", "SECPIX", "SECPIX1",
    "SECPIX2",
)  # fmt: skip
"""Keywords with arcsec per pixel, in order of priority."""

TOLERANCE = 0.02
"""Relative difference beyond which two scales disagree."""

ARCSEC2_PER_STERADIAN = (180 / math.pi * 3600) ** 2

UNITS = (("arcsec", 1.0), ('"', 1.0), ("mas", 1e-3), ("deg", 3600.0), ("rad", 648000 / math.pi))
"""Prefixes of units after a number, with their size in arcsec."""


def reconcile_pixel_scale(header: Header, wcs_scale: float | None = None) -> Taken:
    """Determines the pixel scale in arcsec/px, from the WCS if there is one, else from keywords.

    Scales outside 1e-4 to 100 arcsec/px are refused; scales that differ by more than 2 % from the
    adopted one are flagged.

    Args:
        header: The image's header.
        wcs_scale: Scale of the image's WCS, if it is plausible. [arcsec/px]
    """
    claims, refused = [], []
    if wcs_scale is not None and plausible_scale(wcs_scale):
        claims.append(Claim(wcs_scale, "WCS"))
    for keyword in KEYWORDS:
        claim, remark = _keyword_claim(header, keyword, wcs_scale)
        claims += [] if claim is None else [claim]
        refused += [] if remark is None else [remark]
    claims += _area_claims(header)
    if not claims:
        flags = Flag.PIXEL_SCALE_CONFLICT if refused else 0
        return Taken(flags=int(flags), notes=tuple(refused))
    taken = claims[0]
    notes = [f"pixel scale {taken.value:.6g} arcsec/px from {taken.source}", *refused]
    others = [c for c in claims[1:] if abs(c.value / taken.value - 1) > TOLERANCE]
    notes += [
        f"pixel scale conflict: {c.source} says {c.value:.6g} arcsec/px, {taken.source} "
        f"{taken.value:.6g}"
        for c in others
    ]
    flags = Flag.PIXEL_SCALE_CONFLICT if others else 0
    return Taken(taken.value, taken.source, int(flags), tuple(notes))


def _keyword_claim(
    header: Header, keyword: str, wcs_scale: float | None
) -> tuple[Claim | None, str | None]:
    """Returns a keyword's claim, or the reason why it is refused."""
    found = number_with_unit(header, keyword)
    if found is None:
        if keyword in header and str(header[keyword]).strip() not in ("", "None"):
            return None, f"{keyword} = {header[keyword]!r} is no number"
        return None, None
    value, unit = found
    factor = next((size for name, size in UNITS if unit.lower().startswith(name)), 1.0)
    scale = abs(value) * factor
    if wcs_scale and factor == 1.0 and abs(scale * 3600 / wcs_scale - 1) < TOLERANCE:
        return Claim(scale * 3600, f"{keyword} (degrees)"), None
    if not plausible_scale(scale):
        hint = ", as it would be in degrees" if plausible_scale(scale * 3600) else ""
        return None, (
            f"{keyword} = {value:.6g} refused as a pixel scale: outside {SMALLEST:g} to "
            f"{LARGEST:g} arcsec/px{hint}"
        )
    return Claim(scale, keyword), None


def _area_claims(header: Header) -> list[Claim]:
    """Returns the claims from the pixel's area, as stated by JWST and Roman."""
    claims = []
    for keyword, size in (("PIXAR_A2", 1.0), ("PIXAR_SR", ARCSEC2_PER_STERADIAN)):
        area = header_number(header, keyword)
        if area is not None and area > 0 and plausible_scale(math.sqrt(area * size)):
            claims.append(Claim(math.sqrt(area * size), keyword))
    return claims
