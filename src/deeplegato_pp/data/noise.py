"""Noise and its likelihood, side by side: whoever changes one changes the other.

Two modes, as `gain` says, per galaxy:

* finite gain: `sigma` is the background's, and the model adds its own shot noise,
  V = sigma^2 + max(I, 0)/gain;
* infinite gain: `sigma` is the total, V = sigma^2.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

POISSON_LIMIT = 100.0
"""Expected electrons above which counts are drawn by their first three cumulants.

There the fourth, which is then missing, is below 1 % of the squared variance.
"""


def model_variance(
    model: Float[Tensor, "*b n n"], sigma: Float[Tensor, "*#b n n"], gain: Float[Tensor, "*#b"]
) -> Float[Tensor, "*b n n"]:
    """Returns the variance per pixel under a model image.

    Args:
        model: Noiseless images, with shape (*, N, N). [units]
        sigma: Background noise, or total where the gain is infinite. [units]
        gain: Electrons per unit, with shape (*,); inf for the fixed-variance mode.
    """
    return sigma**2 + model.clamp_min(0.0) / gain[..., None, None]


def log_likelihood(
    data: Float[Tensor, "*#b n n"],
    model: Float[Tensor, "*b n n"],
    sigma: Float[Tensor, "*#b n n"],
    mask: Bool[Tensor, "*#b n n"],
    gain: Float[Tensor, "*#b"],
    sky_sigma: Float[Tensor, "*#b"],
) -> Float[Tensor, "*b"]:
    r"""Returns the Gaussian log-likelihood with a constant sky offset marginalised.

    With :math:`w = 1/V` and :math:`r = d - I` over unmasked pixels, and the sky's prior
    :math:`N(0, \tau^2)`,

    .. math:: \ln L = -\tfrac12 \sum (w r^2 + \ln 2 \pi V)
        + \tfrac12 \frac{(\sum w r)^2}{\sum w + \tau^{-2}} - \tfrac12 \ln(1 + \tau^2 \sum w).

    Sums are taken in float64 whatever comes in. `data`, `sigma` and `mask` broadcast against
    `model`, so many models of one galaxy cost no copies of it.

    Args:
        data: Images, with shape (*, N, N).
        model: Noiseless images, with shape (*, N, N).
        sigma: Background or total noise, see `gain`.
        mask: True = ignore.
        gain: Electrons per unit; inf for fixed variance. Shape (*,).
        sky_sigma: tau, with shape (*,); 0 for a sky that is known.

    Returns:
        ln L, with shape (*,), float64.
    """
    good = ~mask
    # Replaced, not multiplied by zero: what lies under a mask may be NaN.
    variance = torch.where(good, model_variance(model, sigma, gain), 1.0)
    weight = good / variance
    residual = torch.where(good, data - model, 0.0)
    weighted = weight * residual
    chi2 = (weighted * residual).sum((-2, -1), dtype=torch.float64)
    log_v = variance.log().sum((-2, -1), dtype=torch.float64)
    count = good.sum((-2, -1), dtype=torch.float64)
    sum_wr = weighted.sum((-2, -1), dtype=torch.float64)
    sum_w = weight.sum((-2, -1), dtype=torch.float64)
    tau2 = sky_sigma.double() ** 2
    sky = 0.5 * tau2 * sum_wr**2 / (1.0 + tau2 * sum_w) - 0.5 * torch.log1p(tau2 * sum_w)
    return -0.5 * (chi2 + log_v + count * math.log(2.0 * math.pi)) + sky


def draw_noise(
    model: Float[Tensor, "b n n"],
    sigma: Float[Tensor, "b n n"],
    gain: Float[Tensor, " b"],
    *,
    read_fraction: Float[Tensor, " b"] | float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b n n"]:
    """Draws noisy images: Poisson counts of source and sky, and Gaussian read noise.

    The background's variance sigma^2 is split between sky counts and read noise. Where more than
    100 electrons are expected, a Gaussian draw is bent to the right skewness instead of counting
    (a Cornish-Fisher expansion: ten times faster); where the gain is infinite it is Gaussian.

    Args:
        model: Noiseless images, with shape (B, N, N).
        sigma: Background noise (total where the gain is infinite), with shape (B, N, N).
        gain: Electrons per unit, with shape (B,), or inf.
        read_fraction: Part of the background's variance that is read noise, in [0, 1].
        generator: Source of randomness on the images' device.

    Returns:
        Images with noise, with shape (B, N, N).
    """
    normal = torch.randn(model.shape, generator=generator, device=model.device, dtype=model.dtype)
    variance = model_variance(model, sigma, gain)
    read = torch.as_tensor(read_fraction, dtype=model.dtype, device=model.device)
    read = read.expand(len(model))[:, None, None]
    g = gain[:, None, None]
    sky = (1.0 - read) * (g * sigma) ** 2
    expected = sky + g * model.clamp_min(0.0)
    counted = torch.isfinite(g)
    skewness = torch.where(counted, expected / (g * variance.sqrt()) ** 3, 0.0)
    noisy = model + variance.sqrt() * (normal + skewness / 6.0 * (normal**2 - 1.0))
    few = expected < POISSON_LIMIT  # False wherever the gain is infinite
    if bool(few.any()):
        counts = torch.poisson(expected[few], generator=generator)
        g_few = g.expand_as(model)[few]
        electrons = (
            counts - sky[few] + read.sqrt().expand_as(model)[few] * ((g * sigma)[few] * normal[few])
        )
        noisy[few] = electrons / g_few + model[few].clamp_max(0.0)
    return noisy
