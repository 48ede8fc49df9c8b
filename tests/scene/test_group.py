"""Galaxies that share a stamp."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.group import Group, Member, Placed, Surroundings, about
from deeplegato_pp.scene.prior import PriorBox

BOX = PriorBox()
FIRST = torch.tensor([23.0, 0.8, 1.0, 0.8, 30.0, 0.2, -0.3], dtype=torch.float64)
SECOND = torch.tensor([22.5, 0.6, 2.0, 0.7, 120.0, 6.5, 1.0], dtype=torch.float64)


def a_pair() -> tuple[Group, torch.Tensor, torch.Tensor]:
    """Coordinates of two galaxies 6 px apart, an optimum, and a covariance that couples them."""
    other = about(BOX, 6.0, 1.0)
    group = Group([Placed(BOX, (0.0, 0.0), 1.5), Placed(other, (6.0, 1.0), 1.5)])
    u = torch.cat([BOX.to_normal(FIRST[None])[0], other.to_normal(SECOND[None])[0]])
    root = torch.randn(14, 14, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return group, u, 1e-4 * (root @ root.T + torch.eye(14))


def a_member() -> tuple[Member, torch.Tensor, torch.Tensor]:
    group, u, covariance = a_pair()
    own, other = group.members
    return Member(own, Surroundings.of(Group([other]), u, covariance)), u, covariance


def test_a_group_draws_all_of_its_members():
    group, u, _ = a_pair()
    profiles = group.profiles(u[None])
    assert profiles.shape == (2, 7, 1)
    assert profiles[1, 5:, 0].tolist() == pytest.approx([6.5, 1.0])
    assert [len(g) for g in group.galaxies(u[None])] == [1, 1]
    with pytest.raises(RangeError, match="at least one member"):
        Group([])


def test_a_listed_position_is_a_normal_prior_of_the_centre():
    placed = Placed(BOX, (1.0, 0.0), 0.5)
    u = torch.zeros(20_001, 7, dtype=torch.float64)
    u[:, 5] = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    density = placed.log_prior(u).exp() * (2 * math.pi) ** 2.5 * math.sqrt(2 * math.pi)
    mean, std = placed.normal_prior()
    density = density * std[6] * (0.5 * (mean[6] / std[6]) ** 2).exp()
    weight = density * (u[1, 5] - u[0, 5])
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-6)
    x = BOX.to_physical(u)[:, 5]
    assert float(weight @ x) == pytest.approx(1.0, abs=0.05)
    assert float((weight @ (x - 1.0) ** 2).sqrt()) == pytest.approx(0.5, rel=0.1)


def test_a_fixed_centre_has_no_prior_to_narrow():
    placed = Placed(BOX, (1.0, 0.0), 0.5, {"center_x": 1.0})
    mean, std = placed.normal_prior()
    assert len(mean) == 6
    assert (std < 1).tolist() == [False] * 5 + [True]
    assert Placed(BOX, (1.0, 0.0), 0.5).in_box(about(BOX, 2.0, 0.0)).place == (1.0, 0.0)


def test_the_others_follow_along_the_regression():
    member, u, covariance = a_member()
    assert member.follow(u[None, :7])[0].tolist() == pytest.approx(u[7:].tolist(), abs=1e-9)
    step = 1e-5 * torch.arange(1.0, 8.0, dtype=torch.float64)
    expected = covariance[7:, :7] @ torch.linalg.solve(covariance[:7, :7], step)
    moved = member.follow((u[:7] + step)[None])[0] - u[7:]
    assert moved.tolist() == pytest.approx(expected.tolist(), abs=1e-8)


def test_fluxes_follow_fluxes():
    member, u, _ = a_member()
    steps = torch.zeros(3, 7, dtype=torch.float64)
    steps[:, 0] = torch.tensor([-0.05, 0.0, 0.1])
    own, other = (g[0, 0] for g in member.galaxies(u[:7] + steps))
    slopes = (other[1:] - other[:-1]) / (own[1:] - own[:-1])
    assert float(slopes[0]) == pytest.approx(float(slopes[1]), rel=1e-6)


def test_a_member_stays_what_it_is_in_another_box():
    member, u, _ = a_member()
    w = u[None, :7] + 0.01
    wider = PriorBox(effective_radius=(0.05, 20.0))
    moved = member.in_box(wider)
    there = wider.to_normal(BOX.to_physical(w))
    assert moved.follow(there)[0].tolist() == pytest.approx(member.follow(w)[0].tolist(), abs=1e-6)
    assert moved.box == wider


def test_prior_and_volume_make_the_groups_evidence():
    """Of a Gaussian likelihood centred on the optimum the integral is known."""
    group, u, covariance = a_pair()
    mean, std = group.normal_prior()
    member, *_ = a_member()
    own = member.log_prior(u[None, :7])[0]
    joint = group.log_prior(u)
    f = 7
    slope = torch.linalg.solve(covariance[:f, :f], covariance[:f, f:]).mT
    left = covariance[f:, f:] - slope @ covariance[:f, f:]
    volume = 0.5 * torch.linalg.slogdet(2 * math.pi * left).logabsdet
    assert float(own - joint) == pytest.approx(float(volume), abs=1e-9)
    assert len(mean) == len(std) == 14


def test_a_galaxy_alone_has_the_standard_prior():
    mean, std = SersicCoordinates(BOX, {"sersic_index": 4.0}).normal_prior()
    assert mean.tolist() == [0.0] * 6
    assert std.tolist() == [1.0] * 6
