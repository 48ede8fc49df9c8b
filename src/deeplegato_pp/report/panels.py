"""Image, model and residual of a row of a catalogue, cut out anew from its file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.cutouts import Scene, open_scene
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.errors import DeepLegatoError
from deeplegato_pp.io.lazy_images import read_padded
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.scene.render.renderer import render_sersic

SIDES = (32, 48, 64, 96, 128, 192, 256)
"""Sides of the cutouts: the smallest that holds 8 R_e and 6 FWHM of the PSF, or the file. [px]"""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Panels:
    """What is shown of one galaxy.

    Attributes:
        image: Pixels less a constant sky, with shape (N, N); NaN outside the image. [image units]
        model: Noiseless galaxy at the posterior means, with shape (N, N); None if not measured.
        mask: True = masked in the file, with shape (N, N).
        sigma: Noise per pixel. [image units]
        center: Column and row of the galaxy in the cutout. [px]
        pixel_scale: [arcsec/px]
    """

    image: Array
    model: Array | None
    mask: Array
    sigma: float
    center: tuple[float, float]
    pixel_scale: float

    @property
    def residual(self) -> Array | None:
        """The image less the model, with shape (N, N)."""
        return None if self.model is None else self.image - self.model


@dataclass(frozen=True)
class Pixels:
    """Where a report finds pixels.

    Attributes:
        folders: Looked in, in turn, for files that the catalogue names.
        inputs: Builds the inputs of one image from its path.
    """

    folders: tuple[Path, ...]
    inputs: Callable[[str], Inputs]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_opened", lru_cache(maxsize=32)(self._open))

    def _open(self, name: str) -> Scene | str:
        """Opens an image; returns why not where it cannot be."""
        for folder in self.folders:
            path = folder / name
            if path.is_file():
                try:
                    return open_scene(self.inputs(str(path)))
                except (DeepLegatoError, OSError) as error:
                    return " ".join(str(error).split())
        return f"{name} is not there any more"

    def panels(self, row: Row) -> Panels | str:
        """Returns what is to be shown of a row, or why nothing can be."""
        name = row.get("image") or row.get("file")
        if not name:
            return "the row names no image"
        scene: Scene | str = self._opened(str(name))  # type: ignore[attr-defined]
        if isinstance(scene, str):
            return scene
        mosaic = scene.mosaics[0]
        x, y = (_first(row, key, f"{key}_source", fallback=(n - 1) / 2)
                for key, n in zip("xy", mosaic.shape[::-1], strict=True))  # fmt: skip
        scale = _first(row, "pixel_scale", fallback=mosaic.pixel_scale or 1.0)
        radius, fwhm = (_first(row, key, fallback=3.0)
                        for key in ("effective_radius_pix", "psf_fwhm"))  # fmt: skip
        # No larger than the file needs: what lies outside it is grey.
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
        model = _model(row, scene, center, side)
        rest = image if model is None else image - model
        known = rest[~mask & np.isfinite(rest)]
        sky = float(np.median(known)) if known.size else 0.0
        sigma = _first(row, "background", fallback=float("nan"))
        sigma /= max(1.0, _first(row, "bin", fallback=1.0))  # of a binned stamp: per binned pixel
        if not sigma > 0:
            sigma = 1.4826 * float(np.median(np.abs(known - sky))) if known.size else 1.0
        return Panels(image - sky, model, mask, sigma or 1.0, center, scale)


@torch.no_grad()
def _model(row: Row, scene: Scene, center: tuple[float, float], side: int) -> Array | None:
    """Returns the noiseless galaxy at the posterior means, None if the row was not measured."""
    names = ("magnitude", "effective_radius_pix", "sersic_index", "axis_ratio", "position_angle",
             "zero_point")  # fmt: skip
    magnitude, radius, n, q, angle, zero_point = (_first(row, k, fallback=math.nan) for k in names)
    if not all(map(math.isfinite, (magnitude, radius, n, q, angle, zero_point))):
        return None
    if scene.psfs[0] is None and scene.inputs.psf_fwhm is None:
        kernel, oversampling = moffat_psf(_first(row, "psf_fwhm", fallback=3.0))
        includes = True
    else:
        kernel, oversampling, includes = scene.psf_at(0, row["x"], row["y"])
    numbers = (10.0 ** (-0.4 * (magnitude - zero_point)), radius, n, q, angle,
               center[0] - (side - 1) / 2, center[1] - (side - 1) / 2)  # fmt: skip
    columns = [torch.tensor([v], dtype=torch.float32) for v in numbers]
    flux, radius_, n_, q_, angle_, x, y = columns
    return np.asarray(
        render_sersic(
            flux,
            radius_,
            n_,
            q_,
            angle_,
            x,
            y,
            torch.from_numpy(np.array(kernel, dtype=np.float32)),
            side,
            oversampling=oversampling,
            psf_includes_pixel=includes,
        )[0].numpy(),
        dtype=np.float64,
    )


def _first(row: Row, *names: str, fallback: float) -> float:
    """Returns the first finite number of a row under one of the names."""
    for name in names:
        value = row.get(name)
        if value is not None and math.isfinite(float(value)):
            return float(value)
    return fallback
