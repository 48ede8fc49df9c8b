"""Images foretold between rendered ones: only where ln L comes out the same."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.inference.fit import emulator
from deeplegato_pp.inference.fit.emulator import CHECKS, NODES, TOLERANCE, InterpolatedTarget
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.inference.fit.modes import mixture_at
from deeplegato_pp.scene.batches import Batches
from simulated_galaxies import coordinates_of, simulate

DRAWS = 400


@pytest.fixture(
    scope="module",
    params=[(18.5, 0.75, math.inf), (18.5, 0.75, 5.0), (24.5, 0.3, math.inf)],
    ids=["bright", "photons", "faint"],
)
def galaxy(request):
    magnitude, radius, gain = request.param
    w = coordinates_of(magnitude=magnitude, radius=radius)
    likelihood = simulate(w[None], gain=gain)
    return likelihood, fit(likelihood, torch.tensor([0]), w[None])


def target_of(likelihood, mode: Fit) -> InterpolatedTarget:
    return InterpolatedTarget(Batches(likelihood), 0, mode.u[0], mode.image[0])


def draws_of(mode: Fit, number: int = DRAWS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return mixture_at(mode, widened=False).sample([number], generator)[0]


def test_few_renders_tell_the_rest(galaxy):
    likelihood, mode = galaxy
    u = draws_of(mode)
    target = target_of(likelihood, mode)
    found = target(u)
    exact = likelihood.log_posterior(0, u, torch.float64)
    assert target.span is not None
    assert int(target.batches.renders[0]) < 0.3 * DRAWS
    matter = exact > exact.max() - 12.0
    error = (found - exact).abs()
    assert float(error[matter].max()) < 8 * TOLERANCE
    assert float(error[matter].median()) < TOLERANCE
    assert bool((found[~matter] < exact.max() - 9.0).all())
    more = draws_of(mode, 2 * DRAWS)[DRAWS:]
    before = int(target.batches.renders[0])
    exact = likelihood.log_posterior(0, more, torch.float64)
    again = (target(more) - exact).abs()[exact > exact.max() - 12.0]
    assert float(again.max()) < 8 * TOLERANCE
    assert int(target.batches.renders[0]) - before < 0.1 * DRAWS


def test_probable_draws_off_the_span_are_rendered(galaxy):
    likelihood, mode = galaxy
    target = target_of(likelihood, mode)
    target(draws_of(mode))
    target.limit = 0.0  # nothing lies on it exactly
    u = draws_of(mode, DRAWS + 8)[DRAWS:]
    u = u[target.likelihood.log_posterior(0, u) > target.best - 8.0]
    before = int(target.batches.renders[0])
    torch.testing.assert_close(target(u), likelihood.log_posterior(0, u))
    assert int(target.batches.renders[0]) - before == len(u) > 0
    outside = torch.full((1, 7), 8.5, dtype=torch.float64)
    assert float(target(outside)) == -math.inf


def test_the_span_grows_where_a_proposal_moves_on():
    w = coordinates_of(magnitude=24.5, radius=0.3)
    likelihood = simulate(w[None])
    mode = fit(likelihood, torch.tensor([0]), w[None])
    target = target_of(likelihood, mode)
    near = mode.u + 0.02 * (draws_of(mode) - mode.u)
    target(near)
    nodes = len(target.features)
    u = draws_of(mode)
    found, exact = target(u), likelihood.log_posterior(0, u, torch.float64)
    assert len(target.features) > nodes
    matter = exact > exact.max() - 12.0
    assert float((found - exact)[matter].abs().max()) < 8 * TOLERANCE


def test_where_sums_do_not_serve_every_draw_is_rendered(galaxy, monkeypatch):
    likelihood, mode = galaxy
    monkeypatch.setattr(emulator, "TOLERANCE", 0.0)
    monkeypatch.setattr(emulator, "MOST_NODES", NODES + 2 * CHECKS)
    target = target_of(likelihood, mode)
    u = draws_of(mode)
    torch.testing.assert_close(target(u), likelihood.log_posterior(0, u), atol=5e-3, rtol=0)
    assert target.given_up
    assert int(target.batches.renders[0]) == int((u.abs() <= 8).all(-1).sum())


def test_distances_that_are_rounding_end_the_search(galaxy, monkeypatch):
    """Of bright galaxies, distances come out above the goal where no image lies off the span."""
    likelihood, mode = galaxy
    shares, spanning, calls = emulator.ImageSpan.shares, emulator.spanning, []

    def rounded(span, features):
        found, distance = shares(span, features)
        return found, distance + 0.03

    def counted(*args):
        calls.append(1)
        assert len(calls) < 50, "the search does not end"
        return spanning(*args)

    monkeypatch.setattr(emulator.ImageSpan, "shares", rounded)
    monkeypatch.setattr(emulator, "spanning", counted)
    u = draws_of(mode)
    exact = likelihood.log_posterior(0, u, torch.float64)
    matter = exact > exact.max() - 12.0
    error = (target_of(likelihood, mode)(u) - exact).abs()[matter]
    assert float(error.max()) < 8 * TOLERANCE


def test_where_draws_run_out_the_next_ones_go_on(galaxy, monkeypatch):
    likelihood, mode = galaxy
    target = target_of(likelihood, mode)
    u = draws_of(mode, 2 * (NODES + CHECKS))
    monkeypatch.setattr(emulator, "TOLERANCE", 0.0)
    torch.testing.assert_close(target(u), likelihood.log_posterior(0, u), atol=5e-3, rtol=0)
    assert int(target.batches.renders[0]) == int((u.abs() <= 8).all(-1).sum())
    assert target.span is None
    assert not target.given_up
    monkeypatch.undo()
    target(draws_of(mode, 2 * DRAWS)[DRAWS:])
    assert target.span is not None


def test_few_draws_are_all_rendered(galaxy):
    likelihood, mode = galaxy
    u = draws_of(mode, NODES + CHECKS)
    target = target_of(likelihood, mode)
    target(u)
    assert int(target.batches.renders[0]) == len(u)
