"""Computation of an exported network, in operations supported by ONNX.

It repeats in float32 tensors what the package computes with float64 arrays, because onnxruntime has
no float64 error function. Tests compare the two.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.observation.noise_maps import MAD_TO_SIGMA
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    MAGNITUDE,
    PARAMETERS,
    POSITION_ANGLE,
    RADIUS,
)
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import (
    PSF_GRID,
    REFERENCE_PIXEL_SCALE,
    REFERENCE_ZERO_POINT,
    StampBatch,
)
from deeplegato_pp.stats.circular import tensor_circular_mean, unwrap
from deeplegato_pp.stats.weighted import QUANTILES

CHANNELS = ["image", "noise", "mask", "psf"]
COLUMNS = ["mean", "std", *QUANTILES]

_HUGE = 1e30
"""Value above all pixels; comparisons with it exclude NaN and infinities."""

_CLIPPINGS = 6
"""Number of clipping iterations for the border's noise; usually four suffice."""


class StampMeasurer(nn.Module):
    """Computes summaries of the posterior in the user's units from a stamp in image units.

    Args:
        model: The network.
        psf: PSF of stamps without one, on the networks' grid, with shape (43, 43).
        noise: Standard-normal random numbers of the draws, with shape (S, 7).
        pixel_scale: Pixel scale. [arcsec/px]
        zero_point: Magnitude of one image unit.
        gain: Electrons per image unit; inf for a total noise map.
        sky_sigma: Standard deviation of the sky's offset. [median noise]
        noise_correlation: Noise variance of sums over many pixels relative to independent pixels.
        psf_error: Relative error of the PSF's width.
    """

    psf: Tensor
    noise: Tensor
    border: Tensor

    def __init__(
        self,
        model: DeepLeGAToPP,
        psf: Float[Tensor, "43 43"],
        noise: Float[Tensor, "s 7"],
        *,
        pixel_scale: float,
        zero_point: float,
        gain: float,
        sky_sigma: float,
        noise_correlation: float = 1.0,
        psf_error: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.pixel_scale, self.zero_point = pixel_scale, zero_point
        self.gain, self.sky_sigma = gain, sky_sigma
        self.noise_correlation, self.psf_error = noise_correlation, psf_error
        self.register_buffer("psf", psf.float())
        self.register_buffer("noise", noise[None])
        width = max(2, round(model.image_size / 10))
        border = torch.ones(model.image_size, model.image_size, dtype=torch.bool)
        border[width:-width, width:-width] = False
        self.register_buffer("border", border)

    def forward(self, stamp: Float[Tensor, "1 4 n n"]) -> Float[Tensor, "1 7 7"]:
        """Returns mean, standard deviation and quantiles of each parameter."""
        stamps, scale = self.detector_units(stamp)
        w = self.model.head.draws(self.model.head(self.model.features(stamps)), self.noise)
        return summaries(self.to_user(w[0], scale))[None]

    def detector_units(self, stamp: Float[Tensor, "1 4 n n"]) -> tuple[StampBatch, Tensor]:
        """Returns the network's input, and the number of image units per detector unit."""
        image, noise, mask, psf = stamp.unbind(1)
        given = (noise > 0).any()
        good = (image.abs() < _HUGE) & (mask < 0.5)
        # onnxruntime does not support `where` for booleans.
        good = good & ((given & (noise > 0) & (noise < _HUGE)) | (~given & (image != 0)))
        image = torch.where(good, image, 0.0)
        noise = torch.where(given, noise, self.border_sigma(image, good))
        scale = masked_median(noise, good)
        own = psf[:, :PSF_GRID, :PSF_GRID]
        one = torch.ones_like(scale)[None]
        stamps = StampBatch(
            image=image / scale,
            sigma=torch.where(good, noise / scale, 1.0),
            mask=~good,
            psf=torch.where((own > 0).any(), own, self.psf[None]),
            gain=one * self.gain * (scale if math.isfinite(self.gain) else 1.0),
            sky_sigma=one * self.sky_sigma,
            noise_correlation=one * self.noise_correlation,
            psf_error=one * self.psf_error,
        )
        return stamps, scale

    def border_sigma(self, image: Tensor, good: Tensor) -> Float[Tensor, ""]:
        """Returns the clipped median absolute deviation of the border's pixels."""
        at_border = good & self.border
        kept = at_border | (good & (at_border.sum() < 16))
        sigma = image.new_zeros(())
        for _ in range(_CLIPPINGS):
            off = (image - masked_median(image, kept)).abs()
            sigma = MAD_TO_SIGMA * masked_median(off, kept)
            kept = kept & (off <= 3 * sigma)
        return sigma

    def to_user(self, w: Float[Tensor, "s 7"], scale: Tensor) -> Float[Tensor, "s 7"]:
        """Returns physical parameters under the instrument's pixel scale and zero point."""
        columns = list(to_physical(self.model.prior, w).unbind(-1))
        columns[RADIUS] = columns[RADIUS] * (self.pixel_scale / REFERENCE_PIXEL_SCALE)
        shift = self.zero_point - REFERENCE_ZERO_POINT - 2.5 * scale.log10()
        columns[MAGNITUDE] = columns[MAGNITUDE] + shift
        return torch.stack(columns, -1)


def masked_median(values: Float[Tensor, "*s"], good: Bool[Tensor, "*s"]) -> Float[Tensor, ""]:
    """Returns the median of selected pixels, of which there must be at least one."""
    ordered = torch.where(good, values, math.inf).flatten().sort().values
    count = good.sum()
    middle = torch.stack([(count - 1) // 2, count // 2]).clamp_min(0)
    return ordered[middle].mean()


def to_physical(box: PriorBox, w: Float[Tensor, "s 7"]) -> Float[Tensor, "s 7"]:
    """Converts coordinates to physical parameters, as `PriorBox.to_physical` does in float64."""
    share = 0.5 * (1.0 + torch.erf(w / math.sqrt(2.0)))
    columns: list[Tensor] = []
    for i, parameter in enumerate(PARAMETERS):
        lower, upper = getattr(box, parameter.name)
        if parameter.scale == "log":
            log_lower, log_upper = math.log(lower), math.log(upper)
            columns.append((log_lower + share[:, i] * (log_upper - log_lower)).exp())
        else:
            columns.append(lower + share[:, i] * (upper - lower))
    x, y = w[:, AXIS_RATIO], w[:, POSITION_ANGLE]
    q_min = box.axis_ratio[0]
    columns[AXIS_RATIO] = q_min + (1.0 - q_min) * (-0.5 * (x**2 + y**2)).exp()
    columns[POSITION_ANGLE] = torch.remainder(torch.atan2(y, x) * (90.0 / math.pi), 180.0)
    return torch.stack(columns, -1)


def summaries(draws: Float[Tensor, "s 7"]) -> Float[Tensor, "7 7"]:
    """Returns mean, standard deviation and quantiles per parameter, as `statistics.summarise`."""
    period = draws.new_tensor([p.period or 1.0 for p in PARAMETERS])
    circular = torch.tensor([p.period is not None for p in PARAMETERS], device=draws.device)
    centre = torch.where(circular, tensor_circular_mean(draws, period, 0), draws.mean(0))
    draws = torch.where(circular, unwrap(draws, centre, period), draws)
    spread = ((draws - centre) ** 2).mean(0).sqrt()
    values = hazen_quantiles(draws, tuple(QUANTILES.values()))
    values = torch.where(circular, torch.remainder(values, period), values)
    return torch.cat([centre[None], spread[None], values]).T


def hazen_quantiles(
    draws: Float[Tensor, "s 7"], probabilities: tuple[float, ...]
) -> Float[Tensor, "q 7"]:
    """Returns quantiles of equally weighted draws, each at the centre of its weight."""
    number = draws.shape[0]
    places = [min(max(p * number - 0.5, 0.0), number - 1.0) for p in probabilities]
    low = [min(int(place), number - 2) for place in places]
    share = draws.new_tensor([p - i for p, i in zip(places, low, strict=True)])[:, None]
    ordered = draws.sort(0).values
    below = torch.tensor(low, device=draws.device)
    return (1.0 - share) * ordered[below] + share * ordered[below + 1]
