"""Units of pixels: BUNIT in its various spellings, parsed by ``astropy.units``."""

import re
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

WORDS = {
    "electron": "electrons electron elec els e photoelectron photoelectrons",
    "ct": "counts count cts ct c",
    "adu": "adu adus dn dns du",
    "ph": "photons photon phot ph",
    "cps": "cps",
    "s": "seconds second secs sec s",
    "pix": "pixels pixel pix px",
    "Jy": "janskys janskies jansky jy",
    "nJy": "njy",
    "uJy": "ujy",
    "abmaggy": "maggies maggy mgy",
    "nanoabmaggy": "nanomaggies nanomaggy nmgy nmaggy nmaggies",
    "erg": "ergs erg",
    "W": "watts watt w",
    "Hz": "hertz hz",
    "Angstrom": "angstroms angstrom angstroem ang aa a",
    "um": "microns micron micrometer micrometers um",
    "nm": "nanometers nanometer nm",
    "cm": "cm",
    "m": "m meter meters",
    "arcsec": "arcseconds arcsecond arcsecs arcsec asec",
    "sr": "steradians steradian ster sr",
    "beam": "beams beam bm",
}
"""Units of astropy and their spellings in headers, in lower case."""

UNIT_OF_WORD = {word: unit for unit, words in WORDS.items() for word in words.split()}

PREFIXES = {"nano": "n", "micro": "u", "milli": "m", "mega": "M"}

COUNTED = ("electron", "ct", "adu", "ph")
"""Units of counts, by astropy's names."""


@dataclass(frozen=True)
class ImageUnit:
    """Unit of the pixels.

    Attributes:
        kind: ``flux`` (per frequency) or ``flux_wavelength``; ``surface`` or
            ``surface_wavelength``, the same per steradian; ``beam``; ``rate`` (counts per second)
            or ``count``; ``magnitude`` (the pixels are logarithmic); ``other`` (another unit);
            ``unknown`` (not parsed); ``none`` (not stated).
        size: One unit in Jy, erg/s/cm2/Angstrom, the same per steradian, or Jy per beam; else 1.
        text: Text in the header.
    """

    kind: str
    size: float = 1.0
    text: str = ""

    @property
    def physical(self) -> bool:
        """Whether the zero point follows from the unit, with pixel area or wavelength."""
        return self.kind in ("flux", "flux_wavelength", "surface", "surface_wavelength", "beam")


def read_unit(text: Any) -> ImageUnit:
    """Parses the unit of an image.

    Args:
        text: Value of BUNIT.

    Example:
        >>> read_unit("10.0*nanoJansky")
        ImageUnit(kind='flux', size=1e-08, text='10.0*nanoJansky')
        >>> read_unit("electrons per second").kind, read_unit("cps").kind, read_unit("DN").kind
        ('rate', 'rate', 'count')
        >>> read_unit("MJy/sr").kind, read_unit("erg/s/cm2/A").kind, read_unit("mag").kind
        ('surface', 'flux_wavelength', 'magnitude')
    """
    text = text.strip() if isinstance(text, str) else ""
    return _read(text) if text else ImageUnit("none")


@cache
def _read(text: str) -> ImageUnit:
    if re.search(r"(?i)\b(mags?|abmag|vegamag|dex|luptitudes?|asinh|log(10)?|ln)\b", text):
        return ImageUnit("magnitude", text=text)
    unit = as_astropy_unit(text)
    if unit is None:
        return ImageUnit("unknown", text=text)
    kind, size = _classify(unit)
    return ImageUnit(kind, float(f"{size:.12g}"), text)


@cache
def as_astropy_unit(text: str) -> Any:
    """Returns the unit of a header's text without "per pixel"; None if it cannot be parsed."""
    from astropy import units as u

    factor, spelt = _canonical(text)
    if not re.search("[A-Za-z]", spelt):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several slashes are unambiguous here
            with u.add_enabled_units(_own_units()):
                unit = u.Unit(factor * u.Unit(spelt, format="generic"))
            plain = unit.decompose()
            powers = dict(zip(plain.bases, plain.powers, strict=True))
            return unit / u.pix ** powers[u.pix] if u.pix in powers else unit
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        return None


@cache
def _own_units() -> list[Any]:
    """Returns units that headers spell differently from astropy."""
    from astropy import units as u

    return [
        u.def_unit("cps", u.ct / u.s),
        u.def_unit("abmaggy", 3631 * u.Jy),
        u.def_unit("nanoabmaggy", 3631e-9 * u.Jy),
    ]


def conversion(given: str, wanted: str) -> float | None:
    """Returns the factor from one unit to another, or None if they cannot be parsed or converted.

    Example:
        >>> conversion("mJy", "uJy")
        1000.0
    """
    from astropy import units as u

    here, there = as_astropy_unit(given), as_astropy_unit(wanted)
    if here is None or there is None:
        return None
    try:
        return float(f"{here.to(there):.12g}")
    except u.UnitConversionError:
        return None


def _canonical(text: str) -> tuple[float, str]:
    """Returns the numeric factor, and the rest in astropy's spelling."""
    factor = 1.0
    spelt = text.strip().strip("[]'\"").translate({0xB5: "u", 0x3BC: "u", 0xC5: "AA"})
    power = re.match(r"10\s*(?:\*\*|\^)?\s*\(?([+-]\d+|(?<=[*^(])\d+)\)?\s*[*x. ]?\s*", spelt)
    number = re.match(
        r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*[*x ]?\s*(?=[A-Za-z(])", spelt
    )
    if power and abs(int(power[1])) < 300:
        factor, spelt = 10.0 ** int(power[1]), spelt[power.end() :]
    elif number:
        factor, spelt = float(number[1]), spelt[number.end() :]
    spelt = re.sub(r"(?i)\bper\b", "/", spelt)
    spelt = re.sub(
        r"(?i)\b(nano|micro|milli|mega)[ -]?(?:jy|jansky|janskys|janskies)\b",
        lambda m: PREFIXES[m[1].lower()] + "Jy",
        spelt,
    )
    spelt = re.sub(r"(?i)(?<![a-z\d.])e-(?!\d)", "electron ", spelt)
    spelt = re.sub(r"(?i)\bsq(?:uare|\.)?[ _]*(arcsec\w*)", r"\1^2", spelt)
    per_angle = re.search(r"(?i)sr|ster|arcsec", spelt) is not None

    def word(match: re.Match[str]) -> str:
        found = match[0]
        if found.lower() == "mjy":  # mega or milli: decided by its case, else by the divisor
            mega = found.startswith("MJ") and (found == "MJy" or per_angle)
            return "MJy" if mega else "mJy" if found.startswith("m") else "undecided"
        return UNIT_OF_WORD.get(found.lower(), found)

    spelt = re.sub(r"[A-Za-z]+", word, spelt)
    spelt = re.sub(r"\s*([/*.])\s*", r"\1", spelt.replace("_", " ")).strip()
    return factor, spelt


def _classify(unit: Any) -> tuple[str, float]:
    from astropy import units as u

    for kind, wanted in (
        ("flux", u.Jy),
        ("flux_wavelength", u.erg / u.s / u.cm**2 / u.AA),
        ("surface", u.Jy / u.sr),
        ("surface_wavelength", u.erg / u.s / u.cm**2 / u.AA / u.sr),
        ("beam", u.Jy / u.beam),
    ):
        if unit.is_equivalent(wanted):
            return kind, float(unit.to(wanted))
    plain = unit.decompose()
    powers = {str(base): float(p) for base, p in zip(plain.bases, plain.powers, strict=True)}
    counted = sum(powers.pop(name, 0.0) for name in COUNTED)
    if counted == 1.0 and abs(plain.scale - 1.0) < 1e-9:
        if not powers:
            return "count", 1.0
        if powers == {"s": -1.0}:
            return "rate", 1.0
    return "other", 1.0
