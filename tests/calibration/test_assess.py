from __future__ import annotations

import json

import numpy as np
import pytest

from deeplegato_pp.calibration.assess import CURVES, assess, plain
from deeplegato_pp.calibration.classes import CONDITIONS, FEWEST, by_condition
from deeplegato_pp.calibration.galaxies import prior_width, shown_unit
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS
from deeplegato_pp.scene.prior import PriorBox

PRIOR = prior_width([p.bounds for p in PARAMETERS])


def test_right_posteriors_pass(make_galaxies):
    content = assess(make_galaxies(), PRIOR)
    assert all(content["coverage"]["within_goal_and_band"].values())
    assert not any(content["ranks"]["leaves_band"].values())
    assert content["reliability"]["share_within_goal_and_band"] == 1.0
    for name in NAMES:
        assert content["overall"]["coverage"]["0.68"][name] == pytest.approx(0.68, abs=0.05)
        assert content["pulls"]["std"][name] == pytest.approx(1.0, abs=0.1)
        assert content["overall"]["width_over_bound"][name] == pytest.approx(1.0)


@pytest.mark.parametrize(("factor", "sign"), [(0.7, -1), (1.4, 1)])
def test_wrong_widths_are_caught(make_galaxies, factor, sign):
    content = assess(make_galaxies(factor=factor), PRIOR)
    worst = content["overall"]["largest_difference"]
    assert all(sign * worst[name] > 0.05 for name in NAMES)
    assert not any(content["coverage"]["within_goal_and_band"][name] for name in NAMES)
    assert all(content["ranks"]["leaves_band"].values())
    assert content["reliability"]["share_meeting_goal"] < 0.7
    assert sign * content["reliability"]["worst"]["difference"] > 0.1


def test_the_document_is_strict_and_counts_add_up(make_galaxies):
    galaxies = make_galaxies(640)
    content = assess(galaxies, PRIOR)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["overall"]["galaxies"] == 640
    assert sum(c["galaxies"] for c in content["snr_classes"]) == 640
    assert set(content["coverage"]["curves"]) == set(CURVES)
    cells = content["reliability"]["cells"]
    assert len(cells) == 40
    for by in {cell["by"] for cell in cells}:
        assert sum(cell["galaxies"] for cell in cells if cell["by"] == by) == 640
    low, high = content["snr_classes"][-1]["snr"]
    assert high is None or high > low
    assert content["refinement"] is None


def test_conditions_sort_every_galaxy_once(make_galaxies):
    galaxies = make_galaxies(2000, factor=1.4)
    found = by_condition(galaxies)
    for by in ("psf_fwhm", "gain", "noise_correlation", "masked", "nearest"):
        own = [c for c in CONDITIONS if c.by == by]
        values = getattr(galaxies, by)
        assert (sum(c.holds(values).astype(int) for c in own) == 1).all()
    ungiven = next(row for row in found if row["label"] == "no gain")
    assert ungiven["galaxies"] == int(np.isinf(galaxies.gain).sum())
    for row in found:
        error = row["binomial_error"]["0.68"]
        for name in NAMES:  # 1.4 times too wide: 68 % intervals hold 83.6 %
            assert row["coverage"]["0.68"][name] == pytest.approx(0.836, abs=5.0 * error)


def test_conditions_of_few_galaxies_are_left_out(make_galaxies):
    assert by_condition(make_galaxies(FEWEST - 1)) == []


def test_the_verdict_is_tabulated(make_galaxies):
    verdict = assess(make_galaxies(), PRIOR)["verdict"]
    assert verdict["galaxies"] == 100
    assert verdict["quality"] == {"good": 0.34, "caution": 0.33, "bad": 0.33}
    assert verdict["flags"] == {"edge_of_prior": 1.0}
    assert verdict["gross_failures"] == 30
    assert verdict["caught"] == pytest.approx(20 / 30)
    assert verdict["caught_as_bad"] == pytest.approx(10 / 30)
    assert verdict["false_alarms"] == pytest.approx(23 / 70)


def test_without_verdicts_nothing_is_claimed(make_galaxies):
    assert assess(make_galaxies()[200:400], PRIOR)["verdict"] is None


def test_plain_values():
    mixed = {"a": np.float64("nan"), 1: [np.int64(3), np.bool_(True), float("inf")], "b": (None,)}
    assert plain(mixed) == {"a": None, "1": [3, True, None], "b": [None]}


def test_units_of_errors():
    assert [shown_unit(i)[1] for i in range(7)] == ["mag", "", "", "", "deg", "px", "px"]
    box = PriorBox()
    widths = prior_width([getattr(box, name) for name in NAMES])
    assert widths[4] == pytest.approx(180 / 12**0.5)
    assert widths[1] == pytest.approx(np.log(100) / 12**0.5)
