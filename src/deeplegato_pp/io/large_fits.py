"""FITS images larger than memory, written through a memory map."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.files import check_output, disk_full_named, written_whole

FITS_BLOCK = 2880
BITPIX = {"int32": 32, "float32": -32}


@contextmanager
def fits_canvas(
    path: Path, shape: tuple[int, int], kind: str, cards: dict[str, Any] | None = None
) -> Iterator[Array]:
    """Yields zeroed pixels that become a FITS file at the end, unless an error is raised.

    Args:
        path: Path of the file; an existing file is replaced.
        shape: Rows and columns.
        kind: Type of the pixels, ``"int32"`` or ``"float32"``.
        cards: Additional header cards.

    Yields:
        A writable memory map, with shape (H, W), big-endian.

    Raises:
        DiskFullError: If the disk is full.
        InputError: If the path is not writable, or the type is unsupported.
    """
    from astropy.io import fits

    check_output(path, (".fits",), "image")
    if kind not in BITPIX:
        raise InputError(f"pixels must be of one of {', '.join(BITPIX)}, got {kind}.")
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, BITPIX[kind], 2
    header["NAXIS1"], header["NAXIS2"] = shape[1], shape[0]
    for card, value in (cards or {}).items():
        header[card] = value
    text = header.tostring(padding=True).encode("ascii")
    dtype = np.dtype(kind).newbyteorder(">")
    size = dtype.itemsize * shape[0] * shape[1]
    with written_whole(path) as temporary:
        with temporary.open("wb") as file, disk_full_named(path):
            file.write(text)
            # Space is reserved first: writing to a memory map on a full disk kills the process.
            _reserve(file, len(text), size + (-size) % FITS_BLOCK)
        pixels: Any = np.memmap(temporary, dtype, "r+", offset=len(text), shape=shape)
        yield pixels
        pixels.flush()
        del pixels


def _reserve(file: BinaryIO, start: int, size: int) -> None:
    """Reserves disk space for a file, by writing zeros if the system has no call for it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, start + size)
        return
    zeros = bytes(min(size, 2**20))
    for done in range(0, size, len(zeros) or 1):
        file.write(zeros[: size - done])
