"""Model and residual images of catalogues."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.cutouts import Scene
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.large_fits import fits_canvas
from deeplegato_pp.scene.render.renderer import FARTHEST, render_sersic

SIDES = (64, 128, 256, 512, 1024)
"""Sides of the square stamps on which models are rendered; the smallest above 16 R_e. [px]"""

RADII = 16.0

ROWS = 1024
"""Number of image rows in memory at a time."""


def write_images(scene: Scene, catalogue: Any, model: Path | None, residual: Path | None) -> int:
    """Writes the sum of all models on the image's pixels, and the residual image.

    Each measured source is rendered at its posterior means with its own PSF. The residual is that
    of the image as measured, after subtraction of any background.

    Args:
        scene: Scene of one image.
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


def _add(scene: Scene, row: Any, canvas: Array) -> int:
    """Adds one source's model to an image; returns whether there was one."""
    value = {n: float(getattr(row[n], "value", row[n])) for n in (
        "magnitude", "effective_radius", "sersic_index", "axis_ratio", "position_angle",
        "x", "y", "pixel_scale", "zero_point", "ra", "dec",
    )}  # fmt: skip
    if not all(math.isfinite(value[n]) for n in ("magnitude", "effective_radius", "x", "y")):
        return 0
    radius = value["effective_radius"] / value["pixel_scale"]
    side = next((s for s in SIDES if s >= RADII * radius), SIDES[-1])
    left, bottom = (round(value[n]) - side // 2 for n in ("x", "y"))
    offsets = value["x"] - left - (side - 1) / 2, value["y"] - bottom - (side - 1) / 2
    if max(map(abs, offsets)) > FARTHEST * side:
        return 0
    kernel, oversampling, includes_pixel = scene.psf_at(0, value["x"], value["y"])
    flux = 10.0 ** (-0.4 * (value["magnitude"] - value["zero_point"]))
    numbers = (flux, radius, value["sersic_index"], value["axis_ratio"], value["position_angle"])
    columns = [torch.tensor([v], dtype=torch.float64) for v in (*numbers, *offsets)]
    flux_, radius_, n, q, angle, dx, dy = columns
    image = render_sersic(
        flux_,
        radius_,
        n,
        q,
        angle,
        dx,
        dy,
        torch.from_numpy(np.array(kernel)),
        side,
        oversampling=oversampling,
        psf_includes_pixel=includes_pixel,
    )[0].numpy()
    height, width = canvas.shape
    y0, y1 = max(bottom, 0), min(bottom + side, height)
    x0, x1 = max(left, 0), min(left + side, width)
    if y1 <= y0 or x1 <= x0:
        return 0
    canvas[y0:y1, x0:x1] += image[y0 - bottom : y1 - bottom, x0 - left : x1 - left]
    return 1
