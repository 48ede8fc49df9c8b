"""Reading FITS images: layouts, companions, damage. The only place where images are opened.

Every file is read whole and closed again; arrays come back as native float64 copies. ``astropy``
is imported when the first file is read.
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
"""Most that a compressed file may unpack to. [bytes]"""

LARGEST_IMAGE = 2**28
"""Most pixels that one extension may have: 16,384 to a side."""

WEIGHTS = ("WHT", "WEIGHT")
"""Noise maps whose zeros mean that there are no data."""


@dataclass(frozen=True, eq=False)
class Companion:
    """A noise map, mask or PSF, with what its file says of it.

    Attributes:
        pixels: With shape (H, W): float64, or whole numbers as they are stored.
        header: Its cards.
        name: Of its extension.
        statement: Of a noise map: its type by UTYPE, or None.
        file: The file it was read from, if that is one of its own.
    """

    pixels: Array
    header: Cards
    name: str = ""
    statement: str | None = None
    file: str = ""


@dataclass(frozen=True, eq=False)
class FitsImage:
    """What one file holds: the image and whatever came with it.

    Attributes:
        image: Image, with shape (H, W), linear.
        header: Keywords of the image's extension, and the primary's below them.
        noise: Noise map as the file has it, or None.
        mask: Mask or data quality as the file has it, or None.
        no_data: Where a weight map beside another noise map is zero, or None.
        psf: Image of the PSF, or None.
        sky: The celestial WCS.
        notes: Remarks for the reader of the result.
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
    """Reads an image and the noise, mask, PSF and WCS that its file holds.

    Args:
        path: FITS file, plain or compressed (.gz, .bz2, .fz).
        extension: Index, name or (name, version) of the image. By default SCI or IMAGE where there
            is one, else the first extension with pixels. Companions (ERR, DQ, ...) are taken with
            the version of the image.
        plane: Of a cube, counted from 0.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or without image.
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
    """Reads one companion (noise, mask) from a file of its own.

    Args:
        path: FITS file.
        names: Extensions to prefer, in this order; else the first one with pixels.
        what: Its name in messages.
        plane: Of a cube, counted from 0.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or without image.
        ShapeError: If it is a cube and no plane is given.
    """
    with opened(path) as hdus:
        index = find(hdus, names)
        index = first_image(hdus, path) if index is None else index
        return replace(_companion(hdus, index, what, path, plane), file=str(path))


def read_array(path: str | os.PathLike[str], names: tuple[str, ...], what: str) -> Array:
    """Reads the pixels of :func:`read_companion`."""
    return read_companion(path, names, what).pixels


def cards_of(hdus: "HDUList", index: int) -> Cards:
    """Returns the cards of an extension, the primary's below them; undefined values are None."""
    primary, own = hdus[0].header, hdus[index].header
    return _cards({**dict(primary), **dict(own)}, own, primary)


def own_cards(hdu: Any) -> Cards:
    """Returns the cards of one extension alone."""
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
    """Opens a file eagerly; whatever is wrong with it becomes one line of ``FormatError``."""
    check_is_file(path)
    from astropy.io import fits

    with as_format_error(path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fits.open(_content(path), memmap=False, lazy_load_hdus=False) as hdus:
            for hdu in hdus:
                _check_size(hdu, path)
                # Read now, so that damage shows here.
                _ = hdu.data if hdu.is_image else None
            refuse_damage([str(item.message) for item in caught], path)
            yield hdus


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Refuses a path that is no file, and explains a file name with an extension in brackets.

    Raises:
        FormatError: If there is no such file.
    """
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a file is named by a path, got {path!r}, a {type(path).__name__}.")
    if os.path.isfile(path):  # which is false, and raises nothing, for names that cannot be
        return
    asked = re.fullmatch(r"(.+)\[([^\[\]]+)\]", str(path))
    if asked is not None and os.path.isfile(asked[1]):
        raise FormatError(
            f"{path}: no such file. Extensions are not written behind the name: give {asked[1]} "
            f"and extension={asked[2]!r} (--extension {asked[2]})."
        )
    raise FormatError(f"{path}: no such file, expected a FITS image. Check the path.")


def _check_size(hdu: Any, path: str | os.PathLike[str]) -> None:
    """Refuses an image whose header asks for more memory than a galaxy is worth."""
    pixels = math.prod(int(n) for n in hdu.shape) if hdu.is_image else 0
    if pixels > LARGEST_IMAGE:
        raise FormatError(
            f"{path}: extension {hdu.name or 'unnamed'} has {pixels} pixels, expected at most "
            f"{LARGEST_IMAGE} of a file that is read whole. Cut the galaxy out, or use deeplegato "
            "catalog."
        )


@contextmanager
def as_format_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what astropy raises over a file that it cannot read into ``FormatError``."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # astropy raises many kinds, VerifyError and cfitsio's among them
        reason = _first_sentence(error) or type(error).__name__
        raise FormatError(
            f"{path}: cannot be read as FITS ({reason}). Is it a FITS image, and complete?"
        ) from error


def _content(path: str | os.PathLike[str]) -> Any:
    """The path, or the whole uncompressed content: astropy takes half a .gz for a short file."""
    with open(path, "rb") as file:
        magic = file.read(3)
    if magic[:2] == b"\x1f\x8b":
        return _unpacked(gzip.open(path), path)
    if magic == b"BZh":
        return _unpacked(bz2.open(path), path)
    return path


def _unpacked(file: Any, path: str | os.PathLike[str]) -> io.BytesIO:
    """The whole uncompressed content, if it is not far larger than one galaxy's file can be."""
    with file:
        content = file.read(LARGEST_UNPACKED + 1)
    if len(content) > LARGEST_UNPACKED:
        raise FormatError(
            f"{path}: unpacks to more than {LARGEST_UNPACKED} bytes, the most that is read whole. "
            "Unpack it, or cut the galaxy out."
        )
    return io.BytesIO(content)


def _first_sentence(message: object) -> str:
    """What another library says, cut down to fit into one line of ours."""
    return " ".join(str(message).split()).split(". ")[0][:120].rstrip(".")


def refuse_damage(messages: list[str], path: str | os.PathLike[str]) -> None:
    """Raises ``FormatError`` if astropy only warned about what makes a file unusable.

    Args:
        messages: Its warnings.
        path: The file.
    """
    for message in messages:
        sizes = re.search(r"actual file length \((\d+)\).*expected size \((\d+)\)", message)
        # Up to one block may be missing: some writers leave out the padding after the last one.
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
    """A native copy of an extension's pixels: float64, or whole numbers where they may stay so."""
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
