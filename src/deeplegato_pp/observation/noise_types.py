"""Type and unit of noise maps, reconciled from the statements in a file."""

import re
from dataclasses import dataclass

from deeplegato_pp.flags import Flag
from deeplegato_pp.io.fits_extensions import NOISE_NAMES
from deeplegato_pp.io.flux_units import as_astropy_unit
from deeplegato_pp.io.header_keywords import Header, header_text

POWERS = {"sigma": 1, "variance": 2, "ivar": -2}
"""Power of the image's unit for each noise type."""


@dataclass(frozen=True)
class NoiseStatement:
    """Type and unit of a noise map, as stated by its file.

    Attributes:
        kind: One of ``noise_maps.NOISE_TYPES``, or None if unknown.
        source: Source of the statement, or empty.
        factor: Factor that converts the map to the image's unit.
        flags: Sum of ``Flag`` bits.
        notes: Conversions and disagreements.
    """

    kind: str | None = None
    source: str = ""
    factor: float = 1.0
    flags: int = 0
    notes: tuple[str, ...] = ()


def noise_statement(
    header: Header,
    name: str,
    stated: str | None = None,
    given: str | None = None,
    image_unit: str = "",
    file: str = "",
) -> NoiseStatement:
    """Returns the type of a noise map and the factor to the image's unit.

    Sources in order of priority: the user; UTYPE; the name of the extension; IMTYPE; the power of
    the image's unit in BUNIT; a word in the file's name.

    Args:
        header: Header of the noise map.
        name: Name of its extension.
        stated: Type from its UTYPE, or None.
        given: Type given by the user, or None.
        image_unit: BUNIT of the image.
        file: Name of the file, if the map is in a separate file.
    """
    unit = header_text(header, "BUNIT")
    own_unit = "" if unit == image_unit else unit
    by_unit = _by_unit(own_unit, image_unit)
    claims = [
        (given, "as given"),
        (stated, "UTYPE"),
        (NOISE_NAMES.get(name.upper()) if name.upper() != "UNCERT" else None, name.upper()),
        (NOISE_NAMES.get(_last(name)), name.upper()),
        (NOISE_NAMES.get(header_text(header, "IMTYPE").upper()), "IMTYPE"),
        (by_unit, f"unit {unit}"),
        (_by_file_name(file), "the file's name"),
    ]
    found = [(kind, source) for kind, source in claims if kind is not None]
    if not found:
        return _in_unit(NoiseStatement(), own_unit, image_unit)
    kind, source = found[0]
    others = [f"{where} says {k}" for k, where in found[1:] if not _agree(k, kind)]
    flags, notes = 0, []
    if others and given is None:
        flags = Flag.NOISE_CONFLICT
    if others:
        notes.append(f"noise type conflict: {source} says {kind}, {', '.join(others)}")
    return _in_unit(
        NoiseStatement(kind, source, 1.0, int(flags), tuple(notes)), own_unit, image_unit
    )


def _in_unit(statement: NoiseStatement, unit: str, image_unit: str) -> NoiseStatement:
    """Adds the factor that converts the map to the image's unit."""
    power = POWERS.get(statement.kind or "sigma")
    here, there = as_astropy_unit(unit), as_astropy_unit(image_unit)
    if power is None or here is None or there is None:
        return statement
    kind, source, flags, notes = (
        statement.kind, statement.source, statement.flags, statement.notes
    )  # fmt: skip
    factor = _factor(here, there, power)
    if factor is None:
        # A unit of another kind may have been copied and says nothing about the type.
        if _by_unit(unit, image_unit) is None:
            flags |= int(Flag.NOISE_CONFLICT)
            notes = (*notes, f"noise in {unit}, image in {image_unit}: no conversion, used as is")
        return NoiseStatement(kind, source, 1.0, flags, notes)
    if abs(factor - 1) > 1e-9:
        notes = (*notes, f"noise converted from {unit} to {image_unit}: times {factor:.6g}")
    return NoiseStatement(kind, source, factor, flags, notes)


def _factor(here: object, there: object, power: int) -> float | None:
    from astropy import units as u

    try:
        return float(f"{here.to(there**power):.12g}")  # type: ignore[attr-defined, operator]
    except u.UnitConversionError:
        return None


def _by_unit(unit: str, image_unit: str) -> str | None:
    """Returns the type from the power of the image's unit in the map's unit."""
    here, there = as_astropy_unit(unit), as_astropy_unit(image_unit)
    if here is None or there is None:
        return None
    return next((k for k, power in POWERS.items() if _factor(here, there, power) is not None), None)


def _by_file_name(file: str) -> str | None:
    words = re.split(r"[^A-Za-z]+", file.rsplit("/", 1)[-1].upper())
    known = [NOISE_NAMES[word] for word in words if word in NOISE_NAMES and word != "NOISE"]
    return known[-1] if known else None


def _last(name: str) -> str:
    """Returns the last part of a name such as ``3-4.F.RMS``; empty for a plain name."""
    return name.upper().rsplit(".", 1)[1] if "." in name else ""


def _agree(one: str, other: str) -> bool:
    return one == other or {one, other} == {"ivar", "weight"}
