"""Hypotheses of several components for a galaxy with fitted neighbours."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.inference.fit.fit import Stop, fit
from deeplegato_pp.scene.components import Coordinates
from deeplegato_pp.scene.group import Group, Member, Placed, PlacedScene, Surroundings
from deeplegato_pp.scene.likelihood import Likelihood

_STEPS = 60


def beside_neighbours(
    likelihood: Likelihood,
    name: str,
    best: Float[Tensor, "7"],
    starts: Float[Tensor, "k f"],
) -> tuple[Member, Float[Tensor, "1 k f"]]:
    """Returns a hypothesis with the neighbours that follow it, and starting points.

    All members are fitted again: light that belongs to a bulge under one hypothesis may belong to
    a neighbour under another.

    Args:
        likelihood: Likelihood of the galaxy as a single profile, a member of its group.
        name: Name of the hypothesis.
        best: Best coordinates of the single profile.
        starts: Starting coordinates of the hypothesis, with shape (K, F).
    """
    member = likelihood.coordinates
    assert isinstance(member, Member)  # noqa: S101  # checked by the caller
    assert isinstance(member.own, Placed)  # noqa: S101  # as members are
    scene = PlacedScene(name, member.own)
    others = member.around.others
    followed = member.follow(member.project(best)[None]).expand(len(starts), -1)
    group = Group[Coordinates]([scene, *others.members])
    found = fit(
        likelihood.under(group),
        torch.zeros(len(starts), dtype=torch.long),
        torch.cat([starts, followed], 1),
        stop=Stop(iterations=_STEPS),
    )
    top = int(found.log_mass().argmax())
    around = Surroundings.of(others, found.u[top], found.covariance[top])
    return Member(scene, around), found.u[None, :, : scene.dim]
