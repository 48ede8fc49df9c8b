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
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import as_real_array, check_not_empty, check_two_dimensional
from deeplegato_pp.errors import FormatError, InputError

if TYPE_CHECKING:
    from astropy.io.fits import HDUList, Header

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
        index = _science_index(hdus, extension, path)
        image = _pixels(hdus[index], "the image", path)
        header = {**dict(hdus[0].header), **dict(hdus[index].header)}
        version = hdus[index].ver
        noise, noise_type, name = _read_noise(hdus, index, version, path)
        weight = None if name in ("WHT", "WEIGHT") else _find(hdus, ("WHT",), index, version)
        mask_hdu = _find(hdus, MASK_NAMES, index, version)
        psf_hdu = _find(hdus, PSF_NAMES, index, None)
        mask_bits = None
        if mask_hdu is not None and mask_hdu.name == "DQ":
            # JWST's DQ also marks harmless history (corrected jumps); bit 1 is the verdict.
            mask_bits = 1 if str(header.get("TELESCOP", "")).strip() == "JWST" else None
        wcs, wcs_scale, notes = _read_wcs(hdus[index].header, hdus)
        return FitsImage(
            image=image,
            header=header,
            noise=noise,
            noise_type=noise_type,
            mask=None if mask_hdu is None else _pixels(mask_hdu, "the mask", path),
            mask_bits=mask_bits,
            no_data=None if weight is None else _pixels(weight, "the weight map", path) <= 0,
            psf=None if psf_hdu is None else _pixels(psf_hdu, "the PSF", path),
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
        hdu = _find(hdus, names, None, None)
        return _pixels(hdus[_first_image(hdus, path)] if hdu is None else hdu, what, path)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator["HDUList"]:
    """Opens a file eagerly; whatever is wrong with it becomes one line of ``FormatError``."""
    if not Path(path).is_file():
        raise FormatError(f"{path}: no such file, expected a FITS image. Check the path.")
    from astropy.io import fits

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with fits.open(_content(path), memmap=False, lazy_load_hdus=False) as hdus:
                for hdu in hdus:
                    # Read now, so that damage shows here.
                    _ = hdu.data if hdu.is_image else None
                _refuse_damage([str(item.message) for item in caught], path)
                yield hdus
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, IndexError) as error:
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


def _refuse_damage(messages: list[str], path: str | os.PathLike[str]) -> None:
    """Raises if astropy only warned about what makes a file unusable."""
    for message in messages:
        sizes = re.search(r"actual file length \((\d+)\).*expected size \((\d+)\)", message)
        # Up to one block may be missing: some writers leave out the padding after the last one.
        short = sizes is not None and int(sizes[2]) - int(sizes[1]) >= 2880
        if short or re.search(r"END card|validating header", message):
            raise FormatError(
                f"{path}: the file is damaged or incomplete ({_first_sentence(message)}). "
                "Fetch or write it again."
            )


def _science_index(
    hdus: "HDUList", extension: Extension | None, path: str | os.PathLike[str]
) -> int:
    if extension is not None:
        return chosen_index(hdus, extension, path)
    hdu = _find(hdus, SCIENCE_NAMES, None, None)
    return _first_image(hdus, path) if hdu is None else hdus.index(hdu)


def chosen_index(hdus: "HDUList", extension: Extension, path: str | os.PathLike[str]) -> int:
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


def _has_pixels(hdu: Any) -> bool:
    return bool(hdu.is_image and hdu.data is not None)


def _first_image(hdus: "HDUList", path: str | os.PathLike[str]) -> int:
    for index, hdu in enumerate(hdus):
        if _has_pixels(hdu):
            return index
    raise FormatError(f"{path}: no image in the file, expected pixels in one of its extensions.")


def _find(
    hdus: "HDUList", names: tuple[str, ...], but: int | None, version: int | None
) -> Any | None:
    """The first extension with pixels of the first name that is there."""
    for name in names:
        for index, hdu in enumerate(hdus):
            right = version is None or hdu.ver == version
            if hdu.name == name and index != but and right and _has_pixels(hdu):
                return hdu
    return None


def _pixels(hdu: Any, what: str, path: str | os.PathLike[str]) -> Array:
    """A native float64 copy of an extension's pixels."""
    if not _has_pixels(hdu):
        raise FormatError(f"{path}: {what} (extension {hdu.name or 'unnamed'}) has no pixels.")
    label = f"{what} in {path}"
    array = as_real_array(hdu.data, label)
    check_two_dimensional(array, label)
    check_not_empty(array, label)
    return array


def _read_noise(
    hdus: "HDUList", index: int, version: int, path: str | os.PathLike[str]
) -> tuple[Array | None, str | None, str]:
    """The noise map, its type (None where UNCERT does not say) and its extension's name."""
    hdu = _find(hdus, tuple(NOISE_NAMES), index, version)
    if hdu is None:
        return None, None, ""
    noise_type: str | None = NOISE_NAMES[hdu.name]
    if hdu.name == "UNCERT":
        stated = str(hdu.header.get("UTYPE", "")).strip()
        if stated and stated not in UNCERTAINTY_TYPES:
            raise FormatError(
                f"{path}: UTYPE of UNCERT must be one of {', '.join(UNCERTAINTY_TYPES)}, "
                f"got {stated!r}. Give the noise separately (noise=, --noise)."
            )
        noise_type = UNCERTAINTY_TYPES.get(stated)
    return _pixels(hdu, "the noise", path), noise_type, hdu.name


def _read_wcs(header: "Header", hdus: "HDUList") -> tuple[Any, float | None, list[str]]:
    """The celestial WCS and its scale in arcsec/px, or Nones; a broken one becomes a note."""
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
