"""Between the user's units and detector units: prior boxes, stamps for the network, images of draws."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.data.noise import model_variance
from deeplegato_pp.data.psf import to_network_grid
from deeplegato_pp.data.renderer import render_sersic
from deeplegato_pp.parameters import (
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    RADIUS,
    PriorBox,
)
from deeplegato_pp.preparation import PreparedStamp
from deeplegato_pp.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT, StampBatch


def user_box(box: PriorBox, prepared: PreparedStamp) -> PriorBox:
    """Returns a box of the reference instrument in the units of a user's image.

    It shifts rigidly: magnitudes with zero point and noise, radii with the pixel scale, centres
    with crop and binning. The coordinates w of a galaxy are the same in both.

    Args:
        box: At the reference instrument.
        prepared: The stamp, which knows the way back.
    """
    shift = prepared.zero_point - REFERENCE_ZERO_POINT - 2.5 * math.log10(prepared.scale)
    factor = prepared.pixel_scale / REFERENCE_PIXEL_SCALE
    (x_low, x_high), (y_low, y_high) = box.center_x, box.center_y
    low = prepared.center_to_user(x_low, y_low)
    high = prepared.center_to_user(x_high, y_high)
    return replace(
        box.shifted(magnitude=shift, radius_factor=factor),
        center_x=(low[0], high[0]),
        center_y=(low[1], high[1]),
    )


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
    psf = torch.from_numpy(np.asarray(prepared.psf, dtype=np.float64))[None]
    oversampling, includes = prepared.psf_oversampling, prepared.psf_includes_pixel
    return to_network_grid(psf, oversampling, includes).float()


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
    columns = [c.to(params.dtype) for c in renderer_columns(params, prepared)]
    return render_sersic(
        *columns,
        torch.from_numpy(np.asarray(prepared.psf, dtype=np.float64)),
        prepared.image.shape[0],
        oversampling=prepared.psf_oversampling,
        psf_includes_pixel=prepared.psf_includes_pixel,
    )


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
