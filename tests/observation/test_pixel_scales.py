import math

import pytest

from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.pixel_scales import reconcile_pixel_scale


def test_the_wcs_wins_and_a_stale_keyword_is_flagged():
    taken = reconcile_pixel_scale({"PIXSCALE": 0.065}, 0.030)
    assert (taken.value, taken.source) == (0.030, "WCS")
    assert taken.flags == Flag.PIXEL_SCALE_CONFLICT
    assert any("0.065" in note and "0.03" in note for note in taken.notes)


def test_what_agrees_is_not_flagged():
    taken = reconcile_pixel_scale({"PIXSCALE": 0.0301, "PIXAR_A2": 0.0009}, 0.030)
    assert (taken.value, taken.flags) == (0.030, 0)
    assert reconcile_pixel_scale({"PIXSCALE": "0.2 arcsec/pix"}).value == 0.2
    assert reconcile_pixel_scale({"SECPIX1": -0.4}).value == 0.4


def test_degrees_are_understood_beside_a_wcs_and_refused_without():
    beside = reconcile_pixel_scale({"PIXSCALE": 0.2 / 3600}, 0.2)
    assert (beside.value, beside.flags) == (0.2, 0)
    stated = reconcile_pixel_scale({"PIXSCALE": f"{0.2 / 3600} deg"})
    assert stated.value == pytest.approx(0.2)
    alone = reconcile_pixel_scale({"PIXSCALE": 0.2 / 3600})
    assert alone.value is None
    assert alone.flags == Flag.PIXEL_SCALE_CONFLICT
    assert "degrees" in alone.notes[0]


@pytest.mark.parametrize("value", [True, 1e300, 0, "unknown", 3600.0, float("nan")])
def test_what_cannot_be_is_refused(value):
    taken = reconcile_pixel_scale({"PIXSCALE": value, "SECPIX": 0.3})
    assert taken.value == 0.3
    assert reconcile_pixel_scale({"PIXSCALE": value}, 3600.0).value is None


def test_two_keywords_and_the_area():
    taken = reconcile_pixel_scale({"PIXSCALE": 0.2, "SECPIX": 0.4})
    assert (taken.value, taken.flags) == (0.2, Flag.PIXEL_SCALE_CONFLICT)
    area = math.radians(0.063 / 3600) ** 2
    assert reconcile_pixel_scale({"PIXAR_SR": area}).value == pytest.approx(0.063)
    assert reconcile_pixel_scale({}).value is None
