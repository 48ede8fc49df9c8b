import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from deeplegato_pp.errors import NumericalError, ShapeError
from deeplegato_pp.inference.sampling.adaptation import adapt, temper
from deeplegato_pp.inference.sampling.importance import (
    DrawPool,
    StudentMixture,
    effective_sample_size,
    split_counts,
)


def two_components() -> StudentMixture:
    tril = torch.stack([torch.eye(2), torch.tensor([[0.5, 0.0], [0.3, 0.2]])]).double()
    means = torch.tensor([[0.0, 0.0], [3.0, 1.0]]).double()
    return StudentMixture(torch.tensor([0.7, 0.3]).double(), means, tril)


def test_student_density_against_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    mixture = two_components()
    x = torch.randn(6, 2, dtype=torch.float64)
    expected = sum(
        share
        * scipy_stats.multivariate_t(mean.numpy(), (tril @ tril.T).numpy(), mixture.dof).pdf(x)
        for share, mean, tril in zip(
            mixture.weights.tolist(), mixture.means, mixture.scale_tril, strict=True
        )
    )
    torch.testing.assert_close(mixture.log_prob(x).exp(), torch.as_tensor(expected))


def test_draws_follow_the_density():
    mixture = two_components()
    x, labels = mixture.sample([7000, 3000], torch.Generator().manual_seed(0))
    assert torch.bincount(labels).tolist() == [7000, 3000]
    target = MultivariateNormal(torch.zeros(2).double(), 0.5 * torch.eye(2).double())
    ratio = (target.log_prob(x) - mixture.log_prob(x)).exp()
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.05)
    torch.testing.assert_close(
        (ratio[:, None] * x).mean(0), torch.zeros(2).double(), atol=0.05, rtol=0
    )


def test_counts_are_split_exactly():
    assert split_counts(torch.tensor([0.5, 0.25, 0.25]), 10) == [5, 3, 2]
    assert sum(split_counts(torch.rand(7), 101)) == 101


def test_effective_sample_size():
    log_w = torch.log(torch.tensor([1.0, 1.0, 2.0, 0.0]))
    assert float(effective_sample_size(log_w)) == pytest.approx(16.0 / 6.0)
    assert float(effective_sample_size(torch.full((3,), -math.inf))) == 0.0


def test_two_rounds_weigh_like_one_mixture():
    mixture = two_components()
    generator = torch.Generator().manual_seed(3)
    pool = DrawPool(2)
    pool.add_components(torch.zeros(0, 1).double())
    pool.add_components(torch.zeros(0, 2).double())
    wide = MultivariateNormal(torch.zeros(2).double(), 9.0 * torch.eye(2).double())
    target = MultivariateNormal(torch.ones(2).double(), 0.3 * torch.eye(2).double())

    def densities(x):
        return torch.cat([wide.log_prob(x)[:, None], mixture.component_log_prob(x)], 1)

    first = 3.0 * torch.randn(500, 2, generator=generator, dtype=torch.float64)
    pool.add_draws(first, target.log_prob(first), torch.zeros(500).long(), densities(first))
    second, labels = mixture.sample([300, 200], generator)
    pool.add_draws(second, target.log_prob(second), labels + 1, densities(second))
    expected = (
        0.5 * wide.log_prob(pool.x).exp()
        + 0.3 * mixture.component_log_prob(pool.x)[:, 0].exp()
        + 0.2 * mixture.component_log_prob(pool.x)[:, 1].exp()
    ).log()
    torch.testing.assert_close(pool.log_mixture(), expected)
    mean = torch.softmax(pool.log_weights(), 0) @ pool.x
    torch.testing.assert_close(mean, torch.ones(2).double(), atol=0.15, rtol=0)
    evidence, error = pool.log_evidence()
    assert abs(evidence) < 4 * error < 0.5


def test_zero_weights_keep_their_rows_and_nan_is_an_error():
    pool = DrawPool(1)
    pool.add_components(torch.zeros(0, 1).double())
    x = torch.zeros(3, 1).double()
    target = torch.tensor([0.0, -math.inf, -1.0]).double()
    label = torch.zeros(3).long()
    pool.add_draws(x, target, label, torch.zeros(3, 1).double())
    assert pool.log_weights().tolist() == [0.0, -math.inf, -1.0]
    with pytest.raises(NumericalError, match="target"):
        pool.add_draws(x, target * math.nan, label, torch.zeros(3, 1).double())
    with pytest.raises(ShapeError):
        pool.add_draws(x, target, label, torch.zeros(3, 2).double())


def test_tempering_reaches_the_size_asked_for():
    log_w = 20.0 * torch.randn(300, dtype=torch.float64)
    weights = temper(log_w, 50.0)
    assert float(1.0 / (weights**2).sum()) == pytest.approx(50.0, rel=0.05)
    assert float(weights.sum()) == pytest.approx(1.0)
    flat = torch.zeros(300).double()
    torch.testing.assert_close(temper(flat, 50.0), torch.full((300,), 1 / 300).double())


def test_adaptation_finds_two_lumps():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1500, 2, generator=generator, dtype=torch.float64) * 4.0
    proposal = MultivariateNormal(torch.zeros(2).double(), 16.0 * torch.eye(2).double())
    left = MultivariateNormal(torch.tensor([-3.0, 0.0]).double(), 0.3 * torch.eye(2).double())
    right = MultivariateNormal(torch.tensor([3.0, 1.0]).double(), 0.1 * torch.eye(2).double())

    def log_target(points):
        return torch.logaddexp(left.log_prob(points), right.log_prob(points))

    log_w = log_target(x) - proposal.log_prob(x)
    mixture, share = adapt(x, log_w, None, generator, defensive_log_prob=proposal.log_prob(x))
    assert 0.0 <= share < 0.5
    fresh, _ = mixture.sample(split_counts(mixture.weights, 2000), generator)
    adapted = log_target(fresh) - mixture.log_prob(fresh)
    assert float(effective_sample_size(adapted)) / 2000 > 0.3
    assert float(effective_sample_size(log_w)) / 1500 < 0.2
