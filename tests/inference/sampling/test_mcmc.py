from types import SimpleNamespace

import pytest
import torch

from deeplegato_pp.inference.fit.modes import laplace_widths
from deeplegato_pp.inference.sampling.mcmc import sample_chain
from deeplegato_pp.scene.components import PointSourceCoordinates
from simulated_galaxies import coordinates_of, simulate


@pytest.fixture(scope="module")
def star():
    """A point source, whose three-dimensional posterior is nearly Gaussian."""
    likelihood = simulate(coordinates_of()[None], size=16)
    star = likelihood.under(PointSourceCoordinates(likelihood.box))
    u = torch.tensor([[0.0, 0.05, 0.05]], dtype=torch.float64)
    noise = torch.randn(star.stamps.image.shape, generator=torch.Generator().manual_seed(0))
    star.stamps.image[0] = star.render(0, u, torch.float64)[0] + noise[0]
    return star, u


def test_a_chain_finds_a_known_posterior(star):
    likelihood, u = star
    mean, std, _ = laplace_widths(likelihood, u)
    noise = torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    start = mean + std * noise
    chain = sample_chain(likelihood, 0, start, seed=1, walkers=20, max_steps=150)
    assert chain.ess > 30
    assert float(((chain.u.mean(0) - mean[0]) / std[0]).abs().max()) < 0.4
    assert float((chain.u.std(0) / std[0]).log().abs().max()) < 0.3
    assert chain.log_posterior.shape == (len(chain.u),)


def test_widths_in_seven_dimensions_are_right():
    # A proposal without its Jacobian shows here, and hardly in three dimensions.
    normal = SimpleNamespace(log_posterior=lambda row, points: -0.5 * (points**2).sum(-1))
    start = torch.randn(100, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    chain = sample_chain(normal, 0, start, seed=3, ess=4000.0, max_steps=6000)
    assert chain.converged
    assert float(chain.u.std(0).mean()) == pytest.approx(1.0, abs=0.04)
    assert float(chain.u.mean(0).abs().max()) < 0.12


def test_a_chain_depends_on_its_seed_only(star):
    likelihood, u = star
    noise = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    start = u + 1e-3 * noise
    runs = [sample_chain(likelihood, 0, start, seed=s, walkers=10, max_steps=10) for s in (4, 4, 5)]
    assert torch.equal(runs[0].u, runs[1].u)
    assert not torch.equal(runs[0].u, runs[2].u)
    assert not runs[0].converged
