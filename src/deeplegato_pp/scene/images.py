"""Between the user's units and detector units: prior boxes, network inputs, images of draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.noise import model_variance
from deeplegato_pp.scene.parameters import CENTER_X, CENTER_Y, MAGNITUDE, RADIUS, signal_to_noise
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.stamps import StampBatch
from deeplegato_pp.scene.units import effective_fwhm as effective_fwhm
from deeplegato_pp.scene.units import magnitude_shift as magnitude_shift
from deeplegato_pp.scene.units import network_psf as network_psf
from deeplegato_pp.scene.units import stamp_batch as stamp_batch
from deeplegato_pp.scene.units import user_box as user_box


def content_seeds(stamps: StampBatch, seed: int | Sequence[int]) -> Tensor:
    """Returns one seed per stamp, from its content and `seed` alone.

    So a galaxy's draws do not depend on what else is measured, nor in which order. The content of
    a PSF may differ in its last bits between processors: who needs the same draws on each of them
    gives a seed per stamp, which is then the seed.

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
    model: Float[Tensor, "n n"],
    prepared: PreparedStamp,
    mask: Bool[np.ndarray, "n n"] | None = None,
) -> tuple[Tensor, float, float]:
    """Returns the residual over its standard deviation, chi-square and the best sky.

    The constant sky is set to its best value under its prior and taken off.

    Args:
        model: Noiseless image on the stamp, with shape (N, N). [background sigma]
        prepared: The stamp.
        mask: True = ignore, in place of the stamp's own mask.

    Returns:
        (data - model - sky) / sigma, with shape (N, N), 0 where masked; chi-square per unmasked
        pixel, the sky's own term included; and the sky. [background sigma]
    """
    good = torch.from_numpy(~(prepared.mask if mask is None else mask))
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
