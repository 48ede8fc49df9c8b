"""Model comparison by evidence: galaxy, point source and blank sky.

All hypotheses use the same pixels, mask and sky prior, and all priors are normalised, so that
evidences can be compared. The evidence of the galaxy comes from refinement; those of the other
hypotheses are computed here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.errors import RangeError
from deeplegato_pp.inference.fit.fit import Fit, Stop, fit
from deeplegato_pp.inference.fit.modes import distinct_modes, mixture_at
from deeplegato_pp.inference.posterior.draws import RefinedDraws
from deeplegato_pp.inference.sampling.sampler import Budget, TargetSampler, sample_targets
from deeplegato_pp.scene.components import PointSourceCoordinates, flux_of, magnitude_of
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import MAGNITUDE, NUM_PARAMETERS
from deeplegato_pp.scene.prior import W_MAX, PriorBox

STAR_ODDS = 1.0
"""Default prior odds of a point source against a galaxy."""

LOST = 30.0
"""ln evidence by which a point source must be worse, by Laplace's approximation, for that to be
sufficient: its probability is then below 1e-12 whatever the error. If it is better by as much, no
Markov chain is run for the galaxy."""

EVIDENCE_ESS = 100.0
"""Effective sample size for a point source's evidence: its error is then 0.02 to 0.15, and that
of the probability below 0.04."""

FAINT = 15.0
"""ln Bayes factor (Laplace) against blank sky below which noise peaks compete with the source:
prior draws are then evaluated first, and the effective sample size is doubled."""

_FAINT_PILOT = 200

DETECTION = math.log(100.0)
"""ln Bayes factor against blank sky above which a source counts as detected."""


@dataclass(frozen=True)
class Evidence:
    """Evidence of one hypothesis for every galaxy.

    Attributes:
        log_evidence: ln Z, with shape (B,).
        error: Standard error of ln Z, with shape (B,); NaN for Laplace's approximation.
    """

    log_evidence: Float[Tensor, " b"]
    error: Float[Tensor, " b"]


@dataclass(frozen=True)
class Comparison:
    """Comparison of galaxy, point source and blank sky.

    Attributes:
        star_probability: Probability of a point source rather than a galaxy, with shape (B,).
        star_odds: Prior odds, point source to galaxy.
        star_log_evidence: ln Z of the point source, with shape (B,).
        star_log_evidence_error: Standard error of it, with shape (B,).
        blank_log_evidence: ln L of the sky alone, with shape (B,).
        detection: ln Bayes factor of the better of galaxy and point source against blank sky, with
            shape (B,).
    """

    star_probability: Float[Tensor, " b"]
    star_odds: float
    star_log_evidence: Float[Tensor, " b"]
    star_log_evidence_error: Float[Tensor, " b"]
    blank_log_evidence: Float[Tensor, " b"]
    detection: Float[Tensor, " b"]

    def detected(self, log_odds: float = DETECTION) -> Tensor:
        """Returns whether a source is favoured over blank sky, by default 100 to 1, per galaxy."""
        return self.detection > log_odds


def point_source_evidence(
    likelihood: Likelihood,
    start: Float[Tensor, "b k 7"],
    *,
    seeds: Int[Tensor, " b"] | None = None,
    ess: float = EVIDENCE_ESS,
    reference: Float[Tensor, " b"] | None = None,
) -> Evidence:
    """Computes the evidence of a point source with the galaxy's prior in magnitude and centre.

    A search from each start gives Laplace's approximation. Unless this is worse than the galaxy's
    evidence by :data:`LOST`, importance sampling with a Student-t at the mode, mixed with the
    prior, makes it exact.

    Args:
        likelihood: Likelihood; ``refined.likelihood`` has the mask used by refinement.
        start: Coordinates of galaxies from which the search starts, with shape (B, K, 7).
        seeds: Random seeds, one per galaxy; the galaxy's index if None.
        ess: Effective sample size of each evidence.
        reference: ln Z of the galaxy, with shape (B,); if None, every evidence is made exact.
    """
    coordinates = PointSourceCoordinates(likelihood.box)
    star = likelihood.under(coordinates)
    batch = len(start)
    seeds = torch.arange(batch) if seeds is None else seeds
    level = None if reference is None else reference - LOST
    laplace, modes = laplace_point_source(likelihood, start, level)
    star.freeze(torch.arange(batch), torch.stack([found.u[0] for found in modes]))
    values = torch.stack([laplace, torch.full_like(laplace, math.nan)], 1)
    worth_it = range(batch) if level is None else (laplace > level).nonzero()[:, 0].tolist()
    faint = laplace - blank_log_evidence(likelihood) < FAINT
    samplers = {
        i: _star_sampler(star, i, modes[i], int(seeds[i]), ess, bool(faint[i])) for i in worth_it
    }
    rows = list(samplers)
    sample_targets(
        list(samplers.values()),
        lambda which, draws: [
            star.log_posterior(rows[k], u) for k, u in zip(which, draws, strict=True)
        ],
        lambda _, draws: [coordinates.log_prior(u) for u in draws],
    )
    for i, sampler in samplers.items():
        values[i] = torch.tensor(sampler.pool.log_evidence(), dtype=torch.float64)
    return Evidence(values[:, 0], values[:, 1])


def laplace_point_source(
    likelihood: Likelihood,
    start: Float[Tensor, "b k 7"],
    out_of_reach: Float[Tensor, " b"] | None = None,
) -> tuple[Float[Tensor, " b"], list[Fit]]:
    """Computes Laplace's approximation to a point source's ln Z, and its modes.

    Args:
        likelihood: Likelihood.
        start: Coordinates of galaxies from which the search starts, with shape (B, K, 7).
        out_of_reach: ln Z below which the value does not matter, with shape (B,). Searches that
            cannot reach it end early, with a value that is too low.
    """
    coordinates = PointSourceCoordinates(likelihood.box)
    points = coordinates.project(start.double())
    batch, count = points.shape[:2]
    owner = torch.arange(batch).repeat_interleave(count)
    star = likelihood.under(coordinates)
    level = None if out_of_reach is None else out_of_reach.repeat_interleave(count)
    points = points.reshape(-1, coordinates.dim)
    modes = distinct_modes(fit(star, owner, points, stop=Stop(out_of_reach=level)))
    mass = torch.stack([torch.logsumexp(m.log_mass(), 0) for m in modes])
    return mass + 0.5 * coordinates.dim * math.log(2.0 * math.pi), modes


def _star_sampler(
    star: Likelihood, row: int, modes: Fit, seed: int, ess: float, faint: bool
) -> TargetSampler:
    """Builds the sampler of a point source: its modes, widened modes, and the prior."""
    generator = torch.Generator().manual_seed(seed)
    limit = _brightest(star, row, modes.u[0]) if faint else -W_MAX
    base, density = _prior_draws(2000, star.coordinates.dim, limit, generator)
    pilot = _FAINT_PILOT if faint else 0
    wanted = 2.0 * ess if faint else ess
    sampler = TargetSampler(
        base,
        density,
        star.log_posterior(row, base[:pilot]) if pilot else density[:0],
        seed,
        Budget(ess=wanted, max_draws=math.ceil(10 * wanted)),
    )
    sampler.set_mixture(mixture_at(modes, widened=True))
    return sampler


def _brightest(star: Likelihood, row: int, u: Float[Tensor, "3"]) -> float:
    """Returns the magnitude's coordinate at eight standard errors of flux above the best flux."""
    flux = star.coordinates.profiles(u[None])[0, 0]
    profile = star.render(row, u[None], torch.float64)[0] / flux
    sigma = torch.where(star.stamps.mask[row], torch.inf, star.stamps.sigma[row])
    bound = flux.cpu() + 8.0 / ((profile / sigma) ** 2).sum().sqrt().cpu()
    parameters = star.box.to_physical(torch.zeros(1, NUM_PARAMETERS, dtype=torch.float64))
    parameters[0, MAGNITUDE] = magnitude_of(bound)[0].clamp(*star.box.magnitude)
    return float(star.box.to_normal(parameters)[0, MAGNITUDE])


def _prior_draws(
    number: int, dim: int, lowest: float, generator: torch.Generator
) -> tuple[Float[Tensor, "s f"], Float[Tensor, " s"]]:
    """Draws from the prior, 90 % with first coordinates above a limit, with their log-density.

    If the likelihood excludes bright sources, most draws from the prior itself would be wasted.
    """
    u = torch.randn(number, dim, generator=generator, dtype=torch.float64)
    excluded = torch.special.ndtr(torch.tensor(lowest, dtype=torch.float64))
    fraction = torch.rand(number, generator=generator, dtype=torch.float64)
    kept = torch.special.ndtri(excluded + (1.0 - excluded) * fraction).clamp(-W_MAX, W_MAX)
    cut = torch.arange(number) % 10 != 0
    u[:, 0] = torch.where(cut, kept, u[:, 0])
    log_prior = -0.5 * (u**2).sum(-1) - 0.5 * dim * math.log(2.0 * math.pi)
    share = 0.1 + 0.9 * (u[:, 0] >= lowest) / (1.0 - excluded)
    return u, log_prior + share.log()


def blank_log_evidence(likelihood: Likelihood) -> Float[Tensor, " b"]:
    """Returns ln L of blank sky, with only the sky offset marginalised, with shape (B,)."""
    likelihood = likelihood.replace(psf_error=0.0)  # without a source, the PSF has no effect
    empty = torch.zeros(1, likelihood.size, likelihood.size, dtype=torch.float64)
    empty = empty.to(likelihood.stamps.image.device)
    return torch.cat([likelihood.log_likelihood_of(i, empty) for i in range(len(likelihood))])


def check_odds(odds: float) -> None:
    """Raises an error for invalid odds.

    Raises:
        RangeError: If they are not positive and finite.
    """
    if not (math.isfinite(odds) and odds > 0):
        raise RangeError(f"odds (point source to galaxy) must be positive, got {odds}.")


def star_probability(
    galaxy: Float[Tensor, " b"], star: Float[Tensor, " b"], odds: float = STAR_ODDS
) -> Float[Tensor, " b"]:
    """Computes the probability of a point source rather than a galaxy.

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
    check_odds(odds)
    return torch.sigmoid(star - galaxy + math.log(odds))


def compare(
    refined: RefinedDraws,
    *,
    odds: float = STAR_ODDS,
    seeds: Int[Tensor, " b"] | None = None,
    ess: float = EVIDENCE_ESS,
) -> Comparison:
    """Compares galaxy, point source and blank sky, for galaxies refined exactly.

    Args:
        refined: Exact posteriors whose magnitude and centre are free.
        odds: Prior odds, point source to galaxy.
        seeds: Random seeds, one per galaxy.
        ess: Effective sample size of a point source's evidence.

    Raises:
        RangeError: If the odds are not positive and finite.
    """
    best = torch.stack([g.w[g.log_weights.argmax()] for g in refined.galaxies])
    mean = torch.stack([g.mean() for g in refined.galaxies])
    start = torch.stack([mean, best], 1)
    galaxy = refined.log_evidence
    star = point_source_evidence(refined.likelihood, start, seeds=seeds, ess=ess, reference=galaxy)
    blank = blank_log_evidence(refined.likelihood)
    return Comparison(
        star_probability(galaxy, star.log_evidence, odds),
        odds,
        star.log_evidence,
        star.error,
        blank,
        torch.maximum(galaxy, star.log_evidence) - blank,
    )


def flux_upper_limit(
    w: Float[Tensor, "s 7"],
    log_weights: Float[Tensor, " s"],
    box: PriorBox,
    level: float = 0.95,
) -> float:
    """Computes an upper limit on the galaxy's flux, for non-detections.

    The prior in magnitude is replaced by one uniform in flux, for which the limit does not depend
    on the faint edge of the prior box.

    Args:
        w: Draws of one galaxy, with shape (S, 7).
        log_weights: Log weights of the draws, with shape (S,).
        box: Prior box at the reference instrument.
        level: Probability that the flux lies below the limit.

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
