"""Arrays that bring more than their numbers: astropy's Quantity and NDData, taken apart."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deeplegato_pp.errors import InputError
from deeplegato_pp.io.fits_extensions import UNCERTAINTY_TYPES
from deeplegato_pp.io.header_keywords import Cards


@dataclass(frozen=True, eq=False)
class Unpacked:
    """What an array-like object holds.

    Attributes:
        values: Its numbers, as they are.
        unit: Its unit, or empty.
        mask: True = ignore, or None.
        uncertainty: Another such object, or None.
        uncertainty_type: See ``noise_maps.NOISE_TYPES``; None: there is none.
        wcs: Celestial WCS, or None.
        psf: Image of the PSF, or None.
        header: Its metadata, with BUNIT as its unit.
    """

    values: Any
    unit: str = ""
    mask: Any = None
    uncertainty: Any = None
    uncertainty_type: str | None = None
    wcs: Any = None
    psf: Any = None
    header: Cards = field(default_factory=Cards)


def unpack(given: Any) -> Unpacked:
    """Returns the parts of a Quantity, an NDData or CCDData, or a plain array.

    Args:
        given: Whatever stands for an image or a noise map.
    """
    if given is None:
        return Unpacked(None)
    unit = getattr(given, "unit", None)
    text = "" if unit is None else str(unit)
    if hasattr(given, "uncertainty"):
        header = Cards({str(k): v for k, v in dict(given.meta or {}).items()})
        if text:
            header["BUNIT"] = text
        noise = given.uncertainty
        kind = None if noise is None else UNCERTAINTY_TYPES.get(type(noise).__name__)
        return Unpacked(
            np.asarray(given.data),
            text or _text(header.get("BUNIT")),
            None if given.mask is None else np.asarray(given.mask),
            None if noise is None else unpack_uncertainty(noise),
            kind,
            given.wcs if getattr(given.wcs, "has_celestial", False) else None,
            getattr(given, "psf", None),
            header,
        )
    if text and hasattr(given, "value"):
        return Unpacked(given.value, text, header=Cards({"BUNIT": text}))
    return Unpacked(given)


def check_nddata(given: Any) -> None:
    """Refuses what is no ``NDData``.

    Raises:
        InputError: If it is none.
    """
    if getattr(given, "data", None) is None or not hasattr(given, "uncertainty"):
        raise InputError(
            f"expected an astropy NDData or CCDData, got {type(given).__name__}. Give arrays to "
            "Observation.from_array."
        )


def unpack_uncertainty(noise: Any) -> Unpacked:
    """Returns the numbers and the unit of an ``NDUncertainty``.

    Raises:
        InputError: If it is of a kind without a known meaning.
    """
    kind = type(noise).__name__
    if kind not in UNCERTAINTY_TYPES:
        raise InputError(
            f"the uncertainty of the NDData must be one of {', '.join(UNCERTAINTY_TYPES)}, got "
            f"{kind}. Convert it, or give noise= and noise_type=."
        )
    unit = noise.unit
    return Unpacked(np.asarray(noise.array), "" if unit is None else str(unit))


def uncertainty_type(given: Any) -> str | None:
    """Returns what an ``NDUncertainty`` holds, or None for anything else."""
    return (
        UNCERTAINTY_TYPES.get(type(given).__name__) if hasattr(given, "uncertainty_type") else None
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
