"""How well a posterior explains its image: misfit on several scales, judged at its own width.

The network's mean is not the optimum: for a bright galaxy its posterior is a hundred times wider
than the pixels allow, and the model at its mean is then off by hundreds of sigma without anything
being wrong. So a mean that does not fit is first moved, within the posterior, to where it fits best
(a few Gauss-Newton steps in coordinates whitened by the posterior), and the residual is judged
there. How far it had to move is a statistic of its own: if the posterior is right, no further than
a draw lies from the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from deeplegato_pp.data.noise import model_variance
from deeplegato_pp.data.sersic_profile import ellipse_form
from deeplegato_pp.inference import instrument
from deeplegato_pp.inference.defects import block_sums, noise_ratios, noise_remarks
from deeplegato_pp.preparation import PreparedStamp
from deeplegato_pp.prior import PriorBox

MODEL_FLOOR = 0.01
"""Relative error of the model that no test minds: no galaxy is a Sérsic profile to a per cent."""

MISFITS = ("core", "blocks", "patches", "sky")
"""Names of the statistics of misfit, see :class:`Goodness`."""

SKY_FLOOR = 0.05
"""Offset of the sky that no test minds, however well it is said to be known. [sigma]"""

BLOCKS = (4, 16)
"""Sides of the blocks over which residuals are added up. [px]"""

OWN_PIXELS = 1.5
"""The galaxy's own pixels lie within this ellipse, broadened by 2 px. [R_e]"""

_GOOD_ENOUGH = 2.5
"""A mean whose misfits are all below this many standard deviations is not moved."""

_NOISE_GRANTED = (1.5, 3.0)
"""How much the noise of pixels and of blocks may exceed its map before that is misfit too."""

_STEP = 0.3
"""Step of the finite differences, in standard deviations of the posterior."""

_ROUNDS = 2
"""Jacobians computed at most; between two of them secants correct the first."""

_SECANTS = 4

_FAINT = 0.5
"""Pixels in which the model is fainter than this count as background. [sigma]"""


@dataclass(frozen=True)
class Goodness:
    """What the image says of a posterior.

    Attributes:
        chi2: Chi-square per unmasked pixel at the posterior's mean, the sky at its best.
        misfits: By the names in :data:`MISFITS`, by how many standard deviations the best model's
            chi-square is too large: ``core`` of the galaxy's own pixels, ``blocks`` of sums over
            4 x 4 px within twice that ellipse, ``patches`` of sums over 16 x 16 px anywhere; and
            ``sky``, how far its best value lies from zero in what its prior allows, 0.05 sigma
            granted. Noise that scatters more than its map says is granted too (`granted`).
        step: Largest distance of the best model from the posterior's mean in one of the
            coordinates. [posterior's standard deviations]
        residual_fraction: Light of the residual in the galaxy's own pixels beyond that of the
            noise, over the model's light there.
        residual_error: Its standard error.
        residual: (data - model - sky)/sigma of the best model, a 1 % error of the model counted
            as noise, with shape (N, N); 0 where masked.
        model: The best model, with shape (N, N). [background sigma]
        inside: The galaxy's own pixels, with shape (N, N).
        noise: In words how the background's scatter differs from the noise map; empty if it
            does not.
        granted: By what factors the noise of pixels and of 4 x 4 blocks was raised for that.
        detection: Square root of the chi-square that the galaxy takes off an empty model;
            negative if the model is worse than none.
        renders: Images rendered.

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
        """Chance of a misfit as large in any of the ways: four times that of the largest."""
        return min(1.0, len(self.misfits) * float(stats.norm.sf(max(self.misfits.values()))))


def goodness(
    w: Float[Tensor, "s 7"], mean: Float[Tensor, "7"], prepared: PreparedStamp, box: PriorBox
) -> Goodness:
    """Judges a posterior against its image.

    Costs one image of the mean where that fits, else about fifteen.

    Args:
        w: Equally weighted draws in the coordinates in which the prior is N(0, I).
        mean: Mean parameters in the user's units, with shape (7,).
        prepared: The stamp.
        box: The prior in the user's units.
    """
    fit = _Fit(w.double(), prepared, box)
    start = box.to_normal(mean.double()[None])[0]
    fit.evaluate(start)
    at_mean = fit.chi2_per_pixel()
    if not fit.fits():
        fit.improve()
    fraction, error = fit.residual_fraction()
    background = fit.background()
    ratios = noise_ratios(fit.residual, background)
    remarks = noise_remarks(ratios, int(background.sum()))
    granted = _granted(ratios)
    return Goodness(
        chi2=at_mean,
        misfits=fit.misfits(granted),
        step=float(((fit.w - fit.center).abs() / fit.width).max()),
        residual_fraction=fraction,
        residual_error=error,
        residual=fit.residual,
        model=fit.model,
        inside=fit.inside(),
        noise=remarks,
        granted=granted,
        detection=fit.detection(),
        renders=fit.renders,
    )


class _Fit:
    """One galaxy's model on its way to the best one that the posterior allows."""

    def __init__(self, w: Tensor, prepared: PreparedStamp, box: PriorBox) -> None:
        self.prepared, self.box = prepared, box
        self.good = torch.from_numpy(~prepared.mask)
        self.data = torch.from_numpy(np.asarray(prepared.image, dtype=np.float64))
        self.sigma = torch.from_numpy(np.asarray(prepared.noise, dtype=np.float64))
        self.gain = torch.tensor(prepared.gain, dtype=torch.float64)
        self.center = w.mean(0)
        covariance = torch.cov(w.T, correction=0) + 1e-12 * torch.eye(7, dtype=torch.float64)
        self.factor = torch.linalg.cholesky(covariance)
        self.width = covariance.diagonal().sqrt()
        bright = float(self.data[self.good].max()) if bool(self.good.any()) else 0.0
        self.dtype = torch.float32 if bright < 1e4 else torch.float64
        self.renders = 0

    # --- the model --------------------------------------------------------------------------

    def render(self, w: Tensor) -> Tensor:
        self.renders += len(w)
        params = self.box.to_physical(w.clamp(-7.9, 7.9))
        images = instrument.render(params.to(self.dtype), self.prepared)
        return images.double()

    def evaluate(self, w: Tensor) -> None:
        self._take(w, self.render(w[None])[0])

    def _take(self, w: Tensor, model: Tensor) -> None:
        self.w, self.model = w, model
        self.variance = model_variance(model, self.sigma, self.gain)
        self.floored = self.variance + (MODEL_FLOOR * model) ** 2
        self.weight = torch.where(self.good, 1.0 / self.floored, 0.0)
        self.difference = torch.where(self.good, self.data - model, 0.0)
        self.sky = self._sky(self.weight, self.difference)
        self.residual = (self.difference - self.sky * self.good) * self.weight.sqrt()
        params = self.box.to_physical(w.clamp(-7.9, 7.9)[None])
        self.columns = instrument.renderer_columns(params, self.prepared)

    def _sky(self, weight: Tensor, residual: Tensor) -> float:
        """The sky's best value under its prior."""
        tau2 = self.prepared.sky_sigma**2
        return tau2 * float((weight * residual).sum()) / (1.0 + tau2 * float(weight.sum()))

    def sky_deviation(self) -> float:
        """How many standard deviations the best sky lies from zero, its prior being right."""
        tau2 = self.prepared.sky_sigma**2
        if tau2 == 0.0:
            return 0.0
        information = tau2 * float(self.weight.sum())
        granted = max(tau2, SKY_FLOOR**2)
        spread = math.sqrt(granted * information / (1.0 + information))
        return abs(self.sky) / spread

    def chi2_per_pixel(self) -> float:
        _, chi2, _ = instrument.residual_in_sigma(self.model, self.prepared)
        return chi2

    def detection(self) -> float:
        gained = (self.weight * self.model * (2.0 * self.data - self.model)).sum()
        return math.copysign(math.sqrt(abs(float(gained))), float(gained))

    # --- towards the best -------------------------------------------------------------------

    def improve(self) -> None:
        """Gauss-Newton steps in whitened coordinates, secants in between."""
        for _ in range(_ROUNDS):
            jacobian = self._jacobian()
            before = self._objective()
            for _ in range(_SECANTS):
                if not self._step(jacobian):
                    break
                if self.fits():
                    return
            if self._objective() > before - 10.0:
                return

    def _whitened(self) -> Tensor:
        offset = (self.w - self.center)[:, None]
        return torch.linalg.solve_triangular(self.factor, offset, upper=False)[:, 0]

    def _objective(self) -> float:
        variance = self.floored.log() - self.sigma.log() * 2.0
        return float(
            (self.residual**2).sum()
            + torch.where(self.good, variance, 0.0).sum()
            + (self._whitened() ** 2).sum()
        )

    def _jacobian(self) -> Tensor:
        u = self._whitened()
        steps = torch.where(u > 0, -_STEP, _STEP)
        moved = self.w + steps[:, None] * self.factor.T
        return (self.render(moved) - self.model).flatten(1) / steps[:, None]

    def _step(self, jacobian: Tensor) -> bool:
        """Takes one step, shortened if need be; corrects the Jacobian by what it did."""
        weight, residual = self.weight.flatten(), self.difference.flatten()
        u = self._whitened()
        ones = (jacobian * weight).sum(1)
        tau2 = self.prepared.sky_sigma**2
        shrink = tau2 / (1.0 + tau2 * float(weight.sum()))
        slope = (jacobian * weight) @ residual - shrink * ones * (weight * residual).sum() - u
        curvature = (jacobian * weight) @ jacobian.T - shrink * torch.outer(ones, ones)
        curvature = curvature + torch.eye(7, dtype=torch.float64)
        step = torch.linalg.solve(curvature, slope)
        step = step * min(1.0, 4.0 / float(step.abs().max().clamp_min(1e-9)))
        before, old = self._objective(), (self.w, self.model)
        for fraction in (1.0, 0.3):
            trial = old[0] + self.factor @ (fraction * step)
            self.evaluate(trial)
            moved = fraction * step
            secant = (self.model - old[1]).flatten() - moved @ jacobian
            jacobian += moved[:, None] * secant / float(moved @ moved)
            if self._objective() < before:
                return True
        self._take(*old)
        return False

    # --- statistics -------------------------------------------------------------------------

    def fits(self) -> bool:
        return all(value < _GOOD_ENOUGH for value in self.misfits().values())

    def misfits(self, granted: tuple[float, float] = (1.0, 1.0)) -> dict[str, float]:
        """Excess chi-squares, the noise of pixels and blocks being so many times the map's."""
        residual, (pixels, blocks) = self.residual, granted
        found = [_excess(residual / pixels, self.inside())]
        for side, where in zip(BLOCKS, (self.inside(2.0), self.good), strict=True):
            found.append(_excess(*block_sums(residual * where / blocks, where, side)))
        return dict(zip(MISFITS, [*found, self.sky_deviation()], strict=True))

    def background(self) -> Bool[Tensor, "n n"]:
        return self.good & (self.model.abs() < _FAINT * self.sigma)

    def residual_fraction(self) -> tuple[float, float]:
        used = self.inside()
        sigma = self.variance.sqrt()
        residual = (self.residual * self.floored.sqrt())[used].abs().sum()
        # The absolute value of normal noise has mean 0.80 and standard deviation 0.60.
        light = float(self.model[used].abs().sum().clamp_min(1e-9))
        noise = math.sqrt(2.0 / math.pi) * float(sigma[used].sum())
        error = math.sqrt((1.0 - 2.0 / math.pi) * float(self.variance[used].sum()))
        return (float(residual) - noise) / light, error / light

    def inside(self, scale: float = 1.0) -> Bool[Tensor, "n n"]:
        """Unmasked pixels in the ellipse of the galaxy's own, or in one so many times as large."""
        _, radius, _, q, angle, x, y = self.columns
        size = len(self.data)
        grid = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        dx, dy = grid - x, grid[:, None] - y
        xx, xy, yy = ellipse_form(scale * (OWN_PIXELS * radius + 2.0), q, angle)
        return self.good & (xx * dx**2 + xy * dx * dy + yy * dy**2 < 1.0)


def _granted(ratios: tuple[float, float]) -> tuple[float, float]:
    """Returns by what factors noise that exceeds its map is raised."""
    pixels, blocks = (
        min(max(ratio, 1.0), most) if math.isfinite(ratio) else 1.0
        for ratio, most in zip(ratios, _NOISE_GRANTED, strict=True)
    )
    return pixels, max(pixels, blocks)


def _excess(values: Tensor, used: Bool[Tensor, "..."]) -> float:
    """Returns the sum of squares' deviation from its expectation, as of a normal variate.

    By the cube root of Wilson & Hilferty (1931), which serves few degrees of freedom too.
    """
    count = int(used.sum())
    if count == 0:
        return 0.0
    ratio = float((values[used] ** 2).sum()) / count
    spread = 2.0 / (9.0 * count)
    return (ratio ** (1.0 / 3.0) - (1.0 - spread)) / math.sqrt(spread)
