"""Images larger than memory: planes of pixels of which rectangles are read.

A plane reads only what is asked for: from a memory map of an uncompressed FITS file, or from the
tiles of a compressed one, of which the latest are kept. All give native float64.
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
from deeplegato_pp.io.fits_extensions import is_image

if TYPE_CHECKING:
    from astropy.io.fits import HDUList

BITPIX = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""FITS's types of pixels, as numpy names them."""

BLOCK = 256
"""Pixels per side, at least, of the blocks in which compressed images are read."""

CACHE_BYTES = 256 * 1024**2
"""What the decompressed blocks of one image may occupy."""


@runtime_checkable
class Plane(Protocol):
    """Pixels of which rectangles can be read, from several threads."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns rows [bottom, top) and columns [left, right), all within the image."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayPlane:
    """A plane that is in memory, or in a ``numpy.memmap``."""

    pixels: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a float64 copy of a rectangle."""
        return np.array(self.pixels[bottom:top, left:right], dtype=np.float64)


@dataclass(frozen=True)
class MappedPlane:
    """An uncompressed FITS image on disk.

    Attributes:
        path: The file.
        offset: Of the first pixel in it. [bytes]
        bitpix: Type of the pixels, as in the header.
        shape: Rows and columns.
        scale: BSCALE.
        zero: BZERO.
        blank: Integer that means *no value*, or None.
    """

    path: str
    offset: int
    bitpix: int
    shape: tuple[int, int]
    scale: float = 1.0
    zero: float = 0.0
    blank: int | None = None

    @cached_property
    def _map(self) -> Any:
        kind = np.dtype(BITPIX[self.bitpix])
        return np.memmap(self.path, kind, "r", offset=self.offset, shape=self.shape)

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a rectangle in physical values, NaN where it is blank."""
        stored = self._map[bottom:top, left:right]
        values = np.array(stored, dtype=np.float64)
        if self.blank is not None and self.bitpix > 0:
            values[np.asarray(stored) == self.blank] = np.nan
        if self.scale != 1.0 or self.zero != 0.0:
            values = values * self.scale + self.zero
        return values


class CompressedPlane:
    """A tile-compressed FITS image: the blocks read last are kept, at most ``CACHE_BYTES``.

    Args:
        path: The file.
        index: Of the extension.
        shape: Rows and columns.
        tile: Rows and columns of its tiles.
    """

    def __init__(self, path: str, index: int, shape: tuple[int, int], tile: tuple[int, int]):
        self.path, self.index, self.shape = path, index, shape
        self.block = tuple(
            min(size, -(-BLOCK // t) * t) for size, t in zip(shape, tile, strict=True)
        )
        self._blocks: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_blocks", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._blocks, self._lock = OrderedDict(), threading.Lock()

    def read(self, bottom: int, top: int, left: int, right: int) -> Array:
        """Returns a rectangle, put together from blocks."""
        rows, columns = self.block
        found = np.empty((top - bottom, right - left))
        with self._lock:
            for i in range(bottom // rows, -(-top // rows)):
                for j in range(left // columns, -(-right // columns)):
                    block = self._block(i, j)
                    y0, x0 = max(i * rows, bottom), max(j * columns, left)
                    y1 = min(i * rows + block.shape[0], top)
                    x1 = min(j * columns + block.shape[1], right)
                    found[y0 - bottom : y1 - bottom, x0 - left : x1 - left] = block[
                        y0 - i * rows : y1 - i * rows, x0 - j * columns : x1 - j * columns
                    ]
        return found

    def _block(self, i: int, j: int) -> Array:
        if (i, j) in self._blocks:
            self._blocks.move_to_end((i, j))
            return self._blocks[i, j]
        from astropy.io import fits

        rows, columns = self.block
        with fits.open(self.path, memmap=True) as hdus:
            section: Any = hdus[self.index].section[
                i * rows : min((i + 1) * rows, self.shape[0]),
                j * columns : min((j + 1) * columns, self.shape[1]),
            ]
            block = np.array(section, dtype=np.float64)
        self._blocks[i, j] = block
        while len(self._blocks) > 1 and len(self._blocks) * block.nbytes > CACHE_BYTES:
            self._blocks.popitem(last=False)
        return block


def open_plane(hdus: HDUList, index: int, path: str | Path, what: str) -> Plane:
    """Returns the plane of an extension, without reading its pixels.

    Args:
        hdus: The open file.
        index: Of the extension.
        path: The file, for messages and for reading later.
        what: What it is, for messages.

    Raises:
        FormatError: If the extension has no pixels, or the file ends before they do.
        ShapeError: If it is not 2-D.
    """
    hdu: Any = hdus[index]
    if not is_image(hdu):
        raise FormatError(f"{path}: {what} (extension {hdu.name or index}) has no pixels.")
    shape = tuple(int(n) for n in hdu.shape)
    if len(shape) != 2:
        check_two_dimensional(np.empty([0] * len(shape)), f"{what} in {path}")
    check_not_empty(np.empty(shape, dtype=bool) if 0 in shape else np.empty((1, 1)), what)
    if type(hdu).__name__ == "CompImageHDU":
        tile = getattr(hdu, "tile_shape", None) or (1, shape[1])
        return CompressedPlane(str(path), index, (shape[0], shape[1]), (tile[-2], tile[-1]))
    if not _mappable(path):
        return ArrayPlane(as_real_array(hdu.data, f"{what} in {path}"))
    return _mapped(hdu, path, (shape[0], shape[1]), what)


def read_padded(plane: Plane, bottom: int, left: int, side: int, fill: float) -> Array:
    """Returns a square of a plane, with shape (side, side), `fill` where it lies outside."""
    height, width = plane.shape
    y0, y1 = max(bottom, 0), min(bottom + side, height)
    x0, x1 = max(left, 0), min(left + side, width)
    if (y1 - y0, x1 - x0) == (side, side):
        return plane.read(y0, y1, x0, x1)
    square = np.full((side, side), fill)
    if y1 > y0 and x1 > x0:
        square[y0 - bottom : y1 - bottom, x0 - left : x1 - left] = plane.read(y0, y1, x0, x1)
    return square


def _mappable(path: str | Path) -> bool:
    """Whether the file's bytes are the pixels': not if the whole file is compressed."""
    with open(path, "rb") as file:
        magic = file.read(3)
    return magic[:2] != b"\x1f\x8b" and magic != b"BZh"


def _mapped(hdu: Any, path: str | Path, shape: tuple[int, int], what: str) -> MappedPlane:
    header = hdu.header  # astropy takes the scaling out of it only when it reads the pixels
    place = hdu.fileinfo()
    bitpix = int(header["BITPIX"])
    needed = place["datLoc"] + abs(bitpix) // 8 * shape[0] * shape[1]
    size = Path(path).stat().st_size
    if size < needed:
        raise FormatError(
            f"{path}: the file is damaged or incomplete: {what} ends at byte {needed}, the file "
            f"has {size}. Fetch or write it again."
        )
    blank = header.get("BLANK")
    return MappedPlane(
        str(path),
        int(place["datLoc"]),
        bitpix,
        shape,
        float(header.get("BSCALE", 1.0)),
        float(header.get("BZERO", 0.0)),
        None if blank is None else int(blank),
    )
