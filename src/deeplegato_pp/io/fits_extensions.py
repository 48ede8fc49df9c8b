"""Selection of FITS extensions by the names that archives and pipelines use.

Only headers are used, so that the rules are the same for stamps, which are read completely, and
mosaics, which are not.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from deeplegato_pp.errors import FormatError, RangeError, ShapeError

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

Extension = int | str | tuple[str, int]

SCIENCE_NAMES = ("SCI", "IMAGE")
PSF_NAMES = ("PSFIMAGE", "PSF")
MASK_NAMES = ("MASK", "DQ", "FLG", "FLAGS", "MSK", "MASKBITS")
NOISE_NAMES = {
    "UNCERT": "sigma",
    "ERR": "sigma",
    "ERROR": "sigma",
    "ERRORS": "sigma",
    "SIGMA": "sigma",
    "RMS": "sigma",
    "STD": "sigma",
    "STDDEV": "sigma",
    "STDEV": "sigma",
    "NOISE": "sigma",
    "VARIANCE": "variance",
    "VAR": "variance",
    "IVAR": "ivar",
    "INVVAR": "ivar",
    "INVVARIANCE": "ivar",
    "WHT": "weight",
    "WGT": "weight",
    "WEIGHT": "weight",
    "WEIGHTS": "weight",
}
"""Extensions with noise, in order of preference, and their types unless the file states another."""

UNCERTAINTY_TYPES = {
    "StdDevUncertainty": "sigma",
    "VarianceUncertainty": "variance",
    "InverseVariance": "ivar",
}
"""UTYPE keyword of astropy's CCDData."""


def is_image(hdu: Any) -> bool:
    """Returns whether an extension has pixels, without reading them."""
    return bool(hdu.is_image and hdu.header.get("NAXIS", 0) > 0 and hdu.shape)


def find(
    hdus: HDUList, names: tuple[str, ...], but: int | None = None, version: int | None = None
) -> int | None:
    """Returns the index of the first extension with pixels that has the most preferred name.

    Args:
        hdus: The open file.
        names: Names in order of preference.
        but: Index to exclude.
        version: Required EXTVER; None for any.
    """
    there = [hdu.name for hdu in hdus]  # accessing a name in astropy is slow
    prefix = "" if but is None else _chip(there[but])
    for name in names:
        for index, found in enumerate(there):
            if found != prefix + name or index == but or not is_image(hdus[index]):
                continue
            if version is None or hdus[index].ver == version:
                return index
    return None


def _chip(name: str) -> str:
    """Returns the part before SCI in names such as Euclid's ``3-4.F.SCI``, or an empty string."""
    return name[: -len("SCI")] if name.endswith(".SCI") else ""


def first_image(hdus: HDUList, path: str | os.PathLike[str]) -> int:
    """Returns the index of the first extension with pixels.

    Raises:
        FormatError: If there is none.
    """
    for index, hdu in enumerate(hdus):
        if is_image(hdu):
            return index
    raise FormatError(f"{path}: no image in the file, expected pixels in one of its extensions.")


def science_index(hdus: HDUList, extension: Extension | None, path: str | os.PathLike[str]) -> int:
    """Returns the image's index: the requested extension, else SCI or IMAGE, else the first.

    Raises:
        FormatError: If the file does not have the extension, or has no image.
    """
    if extension is not None:
        return chosen_index(hdus, extension, path)
    index = find(hdus, SCIENCE_NAMES)
    return first_image(hdus, path) if index is None else index


def chosen_index(hdus: HDUList, extension: Extension, path: str | os.PathLike[str]) -> int:
    """Returns the index of the requested extension.

    Raises:
        FormatError: If the file does not have the extension.
    """
    try:
        return int(hdus.index_of(extension)) if hdus[extension] is not None else 0
    except (KeyError, IndexError):
        names = ", ".join(f"{i}:{hdu.name or 'unnamed'}" for i, hdu in enumerate(hdus))
        raise FormatError(
            f"{path}: no extension {extension!r}, the file has {names}. Choose one of them."
        ) from None


def noise_index(hdus: HDUList, image: int) -> int | None:
    """Returns the index of an image's noise map with the image's version, or None.

    Args:
        hdus: The open file.
        image: Index of the image.
    """
    return find(hdus, tuple(NOISE_NAMES), image, hdus[image].ver)


def stated_uncertainty(hdu: Any, path: str | os.PathLike[str]) -> str | None:
    """Returns the type of a noise map stated by its UTYPE, or None.

    Raises:
        FormatError: If the UTYPE of an UNCERT extension is unknown.
    """
    stated = str(hdu.header.get("UTYPE", "")).strip()
    if hdu.name == "UNCERT" and stated and stated not in UNCERTAINTY_TYPES:
        raise FormatError(
            f"{path}: UTYPE of UNCERT must be one of {', '.join(UNCERTAINTY_TYPES)}, "
            f"got {stated!r}. Give the noise separately (noise=, --noise)."
        )
    return UNCERTAINTY_TYPES.get(stated)


def mask_index(hdus: HDUList, image: int) -> int | None:
    """Returns the index of an image's mask with the image's version, or None.

    Args:
        hdus: The open file.
        image: Index of the image.
    """
    return find(hdus, MASK_NAMES, image, hdus[image].ver)


def plane_index(shape: tuple[int, ...], plane: int | None, what: str) -> tuple[int, ...]:
    """Returns the index of the image in an array, without axes of length 1.

    Args:
        shape: Shape of the array.
        plane: Plane of a cube, counted from 0; None if there is only one.
        what: Description of the array, for messages.

    Returns:
        One integer for each axis before rows and columns.

    Raises:
        ShapeError: If there are several planes and none was selected.
        RangeError: If the plane does not exist.

    Example:
        >>> plane_index((1, 1, 64, 64), None, "the image"), plane_index((3, 64, 64), 2, "the image")
        ((0, 0), (2,))
    """
    front = shape[:-2]
    long = [n for n in front if n != 1]
    if not long:
        return (0,) * len(front)
    height, width = shape[-2:]
    if plane is None or len(long) > 1:
        planes = " x ".join(str(n) for n in long)
        remedy = (
            f"Choose one with plane=N (--plane N), from 0 to {long[0] - 1}."
            if len(long) == 1
            else "Write the one plane that is meant into a file of its own."
        )
        raise ShapeError(
            f"{what} must be 2-D (rows, columns), got a cube of {planes} planes of "
            f"{height} x {width} px. {remedy}"
        )
    if not 0 <= plane < long[0]:
        raise RangeError(
            f"{what} has planes 0 to {long[0] - 1}, got plane {plane}. Planes count from 0."
        )
    return tuple(plane if n != 1 else 0 for n in front)
