from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from deeplegato_pp.diagnostics import (
    highest_density_coverage,
    highest_density_levels,
    marginal_density_levels,
)
from deeplegato_pp.errors import InputError, ShapeError
from toy_posteriors import toy


def test_levels_count_the_denser_draws():
    log_prob = np.log([[1.0, 2.0, 3.0, 4.0]])
    inside = highest_density_levels(log_prob, np.log([2.5]))
    assert 2 / 5 <= inside[0] < 3 / 5
    weighted = highest_density_levels(log_prob, np.log([2.5]), np.log([[0.1, 0.1, 0.1, 1e3]]))
    assert weighted[0] > 0.49  # one draw has all the weight: it and the truth are two
    assert highest_density_levels(log_prob, np.array([-np.inf]))[0] > 4 / 5


def test_coverage_of_the_joint_density():
    case = toy(4000, 50)
    coverage = highest_density_coverage(case.log_prob, case.log_prob_truth, nominal=(0.5, 0.9))
    np.testing.assert_allclose(coverage, [0.5, 0.9], atol=0.035)


@pytest.mark.parametrize("angle", [0.01, 5.0])
def test_marginal_levels_are_those_of_the_density(angle):
    case = toy(150, 3000, angle=angle)
    levels = marginal_density_levels(case.samples, case.truth)
    center = np.median(case.samples[..., 0], axis=1)
    z = (case.truth[:, 0] - center) / case.samples[..., 0].std(1)
    assert near(levels[:, 0], 2 * norm.cdf(np.abs(z)) - 1)
    off = (case.truth[:, 4] - case.estimate[:, 4] + 90.0) % 180.0 - 90.0
    assert near(levels[:, 4], 2 * norm.cdf(np.abs(off) / angle) - 1)


def near(found: np.ndarray, expected: np.ndarray) -> bool:
    """Where the density is flat, about its peak, the level of a draw is uncertain by nature."""
    alike = np.corrcoef(found, expected)[0, 1]
    return bool(np.abs(found - expected).mean() < 0.04 and alike > 0.97)


def test_a_truth_between_two_modes_lies_outside():
    rng = np.random.default_rng(0)
    samples = np.where(rng.uniform(size=(1, 1000, 7)) < 0.5, -5.0, 5.0) + rng.normal(
        size=(1, 1000, 7)
    )
    assert marginal_density_levels(samples, np.zeros((1, 7)))[0, 0] > 0.97
    assert marginal_density_levels(samples, np.full((1, 7), 5.0))[0, 0] < 0.3


def test_draws_all_alike_have_levels():
    levels = marginal_density_levels(np.zeros((3, 10, 7)), np.zeros((3, 7)))
    assert ((levels >= 0) & (levels < 1)).all()


def test_shapes_and_numbers_are_checked():
    with pytest.raises(ShapeError, match="must agree"):
        highest_density_levels(np.zeros((2, 5)), np.zeros(3))
    with pytest.raises(InputError, match="NaN"):
        highest_density_levels(np.zeros((2, 5)), np.full(2, np.nan))
