"""Comparison of galaxy, point source and blank sky for a galaxy with fitted neighbours.

All three are hypotheses for the whole group, in each of which the neighbours are free. The evidence
of the galaxy is that of its refined posterior; those of the point source and of the neighbours
alone are Laplace approximations at the group's optimum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deeplegato_pp.inference.fit.fit import Stop, fit
from deeplegato_pp.inference.posterior.draws import RefinedDraws
from deeplegato_pp.inference.refine.evidence import Comparison, check_odds, star_probability
from deeplegato_pp.scene.components import Coordinates
from deeplegato_pp.scene.group import Group, Member, Placed, PlacedPoint
from deeplegato_pp.scene.likelihood import Likelihood

_STEPS = 100


def compare_beside(refined: RefinedDraws, odds: float) -> Comparison:
    """Compares galaxy, point source and blank sky for a member of a group.

    Args:
        refined: Exact posterior of the one member, with magnitude and centre free.
        odds: Prior odds, point source to galaxy.

    Raises:
        RangeError: If the odds are not positive and finite.
    """
    check_odds(odds)
    member = refined.likelihood.coordinates
    assert isinstance(member, Member)  # noqa: S101  # checked by the caller
    assert isinstance(member.own, Placed)  # noqa: S101  # as members are
    best = member.project(refined[0].w[refined[0].log_weights.argmax()])
    others = member.follow(best[None])[0]
    neighbours = list(member.around.others.members)
    point = PlacedPoint(member.own)
    start = torch.cat([point.project(member.embed(best)), others])
    star = _laplace(refined.likelihood, Group[Coordinates]([point, *neighbours]), start)
    blank = _laplace(refined.likelihood, Group[Coordinates](neighbours), others)
    galaxy = refined.log_evidence
    return Comparison(
        star_probability(galaxy, star, odds),
        odds,
        star,
        torch.full_like(star, math.nan),
        blank,
        torch.maximum(galaxy, star) - blank,
    )


def _laplace(likelihood: Likelihood, group: Group[Coordinates], start: Tensor) -> Tensor:
    """Returns Laplace's approximation to ln Z of a group on one stamp, with shape (1,)."""
    found = fit(
        likelihood.under(group),
        torch.zeros(1, dtype=torch.long),
        start[None],
        stop=Stop(iterations=_STEPS),
    )
    return found.log_mass() + 0.5 * group.dim * math.log(2.0 * math.pi)
