"""Noise drawn with a correlation has it, and nothing but it."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.errors import RangeError
from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.scene.correlated_noise import block_scatter, correlate, lags_of


def drawn(lags: torch.Tensor, count: int = 400, size: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    white = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    return correlate(white, lags, generator)


@pytest.mark.parametrize("total", [1.0, 2.0, 9.0])
def test_a_number_gives_noise_of_that_total(total):
    lags = lags_of(torch.tensor([total], dtype=torch.float64))
    assert float(lags.sum()) == pytest.approx(total, rel=2e-3)
    noise = drawn(lags)
    assert float(noise.var()) == pytest.approx(1.0, abs=0.03)
    for side in (4, 8):
        blocks = noise.unfold(1, side, side).unfold(2, side, side).sum((-2, -1)) / side
        assert float(blocks.std()) == pytest.approx(float(block_scatter(lags, side)), rel=0.03)


def test_every_lag_is_that_asked_for_also_across_the_edges():
    lags = torch.from_numpy(NoiseCorrelation.drizzle(0.5, 1.0).padded_lags)
    noise = drawn(lags[None])
    for y, x in ((0, 1), (1, 1), (2, 0), (1, 2), (0, 4)):
        products = noise[:, y:, x:] * noise[:, : 24 - y, : 24 - x]
        assert float(products.mean()) == pytest.approx(float(lags[8 + y, 8 + x]), abs=0.01)
    wrapped = (noise[:, 0] * noise[:, -1]).mean(), (noise[:, :, 0] * noise[:, :, -1]).mean()
    assert wrapped == pytest.approx((0.0, 0.0), abs=0.03)


def test_each_image_may_have_its_own():
    white = torch.randn(2, 40, 40, generator=torch.Generator().manual_seed(4)).double()
    lags = lags_of(torch.tensor([1.0, 9.0]).double())
    noise = correlate(white, lags, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise[0], white[0])
    assert float((noise[1, 1:] * noise[1, :-1]).mean()) == pytest.approx(
        float(lags[1, 9, 8]), abs=0.1
    )


def test_totals_that_cannot_be_are_refused():
    with pytest.raises(RangeError, match="noise_correlation must lie in"):
        lags_of(torch.tensor([0.5]))
