"""Reading of FITS images with their companions: the only place where images are opened.

Files are read completely and closed; arrays are native float64 copies. ``astropy`` is imported when
the first file is read.
"""

import bz2
import gzip
import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import as_real_array, check_not_empty, check_two_dimensional
from deeplegato_pp.errors import FormatError, InputError
from deeplegato_pp.io.fits_extensions import (
    PSF_NAMES,
    Extension,
    find,
    first_image,
    is_image,
    mask_index,
    noise_index,
    plane_index,
    science_index,
    stated_uncertainty,
)
from deeplegato_pp.io.header_keywords import Cards
from deeplegato_pp.io.linear_pixels import asinh_scaling, check_linear, linear
from deeplegato_pp.io.wcs_header import SkyCoordinates, read_sky

if TYPE_CHECKING:
    from astropy.io.fits import HDUList, Header


LARGEST_UNPACKED = 2**30
"""Maximum size of the content of a compressed file. [bytes]"""

LARGEST_IMAGE = 2**28
"""Maximum number of pixels of one extension: 16,384 on a side."""

WEIGHTS = ("WHT", "WEIGHT")
"""Noise maps in which zero means missing data."""


@dataclass(frozen=True, eq=False)
class Companion:
    """Noise map, mask or PSF, with its metadata.

    Attributes:
        pixels: Pixels with shape (H, W): float64, or integers as stored.
        header: Header cards.
        name: Name of its extension.
        statement: Type of a noise map by UTYPE, or None.
        file: Its file, if it is not the image's.
    """

    pixels: Array
    header: Cards
    name: str = ""
    statement: str | None = None
    file: str = ""


@dataclass(frozen=True, eq=False)
class FitsImage:
    """Image of a file with its companions.

    Attributes:
        image: Linear image, with shape (H, W).
        header: Keywords of the image's extension, and of the primary header where not repeated.
        noise: Noise map as stored, or None.
        mask: Mask or data quality as stored, or None.
        no_data: Pixels where a weight map in addition to another noise map is zero, or None.
        psf: Image of the PSF, or None.
        sky: Celestial WCS.
        notes: Remarks for the result.
    """

    image: Array
    header: Cards
    noise: Companion | None = None
    mask: Companion | None = None
    no_data: Array | None = None
    psf: Companion | None = None
    sky: SkyCoordinates = field(default_factory=SkyCoordinates)
    notes: list[str] = field(default_factory=list)


def read_image(
    path: str | os.PathLike[str],
    extension: Extension | None = None,
    plane: int | None = None,
) -> FitsImage:
    """Reads an image with the noise, mask, PSF and WCS in its file.

    Args:
        path: FITS file, plain or compressed (.gz, .bz2, .fz).
        extension: Index, name or (name, version) of the image. The default is SCI or IMAGE, else
            the first extension with pixels. Companions (ERR, DQ, ...) have the version of the
            image.
        plane: Plane of a cube, counted from 0.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or has no image.
        ShapeError: If the image is a cube and no plane is given.
    """
    with opened(path) as hdus:
        index = science_index(hdus, extension, path)
        header = cards_of(hdus, index)
        check_linear(header, f"the image in {path}")
        scaling = asinh_scaling(header)
        image = linear(_pixels(hdus[index], "the image", path, plane), scaling)
        noise = noise_index(hdus, index)
        weights_are_noise = noise is not None and hdus[noise].name in WEIGHTS
        weight = None if weights_are_noise else find(hdus, ("WHT",), index, hdus[index].ver)
        mask = mask_index(hdus, index)
        psf = find(hdus, PSF_NAMES, index)
        sky = read_sky(hdus[index].header, hdus)
        notes = ["asinh magnitudes (BSOFTEN, BOFFSET) made linear"] if scaling else []
        return FitsImage(
            image=image,
            header=header,
            noise=None if noise is None else _companion(hdus, noise, "the noise", path, plane),
            mask=None if mask is None else _companion(hdus, mask, "the mask", path, plane),
            no_data=(
                None
                if weight is None
                else _pixels(hdus[weight], "the weight map", path, plane) <= 0
            ),
            psf=None if psf is None else _companion(hdus, psf, "the PSF", path),
            sky=sky,
            notes=notes,
        )


def read_companion(
    path: str | os.PathLike[str], names: tuple[str, ...], what: str, plane: int | None = None
) -> Companion:
    """Reads one companion (noise, mask) from its own file.

    Args:
        path: FITS file.
        names: Names of preferred extensions, in this order; else the first one with pixels.
        what: Its name in messages.
        plane: Plane of a cube, counted from 0.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or has no image.
        ShapeError: If the image is a cube and no plane is given.
    """
    with opened(path) as hdus:
        index = find(hdus, names)
        index = first_image(hdus, path) if index is None else index
        return replace(_companion(hdus, index, what, path, plane), file=str(path))


def read_array(path: str | os.PathLike[str], names: tuple[str, ...], what: str) -> Array:
    """Reads the pixels of :func:`read_companion`."""
    return read_companion(path, names, what).pixels


def cards_of(hdus: "HDUList", index: int) -> Cards:
    """Returns the cards of an extension and of the primary header; undefined values are None."""
    primary, own = hdus[0].header, hdus[index].header
    return _cards({**dict(primary), **dict(own)}, own, primary)


def own_cards(hdu: Any) -> Cards:
    """Returns the cards of one extension only."""
    return _cards(dict(hdu.header), hdu.header)


def _cards(values: dict[str, Any], *headers: "Header") -> Cards:
    from astropy.io.fits.card import Undefined

    plain = {k: None if isinstance(v, Undefined) else v for k, v in values.items()}
    return Cards(plain, *(header.comments for header in headers))


def _companion(
    hdus: "HDUList", index: int, what: str, path: str | os.PathLike[str], plane: int | None = None
) -> Companion:
    hdu = hdus[index]
    own = own_cards(hdu)
    whole = what == "the mask"
    pixels = linear(_pixels(hdu, what, path, plane, whole), asinh_scaling(own))
    statement = stated_uncertainty(hdu, path) if what == "the noise" else None
    return Companion(pixels, own, hdu.name, statement)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator["HDUList"]:
    """Opens a file and reads its headers; errors are converted to ``FormatError`` in one line."""
    check_is_file(path)
    from astropy.io import fits

    with as_format_error(path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fits.open(_content(path), memmap=False, lazy_load_hdus=False) as hdus:
            for hdu in hdus:
                _check_size(hdu, path)
                # Headers are read now, so that damage is found here.
                _ = hdu.data if hdu.is_image else None
            refuse_damage([str(item.message) for item in caught], path)
            yield hdus


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Raises an error for a path that is not a file, with a hint for brackets in its name.

    Raises:
        FormatError: If there is no such file.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a file is named by a path, got {path!r}, a {type(path).__name__}.")
    if os.path.isfile(path):  # isfile returns False for invalid names
        return
    asked = re.fullmatch(r"(.+)\[([^\[\]]+)\]", str(path))
    if asked is not None and os.path.isfile(asked[1]):
        raise FormatError(
            f"{path}: no such file. Extensions are not written behind the name: give {asked[1]} "
            f"and extension={asked[2]!r} (--extension {asked[2]})."
        )
    raise FormatError(f"{path}: no such file, expected a FITS image. Check the path.")


def _check_size(hdu: Any, path: str | os.PathLike[str]) -> None:
    """Raises an error for an image whose header states an excessive size."""
    pixels = math.prod(int(n) for n in hdu.shape) if hdu.is_image else 0
    if pixels > LARGEST_IMAGE:
        raise FormatError(
            f"{path}: extension {hdu.name or 'unnamed'} has {pixels} pixels, expected at most "
            f"{LARGEST_IMAGE} of a file that is read whole. Cut the galaxy out, or use deeplegato "
            "catalog."
        )


@contextmanager
def as_format_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Converts errors of astropy for unreadable files to ``FormatError``."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # astropy raises many types, including VerifyError and cfitsio's
        reason = _first_sentence(error) or type(error).__name__
        raise FormatError(
            f"{path}: cannot be read as FITS ({reason}). Is it a FITS image, and complete?"
        ) from error


def _content(path: str | os.PathLike[str]) -> Any:
    """Returns the path, or the uncompressed content: astropy accepts a truncated .gz file."""
    with open(path, "rb") as file:
        magic = file.read(3)
    if magic[:2] == b"\x1f\x8b":
        return _unpacked(gzip.open(path), path)
    if magic == b"BZh":
        return _unpacked(bz2.open(path), path)
    return path


def _unpacked(file: Any, path: str | os.PathLike[str]) -> io.BytesIO:
    """Returns the uncompressed content, if its size is plausible."""
    with file:
        content = file.read(LARGEST_UNPACKED + 1)
    if len(content) > LARGEST_UNPACKED:
        raise FormatError(
            f"{path}: unpacks to more than {LARGEST_UNPACKED} bytes, the most that is read whole. "
            "Unpack it, or cut the galaxy out."
        )
    return io.BytesIO(content)


def _first_sentence(message: object) -> str:
    """Returns the message of another library shortened to one line."""
    return " ".join(str(message).split()).split(". ")[0][:120].rstrip(".")


def refuse_damage(messages: list[str], path: str | os.PathLike[str]) -> None:
    """Raises ``FormatError`` if astropy only warned about damage that makes a file unusable.

    Args:
        messages: Astropy's warnings.
        path: The file.
    """
    for message in messages:
        sizes = re.search(r"actual file length \((\d+)\).*expected size \((\d+)\)", message)
        # Up to one block may be missing: some writers omit the final padding.
        short = sizes is not None and int(sizes[2]) - int(sizes[1]) >= 2880
        if short or re.search(r"END card|validating header", message):
            raise FormatError(
                f"{path}: the file is damaged or incomplete ({_first_sentence(message)}). "
                "Fetch or write it again."
            )


def _pixels(
    hdu: Any,
    what: str,
    path: str | os.PathLike[str],
    plane: int | None = None,
    whole: bool = False,
) -> Array:
    """Returns a native copy of an extension's pixels: float64, or integers where allowed."""
    if not is_image(hdu):
        raise FormatError(f"{path}: {what} (extension {hdu.name or 'unnamed'}) has no pixels.")
    label = f"{what} in {path}"
    stored = hdu.data
    if whole and stored.dtype.kind in "iu":
        array = np.array(stored, dtype=stored.dtype.newbyteorder("="))
    else:
        array = as_real_array(stored, label)
    array = array[plane_index(array.shape, plane, label)]
    check_two_dimensional(array, label)
    check_not_empty(array, label)
    return array
