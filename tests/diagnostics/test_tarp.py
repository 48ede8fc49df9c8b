from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp.diagnostics import tarp_coverage, tarp_levels
from deeplegato_pp.errors import InputError, ShapeError
from toy_posteriors import toy


def test_distances_go_round_the_circle():
    samples, truth, reference = np.zeros((1, 4, 7)), np.zeros((1, 7)), np.zeros(7)
    samples[0, :, 4] = [1.0, 179.0, 20.0, 160.0]
    truth[0, 4], reference[4] = 170.0, 0.0
    level = tarp_levels(samples, truth, reference, scale=np.ones(7), spread=False)
    assert level[0] == 0.5  # 1 and 179 are closer to 0 than 170 is


def test_units_and_metrics_decide_what_is_closer():
    samples, truth = np.zeros((1, 1, 7)), np.zeros((1, 7))
    samples[0, 0, :2] = [3.0, 3.0]
    truth[0, 0] = 5.0

    def level(**options: object) -> float:
        given = {"scale": np.ones(7), "spread": False} | options
        return float(tarp_levels(samples, truth, np.zeros(7), **given)[0])

    assert level() == 1.0  # sqrt(18) < 5
    assert level(metric="cityblock") == 0.0  # 6 > 5
    assert level(scale=np.array([10.0, 1, 1, 1, 1, 1, 1])) == 0.0


def test_units_of_the_posterior_make_levels_free_of_units():
    case = toy(100, 40)
    factor = np.array([1e3, 1e-3, 1.0, 7.0, 1.0, 1.0, 1.0])
    levels = tarp_levels(case.samples, case.truth, case.estimate, spread=False)
    scaled = tarp_levels(
        case.samples * factor, case.truth * factor, case.estimate * factor, spread=False
    )
    np.testing.assert_allclose(scaled, levels, atol=1e-12)


def test_coverage_of_right_posteriors_is_nominal():
    case = toy(4000, 50)
    for joint, shape in ((True, (2,)), (False, (2, 7))):
        found = tarp_coverage(case.samples, case.truth, joint=joint, nominal=(0.3, 0.8))
        assert found.shape == shape
        assert np.abs(found.T - [0.3, 0.8]).max() < 0.035


def test_a_weighted_reference_is_a_likely_draw():
    case = toy(10, 5)
    log_weights = np.full((10, 5), -np.inf)
    log_weights[:, 2] = 0.0  # nothing is left if this is set aside, so it is not
    levels = tarp_levels(case.samples, case.truth, None, log_weights)
    assert ((levels >= 0) & (levels <= 1)).all()


def test_what_cannot_be_is_refused():
    case = toy(4, 5)
    with pytest.raises(ShapeError, match="references"):
        tarp_levels(case.samples, case.truth, np.zeros((3, 7)))
    with pytest.raises(InputError, match="finite"):
        tarp_levels(case.samples, case.truth, np.full(7, np.nan))
    with pytest.raises(InputError, match="metric"):
        tarp_levels(case.samples, case.truth, metric="manhattan")
    with pytest.raises(InputError, match="at least 2"):
        tarp_levels(case.samples[:, :1], case.truth)
