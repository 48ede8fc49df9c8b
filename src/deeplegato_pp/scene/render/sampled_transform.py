r"""Images compared without rendering them: their Fourier transforms at a few hundred frequencies.

An image is a linear function of the galaxy's transform, and the transform is known in closed form.
So whichever sum of images makes another one, the same sum of transforms makes its transform; and by
Parseval's theorem the distance of two images is that of their transforms, an integral over the
frequencies that a few hundred of them, spaced evenly in angle and :math:`\ln k`, tell well.
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
"""Frequencies by their size, and by their direction in half of the plane."""

_LOWEST = 0.005
"""Lowest frequency other than zero, [cycles per R_e]; wings of high n reach far."""

_LOWEST_SEEN = 0.25
"""Frequency below which there is nothing to see. [cycles per stamp]"""

_PSF_FLOOR = 1e-3
"""Transfer of the PSF where the highest frequencies lie."""


@dataclass(frozen=True)
class SampledTransform:
    """Frequencies at which transforms of galaxies under one PSF are taken.

    Attributes:
        kx: With shape (J,). [cycles per px]
        ky: With shape (J,). [cycles per px]
        weights: What transforms there are multiplied by, with shape (J,): the PSF's transfer, and
            the root of the frequencies' share of the plane.
        centre: What positions are counted from, with shape (2,). [px]
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
        """Returns the frequencies that serve galaxies like a given one.

        Args:
            columns: Its profiles, by the renderer's columns.
            psf: Their PSF.
            oversampling: PSF samples per pixel.
            psf_includes_pixel: Whether the detector's pixel is in the PSF already.
            size: Side of the stamp. [px]
        """
        transfer = _Transfer(psf.double(), oversampling, psf_includes_pixel)
        lowest = max(_LOWEST / float(columns[:, 1].max()), _LOWEST_SEEN / size)
        highest = max(transfer.reach(), 4.0 * lowest)
        log_k = torch.linspace(math.log(lowest), math.log(highest), RADII, dtype=torch.float64)
        angle = (torch.arange(ANGLES, dtype=torch.float64) + 0.5) * (math.pi / ANGLES)
        # Every second circle is turned by half of a step.
        turned = angle + (torch.arange(RADII) % 2)[:, None] * (0.5 * math.pi / ANGLES)
        k = log_k.exp()[:, None].expand_as(turned)
        area = 2.0 * k**2 * (log_k[1] - log_k[0]) * (math.pi / ANGLES)  # of both half-planes
        zero = torch.zeros(1, dtype=torch.float64)
        kx = torch.cat([zero, (k * turned.cos()).flatten()])
        ky = torch.cat([zero, (k * turned.sin()).flatten()])
        area = torch.cat([zero + math.pi * lowest**2, area.flatten()])
        brightest = columns[int(columns[:, 0].argmax())]
        return cls(kx, ky, area.sqrt() * transfer(kx, ky), brightest[5:7].cpu().double())

    def __call__(self, columns: Float[Tensor, "c 7 s"]) -> Float[Tensor, "s j2"]:
        """Returns the transforms of sums of profiles, cosines' parts first, with shape (S, 2 J).

        Squared distances are those of the images, summed over pixels.

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
    """The size of a PSF's transform, at any frequency."""

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
        """The highest frequency along the axes that is worth looking at. [cycles per px]"""
        k = torch.linspace(0.0, 0.5 * self.oversampling, 65, dtype=torch.float64)
        zero = torch.zeros_like(k)
        seen = torch.maximum(self(k, zero), self(zero, k))
        return float(k[seen > _PSF_FLOOR * seen[0]].max())
