r"""Hypotheses of more than one component: their posteriors, evidences and odds.

Every hypothesis sees the same pixels, mask, noise and sky prior, and each prior is normalised, so
the evidences may be divided. Searches start from several splits of the single profile's light; a
Student-t at each mode, adapted to the weights, gives posterior and evidence by importance sampling
(Cappé et al. 2008, https://arxiv.org/abs/0710.4242).

On real images plain odds are overconfident: structure is coherent over many pixels, and a
likelihood of independent pixels counts each of them. Tempered odds multiply the difference of
ln L by :math:`p / \mathrm{tr}(J F^{-1})`, at most 1, with J the scatter of the score among blocks
of the sky and F the Fisher information, of the hypothesis that fits best (Varin & Vidoni 2005,
https://doi.org/10.1093/biomet/92.3.519).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.inference.fit.modes import distinct_modes, mixture_at
from deeplegato_pp.inference.posterior.draws import RefinedDraws
from deeplegato_pp.inference.sampling.sampler import Budget, TargetSampler, sample_targets
from deeplegato_pp.scene.galaxy_scene import SCENES, GalaxyScene
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.stats.pareto import pareto_khat, reliable

AUTO = ("sersic", "sersic+point", "bulge+disc")
"""Hypotheses that ``auto`` compares."""

CHOICES = (*SCENES, "auto")

ESS = 400.0
"""Effective sample size wanted of each hypothesis of several components."""

_BASE_DRAWS = 2000
"""Draws of the prior, the defensive part of each proposal."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One galaxy under one hypothesis.

    Attributes:
        name: Its name, of :data:`~deeplegato_pp.scene.galaxy_scene.SCENES`.
        coordinates: What is free; None of the single profile, whose draws are the posterior's own.
        u: Draws, with shape (S, F).
        log_weights: Their unnormalised log weights, with shape (S,).
        log_evidence: ln Z.
        log_evidence_error: Its standard error.
        log_likelihood: The largest ln L found.
        ess: Effective sample size.
        khat: Pareto k-hat of the weights.
        reliable: Whether k-hat allows the weights to be trusted.
        num_modes: Modes found.
        optimum: Coordinates of the best mode, with shape (F,).
    """

    name: str
    coordinates: GalaxyScene
    u: Float[Tensor, "s f"]
    log_weights: Float[Tensor, " s"]
    log_evidence: float
    log_evidence_error: float
    log_likelihood: float
    ess: float
    khat: float
    reliable: bool
    num_modes: int
    optimum: Float[Tensor, " f"]


def hypotheses_of(scene: str) -> tuple[str, ...]:
    """Returns the hypotheses that a choice of scene asks for, the single profile always first.

    Raises:
        ConfigError: If the choice is unknown.

    Example:
        >>> hypotheses_of("bulge+disc")
        ('sersic', 'bulge+disc')
    """
    if scene not in CHOICES:
        raise ConfigError(f"unknown scene {scene!r}, expected one of {', '.join(CHOICES)}.")
    if scene == "auto":
        return AUTO
    return ("sersic",) if scene == "sersic" else ("sersic", scene)


def explore(
    refined: RefinedDraws, name: str, seeds: Sequence[int], ess: float = ESS
) -> list[Hypothesis]:
    """Returns the posteriors of galaxies under a hypothesis of several components.

    Args:
        refined: The galaxies under the single profile, whose pixels and masks are taken.
        name: Of the hypothesis.
        seeds: One per galaxy, on which alone its random numbers depend.
        ess: Effective sample size wanted.
    """
    coordinates = GalaxyScene(name, refined.likelihood.box)
    likelihood = refined.likelihood.under(coordinates)
    best = torch.stack([g.w[g.log_weights.argmax()] for g in refined.galaxies])
    starts = coordinates.starts(best)
    owner = torch.arange(len(best)).repeat_interleave(starts.shape[1])
    modes = distinct_modes(fit(likelihood, owner, starts.flatten(0, 1)))
    budget = Budget(ess=ess, max_draws=math.ceil(10 * ess))
    samplers = [
        _sampler(coordinates, found, seed, budget)
        for found, seed in zip(modes, seeds, strict=True)
    ]
    sample_targets(
        samplers,
        lambda rows, draws: [
            likelihood.log_posterior(i, u) for i, u in zip(rows, draws, strict=True)
        ],
        lambda _, draws: [coordinates.log_prior(u) for u in draws],
    )
    return [
        _collected(name, coordinates, likelihood, i, sampler, found)
        for i, (sampler, found) in enumerate(zip(samplers, modes, strict=True))
    ]


def _sampler(coordinates: GalaxyScene, modes: Fit, seed: int, budget: Budget) -> TargetSampler:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(_BASE_DRAWS, coordinates.dim, generator=generator, dtype=torch.float64)
    density = coordinates.log_prior(base)
    sampler = TargetSampler(base, density, density[:0], seed, budget)
    sampler.set_mixture(mixture_at(modes, widened=True))
    return sampler


def _collected(
    name: str,
    coordinates: GalaxyScene,
    likelihood: Likelihood,
    row: int,
    sampler: TargetSampler,
    modes: Fit,
) -> Hypothesis:
    pool = sampler.pool
    evidence, error = pool.log_evidence()
    log_weights = pool.log_weights()
    optimum = modes.u[0]
    peak = float(modes.log_posterior[0] - coordinates.log_prior(optimum))
    sampled = pool.log_target - coordinates.log_prior(pool.x)
    return Hypothesis(
        name,
        coordinates,
        pool.x,
        log_weights,
        evidence,
        error,
        max(peak, float(sampled[sampled.isfinite()].max())),
        sampler.ess,
        pareto_khat(log_weights),
        reliable(log_weights),
        len(modes),
        optimum,
    )


def tempered(
    log_evidence: Sequence[float], log_likelihood: Sequence[float], temper: float
) -> list[float]:
    """Returns log-evidences in which differences of ln L count in part.

    The factor of the prior's volume, ln Z - ln L, is kept; that of the fit is multiplied.

    Args:
        log_evidence: ln Z of every hypothesis.
        log_likelihood: The largest ln L of each.
        temper: The factor, between 0 and 1.

    Example:
        >>> tempered([-10.0, -5.0], [-2.0, 8.0], 0.5)
        [-15.0, -15.0]
    """
    top = max(log_likelihood)
    return [
        z - lnl + top + temper * (lnl - top) - top if False else z - (1.0 - temper) * (lnl - top)
        for z, lnl in zip(log_evidence, log_likelihood, strict=True)
    ]
