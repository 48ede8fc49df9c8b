"""Observing conditions of stamps: PSF, gain, noise map, masks, neighbours.

All lengths are in pixels and all fluxes in background sigmas. Every function draws for a whole
batch from one generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from deeplegato_pp.config.schema import ConditionsConfig
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.psf import draw_psfs
from deeplegato_pp.scene.psf_grid import convolve_separable, normalise
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.render.wings import Galaxies

PSF_SIDE = 87
"""Side of the drawn PSFs, with two samples per pixel: 43 px, to include the wings."""

WELL_SAMPLED = 2.5
"""FWHM below which a PSF is rendered oversampled, for realistic aliasing. [px]"""


@dataclass(frozen=True)
class DrawnPSF:
    """PSFs of a batch.

    Attributes:
        fine: PSFs with two samples per pixel and sum 1, with shape (B, 87, 87).
        fwhm: FWHM of the optical profile, with shape (B,). [px]
        error: Relative standard error of the width with which images are made, with shape (B,).
    """

    fine: Float[Tensor, "b k k"]
    fwhm: Float[Tensor, " b"]
    error: Float[Tensor, " b"] | None = None

    @property
    def oversampled(self) -> Bool[Tensor, " b"]:
        """Whether a galaxy is rendered with the oversampled PSF, with shape (B,)."""
        return self.fwhm < WELL_SAMPLED

    @property
    def native(self) -> Float[Tensor, "b j j"]:
        """PSFs with one sample per pixel and sum 1, with shape (B, 43, 43)."""
        return normalise(self.fine[:, 1::2, 1::2])

    def to(self, device: torch.device | str) -> DrawnPSF:
        """Returns the PSFs on another device."""
        error = None if self.error is None else self.error.to(device)
        return DrawnPSF(self.fine.to(device), self.fwhm.to(device), error)

    def widened(self, factor: float | Float[Tensor, " b"]) -> DrawnPSF:
        """Returns PSFs stretched about their centres, with sum 1, by band-limited interpolation.

        Args:
            factor: Factor of the width, a number or one per PSF.
        """
        factor = torch.as_tensor(factor).to(self.fine).expand(len(self.fine))
        grid = torch.arange(self.fine.shape[-1]).to(self.fine) - self.fine.shape[-1] // 2
        stretch = torch.sinc(grid[:, None] / factor[:, None, None] - grid)
        return DrawnPSF(normalise(stretch @ self.fine @ stretch.mT), self.fwhm * factor, self.error)

    def mistaken(self, draw: Draw) -> DrawnPSF:
        """Returns the true PSFs of the images, if these are the stated ones."""
        if self.error is None:
            return self
        drawn = self.widened((1.0 + self.error * draw.normal(1)[:, 0]).clamp_min(0.1))
        # They are sampled as the stated ones.
        return DrawnPSF(drawn.fine, self.fwhm, self.error)

    def render(self, galaxies: Galaxies, size: int, owner: Int[Tensor, " g"]) -> Tensor:
        """Renders galaxies, each with the PSF of its owner in the batch.

        Args:
            galaxies: G galaxies.
            size: Side of the stamp. [px]
            owner: Index of each galaxy's stamp, with shape (G,).
        """
        images = galaxies.flux.new_empty(len(owner), size, size)
        fine = self.oversampled[owner]
        for oversampling, chosen in ((1, ~fine), (2, fine)):
            rows = chosen.nonzero()[:, 0]
            if len(rows):
                psf = (self.fine if oversampling == 2 else self.native)[owner[rows]]
                part = galaxies.at(rows)
                images[rows] = render_sersic(*part, psf, size, oversampling=oversampling)
        return images


def draw_psf(draw: Draw, config: ConditionsConfig) -> DrawnPSF:
    """Draws a PSF per stamp from all families."""
    fwhm = draw.log_uniform(config.psf_fwhm)
    psf = draw_psfs(
        fwhm,
        PSF_SIDE,
        2,
        draw.generator,
        spikes=config.spikes,
        aberrated=config.aberrated,
        offset=config.psf_offset,
    )
    error = None
    if config.psf_error and config.psf_error_input:
        error = draw.uniform(0.0, config.psf_error)
    elif config.psf_error:
        error = torch.full_like(fwhm, config.psf_error)
    return DrawnPSF(psf, fwhm, error)


def draw_background(draw: Draw, size: int, config: ConditionsConfig) -> Float[Tensor, "b n n"]:
    """Draws background noise maps: flat, or smooth with variations of up to a factor of two."""
    y, x = _grid(size, draw)
    kx, ky, phase = draw.uniform(-1.5, 1.5), draw.uniform(-1.5, 1.5), draw.uniform(0, 2 * math.pi)
    wave = torch.sin(
        kx[:, None, None] * x / size * math.pi
        + ky[:, None, None] * y / size * math.pi
        + phase[:, None, None]
    )
    amplitude = draw.uniform(0.0, 0.35) * draw.chance(config.uneven_noise)
    return (amplitude[:, None, None] * wave).exp()


def draw_sky(
    draw: Draw, sky_sigma: Float[Tensor, " b"], size: int, config: ConditionsConfig
) -> Float[Tensor, "b n n"]:
    """Draws residual skies: an offset N(0, sky_sigma^2), and gradients."""
    y, x = _grid(size, draw)
    offset, slope_x, slope_y = draw.normal(3).unbind(1)
    steep = draw.chance(config.sky_gradient) * (2.0 / size)
    plane = (slope_x * steep)[:, None, None] * x + (slope_y * steep)[:, None, None] * y
    return sky_sigma[:, None, None] * (offset[:, None, None] + plane)


def draw_mask(draw: Draw, size: int, config: ConditionsConfig) -> Bool[Tensor, "b n n"]:
    """Draws masks: partial stamps, dead pixels and columns, trails, discs.

    Trails and discs do not cover the core: objects covered by a saturated star are not measured.
    """
    y, x = _grid(size, draw)
    small = draw.chance(config.small_stamps)[:, None, None]
    half = draw.log_uniform((config.smallest_stamp / 2, size / 2), 2)[:, :, None, None]
    mask = small & ((x.abs() > half[:, 0]) | (y.abs() > half[:, 1]))

    bad = draw.chance(config.bad_pixels)[:, None, None]
    rate = draw.log_uniform((1e-4, 2e-2))[:, None, None]
    mask = mask | (bad & (draw.uniform(0.0, 1.0, size, size) < rate))
    column = draw.uniform(-size / 2, size / 2)[:, None, None]
    mask = mask | (bad & draw.chance(0.3)[:, None, None] & ((x - column).abs() < 0.75))

    trail = draw.chance(config.bleed_trails)[:, None, None]
    half_width = draw.log_uniform((1.0, 4.0))
    side = torch.where(draw.chance(0.5), 1.0, -1.0)
    column = side * (half_width + draw.uniform(4.0, size / 2))
    near = (x - column[:, None, None]).abs() < half_width[:, None, None]
    end = draw.uniform(-size / 2, size / 2)[:, None, None]
    mask = mask | (trail & near & (y > end))

    for _ in range(3):
        present = draw.chance(config.masked_regions)[:, None, None]
        radius = draw.log_uniform((2.0, 14.0))
        distance = radius + draw.uniform(3.0, size / 2)
        angle = draw.uniform(0.0, 2 * math.pi)
        dx = x - (distance * angle.cos())[:, None, None]
        dy = y - (distance * angle.sin())[:, None, None]
        mask = mask | (present & (dx**2 + dy**2 < radius[:, None, None] ** 2))
    return mask


def draw_noise_correlation(draw: Draw, config: ConditionsConfig) -> Float[Tensor, " b"] | None:
    """Draws the noise variance of sums over many pixels relative to independent pixels.

    Returns:
        Ratios with shape (B,); None if all pixels are independent, without use of random numbers.
    """
    if not config.correlated_noise:
        return None
    c = draw.log_uniform(config.noise_correlation)
    return torch.where(draw.chance(config.correlated_noise), c, 1.0)


def draw_saturation(
    draw: Draw,
    image: Float[Tensor, "b n n"],
    mask: Bool[Tensor, "b n n"],
    config: ConditionsConfig,
) -> Bool[Tensor, "b n n"]:
    """Draws a saturation level, and masks the pixels above it, also in the core.

    Stamps of which less than a quarter of the unmasked pixels would remain are unchanged, because
    they would not be measured.
    """
    if not config.saturated:
        return torch.zeros_like(image, dtype=torch.bool)
    level = draw.log_uniform((50.0, 5e3))
    level = torch.where(draw.chance(config.saturated), level, torch.inf)
    full = image > level[:, None, None]
    left, seen = (~(mask | full)).sum((1, 2)), (~mask).sum((1, 2))
    return full & (left > seen // 4)[:, None, None]


@dataclass(frozen=True)
class Neighbours:
    """Other galaxies and stars in the stamps of a batch.

    Attributes:
        light: Images, with shape (B, N, N). [background sigma]
        mask: Mask of a detection with a random threshold, which excludes faint wings, with shape
            (B, N, N).
        nearest: Distance of the nearest neighbour from the stamp's centre, infinite without
            neighbours, with shape (B,). [px]
    """

    light: Float[Tensor, "b n n"]
    mask: Bool[Tensor, "b n n"]
    nearest: Float[Tensor, " b"]


def draw_neighbours(draw: Draw, psf: DrawnPSF, size: int, config: ConditionsConfig) -> Neighbours:
    """Draws neighbouring galaxies and stars, and the mask of their detection."""
    light = torch.zeros(draw.batch, size, size, **_like(draw))
    mask = torch.zeros(draw.batch, size, size, dtype=torch.bool, device=light.device)
    count = (draw.uniform(0.0, 1.0) * config.max_neighbours).ceil() * draw.chance(config.neighbours)
    slots = config.max_neighbours
    present = torch.arange(slots, device=light.device) < count[:, None]
    owner = torch.arange(draw.batch, device=light.device)[:, None].expand(-1, slots)[present]
    radius = draw.log_uniform((0.5, 6.0), slots)
    radius = torch.where(draw.chance(0.3, slots), torch.full_like(radius, 0.05), radius)  # stars
    distance = draw.uniform(6.0**2, (0.6 * size) ** 2, slots).sqrt()
    angle = draw.uniform(0.0, 2 * math.pi, slots)
    columns = Galaxies(
        draw.log_uniform((20.0, 1e5), slots),
        radius,
        draw.log_uniform((0.5, 5.0), slots),
        draw.uniform(0.2, 1.0, slots),
        draw.uniform(0.0, 180.0, slots),
        distance * angle.cos(),
        distance * angle.sin(),
    )
    threshold = draw.log_uniform((0.2, 5.0), slots)
    threshold = torch.where(
        draw.chance(config.neighbours_masked, slots),
        threshold,
        math.inf,
    )
    if len(owner):
        images = psf.render(columns.at(present), size, owner).clamp_min(0.0)
        light.index_add_(0, owner, images)
        covered = images > threshold[present][:, None, None]
        for row, cover in zip(owner.tolist(), covered, strict=True):
            mask[row] |= cover
    nearest = pad(torch.where(present, distance, math.inf), (0, 1), value=math.inf).amin(1)
    return Neighbours(light, mask, nearest)


def estimate_total_noise(
    noisy: Float[Tensor, "b n n"], background: Float[Tensor, "b n n"], gain: Float[Tensor, " b"]
) -> Float[Tensor, "b n n"]:
    """Returns total noise maps as of pipelines, with shot noise from the smoothed noisy image."""
    smooth = convolve_separable(noisy, [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16])
    return (background**2 + smooth.clamp_min(0.0) / gain[:, None, None]).sqrt()


def _grid(size: int, draw: Draw) -> tuple[Tensor, Tensor]:
    a = torch.arange(size, **_like(draw)) - (size - 1) / 2
    y, x = torch.meshgrid(a, a, indexing="ij")
    return y, x


def _like(draw: Draw) -> dict[str, Any]:
    return {"device": draw.options["device"], "dtype": draw.options["dtype"]}
