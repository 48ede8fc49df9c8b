import math
import warnings

import pytest
import torch

from deeplegato_pp.stats.pareto import fit_generalised_pareto, khat_threshold, pareto_khat


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("draws", [50, 400, 3000])
def test_khat_equals_arviz(scale, draws):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arviz = pytest.importorskip("arviz")
    generator = torch.Generator().manual_seed(draws)
    log_weights = scale * torch.randn(draws, generator=generator, dtype=torch.float64)
    expected = float(arviz.psislw(log_weights.numpy().copy())[1])
    assert pareto_khat(log_weights) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_recovers_a_known_shape(shape):
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand(20000, generator=generator, dtype=torch.float64)
    excess = 3.0 * (uniform**-shape - 1.0) / shape
    k, scale = fit_generalised_pareto(excess.sort().values)
    assert k == pytest.approx(shape, abs=0.03)
    assert scale == pytest.approx(3.0, rel=0.03)


def test_extremes():
    assert pareto_khat(torch.zeros(100)) == 0.0
    assert pareto_khat(torch.full((100,), -math.inf)) == math.inf
    one = torch.full((100,), -math.inf)
    one[3] = 0.0
    assert pareto_khat(one) == math.inf
    assert khat_threshold(100) == pytest.approx(0.5)
    assert khat_threshold(10**6) == 0.7
    assert khat_threshold(5) == 0.0
