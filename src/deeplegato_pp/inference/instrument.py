"""Between the user's units and detector units: prior boxes, network inputs, images of draws."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.data.noise import model_variance
from deeplegato_pp.data.psf import to_network_grid
from deeplegato_pp.data.renderer import render_sersic
from deeplegato_pp.effective_psf import psf_fwhm
from deeplegato_pp.parameters import CENTER_X, CENTER_Y, MAGNITUDE, RADIUS, signal_to_noise
from deeplegato_pp.preparation import PreparedStamp
from deeplegato_pp.prior import PriorBox
from deeplegato_pp.stamps import (
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


def content_seeds(stamps: StampBatch, seed: int) -> Tensor:
    """Returns one seed per stamp, from its content and `seed` alone.

    So a galaxy's draws do not depend on what else is measured, nor in which order.

    Returns:
        Non-negative seeds, with shape (B,), int64.
    """
    seeds = []
    for i in range(len(stamps)):
        digest = hashlib.blake2b(str(int(seed)).encode(), digest_size=8)
        for name in ("image", "sigma", "mask", "psf", "gain", "sky_sigma"):
            digest.update(getattr(stamps, name)[i].contiguous().numpy().tobytes())
        seeds.append(int.from_bytes(digest.digest(), "little") >> 1)
    return torch.tensor(seeds, dtype=torch.int64)


def renderer_columns(params: Float[Tensor, "b 7"], prepared: PreparedStamp) -> list[Tensor]:
    """Returns the renderer's seven columns, in detector units, of parameters in user's units."""
    flux = 10.0 ** (-0.4 * (params[:, MAGNITUDE] - prepared.zero_point)) / prepared.scale
    radius = params[:, RADIUS] / prepared.pixel_scale
    x, y = prepared.center_from_user(params[:, CENTER_X], params[:, CENTER_Y])
    return [flux, radius, *params[:, 2:5].unbind(1), x, y]


def render(params: Float[Tensor, "b 7"], prepared: PreparedStamp) -> Float[Tensor, "b n n"]:
    """Returns noiseless images of parameters in user's units, with the observation's own PSF.

    Returns:
        Images on the stamp, with shape (B, N, N). [background sigma]
    """
    flux, radius, n, q, angle, x, y = renderer_columns(params, prepared)
    return render_sersic(
        flux,
        radius,
        n,
        q,
        angle,
        x,
        y,
        torch.from_numpy(np.asarray(prepared.psf, dtype=np.float64)),
        prepared.image.shape[0],
        oversampling=prepared.psf_oversampling,
        psf_includes_pixel=prepared.psf_includes_pixel,
    )


def median_snr(params: Float[Tensor, "s 7"], prepared: PreparedStamp, fwhm: float) -> float:
    """Returns the median signal-to-noise ratio of draws in user's units.

    Args:
        params: Draws, with shape (S, 7).
        prepared: The stamp.
        fwhm: FWHM of the effective PSF. [px of the stamp]
    """
    flux, radius, _, q, *_ = renderer_columns(params, prepared)
    return float(signal_to_noise(flux, radius, q, torch.tensor(fwhm).to(flux)).median())


def residual_in_sigma(
    model: Float[Tensor, "n n"], prepared: PreparedStamp
) -> tuple[Tensor, float, float]:
    """Returns the residual over its standard deviation, chi-square and the best sky.

    The constant sky is set to its best value under its prior and taken off.

    Args:
        model: Noiseless image on the stamp, with shape (N, N). [background sigma]
        prepared: The stamp.

    Returns:
        (data - model - sky) / sigma, with shape (N, N), 0 where masked; chi-square per unmasked
        pixel, the sky's own term included; and the sky. [background sigma]
    """
    good = torch.from_numpy(~prepared.mask)
    sigma = torch.from_numpy(np.asarray(prepared.noise, dtype=np.float64))
    gain = torch.tensor(prepared.gain, dtype=torch.float64)
    variance = model_variance(model.double(), sigma, gain)
    weight = torch.where(good, 1.0 / variance, 0.0)
    residual = torch.from_numpy(np.asarray(prepared.image, dtype=np.float64)) - model
    weighted = float((weight * residual).sum())
    tau2 = prepared.sky_sigma**2
    sky = tau2 * weighted / (1.0 + tau2 * float(weight.sum()))
    chi2 = float((weight * residual**2).sum()) - sky * weighted
    scaled = torch.where(good, (residual - sky) * weight.sqrt(), 0.0)
    return scaled, chi2 / int(good.sum()), sky
