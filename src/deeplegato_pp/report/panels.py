"""Image, model and residual of a catalogue's row, from the image file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.cutouts import OpenedImages, open_images
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.errors import DeepLegatoError
from deeplegato_pp.inference.posterior.parts import parts_of_row, render_part
from deeplegato_pp.io.lazy_images import read_padded
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.noise_maps import MAD_TO_SIGMA

SIDES = (32, 48, 64, 96, 128, 192, 256)
"""Sides of cutouts: the smallest that covers 8 R_e and 6 FWHM of the PSF, or the file. [px]"""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Panels:
    """Images of one galaxy.

    Attributes:
        image: Pixels minus a constant sky, with shape (N, N); NaN outside the file. [image units]
        model: Noiseless galaxy at the posterior means, the sum of its components, with shape (N,
            N); None if it was not measured.
        mask: True for pixels masked in the file, with shape (N, N).
        sigma: Noise per pixel. [image units]
        center: Column and row of the galaxy in the cutout. [px]
        pixel_scale: Pixel scale. [arcsec/px]
        components: Noiseless image of each component by name, if there are several.
    """

    image: Array
    model: Array | None
    mask: Array
    sigma: float
    center: tuple[float, float]
    pixel_scale: float
    components: Mapping[str, Array] = field(default_factory=dict)

    @property
    def residual(self) -> Array | None:
        """Image minus model, with shape (N, N)."""
        return None if self.model is None else self.image - self.model


@dataclass(frozen=True)
class Pixels:
    """Source of images for a report.

    Attributes:
        folders: Folders in which files of the catalogue are searched, in order.
        inputs: Function that builds the inputs of one image from its path.
    """

    folders: tuple[Path, ...]
    inputs: Callable[[str], Inputs]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_opened", lru_cache(maxsize=32)(self._open))

    def _open(self, name: str) -> OpenedImages | str:
        """Opens an image, or returns the reason why it cannot be opened."""
        for folder in self.folders:
            path = folder / name
            if path.is_file():
                try:
                    return open_images(self.inputs(str(path)))
                except (DeepLegatoError, OSError) as error:
                    return " ".join(str(error).split())
        return f"{name} is not there any more"

    def panels(self, row: Row) -> Panels | str:
        """Returns the images of a row, or the reason why there are none."""
        name = row.get("image") or row.get("file")
        if not name:
            return "the row names no image"
        scene: OpenedImages | str = self._opened(str(name))  # type: ignore[attr-defined]
        if isinstance(scene, str):
            return scene
        mosaic = scene.mosaics[0]
        x, y = (_first(row, key, f"{key}_source", fallback=(n - 1) / 2)
                for key, n in zip("xy", mosaic.shape[::-1], strict=True))  # fmt: skip
        scale = _first(row, "pixel_scale", fallback=mosaic.pixel_scale or 1.0)
        radius, fwhm = (_first(row, key, fallback=3.0)
                        for key in ("effective_radius_pix", "psf_fwhm"))  # fmt: skip
        # not larger than the file, beyond which all is grey
        wanted = min(8 * radius + 6 * fwhm, max(mosaic.shape))
        side = next((s for s in SIDES if s >= wanted), SIDES[-1])
        left, bottom = (math.ceil(v - (side - 1) / 2 - 0.5) for v in (x, y))
        image = read_padded(mosaic.image, bottom, left, side, np.nan)
        if mosaic.background is not None:
            image = image - read_padded(mosaic.background, bottom, left, side, np.nan)
        mask = np.zeros(image.shape, dtype=bool)
        if mosaic.mask is not None:
            bits = mosaic.mask_bits
            given = read_padded(mosaic.mask, bottom, left, side, 0.0)
            mask = given != 0 if bits is None else (given.astype(np.int64) & bits) != 0
        center = (x - left, y - bottom)
        components = _components(row, scene, center, scale, side)
        model = np.sum([*components.values()], axis=0) if components else None
        rest = image if model is None else image - model
        known = rest[~mask & np.isfinite(rest)]
        sky = float(np.median(known)) if known.size else 0.0
        sigma = _first(row, "background", fallback=float("nan"))
        sigma /= max(1.0, _first(row, "bin", fallback=1.0))  # per binned pixel
        if not sigma > 0:
            sigma = MAD_TO_SIGMA * float(np.median(np.abs(known - sky))) if known.size else 1.0
        several = components if len(components) > 1 else {}
        return Panels(image - sky, model, mask, sigma or 1.0, center, scale, several)


def _components(
    row: Row, scene: OpenedImages, center: tuple[float, float], scale: float, side: int
) -> dict[str, Array]:
    """Returns the noiseless images of a row's components; empty if it was not measured."""
    parts = parts_of_row(row)
    zero_point = _first(row, "zero_point", fallback=math.nan)
    if not parts or not math.isfinite(zero_point):
        return {}
    if scene.psfs[0] is None and scene.inputs.psf_fwhm is None:
        psf = (*moffat_psf(_first(row, "psf_fwhm", fallback=3.0)), True)
    else:
        psf = scene.psf_at(0, row["x"], row["y"])
    offset = center[0] - (side - 1) / 2, center[1] - (side - 1) / 2
    return {
        part.name: render_part(
            part, zero_point, scale, offset, psf[0], side, *psf[1:], dtype=torch.float32
        )
        for part in parts
    }


def _first(row: Row, *names: str, fallback: float) -> float:
    """Returns the first finite number of a row among columns."""
    for name in names:
        value = row.get(name)
        if value is not None and math.isfinite(float(value)):
            return float(value)
    return fallback
