import pytest
import torch

from deeplegato_pp.inference.coordinates import PointSourceCoordinates
from deeplegato_pp.inference.mcmc import sample_chain
from deeplegato_pp.inference.optimize import laplace_widths
from simulated_galaxies import coordinates_of, simulate


@pytest.fixture(scope="module")
def star():
    """A point source, whose three-dimensional posterior is nearly Gaussian."""
    problem = simulate(coordinates_of()[None], size=16)
    star = problem.under(PointSourceCoordinates(problem.box))
    u = torch.tensor([[0.0, 0.05, 0.05]], dtype=torch.float64)
    noise = torch.randn(star.stamps.image.shape, generator=torch.Generator().manual_seed(0))
    star.stamps.image[0] = star.render(0, u, torch.float64)[0] + noise[0]
    return star, u


def test_a_chain_finds_a_known_posterior(star):
    problem, u = star
    mean, std, _ = laplace_widths(problem, u)
    start = mean + std * torch.randn(100, 3, dtype=torch.float64)
    chain = sample_chain(problem, 0, start, seed=1, walkers=20, max_steps=150)
    assert chain.ess > 30
    assert float(((chain.u.mean(0) - mean[0]) / std[0]).abs().max()) < 0.4
    assert float((chain.u.std(0) / std[0]).log().abs().max()) < 0.3
    assert chain.log_posterior.shape == (len(chain.u),)


def test_a_chain_depends_on_its_seed_only(star):
    problem, u = star
    start = u + 1e-3 * torch.randn(50, 3, dtype=torch.float64)
    runs = [sample_chain(problem, 0, start, seed=s, walkers=10, max_steps=10) for s in (4, 4, 5)]
    assert torch.equal(runs[0].u, runs[1].u)
    assert not torch.equal(runs[0].u, runs[2].u)
    assert not runs[0].converged
