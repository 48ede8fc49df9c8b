r"""Comparison of images through their Fourier transforms at a few hundred frequencies.

An image is a linear function of the galaxy's transform, which is known in closed form. A linear
combination of images that reproduces another image therefore also reproduces its transform. By
Parseval's theorem the distance of two images is that of their transforms, an integral that a few
hundred frequencies, evenly spaced in angle and :math:`\ln k`, approximate well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.render.hankel_tables import load_tables
from deeplegato_pp.scene.render.renderer import transform_form

RADII, ANGLES = 24, 14
"""Number of frequencies in |k|, and of directions in a half-plane."""

_LOWEST = 0.005
"""Lowest non-zero frequency. High n has extended wings. [cycles per R_e]"""

_LOWEST_SEEN = 0.25
"""Frequency below which images are not distinguished. [cycles per stamp]"""

_PSF_FLOOR = 1e-3
"""Transfer function of the PSF at the highest frequencies."""


@dataclass(frozen=True)
class SampledTransform:
    """Frequencies at which transforms of galaxies with one PSF are evaluated.

    Attributes:
        kx: Frequencies along x, with shape (J,). [cycles per px]
        ky: Frequencies along y, with shape (J,). [cycles per px]
        weights: Factors of the transforms, with shape (J,): the PSF's transfer function times the
            square root of each frequency's area of the plane.
        centre: Origin of positions, with shape (2,). [px]
    """

    kx: Float[Tensor, " j"]
    ky: Float[Tensor, " j"]
    weights: Float[Tensor, " j"]
    centre: Float[Tensor, "2"]

    @classmethod
    def about(
        cls,
        columns: Float[Tensor, "c 7"],
        psf: Float[Tensor, "py px"],
        oversampling: int,
        psf_includes_pixel: bool,
        size: int,
    ) -> SampledTransform:
        """Chooses frequencies suitable for galaxies similar to a given one.

        Args:
            columns: The renderer's columns of its profiles.
            psf: PSF.
            oversampling: PSF samples per pixel.
            psf_includes_pixel: Whether the PSF includes the detector's pixel.
            size: Side of the stamp. [px]
        """
        transfer = _Transfer(psf.double(), oversampling, psf_includes_pixel)
        lowest = max(_LOWEST / float(columns[:, 1].max()), _LOWEST_SEEN / size)
        highest = max(transfer.reach(), 4.0 * lowest)
        log_k = torch.linspace(math.log(lowest), math.log(highest), RADII, dtype=torch.float64)
        angle = (torch.arange(ANGLES, dtype=torch.float64) + 0.5) * (math.pi / ANGLES)
        # Every second circle is rotated by half a step.
        turned = angle + (torch.arange(RADII) % 2)[:, None] * (0.5 * math.pi / ANGLES)
        k = log_k.exp()[:, None].expand_as(turned)
        area = 2.0 * k**2 * (log_k[1] - log_k[0]) * (math.pi / ANGLES)  # both half-planes
        zero = torch.zeros(1, dtype=torch.float64)
        kx = torch.cat([zero, (k * turned.cos()).flatten()])
        ky = torch.cat([zero, (k * turned.sin()).flatten()])
        area = torch.cat([zero + math.pi * lowest**2, area.flatten()])
        brightest = columns[int(columns[:, 0].argmax())]
        return cls(kx, ky, area.sqrt() * transfer(kx, ky), brightest[5:7].cpu().double())

    def __call__(self, columns: Float[Tensor, "c 7 s"]) -> Float[Tensor, "s j2"]:
        """Returns transforms of sums of profiles, with shape (S, 2 J); real parts come first.

        Squared distances equal those of the images, summed over pixels.

        Args:
            columns: The renderer's columns of every profile.
        """
        found: Tensor | float = 0.0
        for flux, radius, n, q, angle, x, y in columns.cpu().double():
            form = [c[:, None] for c in transform_form(radius, q, angle)]
            k2 = self.kx * (form[0] * self.kx + form[1] * self.ky) + form[2] * self.ky**2
            hankel = load_tables().hankel
            profile = hankel.evaluate(hankel.rows(n), 0.5 * k2.clamp_min(1e-300).log())
            light = flux[:, None] * self.weights * profile
            dx, dy = (x - self.centre[0])[:, None], (y - self.centre[1])[:, None]
            phase = 2.0 * math.pi * (self.kx * dx + self.ky * dy)
            found = found + torch.cat([light * phase.cos(), light * phase.sin()], 1)
        assert isinstance(found, Tensor)  # noqa: S101  # a scene has a profile
        return found


@dataclass(frozen=True)
class _Transfer:
    """Absolute value of a PSF's transform at any frequency."""

    psf: Tensor
    oversampling: int
    includes_pixel: bool

    def __call__(self, kx: Tensor, ky: Tensor) -> Float[Tensor, " j"]:
        y, x = (
            (torch.arange(n, dtype=torch.float64) - n // 2) / self.oversampling
            for n in self.psf.shape
        )
        rows = torch.polar(torch.ones(()).double(), -2.0 * math.pi * ky[:, None] * y)
        columns = torch.polar(torch.ones(()).double(), -2.0 * math.pi * kx[:, None] * x)
        size = ((rows @ self.psf.cpu().to(rows.dtype)) * columns).sum(1).abs()
        return size if self.includes_pixel else size * (torch.sinc(kx) * torch.sinc(ky)).abs()

    def reach(self) -> float:
        """Highest relevant frequency along the axes. [cycles per px]"""
        k = torch.linspace(0.0, 0.5 * self.oversampling, 65, dtype=torch.float64)
        zero = torch.zeros_like(k)
        seen = torch.maximum(self(k, zero), self(zero, k))
        return float(k[seen > _PSF_FLOOR * seen[0]].max())
