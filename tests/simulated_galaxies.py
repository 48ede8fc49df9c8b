"""Small simulated likelihoods whose truth is known, and stand-ins for a network's density."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deeplegato_pp.data.psf import gaussian, radial_grid
from deeplegato_pp.inference.fit.modes import ModeFinder, laplace_widths
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import draw_noise
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch

SIZE = 24
BOX = PriorBox()


def make_psf(fwhm: float = 3.0, size: int = 15, oversampling: int = 1) -> Tensor:
    one = torch.ones(1, dtype=torch.float64)
    psf = gaussian(radial_grid(size, oversampling, one, 0 * one), fwhm * one)[0]
    return psf / psf.sum()


def coordinates_of(
    magnitude: float = 22.0,
    radius: float = 0.75,
    n: float = 1.5,
    q: float = 0.6,
    angle: float = 40.0,
    x: float = 0.4,
    y: float = -0.3,
) -> Tensor:
    """w of one galaxy at the reference instrument, (7,); 0.75 arcsec is 3 px."""
    row = torch.tensor([[magnitude, radius, n, q, angle, x, y]], dtype=torch.float64)
    return BOX.to_normal(row)[0]


def simulate(
    w: Tensor,
    *,
    gain: float = math.inf,
    sky_sigma: float = 0.02,
    seed: int = 0,
    size: int = SIZE,
    noise_correlation: float = 1.0,
) -> Likelihood:
    """Observes galaxies (B, 7) through the renderer and the noise."""
    generator = torch.Generator().manual_seed(seed)
    psf = make_psf()
    likelihood = empty_likelihood(len(w), gain, sky_sigma, size)
    s = likelihood.stamps
    for i, row in enumerate(w):
        image = likelihood.render(i, row[None], torch.float64)
        noisy = draw_noise(
            image,
            s.sigma[i : i + 1],
            s.gain[i : i + 1],
            read_fraction=1.0,
            noise_correlation=noise_correlation,
            generator=generator,
        )
        sky = sky_sigma * torch.randn((), generator=generator, dtype=torch.float64)
        s.image[i] = noisy[0] + sky
    assert psf.shape == likelihood.psfs[0].shape
    return likelihood


def empty_likelihood(batch: int, gain: float, sky_sigma: float, size: int = SIZE) -> Likelihood:
    shape = (batch, size, size)
    stamps = StampBatch(
        torch.zeros(shape, dtype=torch.float64),
        torch.ones(shape, dtype=torch.float64),
        torch.zeros(shape, dtype=torch.bool),
        torch.zeros(batch, 43, 43),
        torch.full((batch,), gain, dtype=torch.float64),
        torch.full((batch,), sky_sigma, dtype=torch.float64),
        torch.ones(batch, dtype=torch.float64),
    )
    return Likelihood(stamps, [make_psf()] * batch, [1] * batch, [True] * batch, BOX)


DISC = coordinates_of(magnitude=18.0, radius=1.5, n=1.0)
BULGE = coordinates_of(magnitude=20.5, radius=0.25, n=2.0, q=0.9)


def observed(
    parts: list[Tensor], *, fwhm: float = 3.0, psf_error: float = 0.02, seed: int = 0
) -> Likelihood:
    """A galaxy of some components, drawn with one PSF and measured with that of 3 px."""
    empty = empty_likelihood(1, math.inf, 0.02, 48)
    drawn = Likelihood(empty.stamps, [make_psf(fwhm)], [1], [True], BOX)
    image = torch.stack([drawn.render(0, w[None], torch.float64) for w in parts]).sum(0)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    empty.stamps.image[:] = image + noise
    return empty.replace(psf_error=psf_error, model_error=0.01)


def finder_near(likelihood: Likelihood, w: Tensor, **settings: bool) -> ModeFinder:
    """A search for the modes of one galaxy, from eight draws about a point."""
    noise = torch.randn(8, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pilot, log_q = (w + 1e-3 * noise)[None], torch.zeros(1, 8, dtype=torch.float64)
    return ModeFinder(likelihood, likelihood.coordinates, pilot, log_q, starts=1, **settings)


class FakeNetwork:
    """A Gaussian about a displaced optimum, some times as wide as the posterior."""

    def __init__(
        self, likelihood: Likelihood, w: Tensor, widen: float = 2.0, seed: int = 0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        optimum, widths, _ = laplace_widths(likelihood, w)
        self.std = (widen * widths).clamp(0.01, 1.0)
        noise = torch.randn(optimum.shape, generator=generator, dtype=torch.float64)
        self.mean = optimum + 0.5 * self.std * noise
        self.generator = generator

    def log_prob(self, rows: Tensor, w: Tensor) -> Tensor:
        z = (w - self.mean[rows][:, None]) / self.std[rows][:, None]
        norm = self.std[rows].log().sum(-1) + 3.5 * math.log(2 * math.pi)
        return -0.5 * (z**2).sum(-1) - norm[:, None]

    def sample(self, draws: int) -> tuple[Tensor, Tensor]:
        shape = (len(self.mean), draws, 7)
        noise = torch.randn(shape, generator=self.generator, dtype=torch.float64)
        w = self.mean[:, None] + self.std[:, None] * noise
        return w, self.log_prob(torch.arange(len(w)), w)


def every_coordinate_system() -> list[SersicCoordinates]:
    return [
        SersicCoordinates(BOX),
        SersicCoordinates(BOX, {"sersic_index": 4.0}),
        SersicCoordinates(BOX, {"axis_ratio": 0.5, "position_angle": 30.0}),
    ]
