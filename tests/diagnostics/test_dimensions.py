"""Diagnostics of posteriors of any number of parameters, angles among them or not."""

from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp import diagnostics
from deeplegato_pp.errors import RangeError, ShapeError
from toy_posteriors import toy

CASE = toy(40, 60, proposal=1.2)
PICKED = [0, 4]
"""A length and the angle."""

PER_PARAMETER = {
    "ranks": diagnostics.truth_ranks,
    "density": diagnostics.marginal_density_levels,
    "errors": diagnostics.errors,
    "crps": diagnostics.crps,
    "score": lambda s, t, w, **o: diagnostics.interval_score(s, t, 0.8, w, **o),
    "equal-tailed": lambda s, t, w, **o: diagnostics.equal_tailed_intervals(s, 0.8, w, **o),
    "quantiles": lambda s, t, w, **o: diagnostics.central_quantiles(s, (0.1, 0.6), w, **o),
    "shortest": lambda s, t, w, **o: diagnostics.highest_density_intervals(s, 0.8, w, **o),
    "tarp": lambda s, t, w, **o: diagnostics.tarp_levels(
        s, t, t * 0.0, w, joint=False, spread=False, **o
    ),
}


@pytest.mark.parametrize("name", PER_PARAMETER)
def test_two_parameters_are_judged_as_they_are_among_seven(name):
    diagnose = PER_PARAMETER[name]
    among_seven = diagnose(CASE.samples, CASE.truth, CASE.log_weights)[:, PICKED]
    alone = diagnose(
        CASE.samples[..., PICKED], CASE.truth[:, PICKED], CASE.log_weights, periods=(None, 180.0)
    )
    np.testing.assert_allclose(alone, among_seven, rtol=1e-12, atol=1e-12)
    straight = diagnose(CASE.samples[..., PICKED], CASE.truth[:, PICKED], CASE.log_weights)
    np.testing.assert_allclose(straight[:, 0], alone[:, 0], rtol=1e-12, atol=1e-12)
    assert not np.allclose(straight[:, 1], alone[:, 1])  # an angle taken for a length


def gaussians(width: float, galaxies: int = 800, draws: int = 80, dimensions: int = 3):
    """Posteriors of a unit-normal prior from data with unit noise, too narrow or not."""
    rng = np.random.default_rng(7)
    truth = rng.normal(size=(galaxies, dimensions))
    mean = 0.5 * (truth + rng.normal(size=truth.shape))
    noise = rng.normal(size=(galaxies, draws, dimensions))
    return mean[:, None] + width * np.sqrt(0.5) * noise, truth


def test_three_parameters_right_and_too_narrow():
    right, narrow = gaussians(1.0), gaussians(0.6)
    for levels in (diagnostics.truth_ranks, diagnostics.marginal_density_levels):
        assert (diagnostics.rank_test(levels(*right)).p_value > 1e-3).all()
        assert (diagnostics.rank_test(levels(*narrow)).p_value < 1e-3).all()
    assert diagnostics.rank_test(diagnostics.tarp_levels(*right)).p_value > 1e-3
    assert diagnostics.rank_test(diagnostics.tarp_levels(*narrow)).p_value < 1e-3
    assert diagnostics.rmse(*right) == pytest.approx(np.full(3, np.sqrt(0.5)), rel=0.1)
    width = diagnostics.mean_width(right[0], 0.68)
    assert width == pytest.approx(np.full(3, 2 * 0.9945 * np.sqrt(0.5)), rel=0.05)


def test_seven_parameters_need_not_be_a_galaxys():
    samples, truth = gaussians(1.0, 30, 20, 7)
    none = diagnostics.truth_ranks(samples, truth, periods=(None,) * 7)
    np.testing.assert_allclose(
        none[:, 4:5], diagnostics.truth_ranks(samples[..., 4:5], truth[:, 4:5]), atol=1e-12
    )
    assert not np.allclose(none[:, 4], diagnostics.truth_ranks(samples, truth)[:, 4])


def test_periods_that_make_no_sense_are_refused():
    samples, truth = gaussians(1.0, 4, 5)
    with pytest.raises(ShapeError, match="2 periods were given for 3 parameters"):
        diagnostics.truth_ranks(samples, truth, periods=(None, 180.0))
    with pytest.raises(RangeError, match=r"positive, or None, got -180.0"):
        diagnostics.truth_ranks(samples, truth, periods=(None, None, -180.0))
    with pytest.raises(ShapeError, match=r"samples must have shape \(B, S, D\), got \(4, 5\)"):
        diagnostics.truth_ranks(samples[..., 0], truth)
