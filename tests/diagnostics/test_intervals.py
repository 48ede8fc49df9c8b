from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp.diagnostics import equal_tailed_intervals, highest_density_intervals
from deeplegato_pp.errors import RangeError
from deeplegato_pp.stats import weighted as statistics
from toy_posteriors import toy

RNG = np.random.default_rng(9)


def test_equal_tails_are_quantiles():
    case = toy(20, 101, proposal=1.3)
    found = equal_tailed_intervals(case.samples, 0.68, case.log_weights)
    for i in range(20):
        weights = statistics.normalised_weights(case.log_weights[i])
        expected = statistics.quantiles(case.samples[i, :, 1], (0.16, 0.84), weights)
        np.testing.assert_allclose(found[i, 1], expected, atol=1e-9)


def shortest_by_hand(draws: np.ndarray, weights: np.ndarray, level: float) -> float:
    order = np.argsort(draws)
    x, w = draws[order], weights[order]
    widths = [
        x[j] - x[i]
        for i in range(len(x))
        for j in range(i, len(x))
        if w[i : j + 1].sum() >= level - 1e-9
    ]
    return min(widths)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_shortest_interval_is_the_shortest(weighted):
    samples = RNG.gamma(2.0, size=(15, 30, 7))
    log_weights = RNG.normal(size=(15, 30)) if weighted else None
    found = highest_density_intervals(samples, 0.68, log_weights)
    for i in range(15):
        weights = (
            np.full(30, 1 / 30)
            if log_weights is None
            else statistics.normalised_weights(log_weights[i])
        )
        width = found[i, 0, 1] - found[i, 0, 0]
        assert width == pytest.approx(shortest_by_hand(samples[i, :, 0], weights, 0.68))


def test_of_a_skewed_density_the_highest_is_shorter_and_lower():
    samples = RNG.exponential(size=(1, 20_000, 7))
    samples[..., 4] *= 10.0
    (low, high), equal = (f(samples, 0.68)[0, 0] for f in INTERVALS)
    assert (low, high) == pytest.approx((0.0, -np.log(0.32)), abs=0.03)
    assert high - low < equal[1] - equal[0]


INTERVALS = (highest_density_intervals, equal_tailed_intervals)


@pytest.mark.parametrize("intervals", INTERVALS)
def test_arcs_cross_the_seam(intervals):
    samples = np.zeros((1, 5001, 7))
    samples[0, :, 4] = RNG.permutation(np.linspace(-10.0, 10.0, 5001)) % 180.0
    low, high = intervals(samples, 0.5)[0, 4]
    assert high - low == pytest.approx(10.0, abs=0.02)
    if intervals is equal_tailed_intervals:
        assert (low + 90.0) % 180.0 == pytest.approx(85.0, abs=0.02)


@pytest.mark.parametrize("intervals", INTERVALS)
def test_a_level_must_be_a_probability(intervals):
    with pytest.raises(RangeError, match="between 0 and 1"):
        intervals(np.zeros((1, 5, 7)), 1.0)
