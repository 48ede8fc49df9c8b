"""Observations in detector units: what networks see of them, and where the prior's box lies.

Detector units are pixels of the prepared stamp and background sigmas; the reference instrument is
where one of each is 0.25 arcsec and magnitude 30.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.psf_grid import to_network_grid
from deeplegato_pp.scene.stamps import (
    PSF_GRID_OVERSAMPLING,
    REFERENCE_PIXEL_SCALE,
    REFERENCE_ZERO_POINT,
    StampBatch,
)


def user_box(box: PriorBox, prepared: PreparedStamp) -> PriorBox:
    """Returns a box of the reference instrument in the units of a user's image.

    It shifts rigidly: magnitudes with zero point and noise, radii with the pixel scale, centres
    with crop and binning. The coordinates w of a galaxy are the same in both.

    Args:
        box: At the reference instrument.
        prepared: The stamp, which knows the way back.
    """
    factor = prepared.pixel_scale / REFERENCE_PIXEL_SCALE
    (x_low, x_high), (y_low, y_high) = box.center_x, box.center_y
    low = prepared.center_to_user(x_low, y_low)
    high = prepared.center_to_user(x_high, y_high)
    return replace(
        box.shifted(magnitude=magnitude_shift(prepared), radius_factor=factor),
        center_x=(low[0], high[0]),
        center_y=(low[1], high[1]),
    )


def magnitude_shift(prepared: PreparedStamp) -> float:
    """Returns the user's magnitude minus that at the reference instrument."""
    return prepared.zero_point - REFERENCE_ZERO_POINT - 2.5 * math.log10(prepared.scale)


def stamp_batch(prepared: Sequence[PreparedStamp]) -> StampBatch:
    """Returns prepared stamps as the network takes them, float32, one row each."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(p, name) for p in prepared]).astype(np.float32))

    return StampBatch(
        image=stack("image"),
        sigma=stack("noise"),
        mask=torch.from_numpy(np.stack([p.mask for p in prepared])),
        psf=torch.cat([network_psf(p) for p in prepared]),
        gain=torch.tensor([p.gain for p in prepared], dtype=torch.float32),
        sky_sigma=torch.tensor([p.sky_sigma for p in prepared], dtype=torch.float32),
        noise_correlation=torch.tensor(
            [p.noise_correlation for p in prepared], dtype=torch.float32
        ),
    )


def network_psf(prepared: PreparedStamp) -> Float[Tensor, "1 43 43"]:
    """Returns a stamp's PSF on the grid that networks see."""
    return _resampled(*_psf_key(prepared))[0]


def effective_fwhm(prepared: PreparedStamp) -> float:
    """Returns the FWHM of a stamp's PSF, its pixel included. [px of the stamp]"""
    return _resampled(*_psf_key(prepared))[1]


def _psf_key(prepared: PreparedStamp) -> tuple[bytes, tuple[int, ...], int, bool]:
    psf = np.ascontiguousarray(prepared.psf, dtype=np.float64)
    return psf.tobytes(), psf.shape, prepared.psf_oversampling, prepared.psf_includes_pixel


@lru_cache(maxsize=256)
def _resampled(
    content: bytes, shape: tuple[int, ...], oversampling: int, includes_pixel: bool
) -> tuple[Tensor, float]:
    """A PSF on the networks' grid and its FWHM; galaxies of one image often share their PSF."""
    psf = torch.from_numpy(np.frombuffer(content).reshape(shape).copy())[None]
    grid = to_network_grid(psf, oversampling, includes_pixel)
    return grid.float(), psf_fwhm(grid[0].numpy(), PSF_GRID_OVERSAMPLING)
