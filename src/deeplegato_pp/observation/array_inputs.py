"""Conversion of astropy's Quantity, NDData and CCDData to arrays with unit, mask and noise."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deeplegato_pp.errors import InputError
from deeplegato_pp.io.fits_extensions import UNCERTAINTY_TYPES
from deeplegato_pp.io.header_keywords import Cards


@dataclass(frozen=True, eq=False)
class Unpacked:
    """Contents of an array-like object.

    Attributes:
        values: The array, unchanged.
        unit: Unit, or empty.
        mask: True for pixels to ignore, or None.
        uncertainty: Uncertainty as another such object, or None.
        uncertainty_type: See ``noise_maps.NOISE_TYPES``; None without uncertainty.
        wcs: Celestial WCS, or None.
        psf: Image of the PSF, or None.
        header: Metadata, with BUNIT set to the unit.
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
        given: Image or noise map.
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
    """Raises an error if the object is not an ``NDData``.

    Raises:
        InputError: If it is another type.
    """
    if getattr(given, "data", None) is None or not hasattr(given, "uncertainty"):
        raise InputError(
            f"expected an astropy NDData or CCDData, got {type(given).__name__}. Give arrays to "
            "Observation.from_array."
        )


def unpack_uncertainty(noise: Any) -> Unpacked:
    """Returns the values and the unit of an ``NDUncertainty``.

    Raises:
        InputError: If its kind has no known meaning.
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
    """Returns the noise type of an ``NDUncertainty``, or None for anything else."""
    return (
        UNCERTAINTY_TYPES.get(type(given).__name__) if hasattr(given, "uncertainty_type") else None
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
