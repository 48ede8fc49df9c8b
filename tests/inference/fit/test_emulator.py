"""Images foretold between rendered ones: only where ln L comes out the same."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.inference.fit.emulator import (
    CHECKS,
    SIZES,
    TOLERANCE,
    ImageInterpolator,
    InterpolatedTarget,
)
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.inference.fit.modes import mixture_at
from deeplegato_pp.scene.batches import Batches
from simulated_galaxies import coordinates_of, simulate

DRAWS = 400


@pytest.fixture(scope="module", params=[math.inf, 5.0])
def bright(request):
    w = coordinates_of(magnitude=18.5)
    likelihood = simulate(w[None], gain=request.param)
    return likelihood, fit(likelihood, torch.tensor([0]), w[None])


def draws_of(mode: Fit, number: int = DRAWS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return mixture_at(mode, widened=False).sample([number], generator)[0]


def test_few_renders_tell_the_rest(bright):
    likelihood, mode = bright
    u = draws_of(mode)
    target = InterpolatedTarget(Batches(likelihood), 0, mode)
    found = target(u)
    exact = likelihood.log_posterior(0, u, torch.float64)
    assert target.interpolator is not None
    assert int(target.batches.renders[0]) < 0.5 * DRAWS
    error = (found - exact).abs()
    assert float(error.max()) < 3 * TOLERANCE
    assert float(error.median()) < 0.1 * TOLERANCE
    more = draws_of(mode, 2 * DRAWS)[DRAWS:]
    before = int(target.batches.renders[0])
    again = (target(more) - likelihood.log_posterior(0, more, torch.float64)).abs()
    assert float(again.max()) < 3 * TOLERANCE
    assert int(target.batches.renders[0]) - before < 0.2 * DRAWS


def test_draws_far_out_are_rendered(bright):
    likelihood, mode = bright
    target = InterpolatedTarget(Batches(likelihood), 0, mode)
    target(draws_of(mode))
    far = mode.u + 12.0 * torch.linalg.cholesky(mode.covariance[0]).T
    before = int(target.batches.renders[0])
    torch.testing.assert_close(target(far), likelihood.log_posterior(0, far))
    assert int(target.batches.renders[0]) - before == len(far)
    outside = torch.full((1, 7), 8.5, dtype=torch.float64)
    assert float(target(outside)) == -math.inf


def test_a_broad_posterior_is_rendered_throughout():
    w = coordinates_of(magnitude=24.5, radius=0.3)
    likelihood = simulate(w[None])
    mode = fit(likelihood, torch.tensor([0]), w[None])
    u = draws_of(mode)
    target = InterpolatedTarget(Batches(likelihood), 0, mode)
    torch.testing.assert_close(target(u), likelihood.log_posterior(0, u), atol=5e-3, rtol=0)
    assert target.interpolator is None
    assert int(target.batches.renders[0]) == int((u.abs() <= 8).all(-1).sum())


def test_few_draws_are_all_rendered(bright):
    likelihood, mode = bright
    u = draws_of(mode, SIZES[0] + CHECKS)
    target = InterpolatedTarget(Batches(likelihood), 0, mode)
    target(u)
    assert int(target.batches.renders[0]) == len(u)


def test_interpolation_passes_through_the_images_given(bright):
    likelihood, mode = bright
    u = draws_of(mode, SIZES[0])
    images = likelihood.render(0, u, torch.float64)
    found = ImageInterpolator.fit(likelihood, mode, u, images)
    difference = found.log_likelihood(u) - likelihood.log_likelihood_of(0, images)
    assert float(difference.abs().max()) < 5e-3  # 2e-3 is granted to expansions, likewise to probes
    far = mode.u + 6.0 * torch.linalg.cholesky(mode.covariance[0]).T
    assert float(found.unsupported(far).min()) > 10 * float(found.unsupported(u).abs().max())
