"""The PSF wherever a source is: one image, a cube with positions, or a PSFEx model.

A map is evaluated at the centres of cells of ``CELL`` pixels, so that neighbours share their PSF:
PSFs vary over thousands of pixels, and what is derived from one is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.mosaics import opened
from deeplegato_pp.checks import as_real_array
from deeplegato_pp.errors import FormatError, InputError
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.io import fits_extensions
from deeplegato_pp.io.fits_extensions import is_image

CELL = 128
"""Side of the cells in which the PSF is taken to be constant. [px]"""

NEAREST = 4
"""Planes of a cube that are averaged, weighted by the inverse square of their distance."""

X_NAMES = ("x", "x_image0", "xcentroid")
Y_NAMES = ("y", "y_image0", "ycentroid")


@dataclass(frozen=True, eq=False)
class PSFAt:
    """The PSF at one place.

    Attributes:
        image: Effective PSF, with shape (Py, Px), not normalised.
        oversampling: Samples per pixel; None: as the user says.
        notes: Remarks for the rows that rest on it.
    """

    image: Array
    oversampling: int | None = None
    notes: tuple[str, ...] = ()


PSFMap = Callable[[float, float], PSFAt]
"""From 0-based pixels (x, y) of the mosaic to the PSF there."""


@dataclass(frozen=True, eq=False)
class ConstantPSF:
    """The same PSF everywhere."""

    psf: PSFAt

    def __call__(self, x: float, y: float) -> PSFAt:
        """Returns the PSF, the same object each time."""
        return self.psf


@dataclass(frozen=True, eq=False)
class CubePSF:
    """PSFs known at some places of the mosaic.

    Unusable planes (NaN, or without light) are left out; where one of them would have been the
    nearest, the result says so.

    Attributes:
        planes: With shape (K, Py, Px).
        x: Columns of the planes' places, 0-based, with shape (K,). [px]
        y: Their rows. [px]
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
        """Returns the mean of the nearest planes, each normalised; of one at the place itself."""
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
        return PSFAt(mean, notes=notes)


@dataclass(frozen=True, eq=False)
class PSFExModel:
    """A PSFEx model: planes times a polynomial of the position.

    Attributes:
        planes: With shape (K, Py, Px).
        powers: Powers of the reduced x and y of each plane, with shape (K, 2).
        zero: x and y, from 1, at which the reduced ones vanish. [px]
        scale: Pixels per reduced unit.
        sampling: Pixels of the image per sample of the planes.

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
        """Returns the model, on a grid of a whole number of samples per pixel."""
        reduced = [
            (value + 1.0 - zero) / scale  # FITS counts from 1
            for value, zero, scale in zip((x, y), self.zero, self.scale, strict=True)
        ]
        terms = reduced[0] ** self.powers[:, 0] * reduced[1] ** self.powers[:, 1]
        image = np.tensordot(terms, self.planes, axes=1)
        oversampling = max(1, round(1.0 / self.sampling))
        return PSFAt(resampled(image, 1.0 / (oversampling * self.sampling)), oversampling)


def resampled(image: Array, step: float) -> Array:
    """Returns a PSF on a grid of other spacing about the same centre, by quintic splines.

    Args:
        image: With shape (Py, Px), odd.
        step: Old samples per new one.

    Returns:
        With odd sizes, the largest that fit in the old extent; the image itself for step 1.
    """
    if abs(step - 1.0) < 1e-6:
        return image
    from scipy.ndimage import map_coordinates

    halves = [int((size - 1) / 2 / step) for size in image.shape]
    axes = [
        (size - 1) / 2 + step * np.arange(-half, half + 1)
        for size, half in zip(image.shape, halves, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    fine: Array = map_coordinates(image, grid, order=5, mode="constant")
    return fine


def open_psf_map(source: Any, name: str = "the PSF") -> PSFMap:
    """Opens a PSF of any kind.

    A FITS file with a 2-D image is one PSF. One with a 3-D image is a cube: a table in the same
    file holds the planes' ``x`` and ``y`` (0-based pixels), one row per plane. A PSFEx file
    (``.psf``) holds a table PSF_DATA. An array is one PSF; anything that can be called with
    (x, y) and returns an array is asked.

    Raises:
        FormatError: If the file is none of these, or damaged.
        InputError: If a cube has no usable plane.
    """
    if callable(source):
        return cells(lambda x, y: PSFAt(np.asarray(source(x, y), dtype=np.float64)))
    if not isinstance(source, str | Path):
        return ConstantPSF(PSFAt(as_real_array(source, name)))
    with opened(source) as hdus:
        for hdu in hdus:
            if hdu.name == "PSF_DATA":
                return cells(_psfex(hdu, source))
        for hdu in hdus:
            if is_image(hdu) and len(hdu.shape) == 3:
                x, y = _positions(hdus, hdu.shape[0], source)
                return cells(CubePSF(as_real_array(hdu.data, name), x, y))
    image = fits_io.read_array(source, fits_extensions.PSF_NAMES, name)
    return ConstantPSF(PSFAt(image))


def cells(psf_map: PSFMap) -> PSFMap:
    """Returns a map that is evaluated once per cell, at the cell's centre."""

    @lru_cache(maxsize=1024)
    def at(column: int, row: int) -> PSFAt:
        return psf_map((column + 0.5) * CELL - 0.5, (row + 0.5) * CELL - 0.5)

    def lookup(x: float, y: float) -> PSFAt:
        return at(math.floor((x + 0.5) / CELL), math.floor((y + 0.5) / CELL))

    return lookup


def _positions(hdus: Any, planes: int, path: str | Path) -> tuple[Array, Array]:
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


def _psfex(hdu: Any, path: str | Path) -> PSFExModel:
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
