"""PSF maps: one image, a cube with positions, a PSFEx model, or a function of position.

A map is evaluated at the centres of cells of ``CELL`` pixels, so that neighbouring sources share
their PSF and quantities derived from it are cached; PSFs vary over thousands of pixels.
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
"""Side of the cells in which the PSF is assumed constant. [px]"""


def open_psf_map(
    source: Any,
    name: str = "the PSF",
    pixel_scale: float | None = None,
    oversampling: int | None = None,
) -> PSFMap:
    """Opens a PSF of any kind.

    A file is opened by :func:`~deeplegato_pp.observation.psf_files.open_psf_file`. An array is one
    PSF; a callable is evaluated at (x, y) and returns an array.

    Args:
        source: Path, array or function.
        name: Name in messages.
        pixel_scale: Pixel scale of the image, compared with that of the PSF. [arcsec/px]
        oversampling: Samples per pixel given by the user; None for the file's.

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
    """Returns a map that is evaluated once per cell, at its centre."""

    @lru_cache(maxsize=1024)
    def at(column: int, row: int) -> PSFAt:
        return psf_map((column + 0.5) * CELL - 0.5, (row + 0.5) * CELL - 0.5)

    def lookup(x: float, y: float) -> PSFAt:
        return at(math.floor((x + 0.5) / CELL), math.floor((y + 0.5) / CELL))

    return lookup
