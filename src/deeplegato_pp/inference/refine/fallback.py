"""What is done where importance sampling fails: a Markov chain, unless the galaxy is a star."""

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
"""Steps below which a chain could not converge. [of all walkers]"""

logger = logging.getLogger(__name__)


def weights_failed(galaxy: RefinedGalaxy, ess_wanted: float) -> bool:
    """Whether k-hat is bad, or a quarter of the effective size asked for is not reached."""
    return bool(galaxy.flags & Flag.HIGH_KHAT) or galaxy.ess < 0.25 * ess_wanted


def longest_chain(pixels: float, cost: float) -> int:
    """Returns the steps of all walkers that a number of rendered pixels pays for.

    Example:
        >>> longest_chain(4e8, 25600)
        389
    """
    return max(0, int(pixels / (cost * WALKERS)) - 1)


def point_source_log_odds(
    likelihood: Likelihood, row: int, galaxy: RefinedGalaxy, odds: float
) -> float:
    """Returns a lower bound on ln of the odds of a point source against a galaxy.

    The point source's evidence is Laplace's approximation. An evidence is the prior's average of
    the likelihood, so the galaxy's is at most its highest likelihood: that takes its place, since
    an evidence from weights that failed cannot be trusted. Where the search found no peak higher
    than the draws', the bound holds however bad the weights are.

    Args:
        likelihood: Galaxies, with the mask in force.
        row: Which of them.
        galaxy: Its weighted draws.
        odds: Prior odds, point source to galaxy.

    Returns:
        The bound, where it comes near e^30 (:data:`evidence.LOST`); lower ones are too low, since
        the search ends early. -inf if the point source's likelihood cannot be evaluated.
    """
    best = galaxy.w[galaxy.log_weights.argmax()]
    start = torch.stack([galaxy.mean(), best])[None]
    highest = galaxy.log_likelihood.max()
    level = highest + LOST - math.log(odds)  # below which the bound is of no use
    try:
        log_evidence, _ = laplace_point_source(likelihood.select([row]), start, level[None])
    except NumericalError as error:
        logger.info("galaxy %d: no comparison with a point source: %s", row, error)
        return -math.inf
    return float(log_evidence[0] - highest) + math.log(odds)


def rescue(
    likelihood: Likelihood,
    row: int,
    galaxy: RefinedGalaxy,
    *,
    seed: int,
    ess: float,
    max_steps: int,
    star_odds: float | None,
) -> tuple[RefinedGalaxy, int]:
    """Returns what is best for a galaxy whose weights failed, and the images rendered for it.

    No chain is run where a point source is more probable by e^30 (:data:`evidence.LOST`) at the
    least, as for bright stars, which no galaxy fits: the weighted draws stay, with their flags.

    Args:
        likelihood: Galaxies, with the mask in force.
        row: Which of them.
        galaxy: Its weighted draws.
        seed: Of the chain.
        ess: Effective sample size wanted.
        max_steps: Longest chain; 0 for none. [steps]
        star_odds: Prior odds of a point source against a galaxy; None: a chain in any case.
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
        return galaxy, chain.renders  # few draws, but sound ones
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
