import math

import pytest
import torch

from deeplegato_pp.inference.optimize import (
    Optima,
    choose_starts,
    distinct_modes,
    laplace_widths,
    maximize,
)
from simulated_galaxies import coordinates_of, simulate


@pytest.mark.parametrize("gain", [math.inf, 2.0])
def test_finds_the_mode_from_a_distance(gain):
    w = torch.stack([coordinates_of(), coordinates_of(magnitude=20.0, n=3.0, q=0.3)])
    problem = simulate(w, gain=gain)
    optima = maximize(problem, torch.tensor([0, 1]), w + 0.2)
    assert bool(optima.converged.all())
    delta = (w - optima.u)[..., None]
    distance2 = (delta.mT @ torch.linalg.solve(optima.covariance, delta)).flatten()
    assert float(distance2.max()) < 30.0  # chi-squared of 7
    for i in range(2):
        near = optima.u[i] + 0.1 * optima.covariance[i].diagonal().sqrt() * torch.eye(7).double()
        values = problem.log_likelihood_row(i, near, torch.float64)
        values = values + problem.coordinates.log_prior(near)
        assert float(values.max()) <= float(optima.log_posterior[i]) + 1e-2


def test_a_round_galaxy_leaves_its_shape_to_the_prior():
    w = coordinates_of(q=1.0, magnitude=24.0)
    problem = simulate(w[None])
    start = w.clone()
    _, _, information = problem.linearize(0, start)
    assert float(information[3:5].abs().max()) < 1e-3 * float(information.abs().max())
    optimum, widths, converged = laplace_widths(problem, start[None])
    assert bool(torch.isfinite(optimum).all())
    assert bool(torch.isfinite(widths).all())
    assert converged.shape == (1,)


def test_starts_lie_apart():
    u = torch.cat([torch.randn(50, 3) * 0.01, torch.randn(50, 3) * 0.01 + 3.0]).double()
    value = torch.linspace(0.0, -1.0, 100).double()
    starts = choose_starts(u, value, 3)
    assert len(starts) == 2
    torch.testing.assert_close(starts[0], u[0])
    assert float(starts[1].mean()) > 2.0


def test_repeated_and_massless_modes_are_dropped():
    u = torch.tensor([[0.0, 0.0], [0.01, 0.0], [5.0, 0.0], [9.0, 0.0], [1.0, 1.0]]).double()
    optima = Optima(
        rows=torch.tensor([0, 0, 0, 0, 1]),
        u=u,
        covariance=0.1 * torch.eye(2).double().expand(5, 2, 2),
        log_posterior=torch.tensor([0.0, -0.1, -1.0, -50.0, 3.0]).double(),
        converged=torch.ones(5, dtype=torch.bool),
        iterations=torch.zeros(5, dtype=torch.long),
    )
    first, second = distinct_modes(optima)
    torch.testing.assert_close(first.u, u[[0, 2]])
    torch.testing.assert_close(second.u, u[[4]])
