from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp.diagnostics import (
    binomial_error,
    calibration_error,
    central_coverage,
    central_levels,
    ecdf,
    ecdf_band,
    expected_coverage,
    simultaneous_binomial_band,
    truth_ranks,
)
from deeplegato_pp.errors import RangeError
from toy_posteriors import toy

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95])
def test_coverage_of_right_wide_and_narrow_posteriors(level):
    error = binomial_error(level, 2000)
    found = {
        width: central_coverage(truth_ranks(case.samples, case.truth), level) - level
        for width in (0.8, 1.0, 1.2)
        for case in [toy(2000, 100, width)]
    }
    assert np.abs(found[1.0]).max() < 4 * error
    assert (found[0.8] < -4 * error).all()
    assert (found[1.2] > 4 * error).all()


def test_expected_coverage_of_central_levels_is_central_coverage():
    ranks = RNG.uniform(size=(100, 7))
    curve = expected_coverage(central_levels(ranks), (0.3, 0.9))
    np.testing.assert_allclose(curve[1], central_coverage(ranks, 0.9), rtol=0, atol=1e-12)


def test_the_chance_figures_of_the_calibration_error_hold():
    errors = [calibration_error(RNG.uniform(size=500)) for _ in range(400)]
    means = np.array([float(e.mean) for e in errors])
    assert means.mean() == pytest.approx(errors[0].expected, rel=0.1)
    assert np.mean(means > errors[0].limit) == pytest.approx(0.05, abs=0.04)
    largest = np.array([float(e.largest) for e in errors])
    assert np.mean(largest > errors[0].largest_limit) == pytest.approx(0.05, abs=0.04)
    p_values = np.array([float(e.p_value) for e in errors])
    assert np.mean(p_values < 0.5) == pytest.approx(0.5, abs=0.12)


def test_the_band_holds_uniform_ranks_as_often_as_it_says():
    band = ecdf_band(300, 0.9)
    outside = band.outside(RNG.uniform(size=(300, 2000)))
    assert outside.mean() == pytest.approx(0.1, abs=0.03)
    assert ((band.lower <= band.points) & (band.points <= band.upper)).all()
    assert ecdf_band(300, 0.9) is band, "found once"


def test_the_band_narrows_with_the_number_and_widens_with_the_level():
    def width(n: int, level: float) -> float:
        band = ecdf_band(n, level)
        return float((band.upper - band.lower).mean())

    assert width(4000, 0.95) == pytest.approx(0.5 * width(1000, 0.95), rel=0.06)
    assert width(1000, 0.5) < width(1000, 0.95) < width(1000, 0.999)


def test_ecdf_counts_ranks_at_or_below():
    ranks = np.array([[0.1, 0.5], [0.2, 0.6], [0.3, 0.7], [0.4, 0.8]])
    np.testing.assert_allclose(ecdf(ranks, np.array([0.2, 0.65])), [[0.5, 0.0], [1.0, 0.5]])


def test_the_simultaneous_band_holds_all_cells_as_often_as_it_says():
    lower, upper = simultaneous_binomial_band(50, 400, 0.68, 0.9)
    shares = RNG.binomial(400, 0.68, size=(4000, 50)) / 400
    inside = ((shares >= lower) & (shares <= upper)).all(1).mean()
    assert 0.9 - 0.02 < inside < 0.96  # whole numbers make it a little too wide
    single = simultaneous_binomial_band(1, 400, 0.68, 0.9)
    assert lower < single[0] < single[1] < upper


@pytest.mark.parametrize(
    "call",
    [
        lambda: ecdf_band(0),
        lambda: ecdf_band(10, 1.0),
        lambda: simultaneous_binomial_band(0, 10, 0.5),
        lambda: simultaneous_binomial_band(5, 10, 1.5),
        lambda: calibration_error(np.array([0.5]), (1.0,)),
    ],
)
def test_numbers_out_of_range_are_refused(call):
    with pytest.raises(RangeError):
        call()
