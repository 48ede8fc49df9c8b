"""Images larger than memory, of which rectangles are read.

Rectangles are read from a memory map of an uncompressed FITS file, or from the tiles of a
compressed one, with a cache. Pixels are native float64.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import as_real_array, check_not_empty, check_two_dimensional
from deeplegato_pp.errors import FormatError
from deeplegato_pp.io.fits_extensions import is_image, plane_index
from deeplegato_pp.io.linear_pixels import linear

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

BITPIX = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""Pixel types of FITS by BITPIX, with numpy's names."""

BLOCK = 256
"""Minimum side of the blocks in which compressed images are read. [px]"""

CACHE_BYTES = 256 * 1024**2
"""Maximum memory of the decompressed blocks of one image. [bytes]"""


@runtime_checkable
class Plane(Protocol):
    """Image of which rectangles can be read, from several threads."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns rows [bottom, top) and columns [left, right), all within the image."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayPlane:
    """Image in memory, or in a ``numpy.memmap``.

    Attributes:
        pixels: Pixels, with shape (H, W).
        whole: Whether integers are kept, as for mask bits.
    """

    pixels: Array
    whole: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a float64 copy of a rectangle."""
        part = self.pixels[bottom:top, left:right]
        return np.array(part, dtype=part.dtype if self.whole else np.float64)


@dataclass(frozen=True)
class MappedPlane:
    """Uncompressed FITS image on disk.

    Attributes:
        path: The file.
        offset: Position of the first pixel in the file. [bytes]
        bitpix: Type of the pixels in the header.
        shape: Rows and columns.
        scale: BSCALE of the header.
        zero: BZERO of the header.
        blank: Integer of missing values, or None.
        whole: Whether integers are kept, as for mask bits.
    """

    path: str
    offset: int
    bitpix: int
    shape: tuple[int, int]
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None
    whole: bool = False

    @cached_property
    def _map(self) -> Any:
        kind = np.dtype(BITPIX[self.bitpix])
        return np.memmap(self.path, kind, "r", offset=self.offset, shape=self.shape)

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a rectangle in physical values, with NaN for missing values."""
        stored = self._map[bottom:top, left:right]
        if self.whole and self.bitpix > 0 and self.scale == 1.0 and self.zero >= 0:
            return np.asarray(stored.astype(np.uint64) + np.uint64(self.zero))
        values = np.array(stored, dtype=np.float64)
        if self.blank is not None and self.bitpix > 0:
            values[np.asarray(stored) == self.blank] = np.nan
        if self.scale != 1.0 or self.zero != 0.0:
            values = values * self.scale + self.zero
        return values


class CompressedPlane:
    """Tile-compressed FITS image; the most recent blocks are cached, up to ``CACHE_BYTES``.

    Args:
        path: The file.
        index: Index of the extension.
        shape: Rows and columns.
        tile: Rows and columns of its tiles.
        front: Index in each axis before rows and columns.
        whole: Whether integers are kept, as for mask bits.
    """

    def __init__(
        self,
        path: str,
        index: int,
        shape: tuple[int, int],
        tile: tuple[int, int],
        front: tuple[int, ...] = (),
        whole: bool = False,
    ):
        self.path, self.index, self.shape = path, index, shape
        self.front, self.whole, self.tile = front, whole, tile
        self.block = tuple(
            min(size, -(-BLOCK // t) * t) for size, t in zip(shape, tile, strict=True)
        )
        self.damaged: list[tuple[int, int, int, int]] = []
        self._blocks: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_blocks", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._blocks, self._lock = OrderedDict(), threading.Lock()

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a rectangle, assembled from blocks."""
        rows, columns = self.block
        found: Array | None = None
        with self._lock:
            for i in range(bottom // rows, -(-top // rows)):
                for j in range(left // columns, -(-right // columns)):
                    block = self._block(i, j)
                    if found is None:
                        found = np.empty((top - bottom, right - left), dtype=block.dtype)
                    y0, x0 = max(i * rows, bottom), max(j * columns, left)
                    y1 = min(i * rows + block.shape[0], top)
                    x1 = min(j * columns + block.shape[1], right)
                    found[y0 - bottom : y1 - bottom, x0 - left : x1 - left] = block[
                        y0 - i * rows : y1 - i * rows, x0 - j * columns : x1 - j * columns
                    ]
        return np.empty((top - bottom, right - left)) if found is None else found

    def _block(self, i: int, j: int) -> Array:
        if (i, j) in self._blocks:
            self._blocks.move_to_end((i, j))
            return self._blocks[i, j]
        from astropy.io import fits

        rows, columns = self.block
        # Without memory map, astropy applies BSCALE, BZERO and BLANK of integers.
        with fits.open(self.path, memmap=False) as hdus:
            bottom, top = i * rows, min((i + 1) * rows, self.shape[0])
            left, right = j * columns, min((j + 1) * columns, self.shape[1])
            try:
                block = self._section(hdus[self.index], bottom, top, left, right)
            except Exception:  # decompression libraries raise errors of any type
                block = self._what_is_left(hdus[self.index], bottom, top, left, right)
        self._blocks[i, j] = block
        while len(self._blocks) > 1 and len(self._blocks) * block.nbytes > CACHE_BYTES:
            self._blocks.popitem(last=False)
        return block

    def _section(self, hdu: Any, bottom: int, top: int, left: int, right: int) -> Array:
        part: Any = hdu.section[(*self.front, slice(bottom, top), slice(left, right))]
        keep = self.whole and part.dtype.kind in "iu"
        return np.array(part, dtype=part.dtype.newbyteorder("=") if keep else np.float64)

    def _what_is_left(self, hdu: Any, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a block with damaged tiles, read tile by tile; NaN for damaged tiles."""
        block = np.full((top - bottom, right - left), np.nan)
        high, wide = self.tile
        for y in range(bottom, top, high):
            for x in range(left, right, wide):
                y1, x1 = min(y + high, top), min(x + wide, right)
                try:
                    part = self._section(hdu, y, y1, x, x1)
                except Exception:  # as above
                    part = np.full((y1 - y, x1 - x), np.nan)
                    self.damaged.append((y, y1, x, x1))
                block[y - bottom : y1 - bottom, x - left : x1 - left] = part
        if not np.isfinite(block).any():
            raise FormatError(
                f"{self.path}: all tiles of rows {bottom} to {top - 1} are damaged. Fetch the file "
                "again."
            )
        return block


def open_plane(
    hdus: HDUList, index: int, path: str | Path, what: str, plane: int | None = None
) -> Plane:
    """Returns the image of an extension without reading its pixels; integers of masks are kept.

    Args:
        hdus: The open file.
        index: Index of the extension.
        path: The file, for messages and for reading later.
        what: Description for messages; integers of "the mask" are kept.
        plane: Plane of a cube, counted from 0.

    Raises:
        FormatError: If the extension has no pixels, or the file is truncated.
        ShapeError: If it is a cube and no plane is given.
    """
    hdu: Any = hdus[index]
    if not is_image(hdu):
        raise FormatError(f"{path}: {what} (extension {hdu.name or index}) has no pixels.")
    full = tuple(int(n) for n in hdu.shape)
    front, shape = plane_index(full, plane, f"{what} in {path}"), full[-2:]
    if len(shape) != 2:
        check_two_dimensional(np.empty(full), f"{what} in {path}")
    whole = what.endswith("mask")
    check_not_empty(np.empty(shape, dtype=bool) if 0 in shape else np.empty((1, 1)), what)
    if type(hdu).__name__ == "CompImageHDU":
        tile = getattr(hdu, "tile_shape", None) or (1, shape[1])
        return CompressedPlane(
            str(path), index, (shape[0], shape[1]), (tile[-2], tile[-1]), front, whole
        )
    if not _mappable(path):
        stored = hdu.data[front]
        if whole and stored.dtype.kind in "iu":
            return ArrayPlane(np.array(stored, dtype=stored.dtype.newbyteorder("=")), whole)
        return ArrayPlane(as_real_array(stored, f"{what} in {path}"))
    number = int(np.ravel_multi_index(front, full[:-2])) if front else 0
    return _mapped(hdu, path, (shape[0], shape[1]), what, number, whole)


def damaged_pixels(plane: Plane, bottom: int, left: int, side: int) -> int:
    """Returns the number of pixels of a square that lie on damaged tiles."""
    return sum(
        max(0, min(y1, bottom + side) - max(y0, bottom))
        * max(0, min(x1, left + side) - max(x0, left))
        for y0, y1, x0, x1 in set(getattr(plane, "damaged", ()))
    )


def read_padded(plane: Plane, bottom: int, left: int, side: int, fill: float) -> Array:
    """Returns a square of an image, with shape (side, side), and `fill` outside the image."""
    height, width = plane.shape
    y0, y1 = max(bottom, 0), min(bottom + side, height)
    x0, x1 = max(left, 0), min(left + side, width)
    if (y1 - y0, x1 - x0) == (side, side):
        return plane.read(y0, y1, x0, x1)
    if not (y1 > y0 and x1 > x0):
        return np.full((side, side), fill)
    part = plane.read(y0, y1, x0, x1)
    square = np.full((side, side), fill, dtype=part.dtype)
    square[y0 - bottom : y1 - bottom, x0 - left : x1 - left] = part
    return square


def _mappable(path: str | Path) -> bool:
    """Whether the pixels can be mapped from the file, which must not be compressed as a whole."""
    with open(path, "rb") as file:
        magic = file.read(3)
    return magic[:2] != b"\x1f\x8b" and magic != b"BZh"


@dataclass(frozen=True, eq=False)
class LinearPlane:
    """Image of asinh magnitudes or with another unit, read as linear fluxes in the required unit.

    Attributes:
        stored: Pixels as stored.
        scaling: Result of :func:`~deeplegato_pp.io.linear_pixels.asinh_scaling`.
        factor: Factor that multiplies the fluxes.
    """

    stored: Plane
    scaling: tuple[float, float] | None = None
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.stored.shape

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a rectangle in linear fluxes."""
        pixels = linear(self.stored.read(bottom, top, left, right), self.scaling)
        return pixels * self.factor if self.factor != 1.0 else pixels


def _mapped(
    hdu: Any,
    path: str | Path,
    shape: tuple[int, int],
    what: str,
    number: int = 0,
    whole: bool = False,
) -> MappedPlane:
    """Returns the plane with a number, counted through all axes before rows and columns."""
    header = hdu.header  # astropy removes the scaling keywords when it reads the pixels
    place = hdu.fileinfo()
    bitpix = int(header["BITPIX"])
    area = abs(bitpix) // 8 * shape[0] * shape[1]
    needed = place["datLoc"] + (number + 1) * area
    size = Path(path).stat().st_size
    if size < needed:
        raise FormatError(
            f"{path}: the file is damaged or incomplete: {what} ends at byte {needed}, the file "
            f"has {size}. Fetch or write it again."
        )
    blank = header.get("BLANK")
    return MappedPlane(
        str(path),
        int(place["datLoc"]) + number * area,
        bitpix,
        shape,
        float(header.get("BSCALE", 1.0)),
        float(header.get("BZERO", 0.0)),
        None if blank is None else int(blank),
        whole and blank is None,
    )
