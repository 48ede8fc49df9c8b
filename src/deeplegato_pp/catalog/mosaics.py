"""Mosaics: an image with the noise, mask, segmentation and WCS that belong to it."""

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
from deeplegato_pp.io import fits_extensions, header_keywords
from deeplegato_pp.io.lazy_images import ArrayPlane, Plane, open_plane

if TYPE_CHECKING:
    from astropy.io.fits import HDUList


@dataclass(frozen=True, eq=False)
class Mosaic:
    """One large image and what belongs to it, pixel by pixel.

    Attributes:
        name: What messages and tables call it.
        image: Pixels. [image units]
        noise: Noise map of type `noise_type`, or None.
        noise_type: See ``noise_maps.NOISE_TYPES``.
        mask: Non-zero = ignore, or None.
        mask_bits: The bits of the mask that mean *ignore*; None: all.
        segmentation: Number of the source that each pixel belongs to, 0 for none; or None.
        background: To be subtracted, or None. [image units]
        psf: Image of the PSF that came in the same file, or None.
        wcs: Celestial ``astropy.wcs.WCS``, or None.
        pixel_scale: [arcsec/px] None if unknown.
        zero_point: AB magnitude of one image unit; None if unknown.
        unit: Of the image, as stated.
        notes: Where scale and zero point are from.
    """

    name: str
    image: Plane
    noise: Plane | None = None
    noise_type: str = "sigma"
    mask: Plane | None = None
    mask_bits: int | None = None
    segmentation: Plane | None = None
    background: Plane | None = None
    psf: Array | None = None
    wcs: Any = None
    pixel_scale: float | None = None
    zero_point: float | None = None
    unit: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape

    def with_planes(self, **planes: Plane | None) -> Mosaic:
        """Returns the mosaic with companions put in the place of its own.

        Raises:
            ShapeError: If one does not cover the image pixel by pixel.
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
    """A mosaic's WCS seen from a cutout: pixels are counted from the cutout's corner."""

    wcs: Any
    left: int
    bottom: int

    @property
    def celestial(self) -> ShiftedWCS:
        """Itself: it is celestial."""
        return self

    def all_pix2world(self, pixels: Array, origin: int) -> Array:
        """Returns longitude and latitude of pixels (N, 2) of the cutout. [deg]"""
        world: Array = self.wcs.all_pix2world(np.add(pixels, [self.left, self.bottom]), origin)
        return world


def open_mosaic(path: str | Path, extension: fits_extensions.Extension | None = None) -> Mosaic:
    """Opens a FITS file as a mosaic, reading headers only.

    Noise, mask and data quality are found in the same file by their names, as for single images
    (``docs/input.md``).

    Args:
        path: FITS file; tile-compressed too (.fz). A file compressed as a whole (.gz, .bz2) is
            read into memory.
        extension: Index, name or (name, version) of the image.

    Raises:
        FormatError: If the file is missing, damaged, not FITS, or without image.
        ShapeError: If the image is not 2-D.
    """
    with opened(path) as hdus:
        index = fits_extensions.science_index(hdus, extension, path)
        header = {**dict(hdus[0].header), **dict(hdus[index].header)}
        wcs, wcs_scale, notes = fits_io.read_wcs(hdus[index].header, hdus)
        scale = header_keywords.find_pixel_scale(header, wcs_scale)
        pixel_scale = None if scale is None else scale[0]
        zero_point = header_keywords.find_zero_point(header, pixel_scale)
        for what, found in (("pixel scale", scale), ("zero point", zero_point)):
            if found is not None:
                notes.append(f"{what} {found[0]:.6g} from {found[1]}")
        noise, noise_type = fits_extensions.noise_index(hdus, index, path)
        mask, mask_bits = fits_extensions.mask_index(hdus, index, header)
        psf = fits_extensions.find(hdus, fits_extensions.PSF_NAMES, index)
        if psf is not None and len(hdus[psf].shape) != 2:
            psf = None  # a cube: it has to be given, with its positions
        mosaic = Mosaic(
            name=Path(path).name,
            image=open_plane(hdus, index, path, "the image"),
            noise_type=noise_type or "sigma",
            mask_bits=mask_bits,
            psf=None if psf is None else as_real_array(hdus[psf].data, f"the PSF in {path}"),
            wcs=wcs,
            pixel_scale=pixel_scale,
            zero_point=None if zero_point is None else zero_point[0],
            unit=str(header.get("BUNIT", "")).strip(),
            notes=tuple(notes),
        )
        return mosaic.with_planes(
            noise=None if noise is None else open_plane(hdus, noise, path, "the noise"),
            mask=None if mask is None else open_plane(hdus, mask, path, "the mask"),
        )


def open_companion(source: Any, names: tuple[str, ...], what: str) -> Plane:
    """Opens a noise map, mask or segmentation: a FITS file, a ``.npy`` file or an array.

    Args:
        source: Path or array.
        names: Extensions to prefer, in this order; else the first with pixels.
        what: Its name in messages.

    Raises:
        FormatError: If a file is missing, damaged, or without image.
        ShapeError: If it is not 2-D.
    """
    if not isinstance(source, str | Path):
        return array_plane(source, what)
    if str(source).endswith(".npy"):
        return ArrayPlane(np.load(source, mmap_mode="r"))
    with opened(source) as hdus:
        index = fits_extensions.find(hdus, names)
        index = fits_extensions.first_image(hdus, source) if index is None else index
        return open_plane(hdus, index, source, what)


def array_plane(array: Any, what: str) -> ArrayPlane:
    """Returns an array as a plane; a boolean one or one of whole numbers keeps its type."""
    plain = np.asarray(np.ma.getdata(array))
    values = plain if plain.dtype.kind in "bui" else as_real_array(array, what)
    check_two_dimensional(values, what)
    return ArrayPlane(values)


@contextmanager
def opened(path: str | Path) -> Iterator[HDUList]:
    """Opens a FITS file without reading pixels; what is wrong becomes one ``FormatError``."""
    from astropy.io import fits

    with fits_io.as_format_error(path), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fits.open(path, memmap=True, lazy_load_hdus=False) as hdus:
            messages = [str(item.message) for item in caught]
            fits_io.refuse_damage(messages, path)
            yield hdus
