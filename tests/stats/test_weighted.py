from __future__ import annotations

import math

import numpy as np
import pytest

from deeplegato_pp.errors import NumericalError, RangeError
from deeplegato_pp.stats import weighted as st

RNG = np.random.default_rng(1)


def test_equal_weights_are_numpys_moments_and_hazens_quantiles():
    x = RNG.normal(size=501)
    p = (0.025, 0.16, 0.5, 0.84, 0.975)
    assert st.mean(x) == pytest.approx(x.mean(), abs=1e-12)
    assert st.std(x) == pytest.approx(x.std(), abs=1e-12)
    np.testing.assert_allclose(st.quantiles(x, p), np.quantile(x, p, method="hazen"), atol=1e-12)


def test_whole_number_weights_are_repetitions():
    x = RNG.normal(size=40)
    counts = RNG.integers(0, 5, size=40)
    weights = counts / counts.sum()
    repeated = np.repeat(x, counts)
    assert st.mean(x, weights) == pytest.approx(repeated.mean())
    assert st.std(x, weights) == pytest.approx(repeated.std())
    assert st.quantiles(x, (0.3,), weights) == pytest.approx(np.quantile(repeated, 0.3), abs=0.15)


def test_importance_weights_recover_the_target():
    # Draws from N(0, 2^2), weighted to N(1, 1): log w = log N(x; 1, 1) - log N(x; 0, 2).
    x = 2.0 * RNG.normal(size=200_000)
    weights = st.normalised_weights(-0.5 * (x - 1) ** 2 + 0.5 * (x / 2) ** 2)
    assert st.mean(x, weights) == pytest.approx(1.0, abs=0.01)
    assert st.std(x, weights) == pytest.approx(1.0, abs=0.01)
    lower, upper = st.quantiles(x, (0.16, 0.84), weights)
    assert (lower, upper) == pytest.approx((1 - 0.9945, 1 + 0.9945), abs=0.02)
    picked = x[st.resample(weights, 50_000, np.random.default_rng(0))]
    assert picked.mean() == pytest.approx(1.0, abs=0.02)
    assert picked.std() == pytest.approx(1.0, abs=0.02)


def test_padding_takes_no_part():
    log_weights = np.array([0.0, 0.0, -np.inf])
    weights = st.normalised_weights(log_weights)
    x = np.array([1.0, 3.0, 1e9])
    assert st.summarise(x, weights).value == 2.0
    assert st.summarise(x, weights).quantiles[-1] == 3.0
    assert st.effective_sample_size(weights) == pytest.approx(2.0)


@pytest.mark.parametrize("bad", [[0.0, np.nan], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_bad_weights_are_errors(bad):
    with pytest.raises(NumericalError, match=r"weights"):
        st.normalised_weights(np.array(bad))


def test_a_circular_summary_knows_no_seam():
    x = RNG.normal(0.0, 5.0, size=20_000)
    there = st.summarise((x + 90.0) % 180.0, period=180.0)
    seam = st.summarise(x % 180.0, period=180.0)
    assert there.value == pytest.approx(90.0, abs=0.2)
    assert (seam.value + 90.0) % 180.0 == pytest.approx(there.value, abs=1e-6)
    assert seam.std == pytest.approx(there.std, rel=1e-9)
    assert seam.std == pytest.approx(5.0, rel=0.02)
    for a, b in zip(seam.quantiles, there.quantiles, strict=True):
        assert (a + 90.0) % 180.0 == pytest.approx(b, abs=1e-6)
    # The lower bound lies on the other side of the seam, and so exceeds the upper one.
    assert seam.quantiles[0] > 160.0 > 20.0 > seam.quantiles[-1]


def test_nan_draws_give_nan_and_not_a_number():
    summary = st.summarise(np.array([1.0, np.nan]))
    assert math.isnan(summary.value)
    assert all(math.isnan(q) for q in summary.quantiles)


def test_resampling_keeps_each_draw_in_proportion():
    weights = np.array([0.5, 0.3, 0.2, 0.0])
    counts = np.bincount(st.resample(weights, 100, np.random.default_rng(3)), minlength=4)
    assert np.abs(counts - 100 * weights).max() <= 1
    with pytest.raises(RangeError, match="at least 1"):
        st.resample(weights, 0, np.random.default_rng(3))
