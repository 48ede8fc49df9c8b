"""Fallback if importance sampling fails: a Markov chain, unless a point source is preferred."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import torch

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.refine.evidence import LOST, laplace_point_source
from deeplegato_pp.inference.sampling.mcmc import WALKERS, sample_chain
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood

SHORTEST_CHAIN = 150
"""Minimum number of steps for a chain to converge. [steps of all walkers]"""

logger = logging.getLogger(__name__)


def weights_failed(galaxy: RefinedGalaxy, ess_wanted: float) -> bool:
    """Returns whether k-hat is too large or the effective size is below a quarter of the goal."""
    return bool(galaxy.flags & Flag.HIGH_KHAT) or galaxy.ess < 0.25 * ess_wanted


def longest_chain(pixels: float, cost: float) -> int:
    """Returns the number of steps of all walkers within a budget of rendered pixels.

    Example:
        >>> longest_chain(4e8, 25600)
        389
    """
    return max(0, int(pixels / (cost * WALKERS)) - 1)


def point_source_log_odds(
    likelihood: Likelihood, row: int, galaxy: RefinedGalaxy, odds: float
) -> float:
    """Computes a lower bound on the ln odds of a point source against a galaxy.

    The point source's evidence is Laplace's approximation. Evidence is the average of the
    likelihood over the prior, so the galaxy's is at most its largest likelihood. That bound is
    used, because an evidence from failed weights cannot be trusted. If the search found no peak
    higher than those of the draws, the bound holds however poor the weights are.

    Args:
        likelihood: Galaxies, with the mask in force.
        row: Index of the galaxy.
        galaxy: Weighted draws of the galaxy.
        odds: Prior odds, point source to galaxy.

    Returns:
        The bound if it is near e^30 (:data:`evidence.LOST`); smaller values are too low, since the
        search ends early. -inf if the point source's likelihood cannot be evaluated.
    """
    best = galaxy.w[galaxy.log_weights.argmax()]
    start = torch.stack([galaxy.mean(), best])[None]
    highest = galaxy.log_likelihood.max()
    level = highest + LOST - math.log(odds)  # smaller evidences do not matter
    try:
        log_evidence, _ = laplace_point_source(likelihood.select([row]), start, level[None])
    except NumericalError as error:
        logger.info("galaxy %d: no comparison with a point source: %s", row, error)
        return -math.inf
    return float(log_evidence[0] - highest) + math.log(odds)


def fall_back(
    likelihood: Likelihood,
    row: int,
    galaxy: RefinedGalaxy,
    *,
    seed: int,
    ess: float,
    max_steps: int,
    star_odds: float | None,
) -> tuple[RefinedGalaxy, int]:
    """Returns the best available result for a failed galaxy, and the number of images rendered.

    No chain is run if a point source is more probable by at least e^30 (:data:`evidence.LOST`), as
    for bright stars, which no galaxy fits: the weighted draws are kept, with their flags.

    Args:
        likelihood: Galaxies, with the mask in force.
        row: Index of the galaxy.
        galaxy: Weighted draws of the galaxy.
        seed: Random seed of the chain.
        ess: Required effective sample size.
        max_steps: Maximum length of the chain; 0 for none. [steps]
        star_odds: Prior odds of a point source against a galaxy; None always runs a chain.
    """
    if star_odds is not None:
        log_odds = point_source_log_odds(likelihood, row, galaxy, star_odds)
        if log_odds > LOST:
            logger.info("galaxy %d: a point source, by e^%.0f to 1 or more", row, log_odds)
            return replace(galaxy, star_log_odds=log_odds), 0
    if max_steps == 0:
        return galaxy, 0
    logger.info(
        "galaxy %d: effective size %.0f, k-hat %.2f; running a Markov chain",
        row,
        galaxy.ess,
        galaxy.khat,
    )
    return _chain(likelihood, row, galaxy, seed, ess, max_steps)


def _chain(
    likelihood: Likelihood, row: int, galaxy: RefinedGalaxy, seed: int, ess: float, max_steps: int
) -> tuple[RefinedGalaxy, int]:
    coordinates = likelihood.coordinates
    assert isinstance(coordinates, SersicCoordinates | Member)  # noqa: S101  # a galaxy is refined
    start = galaxy.resample(200, torch.Generator().manual_seed(seed))
    chain = sample_chain(
        likelihood, row, coordinates.project(start), seed=seed, ess=ess, max_steps=max_steps
    )
    if not chain.converged and chain.ess < galaxy.ess and not galaxy.flags & Flag.HIGH_KHAT:
        return galaxy, chain.renders  # few effective draws, but valid ones
    sampled = replace(
        galaxy,
        w=coordinates.embed(chain.u),
        log_proposal=chain.log_posterior,
        log_likelihood=chain.log_posterior - coordinates.log_prior(chain.u),
        log_weights=torch.zeros(len(chain.u), dtype=torch.float64),
        method="mcmc",
        ess=min(chain.ess, float(len(chain.u))),
        khat=math.nan,
        efficiency=math.nan,
        flags=0 if chain.converged and chain.ess >= ess else int(Flag.LOW_ESS),
        chain={
            "autocorrelation_time": chain.autocorrelation_time,
            "steps": float(chain.steps),
            "converged": float(chain.converged),
        },
    )
    return sampled, chain.renders
