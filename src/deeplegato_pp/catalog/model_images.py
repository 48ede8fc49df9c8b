"""Model and residual images of catalogues."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.cutouts import OpenedImages
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.parts import COLUMNS, parts_of_row, render_part
from deeplegato_pp.io.large_fits import fits_canvas
from deeplegato_pp.scene.render.renderer import FARTHEST

SIDES = (64, 128, 256, 512, 1024)
"""Sides of the square stamps on which models are rendered; the smallest above 16 R_e. [px]"""

RADII = 16.0

ROWS = 1024
"""Number of image rows in memory at a time."""


def write_images(
    scene: OpenedImages, catalogue: Any, model: Path | None, residual: Path | None
) -> int:
    """Writes the sum of all models on the image's pixels, and the residual image.

    Each measured source is rendered at its posterior means with its own PSF, with all components of
    its best scene. The residual is that of the image as measured, after subtraction of any
    background.

    Args:
        scene: One opened image.
        catalogue: ``QTable`` of its sources, from ``read_catalogue``.
        model: Output FITS file of the models, or None.
        residual: Output FITS file of the residual, or None.

    Returns:
        Number of sources rendered.

    Raises:
        InputError: If the scene is not one mosaic, or a file cannot be written.
    """
    if len(scene.mosaics) != 1:
        raise InputError(
            f"model and residual are made of one image, got {len(scene.mosaics)}. Give one mosaic."
        )
    mosaic = scene.mosaics[0]
    cards = _cards(mosaic)
    with ExitStack() as stack:
        paths = [p for p in (model, residual) if p is not None]
        canvases = [
            stack.enter_context(fits_canvas(p, mosaic.shape, "float32", cards)) for p in paths
        ]
        rendered = sum(_add(scene, row, canvases[0]) for row in catalogue if canvases)
        if residual is not None:
            last = canvases[-1]
            for bottom in range(0, mosaic.shape[0], ROWS):
                top = min(bottom + ROWS, mosaic.shape[0])
                pixels = mosaic.image.read(bottom, top, 0, mosaic.shape[1])
                if mosaic.background is not None:
                    pixels -= mosaic.background.read(bottom, top, 0, mosaic.shape[1])
                last[bottom:top] = pixels - canvases[0][bottom:top]
    return rendered


def _cards(mosaic: Any) -> dict[str, Any]:
    cards: dict[str, Any] = {} if mosaic.wcs is None else dict(mosaic.wcs.to_header())
    if mosaic.unit:
        cards["BUNIT"] = mosaic.unit
    if mosaic.zero_point is not None:
        cards["MAGZERO"] = mosaic.zero_point
    return cards


def _add(scene: OpenedImages, row: Any, canvas: Array) -> int:
    """Adds one source's model to an image; returns whether there was one."""
    parts = parts_of_row({name: row[name] for name in COLUMNS if name in row.colnames})
    x, y, scale, zero_point = (
        float(getattr(row[n], "value", row[n])) for n in ("x", "y", "pixel_scale", "zero_point")
    )
    if not parts or not math.isfinite(x + y):
        return 0
    radius = max(part.values.get("effective_radius", 0.0) for part in parts) / scale
    side = next((s for s in SIDES if s >= RADII * radius), SIDES[-1])
    left, bottom = (round(value) - side // 2 for value in (x, y))
    offsets = x - left - (side - 1) / 2, y - bottom - (side - 1) / 2
    if max(map(abs, offsets)) > FARTHEST * side:
        return 0
    psf = scene.psf_at(0, x, y)
    images = [
        render_part(part, zero_point, scale, offsets, psf[0], side, *psf[1:]) for part in parts
    ]
    image = np.sum(images, axis=0)
    height, width = canvas.shape
    y0, y1 = max(bottom, 0), min(bottom + side, height)
    x0, x1 = max(left, 0), min(left + side, width)
    if y1 <= y0 or x1 <= x0:
        return 0
    canvas[y0:y1, x0:x1] += image[y0 - bottom : y1 - bottom, x0 - left : x1 - left]
    return 1
