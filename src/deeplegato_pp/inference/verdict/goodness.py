"""Goodness of fit of posteriors to their images, on several scales.

The residual is that of the best model within the posterior (`best_fit`). The distance of that model
from the mean is a statistic of its own: for a correct posterior, it is that of a typical draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from deeplegato_pp.inference.fit.background import BLOCK, FAINT, noise_ratios
from deeplegato_pp.inference.verdict.best_fit import MISFITS, BestFits
from deeplegato_pp.inference.verdict.defects import noise_remarks
from deeplegato_pp.scene.correlated_noise import block_scatter
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood

_NOISE_GRANTED = (1.5, 3.0)
"""Excess of pixel and block noise over the noise map that is tolerated."""

_TOGETHER = 16
"""Number of galaxies judged together; their arrays take some hundred kB each."""


@dataclass(frozen=True)
class Goodness:
    """Goodness of fit of one posterior to its image.

    Attributes:
        chi2: Chi-square per degree of freedom at the posterior's mean, with the best sky.
        misfits: Excess of the best model's chi-square in standard deviations, by the names in
            :data:`MISFITS`: ``core`` for the galaxy's own pixels, ``blocks`` for sums over 4 x 4 px
            within twice that ellipse, ``patches`` for sums over 16 x 16 px anywhere; and ``sky``,
            the deviation of the best sky from zero under its prior, with a tolerance of 0.05 sigma.
            Background noise that exceeds its map is accounted for (`granted`).
        step: Largest distance of the best model from the posterior's mean in any coordinate.
            [posterior's standard deviations]
        residual_fraction: Residual light in the galaxy's own pixels in excess of the noise, divided
            by the model's light.
        residual_error: Standard error of it.
        residual: (data - model - sky)/sigma of the best model, with a model error of 1 % included
            in sigma, with shape (N, N); 0 where masked.
        model: The best model, with shape (N, N). [background sigma]
        inside: The galaxy's own pixels, with shape (N, N).
        noise: Description of how the background's scatter differs from the noise map; empty if it
            does not.
        granted: Factors by which the noise of pixels and of 4 x 4 blocks was increased for that.
        detection: Square root of the reduction in chi-square relative to an empty model; negative
            if the model is worse.
        renders: Number of images rendered.

    References:
        | Residual flux fraction (Hoyos et al., 2011), https://arxiv.org/abs/1010.1531
    """

    chi2: float
    misfits: dict[str, float]
    step: float
    residual_fraction: float
    residual_error: float
    residual: Float[Tensor, "n n"]
    model: Float[Tensor, "n n"]
    inside: Bool[Tensor, "n n"]
    noise: list[str]
    granted: tuple[float, float]
    detection: float
    renders: int

    @property
    def p_value(self) -> float:
        """Probability of a misfit as large in any statistic: four times that of the largest."""
        return min(1.0, len(self.misfits) * float(stats.norm.sf(max(self.misfits.values()))))


def goodness(
    w: Sequence[Float[Tensor, "s f"]], start: Float[Tensor, "b f"], likelihood: Likelihood
) -> list[Goodness]:
    """Tests posteriors against their images.

    Costs one image per galaxy whose mean fits, and some fifteen for the others.

    Args:
        w: Equally weighted draws of each galaxy, in the likelihood's coordinates.
        start: Means of the posteriors in those coordinates.
        likelihood: Likelihood of the galaxies, with the noise in force.
    """
    found: list[Goodness] = []
    for first in range(0, len(likelihood), _TOGETHER):
        members = range(first, min(first + _TOGETHER, len(likelihood)))
        part = likelihood.select(members)
        rows, means = torch.arange(len(part)), start[list(members)].double()
        # PSF-width templates are those of the means, unless set by refinement.
        new = torch.tensor([i for i in range(len(part)) if part.frozen_at(i) is None]).long()
        part.freeze(rows[new], means[new])
        fits = BestFits([w[i] for i in members], part)
        fits.evaluate(rows, means)
        chi2 = part.reduced_chi2(rows, part.residual(rows, fits.model).chi2)
        fits.improve(rows[~fits.fit_well(rows)])
        found += _described(fits, part, chi2.tolist())
    return found


def _described(fits: BestFits, likelihood: Likelihood, chi2: list[float]) -> list[Goodness]:
    """Returns the goodness of fit of the best models."""
    rows = torch.arange(len(likelihood))
    inside = fits.inside(rows)
    background = fits.good & (fits.model.abs() < FAINT * likelihood.stamps.sigma)
    ratios = [noise_ratios(r, b) for r, b in zip(fits.residual, background, strict=True)]
    granted = [_granted(r) for r in ratios]
    misfits = fits.misfits(rows, torch.tensor(granted, dtype=torch.float64)).tolist()
    steps = ((fits.w - fits.center).abs() / fits.width).amax(-1).tolist()
    variance = likelihood.variance(rows, fits.model)
    left = fits.likelihood.residual(rows, fits.model)
    data = torch.where(fits.good, fits.data - _others(fits, likelihood), 0.0)
    squares = left.inner(torch.stack([data, left.difference], 1).flatten(2))
    gained = squares[:, 0, 0] - squares[:, 1, 1]
    detection = gained.sign() * gained.abs().sqrt()
    stated = block_scatter(likelihood.stamps.full_lags, BLOCK).tolist()
    found = []
    for i in range(len(likelihood)):
        fraction, error = _residual_fraction(fits, variance[i], i, inside[i])
        found.append(
            Goodness(
                chi2=chi2[i],
                misfits=dict(zip(MISFITS, misfits[i], strict=True)),
                step=steps[i],
                residual_fraction=fraction,
                residual_error=error,
                residual=fits.residual[i],
                model=fits.model[i],
                inside=inside[i],
                noise=noise_remarks(_beyond_stated(ratios[i], stated[i]), int(background[i].sum())),
                granted=granted[i],
                detection=float(detection[i]),
                renders=int(fits.batches.renders[i]),
            )
        )
    return found


def _others(fits: BestFits, likelihood: Likelihood) -> Float[Tensor, "b n n"]:
    """Returns the light of neighbours that were fitted with the galaxies."""
    member = likelihood.coordinates
    if not isinstance(member, Member):
        return torch.zeros_like(fits.model)
    return fits.model - likelihood.under(member.own).images(torch.arange(len(fits.w)), fits.w)


def _residual_fraction(
    fits: BestFits, variance: Tensor, row: int, used: Tensor
) -> tuple[float, float]:
    variance = variance[used]
    residual = (fits.residual[row] / fits.weight[row].sqrt())[used].abs().sum()
    # |x| of a standard normal x has mean 0.80 and standard deviation 0.60.
    light = float(fits.model[row][used].abs().sum().clamp_min(1e-9))
    noise = math.sqrt(2.0 / math.pi) * float(variance.sqrt().sum())
    error = math.sqrt((1.0 - 2.0 / math.pi) * float(variance.sum()))
    return (float(residual) - noise) / light, error / light


def _beyond_stated(ratios: tuple[float, float], stated: float) -> tuple[float, float]:
    """Returns the noise ratios divided by those expected from the noise correlation."""
    return ratios[0], ratios[1] / stated


def _granted(ratios: tuple[float, float]) -> tuple[float, float]:
    """Returns the factors by which the noise is increased where it exceeds its map."""
    pixels, blocks = (
        min(max(ratio, 1.0), most) if math.isfinite(ratio) else 1.0
        for ratio, most in zip(ratios, _NOISE_GRANTED, strict=True)
    )
    return pixels, max(pixels, blocks)
