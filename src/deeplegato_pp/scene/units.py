"""Conversion between the user's units and detector units.

Converts prior boxes, fixed values, columns, stamps and PSFs. Detector units are pixels of the
prepared stamp and background sigmas; at the reference instrument, these are 0.25 arcsec and
magnitude 30.5.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.correlated_noise import lags_of
from deeplegato_pp.scene.parameters import (
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    NUM_PARAMETERS,
    RADIUS,
    signal_to_noise,
)
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.psf_grid import to_network_grid
from deeplegato_pp.scene.stamps import (
    PSF_GRID_OVERSAMPLING,
    REFERENCE_PIXEL_SCALE,
    REFERENCE_ZERO_POINT,
    StampBatch,
)


def user_box(box: PriorBox, prepared: PreparedStamp) -> PriorBox:
    """Converts a prior box at the reference instrument to the units of a user's image.

    The box is shifted: magnitudes by zero point and noise, radii by the pixel scale, centres by
    crop and binning. The coordinates w of a galaxy are the same in both boxes.

    Args:
        box: Prior box at the reference instrument.
        prepared: Prepared stamp of the image.
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


def reference_box(box: PriorBox, prepared: PreparedStamp) -> PriorBox:
    """Converts a prior box in the units of a user's image to the reference instrument.

    Inverse of :func:`user_box`.

    Args:
        box: Prior box in the user's units.
        prepared: Prepared stamp of the image.
    """
    factor = REFERENCE_PIXEL_SCALE / prepared.pixel_scale
    (x_low, x_high), (y_low, y_high) = box.center_x, box.center_y
    low = prepared.center_from_user(x_low, y_low)
    high = prepared.center_from_user(x_high, y_high)
    return replace(
        box.shifted(magnitude=-magnitude_shift(prepared), radius_factor=factor),
        center_x=(low[0], high[0]),
        center_y=(low[1], high[1]),
    )


def reference_values(values: Mapping[str, float], prepared: PreparedStamp) -> dict[str, float]:
    """Converts parameters by name from the user's units to the reference instrument."""
    shift = magnitude_shift(prepared)
    factor = prepared.pixel_scale / REFERENCE_PIXEL_SCALE
    convert = {
        "magnitude": lambda v: v - shift,
        "effective_radius": lambda v: v / factor,
        "center_x": lambda v: prepared.center_from_user(v, 0.0)[0],
        "center_y": lambda v: prepared.center_from_user(0.0, v)[1],
    }
    return {k: float(convert.get(k, lambda v: v)(float(v))) for k, v in values.items()}


def user_values(values: Float[Tensor, "s p"], prepared: PreparedStamp) -> Float[Tensor, "s p"]:
    """Converts parameters of a profile or a point source to the user's units.

    Args:
        values: Parameters at the reference instrument: the seven of a profile, with shape (S, 7),
            or magnitude and centre of a point source, with shape (S, 3).
        prepared: Prepared stamp.
    """
    found = values.clone()
    found[:, MAGNITUDE] = values[:, MAGNITUDE] + magnitude_shift(prepared)
    if values.shape[1] == NUM_PARAMETERS:
        found[:, RADIUS] = values[:, RADIUS] * (prepared.pixel_scale / REFERENCE_PIXEL_SCALE)
    found[:, -2], found[:, -1] = prepared.center_to_user(values[:, -2], values[:, -1])
    return found


def reference_params(values: Float[Tensor, "s 7"], prepared: PreparedStamp) -> Float[Tensor, "s 7"]:
    """Converts parameters of profiles from the user's units to the reference instrument.

    Inverse of :func:`user_values`.
    """
    found = values.double().clone()
    found[:, MAGNITUDE] -= magnitude_shift(prepared)
    found[:, RADIUS] *= REFERENCE_PIXEL_SCALE / prepared.pixel_scale
    found[:, CENTER_X], found[:, CENTER_Y] = prepared.center_from_user(
        values[:, CENTER_X], values[:, CENTER_Y]
    )
    return found


def magnitude_shift(prepared: PreparedStamp) -> float:
    """Returns the user's magnitude minus the magnitude at the reference instrument."""
    return prepared.zero_point - REFERENCE_ZERO_POINT - 2.5 * math.log10(prepared.scale)


def stamp_batch(
    prepared: Sequence[PreparedStamp], dtype: torch.dtype = torch.float32
) -> StampBatch:
    """Returns the batch of prepared stamps, one row each; float32 for networks."""

    def stack(name: str) -> Tensor:
        images = [np.asarray(getattr(p, name), dtype=np.float64) for p in prepared]
        return torch.from_numpy(np.stack(images)).to(dtype)

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(p, name) for p in prepared], dtype=dtype)

    return StampBatch(
        image=stack("image"),
        sigma=stack("noise"),
        mask=torch.from_numpy(np.stack([p.mask for p in prepared])),
        psf=torch.cat([network_psf(p) for p in prepared]),
        gain=column("gain"),
        sky_sigma=column("sky_sigma"),
        noise_correlation=column("noise_correlation"),
        lags=_lags(prepared, dtype),
        psf_error=column("psf_error"),
    )


def _lags(prepared: Sequence[PreparedStamp], dtype: torch.dtype) -> Tensor | None:
    """Returns the noise correlations, if more than the total is known for any stamp."""
    if all(p.correlation is None for p in prepared):
        return None
    totals = torch.tensor([p.noise_correlation for p in prepared], dtype=torch.float64)
    known = zip(lags_of(totals), (p.correlation for p in prepared), strict=True)
    rows = [one if c is None else torch.from_numpy(c.padded_lags) for one, c in known]
    return torch.stack(rows).to(dtype)


def renderer_columns(params: Float[Tensor, "b 7"], prepared: PreparedStamp) -> list[Tensor]:
    """Returns the renderer's seven columns, in detector units, for parameters in user's units."""
    flux = 10.0 ** (-0.4 * (params[:, MAGNITUDE] - prepared.zero_point)) / prepared.scale
    radius = params[:, RADIUS] / prepared.pixel_scale
    x, y = prepared.center_from_user(params[:, CENTER_X], params[:, CENTER_Y])
    return [flux, radius, *params[:, 2:5].unbind(1), x, y]


def median_snr(params: Float[Tensor, "s 7"], prepared: PreparedStamp, fwhm: float) -> float:
    """Computes the median signal-to-noise ratio of draws in user's units.

    Args:
        params: Draws, with shape (S, 7).
        prepared: Prepared stamp.
        fwhm: FWHM of the effective PSF. [px of the stamp]
    """
    flux, radius, _, q, *_ = renderer_columns(params, prepared)
    return float(signal_to_noise(flux, radius, q, torch.tensor(fwhm).to(flux)).median())


def content_seeds(stamps: StampBatch, seed: int | Sequence[int]) -> Tensor:
    """Returns one seed per stamp, computed from its content and `seed` only.

    A galaxy's draws therefore depend neither on the other galaxies nor on their order. The last
    bits of a PSF may differ between processors: to get the same draws on all of them, give one seed
    per stamp, which is then used directly.

    Returns:
        Non-negative seeds, with shape (B,), int64.
    """
    if not isinstance(seed, int):
        return torch.tensor([int(s) for s in seed], dtype=torch.int64)
    seeds = []
    for i in range(len(stamps)):
        digest = hashlib.blake2b(str(int(seed)).encode(), digest_size=8)
        for name in ("image", "sigma", "mask", "psf", "gain", "sky_sigma"):
            digest.update(getattr(stamps, name)[i].contiguous().numpy().tobytes())
        seeds.append(int.from_bytes(digest.digest(), "little") >> 1)
    return torch.tensor(seeds, dtype=torch.int64)


def network_psf(prepared: PreparedStamp) -> Float[Tensor, "1 43 43"]:
    """Returns a stamp's PSF on the grid used by networks, with shape (1, 43, 43)."""
    return _resampled(*_psf_key(prepared))[0]


def effective_fwhm(prepared: PreparedStamp) -> float:
    """Returns the FWHM of a stamp's PSF, including the pixel. [px of the stamp]"""
    return _resampled(*_psf_key(prepared))[1]


def _psf_key(prepared: PreparedStamp) -> tuple[bytes, tuple[int, ...], int, bool]:
    psf = np.ascontiguousarray(prepared.psf, dtype=np.float64)
    return psf.tobytes(), psf.shape, prepared.psf_oversampling, prepared.psf_includes_pixel


@lru_cache(maxsize=256)
def _resampled(
    content: bytes, shape: tuple[int, ...], oversampling: int, includes_pixel: bool
) -> tuple[Tensor, float]:
    """Returns a PSF on the networks' grid and its FWHM; cached, as galaxies often share PSFs."""
    psf = torch.from_numpy(np.frombuffer(content).reshape(shape).copy())[None]
    grid = to_network_grid(psf, oversampling, includes_pixel)
    return grid.float(), psf_fwhm(grid[0].numpy(), PSF_GRID_OVERSAMPLING)
