"""The posterior predictive p-value is uniform where the model is right, and only there."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from simulated_galaxies import BOX, FakeNetwork, simulate

OPTIONS = RefineOptions(fallback=False, starts=1, mask_neighbours=False)


def p_values(number: int, gain: float, factor: float = 1.0, seed: int = 0) -> list[float]:
    """P-values of galaxies whose noise is a factor larger than said."""
    generator = torch.Generator().manual_seed(seed)
    w = 0.4 * torch.randn(number, 7, generator=generator, dtype=torch.float64)
    w[:, 0] += BOX.to_normal(torch.tensor([[23.5, 1, 1, 0.5, 0, 0, 0]]).double())[0, 0]
    likelihood = simulate(w, gain=gain, seed=seed)
    likelihood.stamps.sigma.div_(factor)
    network = FakeNetwork(likelihood, w)
    refined = refine_batch(
        likelihood, *network.sample(200), network.log_prob, ess=40, options=OPTIONS
    )
    return [g.p_value for g in refined.galaxies]


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.18])
def test_p_values_tell_the_noise(factor):
    found = torch.tensor(p_values(6, torch.inf, factor, seed=4))
    if factor == 1.0:
        assert 0.1 < float(found.mean()) < 0.9
    else:  # 576 pixels know their noise to 3 %
        assert bool(((found < 0.01) if factor > 1 else (found > 0.99)).all())


@pytest.mark.slow
@pytest.mark.parametrize("gain", [torch.inf, 8.0])
def test_p_values_are_uniform(gain):
    found = p_values(150, gain, seed=1)
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert sum(p < 0.05 for p in found) < 20
