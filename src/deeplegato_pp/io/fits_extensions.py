"""Which extension of a FITS file holds what: by the names that archives and pipelines give them.

Only headers are looked at, so that the rules are the same for a stamp that is read whole and for a
mosaic that stays on disk.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from deeplegato_pp.errors import FormatError

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

Extension = int | str | tuple[str, int]

SCIENCE_NAMES = ("SCI", "IMAGE")
PSF_NAMES = ("PSFIMAGE", "PSF")
MASK_NAMES = ("MASK", "DQ")
NOISE_NAMES = {
    "UNCERT": "sigma",
    "ERR": "sigma",
    "ERROR": "sigma",
    "SIGMA": "sigma",
    "VARIANCE": "variance",
    "IVAR": "ivar",
    "INVVAR": "ivar",
    "WHT": "weight",
    "WEIGHT": "weight",
}
"""Extensions that hold noise, best first, and what they hold unless their UTYPE says otherwise."""

UNCERTAINTY_TYPES = {
    "StdDevUncertainty": "sigma",
    "VarianceUncertainty": "variance",
    "InverseVariance": "ivar",
}
"""The UTYPE header of astropy's CCDData."""


def is_image(hdu: Any) -> bool:
    """Returns whether an extension holds pixels, without reading them."""
    return bool(hdu.is_image and hdu.header.get("NAXIS", 0) > 0 and hdu.shape)


def find(
    hdus: HDUList, names: tuple[str, ...], but: int | None = None, version: int | None = None
) -> int | None:
    """Returns the place of the first extension with pixels of the first name that is there.

    Args:
        hdus: The open file.
        names: In the order of preference.
        but: A place that is not meant.
        version: EXTVER that it must have; None for any.
    """
    for name in names:
        for index, hdu in enumerate(hdus):
            right = version is None or hdu.ver == version
            if hdu.name == name and index != but and right and is_image(hdu):
                return index
    return None


def first_image(hdus: HDUList, path: str | os.PathLike[str]) -> int:
    """Returns the place of the first extension with pixels.

    Raises:
        FormatError: If there is none.
    """
    for index, hdu in enumerate(hdus):
        if is_image(hdu):
            return index
    raise FormatError(f"{path}: no image in the file, expected pixels in one of its extensions.")


def science_index(hdus: HDUList, extension: Extension | None, path: str | os.PathLike[str]) -> int:
    """Returns the place of the image: the extension asked for, else SCI or IMAGE, else the first.

    Raises:
        FormatError: If the file has no such extension, or no image.
    """
    if extension is not None:
        return chosen_index(hdus, extension, path)
    index = find(hdus, SCIENCE_NAMES)
    return first_image(hdus, path) if index is None else index


def chosen_index(hdus: HDUList, extension: Extension, path: str | os.PathLike[str]) -> int:
    """Returns the place of the extension that was asked for.

    Raises:
        FormatError: If the file has no such extension.
    """
    try:
        return int(hdus.index_of(extension)) if hdus[extension] is not None else 0
    except (KeyError, IndexError):
        names = ", ".join(f"{i}:{hdu.name or 'unnamed'}" for i, hdu in enumerate(hdus))
        raise FormatError(
            f"{path}: no extension {extension!r}, the file has {names}. Choose one of them."
        ) from None


def noise_index(
    hdus: HDUList, image: int, path: str | os.PathLike[str]
) -> tuple[int | None, str | None]:
    """Returns the place of an image's noise map, and what it holds (None where UNCERT is silent).

    Args:
        hdus: The open file.
        image: Place of the image; its companions have its version.
        path: For messages.

    Raises:
        FormatError: If UNCERT states a type that there is not.
    """
    index = find(hdus, tuple(NOISE_NAMES), image, hdus[image].ver)
    if index is None:
        return None, None
    hdu = hdus[index]
    if hdu.name != "UNCERT":
        return index, NOISE_NAMES[hdu.name]
    stated = str(hdu.header.get("UTYPE", "")).strip()
    if stated and stated not in UNCERTAINTY_TYPES:
        raise FormatError(
            f"{path}: UTYPE of UNCERT must be one of {', '.join(UNCERTAINTY_TYPES)}, "
            f"got {stated!r}. Give the noise separately (noise=, --noise)."
        )
    return index, UNCERTAINTY_TYPES.get(stated)


def mask_index(hdus: HDUList, image: int, header: dict[str, Any]) -> tuple[int | None, int | None]:
    """Returns the place of an image's mask, and which of its bits mean *ignore* (None: all).

    Args:
        hdus: The open file.
        image: Place of the image; its companions have its version.
        header: Of the image.
    """
    index = find(hdus, MASK_NAMES, image, hdus[image].ver)
    if index is None or hdus[index].name != "DQ":
        return index, None
    # JWST's DQ also marks harmless history (corrected jumps); bit 1 is the verdict.
    return index, 1 if str(header.get("TELESCOP", "")).strip() == "JWST" else None
