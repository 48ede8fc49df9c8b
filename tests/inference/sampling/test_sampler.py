"""The importance code on a linear-Gaussian toy, whose posterior and evidence are known."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from deeplegato_pp.inference.sampling.importance import StudentMixture
from deeplegato_pp.inference.sampling.sampler import Budget, TargetSampler, sample_targets
from deeplegato_pp.stats.pareto import pareto_khat

DIM, DATA = 5, 8


class LinearGaussian:
    """y = A x + noise, with x and the noise standard normal."""

    def __init__(self, generator: torch.Generator) -> None:
        self.design = torch.randn(DATA, DIM, generator=generator, dtype=torch.float64)
        self.y = 3.0 * torch.randn(DATA, generator=generator, dtype=torch.float64)
        self.covariance = torch.linalg.inv(self.design.T @ self.design + torch.eye(DIM).double())
        self.mean = self.covariance @ self.design.T @ self.y
        spread = self.design @ self.design.T + torch.eye(DATA).double()
        marginal = MultivariateNormal(torch.zeros(DATA).double(), spread)
        self.log_evidence = float(marginal.log_prob(self.y))

    def log_target(self, x: Tensor) -> Tensor:
        chi2 = ((self.y - x @ self.design.T) ** 2).sum(-1) + (x**2).sum(-1)
        return -0.5 * (chi2 + (DATA + DIM) * math.log(2 * math.pi))


def run(toys, offset: float, widen: float, budget: Budget, with_mode: bool) -> list[TargetSampler]:
    samplers, bases = [], []
    for seed, toy in enumerate(toys):
        shift = offset * toy.covariance.diagonal().sqrt()
        base = MultivariateNormal(toy.mean + shift, widen**2 * toy.covariance)
        normal = torch.randn(
            1000, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        x = base.loc + normal @ base.scale_tril.T
        sampler = TargetSampler(x, base.log_prob(x), toy.log_target(x[:64]), seed, budget)
        if with_mode:
            tril = torch.linalg.cholesky(toy.covariance)[None]
            sampler.set_mixture(StudentMixture(torch.ones(1).double(), toy.mean[None], tril))
        samplers.append(sampler)
        bases.append(base)
    sample_targets(
        samplers,
        lambda rows, xs: [toys[i].log_target(x) for i, x in zip(rows, xs, strict=True)],
        lambda rows, xs: [bases[i].log_prob(x) for i, x in zip(rows, xs, strict=True)],
    )
    return samplers


@pytest.mark.parametrize("with_mode", [True, False])
def test_posterior_and_evidence_over_a_hundred_seeds(with_mode):
    scipy_stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    toys = [LinearGaussian(generator) for _ in range(100)]
    samplers = run(toys, 0.5, 2.0, Budget(), with_mode)
    z, mean_z = [], []
    for toy, sampler in zip(toys, samplers, strict=True):
        assert sampler.ess >= 400
        assert pareto_khat(sampler.pool.log_weights()) < 0.7
        value, error = sampler.pool.log_evidence()
        z.append((value - toy.log_evidence) / error)
        mean = torch.softmax(sampler.pool.log_weights(), 0) @ sampler.pool.x
        mean_z.append((mean - toy.mean) / toy.covariance.diagonal().sqrt() * sampler.ess**0.5)
    assert max(abs(x) for x in z) < 4.0
    assert scipy_stats.kstest(z, "norm").pvalue > 0.01
    assert float(torch.stack(mean_z).std()) == pytest.approx(1.0, abs=0.15)


def test_adapts_to_what_the_base_misses():
    toys = [LinearGaussian(torch.Generator().manual_seed(7))]
    (sampler,) = run(toys, 3.0, 1.5, Budget(max_draws=6000), with_mode=False)
    assert sampler.adaptations >= 1
    assert sampler.ess >= 400
    value, error = sampler.pool.log_evidence()
    assert abs(value - toys[0].log_evidence) < 4 * error < 0.5


def test_a_targets_draws_do_not_depend_on_its_company():
    generator = torch.Generator().manual_seed(1)
    toys = [LinearGaussian(generator) for _ in range(3)]
    together = run(toys, 0.5, 2.0, Budget(ess=100), True)
    alone = run(toys[:1], 0.5, 2.0, Budget(ess=100), True)
    torch.testing.assert_close(together[0].pool.x, alone[0].pool.x)


def test_the_budget_is_kept():
    toys = [LinearGaussian(torch.Generator().manual_seed(2))]
    (sampler,) = run(toys, 6.0, 1.0, Budget(ess=1e5, max_draws=700), with_mode=False)
    assert len(sampler.pool) <= 700
    assert len(sampler.pool) >= 600
