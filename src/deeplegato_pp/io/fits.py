"""Reading FITS images: layouts, companions, damage. The only place where images are opened.

Every file is read whole and closed again; arrays come back as native float64 copies. ``astropy``
is imported when the first file is read.
"""

import bz2
import gzip
import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
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
    science_index,
)

if TYPE_CHECKING:
    from astropy.io.fits import HDUList, Header


WEIGHTS = ("WHT", "WEIGHT")
"""Noise maps whose zeros mean that there are no data."""


@dataclass(frozen=True, eq=False)
class FitsImage:
    """What one file holds: the image and whatever came with it.

    Attributes:
        image: Image, with shape (H, W).
        header: Keywords of the image's extension, and the primary's below them.
        noise: Noise map of type ``noise_type`` as the file has it, or None.
        noise_type: See ``noise_maps.NOISE_TYPES``; None if the file does not say.
        mask: Mask or data quality as the file has it, or None.
        mask_bits: The bits of ``mask`` that mean *ignore* by this instrument's custom; None: all.
        no_data: Where a weight map beside another noise map is zero, or None.
        psf: Image of the PSF, or None.
        wcs: Celestial ``astropy.wcs.WCS``, or None.
        wcs_scale: Its pixel scale. [arcsec/px]
        notes: Remarks for the reader of the result.
    """

    image: Array
    header: dict[str, Any]
    noise: Array | None = None
    noise_type: str | None = None
    mask: Array | None = None
    mask_bits: int | None = None
    no_data: Array | None = None
    psf: Array | None = None
    wcs: Any = None
    wcs_scale: float | None = None
    notes: list[str] = field(default_factory=list)


def read_image(path: str | os.PathLike[str], extension: Extension | None = None) -> FitsImage:
    """Reads an image and the noise, mask, PSF and WCS that its file holds.

    Args:
        path: FITS file, plain or compressed (.gz, .bz2, .fz).
        extension: Index, name or (name, version) of the image. By default SCI or IMAGE where there
            is one, else the first extension with pixels. Companions (ERR, DQ, ...) are taken with
            the version of the image.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or without image.
        ShapeError: If the image is not 2-D.
    """
    with _opened(path) as hdus:
        index = science_index(hdus, extension, path)
        image = _pixels(hdus[index], "the image", path)
        header = {**dict(hdus[0].header), **dict(hdus[index].header)}
        version = hdus[index].ver
        noise, noise_type = noise_index(hdus, index, path)
        weights_are_noise = noise is not None and hdus[noise].name in WEIGHTS
        weight = None if weights_are_noise else find(hdus, ("WHT",), index, version)
        mask, mask_bits = mask_index(hdus, index, header)
        psf = find(hdus, PSF_NAMES, index)
        wcs, wcs_scale, notes = read_wcs(hdus[index].header, hdus)
        return FitsImage(
            image=image,
            header=header,
            noise=None if noise is None else _pixels(hdus[noise], "the noise", path),
            noise_type=noise_type,
            mask=None if mask is None else _pixels(hdus[mask], "the mask", path),
            mask_bits=mask_bits,
            no_data=None if weight is None else _pixels(hdus[weight], "the weight map", path) <= 0,
            psf=None if psf is None else _pixels(hdus[psf], "the PSF", path),
            wcs=wcs,
            wcs_scale=wcs_scale,
            notes=notes,
        )


def read_array(path: str | os.PathLike[str], names: tuple[str, ...], what: str) -> Array:
    """Reads one companion (PSF, noise, mask) from a file of its own.

    Args:
        path: FITS file.
        names: Extensions to prefer, in this order; else the first one with pixels.
        what: Its name in messages.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or without image.
        ShapeError: If it is not 2-D.
    """
    with _opened(path) as hdus:
        index = find(hdus, names)
        return _pixels(hdus[first_image(hdus, path) if index is None else index], what, path)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator["HDUList"]:
    """Opens a file eagerly; whatever is wrong with it becomes one line of ``FormatError``."""
    if not Path(path).is_file():
        raise FormatError(f"{path}: no such file, expected a FITS image. Check the path.")
    from astropy.io import fits

    with as_format_error(path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fits.open(_content(path), memmap=False, lazy_load_hdus=False) as hdus:
            for hdu in hdus:
                # Read now, so that damage shows here.
                _ = hdu.data if hdu.is_image else None
            refuse_damage([str(item.message) for item in caught], path)
            yield hdus


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
        return io.BytesIO(gzip.decompress(Path(path).read_bytes()))
    if magic == b"BZh":
        return io.BytesIO(bz2.decompress(Path(path).read_bytes()))
    return path


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


def _pixels(hdu: Any, what: str, path: str | os.PathLike[str]) -> Array:
    """A native float64 copy of an extension's pixels."""
    if not is_image(hdu):
        raise FormatError(f"{path}: {what} (extension {hdu.name or 'unnamed'}) has no pixels.")
    label = f"{what} in {path}"
    array = as_real_array(hdu.data, label)
    check_two_dimensional(array, label)
    check_not_empty(array, label)
    return array


def read_wcs(header: "Header", hdus: "HDUList") -> tuple[Any, float | None, list[str]]:
    """Returns the celestial WCS, its scale in arcsec/px (Nones without one), and remarks.

    A broken one becomes a remark.
    """
    if "CTYPE1" not in header:
        return None, None, []
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header, fobj=hdus)
            if not wcs.has_celestial:
                return None, None, []
            wcs = wcs.celestial
            scales = 3600 * np.asarray(proj_plane_pixel_scales(wcs), dtype=np.float64)
    except Exception as error:  # wcslib raises many kinds; the image is of use without its WCS
        return None, None, [f"WCS ignored: {_first_sentence(error)}"]
    notes = []
    if abs(scales[0] / scales[1] - 1) > 0.01:
        notes.append(
            f"pixels are not square ({scales[0]:.4g} x {scales[1]:.4g} arcsec): "
            "their geometric mean is the pixel scale"
        )
    return wcs, float(np.sqrt(scales[0] * scales[1])), notes
