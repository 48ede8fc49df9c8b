"""Linear models of images with Gaussian noise, whose posteriors are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deeplegato_pp.inference.fit.blocks import Ellipses, polar_blocks, polar_coordinates
from deeplegato_pp.inference.fit.scores import ModeImages
from deeplegato_pp.scene.correlated_noise import correlate, lags_of
from deeplegato_pp.scene.templates import Templates

SIZE = 40
FWHM = 3.0


def one_ellipse(batch: int) -> Ellipses:
    one = torch.ones(batch, dtype=torch.float64)
    return Ellipses(0.3 * one, -0.2 * one, 0.7 * one, 35.0 * one)


def light_and_basis(peak: float) -> tuple[Tensor, Tensor]:
    """An exponential disc and derivatives of its image: flux, size, profile, shape, centre."""
    radius, azimuth = (a[0] for a in polar_coordinates(one_ellipse(1), SIZE))
    r = radius / 5.0
    light = peak * torch.exp(-(r**2 + 0.1).sqrt())
    parts = [
        torch.ones_like(r),
        r,
        (r + 0.2).log() * r,
        r * torch.cos(2 * azimuth),
        r * torch.sin(2 * azimuth),
        torch.cos(azimuth) * (r / (r + 0.3)),
        torch.sin(azimuth) * (r / (r + 0.3)),
    ]
    return light, torch.stack([light * p for p in parts])


def arms(batch: int, contrast: float, generator: torch.Generator) -> Tensor:
    """Relative brightness of two spiral arms whose winding and phase are drawn, (B, N, N)."""
    radius, azimuth = polar_coordinates(one_ellipse(1), SIZE)
    phase, winding = torch.rand(2, batch, 1, 1, generator=generator, dtype=torch.float64)
    wave = 2 * azimuth + 2 * math.pi * phase + (2 + 3 * winding) * (radius + 1.0).log()
    return contrast * torch.cos(wave) * radius**2 / (radius**2 + 2.0)


class LinearFits:
    """Fits of a linear model to noisy images, and what a sandwich needs of them.

    Args:
        fits: Number of images.
        peak: Of the light. [sigma]
        contrast: Of spiral arms that the model lacks.
        noise_correlation: Variance of sums over many pixels over that of independent ones, untold.
        model_error: Of the likelihood; none is in the images.
    """

    def __init__(
        self,
        fits: int,
        peak: float,
        *,
        contrast: float = 0.0,
        noise_correlation: float = 1.0,
        model_error: float = 0.0,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        light, basis = light_and_basis(peak)
        shape = (fits, SIZE, SIZE)
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        if noise_correlation > 1.0:
            total = torch.tensor([noise_correlation], dtype=torch.float64)
            noise = correlate(noise, lags_of(total), generator)
        data = noise + light * arms(fits, contrast, generator)
        variance = (1.0 + (model_error * light) ** 2).expand(shape)
        g = basis.expand(fits, *basis.shape)
        flat = basis.flatten(1)
        self.precision = flat / variance[0].flatten() @ flat.T + torch.eye(len(basis)).double()
        self.offset = (data / variance).flatten(1) @ flat.T @ torch.linalg.inv(self.precision)
        residual = data - (self.offset @ flat).reshape(shape)
        zero = torch.zeros(fits, dtype=torch.float64)
        self.images = ModeImages(
            g,
            residual,
            variance,
            torch.ones(shape).double(),
            torch.zeros(shape).double(),
            torch.zeros(shape, dtype=torch.bool),
            Templates.of(zero, SIZE),
        )
        self.blocks = polar_blocks(one_ellipse(fits), SIZE, zero + FWHM)

    def coverage(self, covariance: Tensor, level: float = 1.0) -> float:
        """Share of parameters within a number of standard deviations of the truth, zero."""
        widths = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        return float((self.offset.abs() < level * widths).double().mean())
