"""Reading of PSFs from images, STPSF files, PSFEx models, cubes and tables.

The sampling stated by a file is compared with the image's pixel scale.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import as_real_array, check_not_empty, check_two_dimensional
from deeplegato_pp.errors import FormatError, InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.io import fits_extensions
from deeplegato_pp.io.header_keywords import Header, header_number
from deeplegato_pp.observation import effective_psf
from deeplegato_pp.observation.pixel_scales import TOLERANCE, reconcile_pixel_scale

NEAREST = 4
"""Number of planes of a cube that are averaged, weighted by inverse squared distance."""

X_NAMES = ("x", "x_image0", "xcentroid")
Y_NAMES = ("y", "y_image0", "ycentroid")

STPSF_FINE = ("OVERDIST", "OVERSAMP")
STPSF_NATIVE = ("DET_DIST", "DET_SAMP")
"""Extensions of STPSF (WebbPSF) files in order of priority: oversampled, and at detector pixels."""

OVERSAMPLING_KEYWORDS = ("OVERSAMP", "OVERSAMPL", "OSAMP", "PSFOVER")
"""Keywords with samples per pixel."""


@dataclass(frozen=True, eq=False)
class PSFAt:
    """The PSF at one position.

    Attributes:
        image: Effective PSF, with shape (Py, Px), not normalised.
        oversampling: Samples per pixel; None if the file does not say.
        notes: Remarks for the results based on it.
        includes_pixel: Whether it includes the detector's pixel; None if the file does not say.
        flags: Sum of ``Flag`` bits.
        source: Source of the PSF, as text.
    """

    image: Array
    oversampling: int | None = None
    notes: tuple[str, ...] = ()
    includes_pixel: bool | None = None
    flags: int = 0
    source: str = ""


PSFMap = Callable[[float, float], PSFAt]
"""Function from 0-based pixels (x, y) of the mosaic to the PSF at that position."""


@dataclass(frozen=True, eq=False)
class ConstantPSF:
    """The same PSF everywhere."""

    psf: PSFAt

    def __call__(self, x: float, y: float) -> PSFAt:
        """Returns the PSF, the same object each time."""
        return self.psf


@dataclass(frozen=True, eq=False)
class CubePSF:
    """PSFs at several positions of the mosaic.

    Unusable planes (NaN, or without light) are ignored; a note is added where one of them would
    have been the nearest.

    Attributes:
        planes: PSF images, with shape (K, Py, Px).
        x: Columns of their positions, 0-based, with shape (K,). [px]
        y: Rows of their positions. [px]
    """

    planes: Array
    x: Array
    y: Array
    usable: Array = field(init=False)

    def __post_init__(self) -> None:
        sums = np.nansum(self.planes, axis=(1, 2))
        good = np.isfinite(self.planes).all(axis=(1, 2)) & (sums > 0)
        if not good.any():
            raise InputError(
                f"none of the {len(good)} PSFs of the cube can be used: all hold NaN or no light. "
                "Give finite PSFs of positive sum."
            )
        object.__setattr__(self, "usable", good)

    def __call__(self, x: float, y: float) -> PSFAt:
        """Returns the weighted mean of the nearest normalised planes, or one at its position."""
        distance = np.hypot(self.x - x, self.y - y)
        nearest = int(distance.argmin())
        notes: tuple[str, ...] = ()
        if not self.usable[nearest]:
            notes = (f"the nearest PSF (plane {nearest}) is unusable: its neighbours stand in",)
        order = np.argsort(np.where(self.usable, distance, math.inf), kind="stable")
        chosen = [int(i) for i in order[:NEAREST] if self.usable[i]]
        weights = 1.0 / (distance[chosen] ** 2 + 1e-6)
        planes = self.planes[chosen] / self.planes[chosen].sum(axis=(1, 2), keepdims=True)
        mean = np.tensordot(weights / weights.sum(), planes, axes=1)
        return PSFAt(mean, notes=notes, source="PSF cube")

    def field(self) -> tuple[float, float, float, float]:
        """Returns the centre of the positions in x and y, and their extents. [px]"""
        return (*_middle(self.x), *_middle(self.y))

    @property
    def varies(self) -> bool:
        """Whether there is more than one plane."""
        return len(self.planes) > 1


@dataclass(frozen=True, eq=False)
class PSFExModel:
    """A PSFEx model: planes multiplied by polynomials of the position.

    Attributes:
        planes: Planes, with shape (K, Py, Px).
        powers: Powers of reduced x and y of each plane, with shape (K, 2).
        zero: x and y, 1-based, at which the reduced coordinates are zero. [px]
        scale: Pixels per unit of the reduced coordinates.
        sampling: Image pixels per sample of the planes.

    References:
        | Computing AstrOmatic software (Bertin, 2011)
        | https://ui.adsabs.harvard.edu/abs/2011ASPC..442..435B
    """

    planes: Array
    powers: Array
    zero: tuple[float, float]
    scale: tuple[float, float]
    sampling: float

    def __call__(self, x: float, y: float) -> PSFAt:
        """Returns the PSF on a grid with an integer number of samples per pixel."""
        reduced = [
            (value + 1.0 - zero) / scale  # FITS counts from 1
            for value, zero, scale in zip((x, y), self.zero, self.scale, strict=True)
        ]
        terms = reduced[0] ** self.powers[:, 0] * reduced[1] ** self.powers[:, 1]
        image = np.tensordot(terms, self.planes, axes=1)
        oversampling = max(1, round(1.0 / self.sampling))
        step = 1.0 / (oversampling * self.sampling)
        # PSFEx puts the centre of N samples at sample N/2, 0-based: right of the middle.
        middle = tuple(float(size // 2) for size in image.shape)
        return PSFAt(
            resampled(image, step, middle), oversampling, includes_pixel=True, source="PSFEx"
        )

    def field(self) -> tuple[float, float, float, float]:
        """Returns the centre of the stars' positions in x and y, 0-based, and their extents."""
        return self.zero[0] - 1, self.scale[0], self.zero[1] - 1, self.scale[1]

    @property
    def varies(self) -> bool:
        """Whether the PSF differs over the field by more than a thousandth of its peak."""
        rest = np.abs(self.planes[1:])
        return rest.size > 0 and float(rest.max()) > 1e-3 * float(np.abs(self.planes[0]).max())


def resampled(image: Array, step: float, middle: tuple[float, ...] | None = None) -> Array:
    """Resamples a PSF to another spacing about the same centre, with quintic splines.

    Args:
        image: PSF, with shape (Py, Px).
        step: Old samples per new sample.
        middle: Row and column of its centre; None for the centre of the array.

    Returns:
        The largest odd-sized PSF within the old extent; the image itself for step 1 about its
        central sample.
    """
    own = tuple((size - 1) / 2 for size in image.shape)
    middle = own if middle is None else middle
    if abs(step - 1.0) < 1e-6 and middle == own:
        return image
    reach = [min(m, size - 1 - m) for m, size in zip(middle, image.shape, strict=True)]
    halves = [int(r / step + 1e-9) for r in reach]
    if abs(step - 1.0) < 1e-6 and all(m == int(m) for m in middle):
        rows, columns = (
            slice(int(m) - h, int(m) + h + 1) for m, h in zip(middle, halves, strict=True)
        )
        return image[rows, columns]
    from scipy.ndimage import map_coordinates

    axes = [m + step * np.arange(-h, h + 1) for m, h in zip(middle, halves, strict=True)]
    fine: Array = map_coordinates(
        image, np.meshgrid(*axes, indexing="ij"), order=5, mode="constant"
    )
    return fine


def open_psf_file(
    path: str | os.PathLike[str],
    pixel_scale: float | None = None,
    oversampling: int | None = None,
    name: str = "the PSF",
) -> PSFMap:
    """Opens a PSF file of any kind.

    A 2-D image is one PSF. For an STPSF file, the finest extension (OVERDIST) is used, or that at
    detector pixels for ``oversampling`` 1. A cube requires a table of its planes' ``x`` and ``y``
    (0-based pixels), one row per plane; a table may hold the images in a column. A PSFEx file
    contains a table PSF_DATA.

    Args:
        path: FITS file.
        pixel_scale: Pixel scale of the image, compared with that of the PSF. [arcsec/px]
        oversampling: Samples per pixel given by the user; None to use the file's.
        name: Name of the file in messages.

    Raises:
        FormatError: If the file is none of these, or damaged.
        InputError: If a cube has no usable plane.
    """
    with fits_io.opened(path) as hdus:
        for hdu in hdus:
            if hdu.name == "PSF_DATA":
                return _psfex(hdu, path)
        names = (*STPSF_NATIVE, *STPSF_FINE) if oversampling == 1 else (*STPSF_FINE, *STPSF_NATIVE)
        index = fits_extensions.find(hdus, names)
        if index is None:
            index = fits_extensions.find(hdus, fits_extensions.PSF_NAMES)
        if index is None:
            images = [i for i, hdu in enumerate(hdus) if fits_extensions.is_image(hdu)]
            if not images:
                return _table_of_psfs(hdus, path, name)
            index = images[0]
        hdu = hdus[index]
        pixels = as_real_array(hdu.data, f"{name} in {path}")
        pixels = pixels.reshape([n for n in pixels.shape if n != 1] or [1, 1])
        cards = fits_io.own_cards(hdu)
        if pixels.ndim == 3:
            x, y = _positions(hdus, len(pixels), path)
            return CubePSF(pixels, x, y)
        check_two_dimensional(pixels, f"{name} in {path}")
        check_not_empty(pixels, f"{name} in {path}")
        return ConstantPSF(psf_image(pixels, cards, hdu.name, pixel_scale, oversampling))


def psf_image(
    pixels: Array,
    header: Header,
    extension: str = "",
    pixel_scale: float | None = None,
    oversampling: int | None = None,
) -> PSFAt:
    """Returns one PSF with the sampling stated by its header.

    Args:
        pixels: PSF, with shape (Py, Px).
        header: Header of the PSF.
        extension: Name of its extension.
        pixel_scale: Pixel scale of the image. [arcsec/px]
        oversampling: Samples per pixel given by the user, which take precedence.
    """
    stated = next(
        (s for key in OVERSAMPLING_KEYWORDS if (s := header_number(header, key)) is not None), None
    )
    fine = extension in STPSF_FINE
    own = reconcile_pixel_scale(header).value
    notes: list[str] = []
    flags = 0
    ratio = None if own is None or pixel_scale is None else pixel_scale / own
    samples = None if stated is None or not 1 <= stated <= 64 else round(stated)
    step = 1.0
    if ratio is not None and ratio > 0.5:
        by_scale = max(1, round(ratio))
        fits = abs(ratio / by_scale - 1) <= TOLERANCE
        agrees = samples is None or samples == by_scale
        if oversampling is None and not (fits and agrees):
            flags |= Flag.PSF_SAMPLING_CONFLICT
            notes.append(
                f"PSF sampling conflict: {stated or 1:g} samples per pixel stated, but its pixels "
                f"of {own:.5g} arcsec are {ratio:.3f} to one of the image ({pixel_scale:.5g})"
            )
            if samples is not None or not fits:  # the angular sizes are physical
                step = ratio / by_scale
        samples = by_scale
    elif ratio is not None and oversampling is None:
        flags |= Flag.PSF_SAMPLING_CONFLICT
        notes.append(
            f"PSF sampling conflict: its pixels of {own:.5g} arcsec are coarser than the image's "
            f"({pixel_scale:.5g} arcsec)"
        )
    if oversampling is not None and samples not in (None, oversampling):
        notes.append(f"PSF: {oversampling} samples per pixel as given, its file says {samples}")
    samples = samples if oversampling is None else oversampling
    image = pixels
    if fine or extension in STPSF_NATIVE:
        even = image.shape[0] % 2 == 0 or image.shape[1] % 2 == 0
        if even:  # STPSF centres the PSF on the array, between samples
            image = effective_psf.odd_psf(image)
            flags |= Flag.PSF_SHIFTED
            notes.append(f"PSF {pixels.shape} moved to the odd grid {image.shape}")
    if abs(step - 1.0) > 1e-3 and oversampling is None:
        image = resampled(image, step)
        notes.append(f"PSF resampled to {samples} samples per pixel")
    includes = None
    if samples is not None and (fine or extension in STPSF_NATIVE or "DET_SAMP" in header):
        includes = samples == 1  # STPSF's oversampled PSFs exclude the detector's pixel
    source = "" if extension == "PRIMARY" else extension
    return PSFAt(image, samples, tuple(notes), includes, int(flags), source)


def psf_of_stamp(
    psf_map: PSFMap, shape: tuple[int, int], origin: tuple[float, float] | None
) -> PSFAt:
    """Returns a file's PSF for a stamp, evaluated at the stamp's position if it varies.

    Args:
        psf_map: PSF map from :func:`open_psf_file`.
        shape: Shape of the stamp.
        origin: 0-based pixel (x, y) of the field at the stamp's corner; None if unknown.
    """
    height, width = shape
    x, y = (width - 1) / 2, (height - 1) / 2
    if not isinstance(psf_map, CubePSF | PSFExModel) or not psf_map.varies:
        return psf_map(x, y)
    if origin is not None:
        return psf_map(x + origin[0], y + origin[1])
    middle_x, extent_x, middle_y, extent_y = psf_map.field()
    if middle_x + 0.3 * extent_x < width and middle_y + 0.3 * extent_y < height:
        return psf_map(x, y)  # the stamp is the field
    found = psf_map(middle_x, middle_y)
    note = (
        "PSF of the middle of its field: the stamp does not say where it was cut out (LTV1, LTV2)"
    )
    return replace(found, notes=(*found.notes, note), flags=int(found.flags | Flag.PSF_ELSEWHERE))


def stamp_origin(header: Header) -> tuple[float, float] | None:
    """Returns the 0-based position of a stamp in its field from LTV1 and LTV2, or None."""
    x, y = header_number(header, "LTV1"), header_number(header, "LTV2")
    return None if x is None or y is None else (-x, -y)


def _middle(values: Array) -> tuple[float, float]:
    return float((values.min() + values.max()) / 2), float(values.max() - values.min())


def _table_of_psfs(hdus: Any, path: str | os.PathLike[str], name: str) -> PSFMap:
    """Reads PSFs from a column of a table with their positions."""
    for hdu in hdus:
        columns = getattr(hdu, "columns", None)
        for column in () if columns is None else columns.names:
            values = np.asarray(hdu.data[column])
            if values.ndim == 3 and values.dtype.kind in "fiu" and min(values.shape[1:]) > 2:
                planes = as_real_array(values, f"{name} in {path}")
                if len(planes) == 1:
                    return ConstantPSF(PSFAt(planes[0], source=f"column {column}"))
                x, y = _positions(hdus, len(planes), path)
                return CubePSF(planes, x, y)
    raise FormatError(
        f"{path}: no PSF in the file, expected an image, a cube with a table of positions, a table "
        "with a column of images, or a PSFEx model (PSF_DATA)."
    )


def _positions(hdus: Any, planes: int, path: str | os.PathLike[str]) -> tuple[Array, Array]:
    for hdu in hdus:
        if hdu.is_image or getattr(hdu, "columns", None) is None:
            continue
        names = {n.lower(): n for n in hdu.columns.names}
        x = next((names[n] for n in X_NAMES if n in names), None)
        y = next((names[n] for n in Y_NAMES if n in names), None)
        if x is None or y is None:
            continue
        if len(hdu.data) != planes:
            raise FormatError(
                f"{path}: the table of positions has {len(hdu.data)} rows for {planes} PSFs. "
                "Give one row per plane."
            )
        return (np.array(hdu.data[n], dtype=np.float64) for n in (x, y))  # type: ignore[return-value]
    raise FormatError(
        f"{path}: a cube of {planes} PSFs needs a table in the same file with columns x and y, "
        "0-based pixels, one row per plane; none was found. Add it."
    )


def _psfex(hdu: Any, path: str | os.PathLike[str]) -> PSFExModel:
    header = hdu.header
    axes = int(header.get("POLNAXIS", 0))
    names = [str(header.get(f"POLNAME{i + 1}", "")).strip().upper() for i in range(axes)]
    if axes not in (0, 2) or (axes and not all(n.startswith(("X", "Y")) for n in names)):
        raise FormatError(
            f"{path}: the PSFEx model varies with {', '.join(names)}, expected X and Y of the "
            "image. Run PSFEx with PSFVAR_KEYS X_IMAGE,Y_IMAGE."
        )
    if axes and int(header.get("POLNGRP", 1)) != 1:
        raise FormatError(
            f"{path}: the PSFEx model has several polynomial groups, expected one. Run PSFEx with "
            "PSFVAR_GROUPS 1,1."
        )
    degree = int(header.get("POLDEG1", 0)) if axes else 0
    # PSFEx's order: for rising powers of the second variable, all powers of the first.
    powers = [(i, j) for j in range(degree + 1) for i in range(degree + 1 - j)]
    planes = np.array(hdu.data["PSF_MASK"][0], dtype=np.float64)
    planes = planes[None] if planes.ndim == 2 else planes
    if len(planes) != len(powers):
        raise FormatError(
            f"{path}: {len(planes)} planes for a polynomial of degree {degree}, expected "
            f"{len(powers)}. Is it a PSFEx file?"
        )
    number = [float(header.get(key, default)) for key, default in (
        ("POLZERO1", 0.0), ("POLZERO2", 0.0), ("POLSCAL1", 1.0), ("POLSCAL2", 1.0),
        ("PSF_SAMP", 1.0),
    )]  # fmt: skip
    return PSFExModel(
        planes, np.array(powers), (number[0], number[1]), (number[2], number[3]), number[4]
    )
