"""Every diagnostic on posteriors known to be right, too wide, too narrow and shifted."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from deeplegato_pp.diagnostics import (
    calibration_error,
    central_levels,
    ecdf_band,
    highest_density_levels,
    marginal_density_levels,
    rank_test,
    tarp_levels,
    truth_ranks,
)
from toy_posteriors import Toy, toy

ONE = np.eye(7)[0]


@lru_cache(maxsize=8)
def same(galaxies: int, draws: int, width: float = 1.0, **options: float) -> Toy:
    """A toy, made once for all diagnostics; nothing here changes it."""
    return toy(galaxies, draws, width, **options)


def by_band(ranks: np.ndarray) -> np.ndarray:
    return np.where(ecdf_band(len(ranks), 0.999).outside(ranks), 0.0, 1.0)


DIAGNOSTICS = {
    "ranks": lambda t: rank_test(truth_ranks(t.samples, t.truth, t.log_weights)).p_value,
    "band": lambda t: by_band(truth_ranks(t.samples, t.truth, t.log_weights)),
    "central": lambda t: (
        calibration_error(central_levels(truth_ranks(t.samples, t.truth, t.log_weights))).p_value
    ),
    "marginal density": lambda t: (
        rank_test(marginal_density_levels(t.samples, t.truth, t.log_weights)).p_value
    ),
    "joint density": lambda t: (
        rank_test(highest_density_levels(t.log_prob, t.log_prob_truth, t.log_weights)).p_value
    ),
    "tarp": lambda t: rank_test(tarp_levels(t.samples, t.truth, None, t.log_weights)).p_value,
    "tarp of each": lambda t: (
        rank_test(tarp_levels(t.samples, t.truth, None, t.log_weights, joint=False)).p_value
    ),
}


def p_values(name: str, case: Toy) -> np.ndarray:
    return np.atleast_1d(DIAGNOSTICS[name](case))


@pytest.mark.parametrize("name", DIAGNOSTICS)
@pytest.mark.parametrize("angle", [5.0, 40.0, 300.0])
def test_right_posteriors_pass_however_wide_the_angle(name, angle):
    # 30 draws: what is wrong by 1/S in a diagnostic would show among 4000 galaxies.
    assert p_values(name, same(4000, 30, angle=angle, seed=11)).min() > 1e-3


@pytest.mark.parametrize("name", DIAGNOSTICS)
@pytest.mark.parametrize("width", [0.8, 1.2])
def test_wrong_widths_are_caught_in_every_parameter(name, width):
    assert p_values(name, same(3000, 40, width, angle=20.0)).max() < 1e-3


@pytest.mark.parametrize("name", ["ranks", "band"])
def test_shifts_are_caught_by_ranks(name):
    assert p_values(name, same(4000, 50, shift=0.2)).max() < 1e-3
    found = p_values(name, toy(4000, 50, shift=0.2 * ONE))
    assert found[0] < 1e-3 < found[1:].min()


@pytest.mark.parametrize("name", ["joint density", "tarp"])
def test_one_shifted_parameter_is_what_joint_diagnostics_are_blind_to(name):
    assert p_values(name, toy(4000, 50, shift=0.2 * ONE)).min() > 1e-3


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_weights_make_a_wide_proposal_right(name):
    case = same(1500, 250, angle=20.0, proposal=1.3)
    unweighted = Toy(
        case.samples, case.truth, case.estimate, case.log_prob, case.log_prob_truth, None
    )
    assert p_values(name, unweighted).max() < 1e-3
    assert p_values(name, case).min() > 1e-3


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_equal_weights_are_no_weights(name):
    case = same(200, 40)
    equal = Toy(
        case.samples,
        case.truth,
        case.estimate,
        case.log_prob,
        case.log_prob_truth,
        np.full(case.log_prob.shape, -3.0),
    )
    if "tarp" in name:  # another draw is set aside
        assert p_values(name, equal).min() > 1e-3
    else:
        np.testing.assert_allclose(p_values(name, equal), p_values(name, case), atol=1e-9)


def test_a_posterior_that_ignores_the_data_passes_unless_references_follow_from_them():
    rng = np.random.default_rng(0)
    case = toy(3000, 50)
    prior = np.concatenate([case.truth[rng.permutation(3000)][:, None] for _ in range(50)], axis=1)
    assert rank_test(truth_ranks(prior, case.truth)).p_value.min() > 1e-3
    assert rank_test(tarp_levels(prior, case.truth)).p_value > 1e-3
    fixed = np.zeros((3000, 7))
    assert rank_test(tarp_levels(prior, case.truth, fixed)).p_value > 1e-3
    crude = case.estimate + rng.normal(size=(3000, 7))
    assert rank_test(tarp_levels(prior, case.truth, crude)).p_value < 1e-6
    assert rank_test(tarp_levels(case.samples, case.truth, crude)).p_value > 1e-3
