"""Hypotheses compared by their evidence: galaxy, point source, blank sky.

All see the same pixels, mask and sky prior, and each prior is normalised, so the evidences may be
divided. A galaxy's evidence comes from refining; those of its rivals from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.data.noise import log_likelihood
from deeplegato_pp.errors import RangeError
from deeplegato_pp.inference.coordinates import PointSourceCoordinates, flux_of
from deeplegato_pp.inference.likelihood import ExactProblem
from deeplegato_pp.inference.modes import mixture_at
from deeplegato_pp.inference.optimize import distinct_modes, maximize
from deeplegato_pp.inference.refined import RefinedDraws
from deeplegato_pp.inference.sampler import Budget, TargetSampler, sample_targets
from deeplegato_pp.inference.targets import log_posterior_row
from deeplegato_pp.parameters import MAGNITUDE
from deeplegato_pp.prior import PriorBox

STAR_ODDS = 1.0
"""Prior odds of a point source against a galaxy, unless told: even."""


@dataclass(frozen=True)
class Evidence:
    """Evidence of one hypothesis for each galaxy.

    Attributes:
        log_evidence: ln Z, with shape (B,).
        error: Its standard error, with shape (B,).
        u: Posterior mean in the hypothesis's coordinates, with shape (B, F).
    """

    log_evidence: Float[Tensor, " b"]
    error: Float[Tensor, " b"]
    u: Float[Tensor, "b f"]


@dataclass(frozen=True)
class Comparison:
    """How a galaxy's hypothesis fares against its rivals.

    Attributes:
        star_probability: Probability of the point source, of the two, under the prior odds.
        star_odds: Those prior odds, point source to galaxy.
        star_log_evidence: ln Z of the point source, with shape (B,).
        blank_log_evidence: ln L of the sky alone, with shape (B,).
        detection: ln of the Bayes factor of the better of galaxy and point source over the blank
            sky, with shape (B,).
    """

    star_probability: Float[Tensor, " b"]
    star_odds: float
    star_log_evidence: Float[Tensor, " b"]
    blank_log_evidence: Float[Tensor, " b"]
    detection: Float[Tensor, " b"]

    def detected(self, log_odds: float = math.log(100.0)) -> Tensor:
        """Returns, per galaxy, whether light is favoured over blank sky, by 100 to 1."""
        return self.detection > log_odds


def point_source_evidence(
    problem: ExactProblem,
    start: Float[Tensor, "b k 7"],
    *,
    seeds: Int[Tensor, " b"] | None = None,
    ess: float = 300.0,
) -> Evidence:
    """Returns the evidence of a point source with the galaxy's prior in magnitude and centre.

    Args:
        problem: Data; the mask in force during refining is that of ``refined.problem``.
        start: Galaxies' coordinates from which the search starts, with shape (B, K, 7).
        seeds: One per galaxy; its row if None.
        ess: Effective sample size behind each evidence.
    """
    coordinates = PointSourceCoordinates(problem.box)
    star = problem.under(coordinates)
    points = coordinates.project(start.double())
    batch, count = points.shape[:2]
    seeds = torch.arange(batch) if seeds is None else seeds
    owner = torch.arange(batch).repeat_interleave(count)
    groups = distinct_modes(maximize(star, owner, points.reshape(-1, coordinates.dim)))
    budget = Budget(ess=ess, max_draws=math.ceil(10 * ess))
    samplers = []
    for seed, modes in zip(seeds.tolist(), groups, strict=True):
        generator = torch.Generator().manual_seed(seed)
        base = torch.randn(1000, coordinates.dim, generator=generator, dtype=torch.float64)
        density = coordinates.log_prior(base)
        sampler = TargetSampler(base, density, density[:0], seed, budget)
        sampler.set_mixture(mixture_at(modes, widened=True))
        samplers.append(sampler)
    sample_targets(
        samplers,
        lambda rows, draws: [
            log_posterior_row(star, i, u) for i, u in zip(rows, draws, strict=True)
        ],
        lambda _, draws: [coordinates.log_prior(u) for u in draws],
    )
    values = torch.tensor([s.pool.log_evidence() for s in samplers], dtype=torch.float64)
    means = [torch.softmax(s.pool.log_weights(), 0) @ s.pool.x for s in samplers]
    return Evidence(values[:, 0], values[:, 1], torch.stack(means))


def blank_log_evidence(problem: ExactProblem) -> Float[Tensor, " b"]:
    """Returns ln L of no source at all: the sky offset is all that is marginalised, (B,)."""
    s = problem.stamps
    image = torch.where(s.mask, 0.0, s.image)
    sigma = torch.where(s.mask, 1.0, s.sigma)
    nothing = torch.zeros_like(image)
    return log_likelihood(image, nothing, sigma, s.mask, s.gain, s.sky_sigma).cpu()


def star_probability(
    galaxy: Float[Tensor, " b"], star: Float[Tensor, " b"], odds: float = STAR_ODDS
) -> Float[Tensor, " b"]:
    """Returns the probability of the point source.

    Args:
        galaxy: ln Z of the galaxy, with shape (B,).
        star: ln Z of the point source, with shape (B,).
        odds: Prior odds, point source to galaxy, > 0.

    Raises:
        RangeError: If the odds are not positive and finite.

    Example:
        >>> star_probability(torch.zeros(1), torch.zeros(1), odds=3.0)
        tensor([0.7500])
    """
    if not (math.isfinite(odds) and odds > 0):
        raise RangeError(f"odds (point source to galaxy) must be positive, got {odds}.")
    return torch.sigmoid(star - galaxy + math.log(odds))


def compare(
    refined: RefinedDraws,
    *,
    odds: float = STAR_ODDS,
    seeds: Int[Tensor, " b"] | None = None,
) -> Comparison:
    """Weighs galaxy against point source against blank sky, for galaxies refined exactly.

    Args:
        refined: Exact posteriors with nothing fixed.
        odds: Prior odds, point source to galaxy.
        seeds: One per galaxy.
    """
    best = torch.stack([g.w[g.log_weights.argmax()] for g in refined.galaxies])
    mean = torch.stack([g.mean() for g in refined.galaxies])
    start = torch.stack([mean, best], 1)
    star = point_source_evidence(refined.problem, start, seeds=seeds)
    blank = blank_log_evidence(refined.problem)
    return Comparison(
        star_probability(refined.log_evidence, star.log_evidence, odds),
        odds,
        star.log_evidence,
        blank,
        torch.maximum(refined.log_evidence, star.log_evidence) - blank,
    )


def flux_upper_limit(
    w: Float[Tensor, "s 7"],
    log_weights: Float[Tensor, " s"],
    box: PriorBox,
    level: float = 0.95,
) -> float:
    """Returns the flux below which the galaxy's lies with a given probability.

    For non-detections: the prior in magnitude is exchanged for one uniform in flux, under which
    a limit does not depend on how faint the prior box reaches.

    Args:
        w: Draws of one galaxy, with shape (S, 7).
        log_weights: Their weights, with shape (S,).
        box: Prior box at the reference instrument.
        level: Probability.

    Returns:
        The limit. [background sigmas, summed over pixels]

    Raises:
        RangeError: If the level does not lie between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise RangeError(f"level must lie between 0 and 1, got {level}.")
    flux = flux_of(box.to_physical(w)[:, MAGNITUDE])
    weights = torch.softmax(log_weights + flux.log(), 0)
    order = flux.argsort()
    position = int(torch.searchsorted(weights[order].cumsum(0), level))
    return float(flux[order[min(position, len(order) - 1)]])
