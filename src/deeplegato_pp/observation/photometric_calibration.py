"""Zero points, reconciled from unit, keywords, exposure time and photometric system."""

import math
import re
from dataclasses import dataclass, replace

from deeplegato_pp.flags import Flag
from deeplegato_pp.io.flux_units import ImageUnit, read_unit
from deeplegato_pp.io.header_keywords import (
    Claim,
    Header,
    Taken,
    comment,
    header_number,
    header_text,
)
from deeplegato_pp.observation.pixel_scales import ARCSEC2_PER_STERADIAN

AB_KEYWORDS = (
    "MAGZERO", "MAGZPT", "ZEROPT", "ZEROPNT", "ZP", "PHOTZP", "MAGZP", "ABMAGZP", "ABZP", "ZPAB",
    "ZP_AB",
)  # fmt: skip
"""Keywords with the magnitude of one image unit, in order of priority."""

SYSTEM_KEYWORDS = ("MAGSYS", "PHOTSYS", "ZPSYS", "MAGTYPE", "PHOTSYST", "MAGSYST")
"""Keywords that name the photometric system."""

EXPOSURE_KEYWORDS = ("EXPTIME", "TEXPTIME", "EXPOSURE", "XPOSURE", "ITIME")
"""Keywords with the exposure time in seconds, in order of priority."""

BRIGHTEST, FAINTEST = 10.0, 45.0
"""Range of zero points [mag]; values outside are placeholders (-99, 0, 99)."""

LARGEST = 100.0
"""Absolute value of a zero point [mag] beyond which no source is accepted, units included."""

CREDIBLE_NOISE = (18.0, 36.0)
"""Range of magnitudes of a pixel's noise for which an unusual zero point is accepted."""

TOLERANCE = 0.02
"""Difference [mag] beyond which two zero points disagree."""

AB_FLUX = 3631.0
"""Flux density of magnitude 0 in the AB system. [Jy]"""


@dataclass(frozen=True)
class _Reading:
    """A claimed zero point, and its value if the source meant counts per second.

    Attributes:
        claim: Claim as stated.
        other: Alternative reading, or None.
        ab: Whether it is in the AB system.
    """

    claim: Claim
    other: Claim | None = None
    ab: bool = True


def reconcile_zero_point(
    header: Header,
    pixel_scale: float | None = None,
    wcs_scale: float | None = None,
    noise: float | None = None,
) -> Taken:
    """Determines the AB magnitude of one image unit.

    A physical unit (Jy, nanomaggy, erg/s/cm2/Angstrom with PHOTPLAM, MJy/sr with the area of the
    WCS's pixels) takes precedence over all keywords, which may be left over from the image's
    inputs. Otherwise a value on which two sources agree takes precedence, then the order MAGZERO
    and similar, PHOTFLAM with PHOTPLAM (and the exposure time unless the image is a rate),
    FLUXMAG0, PHOTFNU, PHOTMJSR.

    Args:
        header: The image's header.
        pixel_scale: Adopted pixel scale, for surface brightnesses. [arcsec/px]
        wcs_scale: Pixel scale of the WCS, whose pixel area takes precedence over PIXAR_SR.
            [arcsec/px]
        noise: Noise per pixel, which distinguishes a placeholder from an unusual zero point; if
            None, only the value is used. [image units]

    References:
        | ACS Data Handbook, section 5.1.1 (zero points from PHOTFLAM and PHOTPLAM)
        | https://hst-docs.stsci.edu/acsdhb
    """
    unit = read_unit(header.get("BUNIT"))
    exposure, remarks = _exposure(header)
    keywords, refused = _keyword_readings(header, unit, exposure, noise)
    others = _instrument_readings(header, unit, exposure, pixel_scale)
    physical = _unit_claims(header, unit, pixel_scale, wcs_scale)
    absurd = [c for c in (*physical, *(r.claim for r in others)) if abs(c.value) > LARGEST]
    refused += [f"{c.source} gives a zero point of {c.value:.0f}, which is refused" for c in absurd]
    physical = [c for c in physical if c not in absurd]
    others = [r for r in others if r.claim not in absurd]
    if physical:
        return _by_unit(physical, [*keywords, *others], refused)
    if unit.physical:
        needed = "PHOTPLAM" if "wavelength" in unit.kind else "the size of the pixels and the beam"
        refused.append(f"unit {unit.text} gives no zero point without {needed}")
        others = []  # keywords of the inputs, in other units
    readings = _settled([*keywords, *others])
    doubtful = Flag.ZERO_POINT_CONFLICT if unit.physical or (refused and not readings) else 0
    if not readings:
        return Taken(flags=int(doubtful), notes=tuple(refused))
    taken = _by_keywords(readings, refused, remarks)
    faint = _noise_magnitude(taken.value, noise)
    if faint is not None and not BRIGHTEST <= faint <= FAINTEST:
        doubtful |= Flag.ZERO_POINT_CONFLICT
        note = f"zero point conflict: the noise would be of magnitude {faint:.1f} per pixel"
        taken = replace(taken, notes=(*taken.notes, note))
    return replace(taken, flags=int(taken.flags | doubtful))


def _by_unit(physical: list[Claim], rest: list[_Reading], refused: list[str]) -> Taken:
    """Returns the unit's zero point, compared with all other sources in the file."""
    taken = physical[0]
    notes = [f"zero point {taken.value:.4f} from {taken.source}"]
    apart = [c for c in physical[1:] if _apart(c, taken)]
    for reading in rest:
        if all(_apart(c, taken) for c in (reading.claim, reading.other) if c is not None):
            apart.append(reading.claim)
    # A keyword far outside the usual range that agrees with the unit is not a placeholder.
    kept = [r for r in refused if not _says(r, taken.value)]
    flags = Flag.ZERO_POINT_CONFLICT if apart else 0
    notes += kept + [_conflict(c, taken) for c in apart]
    return Taken(taken.value, taken.source, int(flags), tuple(notes))


def _by_keywords(readings: list[_Reading], refused: list[str], remarks: list[str]) -> Taken:
    """Returns the best keyword: AB first, then confirmed by another one, then by priority."""
    good = [r for r in readings if r.ab] or readings

    def support(reading: _Reading) -> bool:
        return any(not _apart(r.claim, reading.claim) for r in readings if r is not reading)

    best = next((r for r in good if support(r)), good[0])
    taken, flags = best.claim, 0
    notes = [f"zero point {taken.value:.4f} from {taken.source}", *refused]
    apart = [r.claim for r in readings if r.ab and _apart(r.claim, taken)]
    if best.other is not None and not support(best):
        apart.append(best.other)
    if apart:
        flags |= Flag.ZERO_POINT_CONFLICT
        notes += [_conflict(c, taken) for c in apart]
    if "EXPTIME" in taken.source or "exposure" in taken.source:
        notes += remarks
        flags |= Flag.ZERO_POINT_CONFLICT if remarks else 0
    if not best.ab:
        flags |= Flag.NOT_AB
        notes.append(f"{taken.source} is not an AB zero point: magnitudes are in its system")
    return Taken(taken.value, taken.source, int(flags), tuple(notes))


def _settled(readings: list[_Reading]) -> list[_Reading]:
    """Returns the readings, each in the sense confirmed by another source."""
    settled = []
    for reading in readings:
        rest = [r for r in readings if r is not reading]
        plain = any(not _apart(r.claim, reading.claim) for r in rest)
        if reading.other is None or plain:
            settled.append(_Reading(reading.claim, None, reading.ab))
            continue
        # Two ambiguous sources confirm each other in their first sense only.
        sure = [r.claim for r in rest if r.other is None]
        if any(not _apart(c, reading.other) for c in sure):
            settled.append(_Reading(reading.other, None, reading.ab))
        else:
            settled.append(reading)
    return settled


def _keyword_readings(
    header: Header, unit: ImageUnit, exposure: tuple[float, str] | None, noise: float | None
) -> tuple[list[_Reading], list[str]]:
    """Returns the readings of zero-point keywords, and remarks on refused ones."""
    readings, refused = [], []
    named = " ".join(header_text(header, keyword) for keyword in SYSTEM_KEYWORDS)
    for keyword in AB_KEYWORDS:
        raw = header.get(keyword)
        if raw is None or (isinstance(raw, str) and not raw.strip()):
            continue
        value = header_number(header, keyword)
        if value is None:
            refused.append(f"{keyword} = {raw!r} is no zero point")
            continue
        if not (BRIGHTEST <= value <= FAINTEST or _credible(value, noise)):
            refused.append(_refusal(keyword, value))
            continue
        said = comment(header, keyword)
        ab = "AB" in keyword or not re.search(r"(?i)vega|\bst(mag)?\b", f"{named} {said}")
        claim, other = Claim(value, keyword), None
        if unit.kind == "count" and exposure is not None and abs(math.log10(exposure[0])) > 0.008:
            seconds, name = exposure
            total = Claim(value + 2.5 * math.log10(seconds), f"{keyword} per second, {name}")
            if re.search(r"(?i)per[ _]?s(ec(ond)?)?\b|/ ?s(ec(ond)?)?\b|\bs(ec)?\^?-1", said):
                claim = total
            elif not re.search(r"(?i)total|per (adu|dn|count|electron|image unit)", said):
                other = total
        readings.append(_Reading(claim, other, ab))
    return readings, refused


def _instrument_readings(
    header: Header,
    unit: ImageUnit,
    exposure: tuple[float, str] | None,
    pixel_scale: float | None,
) -> list[_Reading]:
    """Returns the readings of HST, LSST, HSC, JWST and Pan-STARRS calibrations."""
    readings = []
    flam, plam = header_number(header, "PHOTFLAM"), header_number(header, "PHOTPLAM")
    if flam is not None and plam is not None and flam > 0 and plam > 0:
        rate = -2.5 * math.log10(flam) - 5 * math.log10(plam) - 2.408
        readings += _per_second(rate, "PHOTFLAM, PHOTPLAM", unit, exposure)
    fnu = header_number(header, "PHOTFNU")
    if fnu is not None and fnu > 0:
        readings += _per_second(_ab(fnu), "PHOTFNU", unit, exposure)
    flux = header_number(header, "FLUXMAG0")
    if flux is not None and flux > 0:
        readings.append(_Reading(Claim(2.5 * math.log10(flux), "FLUXMAG0")))
    brightness = header_number(header, "PHOTMJSR")
    area = _keyword_area(header) or _area(pixel_scale)
    if unit.kind == "rate" and brightness is not None and brightness > 0 and area is not None:
        readings.append(_Reading(Claim(_ab(1e6 * brightness * area), "PHOTMJSR and pixel area")))
    reference = header_number(header, "FPA.ZP")
    if reference is not None and "BSOFTEN" in header and exposure is not None:
        total = reference + 2.5 * math.log10(exposure[0])
        readings.append(_Reading(Claim(total, f"FPA.ZP, {exposure[1]}")))
    return [r for r in readings if math.isfinite(r.claim.value)]


def _per_second(
    rate: float, source: str, unit: ImageUnit, exposure: tuple[float, str] | None
) -> list[_Reading]:
    """Converts a calibration of counts per second to the unit of the image."""
    total = None
    if exposure is not None and unit.kind in ("count", "none", "unknown", "other"):
        seconds, name = exposure
        total = Claim(rate + 2.5 * math.log10(seconds), f"{source}, {name}")
    if unit.kind == "count":
        return [] if total is None else [_Reading(total)]
    doubtful = total is not None and abs(total.value - rate) > TOLERANCE
    return [_Reading(Claim(rate, source), total if doubtful else None)]


def _unit_claims(
    header: Header, unit: ImageUnit, pixel_scale: float | None, wcs_scale: float | None
) -> list[Claim]:
    """Returns the claims of the unit, best first; several if pixel areas differ."""
    name = unit.text
    if unit.kind == "flux":
        return [Claim(_ab(unit.size), f"unit {name}")]
    plam = header_number(header, "PHOTPLAM")
    if "wavelength" in unit.kind and (plam is None or plam <= 0):
        return []
    size = unit.size
    if "wavelength" in unit.kind and plam is not None:
        # AB magnitude of 1 erg/s/cm2/Angstrom, as a flux density in Jy.
        size *= AB_FLUX * 10 ** (0.4 * (5 * math.log10(plam) + 2.408))
        name += " and PHOTPLAM"
    if unit.kind == "flux_wavelength":
        return [Claim(_ab(size), f"unit {name}")]
    if unit.kind == "beam":
        beam = _beam_area(header)
        if beam is None:
            return []
        size, name = size / beam, f"{name}, BMAJ, BMIN"
    if not unit.physical:
        return []
    areas = [
        (_area(wcs_scale), "area of the WCS's pixels"),
        (_keyword_area(header), "PIXAR_SR"),
        (_area(pixel_scale), "pixel scale"),
    ]
    return [Claim(_ab(size * area), f"unit {name}, {what}") for area, what in areas if area]


def _exposure(header: Header) -> tuple[tuple[float, str] | None, list[str]]:
    """Returns the exposure time [s] with its keyword, and a remark if keywords disagree."""
    found = []
    for keyword in EXPOSURE_KEYWORDS:
        value = header_number(header, keyword)
        if value is not None and 0 < value < 1e9:
            found.append((value, keyword))
    if not found:
        return None, []
    best = found[0]
    apart = [f"{k} {v:.6g}" for v, k in found if abs(v / best[0] - 1) > 0.02]
    if not apart:
        return best, []
    return best, [f"exposure time conflict: {best[1]} {best[0]:.6g} s, {', '.join(apart)} s"]


def _keyword_area(header: Header) -> float | None:
    """Returns the area of a pixel from PIXAR_SR or PIXAR_A2. [sr]"""
    for keyword, size in (("PIXAR_SR", 1.0), ("PIXAR_A2", 1 / ARCSEC2_PER_STERADIAN)):
        area = header_number(header, keyword)
        if area is not None and 1e-20 < area * size < 1e-6:
            return area * size
    return None


def _area(scale: float | None) -> float | None:
    """Returns the area of a square pixel, given its scale in arcsec. [sr]"""
    return None if scale is None or scale <= 0 else scale**2 / ARCSEC2_PER_STERADIAN


def _beam_area(header: Header) -> float | None:
    """Returns the area of an interferometer's Gaussian beam. [sr]"""
    major, minor = header_number(header, "BMAJ"), header_number(header, "BMIN")
    if major is None or minor is None or major <= 0 or minor <= 0:
        return None
    return math.pi / (4 * math.log(2)) * math.radians(major) * math.radians(minor)


def _ab(flux: float) -> float:
    """Returns the AB magnitude of a flux density in Jy."""
    return -2.5 * math.log10(flux / AB_FLUX) if flux > 0 else math.nan


def _apart(one: Claim, other: Claim) -> bool:
    return abs(one.value - other.value) > TOLERANCE


def _conflict(claim: Claim, taken: Claim) -> str:
    return (
        f"zero point conflict: {claim.source} says {claim.value:.4f}, {taken.source} "
        f"{taken.value:.4f}"
    )


def _refusal(keyword: str, value: float) -> str:
    return f"{keyword} = {value:.6g} refused as a zero point: outside {BRIGHTEST:g} to {FAINTEST:g}"


def _noise_magnitude(zero_point: float | None, noise: float | None) -> float | None:
    """Returns the AB magnitude of the noise per pixel."""
    if zero_point is None or noise is None or noise <= 0:
        return None
    return zero_point - 2.5 * math.log10(noise)


def _credible(zero_point: float, noise: float | None) -> bool:
    """Returns whether a zero point gives the noise a plausible magnitude, as 0 does for maggies."""
    magnitude = _noise_magnitude(zero_point, noise)
    return magnitude is not None and CREDIBLE_NOISE[0] <= magnitude <= CREDIBLE_NOISE[1]


def _says(refusal: str, value: float) -> bool:
    """Returns whether a refused keyword states the given value."""
    found = re.match(r"\S+ = (\S+) refused", refusal)
    return found is not None and abs(float(found[1]) - value) <= TOLERANCE
