"""The PSF wherever a source is: one image, a cube with positions, or a PSFEx model.

A map is evaluated at the centres of cells of ``CELL`` pixels, so that neighbours share their PSF:
PSFs vary over thousands of pixels, and what is derived from one is kept.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.checks import as_real_array
from deeplegato_pp.observation.psf_files import (
    ConstantPSF,
    CubePSF,
    PSFAt,
    PSFExModel,
    PSFMap,
    open_psf_file,
    resampled,
)

__all__ = [
    "CELL",
    "ConstantPSF",
    "CubePSF",
    "PSFAt",
    "PSFExModel",
    "PSFMap",
    "cells",
    "open_psf_map",
    "resampled",
]

CELL = 128
"""Side of the cells in which the PSF is taken to be constant. [px]"""


def open_psf_map(
    source: Any,
    name: str = "the PSF",
    pixel_scale: float | None = None,
    oversampling: int | None = None,
) -> PSFMap:
    """Opens a PSF of any kind.

    A file is opened by :func:`~deeplegato_pp.observation.psf_files.open_psf_file`. An array is one
    PSF; anything that can be called with (x, y) and returns an array is asked.

    Args:
        source: Path, array or function.
        name: What to call it in messages.
        pixel_scale: Of the image, with which the PSF's own is compared. [arcsec/px]
        oversampling: Samples per pixel as the user says; None: as the file does.

    Raises:
        FormatError: If the file is none of these, or damaged.
        InputError: If a cube has no usable plane.
    """
    if isinstance(source, PSFAt):
        return ConstantPSF(source)
    if callable(source):
        return cells(lambda x, y: PSFAt(np.asarray(source(x, y), dtype=np.float64)))
    if not isinstance(source, str | Path):
        return ConstantPSF(PSFAt(as_real_array(source, name)))
    found = open_psf_file(source, pixel_scale, oversampling, name)
    return found if isinstance(found, ConstantPSF) else cells(found)


def cells(psf_map: PSFMap) -> PSFMap:
    """Returns a map that is evaluated once per cell, at the cell's centre."""

    @lru_cache(maxsize=1024)
    def at(column: int, row: int) -> PSFAt:
        return psf_map((column + 0.5) * CELL - 0.5, (row + 0.5) * CELL - 0.5)

    def lookup(x: float, y: float) -> PSFAt:
        return at(math.floor((x + 0.5) / CELL), math.floor((y + 0.5) / CELL))

    return lookup
