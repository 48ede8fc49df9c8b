"""Mosaics: large images with noise, mask, segmentation and WCS."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import as_real_array, check_two_dimensional
from deeplegato_pp.errors import ShapeError
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.io import fits_extensions
from deeplegato_pp.io.fits import WEIGHTS, Companion
from deeplegato_pp.io.header_keywords import Cards, header_text
from deeplegato_pp.io.lazy_images import ArrayPlane, LinearPlane, Plane, open_plane
from deeplegato_pp.io.linear_pixels import asinh_scaling, check_linear
from deeplegato_pp.io.wcs_header import read_sky
from deeplegato_pp.observation.array_inputs import Unpacked
from deeplegato_pp.observation.mask_planes import MaskMeaning
from deeplegato_pp.observation.noise_types import NoiseStatement
from deeplegato_pp.observation.provenance import provenance_line
from deeplegato_pp.observation.reconciliation import (
    Given,
    companion_meaning,
    companion_statement,
    noise_name,
    pixel_noise,
    psf_name,
    reconcile_calibration,
)

if TYPE_CHECKING:
    from astropy.io.fits import HDUList


MIDDLE = 256
"""Side of the block whose noise is used to check an image's zero point. [px]"""

NO_PIXELS: Array = np.empty((0, 0))


@dataclass(frozen=True, eq=False)
class Mosaic:
    """One large image with its companions, pixel by pixel.

    Attributes:
        name: Name in messages and tables.
        image: Pixels. [image units]
        noise: Noise map of type `noise_type`, or None.
        noise_type: See ``noise_maps.NOISE_TYPES``.
        mask: Non-zero for pixels to ignore, or None.
        mask_bits: Sum of the bits of the mask that mean *ignore*; None for all.
        segmentation: Source number of each pixel, 0 for none; or None.
        background: Background to be subtracted, or None. [image units]
        weight: Weight map in addition to another noise map, zero without data; or None.
        psf: Image of the PSF in the same file, or None.
        wcs: Celestial ``astropy.wcs.WCS``, or None.
        pixel_scale: Pixel scale; None if unknown. [arcsec/px]
        zero_point: AB magnitude of one image unit; None if unknown.
        unit: Unit of the image, as stated.
        notes: Sources of scale and zero point, and disagreements.
        header: Header of the image.
        psf_header: Header of the PSF in the same file.
        flags: Sum of ``Flag`` bits of every cutout.
        provenance: One line on what was taken from where.
    """

    name: str
    image: Plane
    noise: Plane | None = None
    noise_type: str = "sigma"
    mask: Plane | None = None
    mask_bits: int | None = None
    segmentation: Plane | None = None
    background: Plane | None = None
    weight: Plane | None = None
    psf: Array | None = None
    wcs: Any = None
    pixel_scale: float | None = None
    zero_point: float | None = None
    unit: str = ""
    notes: tuple[str, ...] = field(default=())
    header: Cards = field(default_factory=Cards)
    psf_header: Cards = field(default_factory=Cards)
    flags: int = 0
    provenance: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.image.shape

    def with_planes(self, **planes: Plane | None) -> Mosaic:
        """Returns the mosaic with some companions replaced.

        Raises:
            ShapeError: If a companion does not have the image's shape.
        """
        given = {what: plane for what, plane in planes.items() if plane is not None}
        for what, plane in given.items():
            if plane.shape != self.shape:
                raise ShapeError(
                    f"the {what} of {self.name} must have the image's shape {self.shape}, got "
                    f"{plane.shape}. Give the one that belongs to the image."
                )
        return replace(self, **given)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class ShiftedWCS:
    """A mosaic's WCS with pixels counted from a cutout's corner."""

    wcs: Any
    left: int
    bottom: int

    @property
    def celestial(self) -> ShiftedWCS:
        """Itself, since it is celestial."""
        return self

    def all_pix2world(self, pixels: Array, origin: int) -> Array:
        """Returns longitude and latitude of pixels (N, 2) of the cutout. [deg]"""
        world: Array = self.wcs.all_pix2world(np.add(pixels, [self.left, self.bottom]), origin)
        return world


@dataclass(frozen=True, eq=False)
class OpenedCompanion:
    """An opened noise map, mask or other companion.

    Attributes:
        plane: Its pixels.
        about: Its header and name, without pixels.
    """

    plane: Plane
    about: Companion


def open_mosaic(
    path: str | Path,
    extension: fits_extensions.Extension | None = None,
    given: Given | None = None,
) -> Mosaic:
    """Opens a FITS file as a mosaic, reading headers and a small block in its middle.

    Noise, mask and data quality are found in the same file by name, and the file's statements are
    reconciled as for single images (``docs/input.md``).

    Args:
        path: FITS file; tile-compressed too (.fz). A file compressed as a whole (.gz, .bz2) is
            read into memory.
        extension: Index, name or (name, version) of the image.
        given: User input, which takes precedence; its noise and mask are opened companions.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or contains no image.
        ShapeError: If the image is a cube and no plane is given.
    """
    given = given or Given()
    with opened(path) as hdus:
        index = fits_extensions.science_index(hdus, extension, path)
        header = fits_io.cards_of(hdus, index)
        check_linear(header, f"the image in {path}")
        image = open_plane(hdus, index, path, "the image", given.plane)
        scaling = asinh_scaling(header)
        image = image if scaling is None else LinearPlane(image, scaling)
        sky = read_sky(hdus[index].header, hdus)
        noise_at = fits_extensions.noise_index(hdus, index)
        mask_at = fits_extensions.mask_index(hdus, index)
        noise, mask = given.noise, given.mask
        if noise is None and noise_at is not None:
            noise = _opened_companion(hdus, noise_at, path, "the noise", given.plane)
        if mask is None and mask_at is not None:
            mask = _opened_companion(hdus, mask_at, path, "the mask", given.plane)
        weight = None
        if noise_at is not None and given.noise is None and hdus[noise_at].name not in WEIGHTS:
            weight = fits_extensions.find(hdus, ("WHT",), index, hdus[index].ver)
        psf = fits_extensions.find(hdus, fits_extensions.PSF_NAMES, index)
        if psf is not None and len(hdus[psf].shape) != 2:
            psf = None  # a cube: it must be given with its positions
        scale, zero_point = reconcile_calibration(header, sky, given, _noise_in_the_middle(image))
        statement, meaning = NoiseStatement(given.noise_type), MaskMeaning(given.mask_bits)
        if isinstance(noise, OpenedCompanion):
            statement = companion_statement(noise.about, given.noise_type, header)
        if isinstance(mask, OpenedCompanion):
            meaning = companion_meaning(mask.about, header, given.mask_bits)
        kind = given.noise_type or statement.kind
        mosaic = Mosaic(
            name=Path(path).name,
            image=image,
            noise_type=kind or "sigma",
            mask_bits=meaning.bits,
            psf=None if psf is None else as_real_array(hdus[psf].data, f"the PSF in {path}"),
            header=header,
            psf_header=Cards() if psf is None else fits_io.own_cards(hdus[psf]),
            wcs=sky.wcs,
            pixel_scale=scale.value,
            zero_point=zero_point.value,
            unit=header_text(header, "BUNIT"),
            notes=(
                *(("asinh magnitudes (BSOFTEN, BOFFSET) made linear",) if scaling else ()),
                *scale.notes,
                *zero_point.notes,
                *statement.notes,
                *meaning.notes,
            ),
            flags=int(scale.flags | zero_point.flags | statement.flags),
            provenance=provenance_line(
                zero_point,
                scale,
                psf_name(given, None if psf is None else hdus[psf].name),
                given.psf_oversampling,
                noise_name(
                    given.noise,
                    kind,
                    statement,
                    noise.about if isinstance(noise, OpenedCompanion) else None,
                ),
                mask.about.name or "given" if isinstance(mask, OpenedCompanion) else "",
            ),
        )
        planes = {
            "noise": noise.plane if isinstance(noise, OpenedCompanion) else None,
            "mask": mask.plane if isinstance(mask, OpenedCompanion) else None,
            "weight": None if weight is None else open_plane(hdus, weight, path, "the weight map"),
        }
        if planes["noise"] is not None and statement.factor != 1.0:
            planes["noise"] = LinearPlane(planes["noise"], None, statement.factor)
        return mosaic.with_planes(**planes)


def companion_of(parts: Unpacked, what: str, kind: str | None = None) -> OpenedCompanion:
    """Returns an array with its unit as an opened companion.

    Args:
        parts: The array.
        what: Its name in messages.
        kind: Stated type of noise, or None.
    """
    header = Cards({"BUNIT": parts.unit} if parts.unit else {})
    return OpenedCompanion(array_plane(parts.values, what), Companion(NO_PIXELS, header, "", kind))


def open_companion(
    source: Any, names: tuple[str, ...], what: str, plane: int | None = None
) -> OpenedCompanion:
    """Opens a noise map, mask or segmentation: a FITS file, a ``.npy`` file or an array.

    Args:
        source: Path or array.
        names: Extensions to prefer, in this order; else the first with pixels.
        what: Its name in messages.
        plane: Plane of a cube, counted from 0.

    Raises:
        FormatError: If a file is missing, damaged, or contains no image.
        ShapeError: If it is a cube and no plane is given.
    """
    if not isinstance(source, str | Path):
        return OpenedCompanion(array_plane(source, what), Companion(NO_PIXELS, Cards()))
    if str(source).endswith(".npy"):
        stored = np.load(source, mmap_mode="r")
        whole = what.endswith("mask") and stored.dtype.kind in "iu"
        return OpenedCompanion(ArrayPlane(stored, whole), Companion(NO_PIXELS, Cards()))
    with opened(source) as hdus:
        index = fits_extensions.find(hdus, names)
        index = fits_extensions.first_image(hdus, source) if index is None else index
        found = _opened_companion(hdus, index, source, what, plane)
        return replace(found, about=replace(found.about, file=str(source)))


def _opened_companion(
    hdus: HDUList, index: int, path: str | Path, what: str, plane: int | None
) -> OpenedCompanion:
    hdu: Any = hdus[index]
    header = fits_io.own_cards(hdu)
    pixels = open_plane(hdus, index, path, what, plane)
    scaling = asinh_scaling(header)
    stated = fits_extensions.stated_uncertainty(hdu, path)
    about = Companion(NO_PIXELS, header, hdu.name, stated)
    return OpenedCompanion(pixels if scaling is None else LinearPlane(pixels, scaling), about)


def _noise_in_the_middle(image: Plane) -> float | None:
    """Estimates the noise per pixel from a block in the image's middle; None if unreadable."""
    height, width = image.shape
    bottom, left = max(0, (height - MIDDLE) // 2), max(0, (width - MIDDLE) // 2)
    try:
        return pixel_noise(
            image.read(bottom, min(bottom + MIDDLE, height), left, min(left + MIDDLE, width))
        )
    except Exception:  # a damaged tile: reported for the sources that lie on it
        return None


def array_plane(array: Any, what: str) -> ArrayPlane:
    """Returns an array as a plane; boolean and integer arrays keep their type."""
    plain = np.asarray(np.ma.getdata(array))
    values = plain if plain.dtype.kind in "bui" else as_real_array(array, what)
    check_two_dimensional(values, what)
    return ArrayPlane(values, what.endswith("mask") and plain.dtype.kind in "ui")


@contextmanager
def opened(path: str | Path) -> Iterator[HDUList]:
    """Opens a FITS file without reading pixels; errors become ``FormatError``."""
    from astropy.io import fits

    fits_io.check_is_file(path)
    with fits_io.as_format_error(path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fits.open(path, memmap=True, lazy_load_hdus=False) as hdus:
            messages = [str(item.message) for item in caught]
            fits_io.refuse_damage(messages, path)
            yield hdus
