import math

import pytest

from deeplegato_pp.io.header_keywords import find_pixel_scale, find_zero_point


def test_pixel_scale_keyword_wins_over_the_wcs():
    assert find_pixel_scale({"PIXSCALE": 0.2}, 0.3) == (0.2, "keyword PIXSCALE")
    assert find_pixel_scale({"PIXSCALE": "0.2"}) == (0.2, "keyword PIXSCALE")
    assert find_pixel_scale({"PIXSCALE": -1}, 0.3) == (0.3, "the WCS")
    assert find_pixel_scale({"PIXSCALE": "unknown"}) is None


@pytest.mark.parametrize("keyword", ["MAGZERO", "MAGZPT", "ZEROPT", "ZP", "PHOTZP"])
def test_zero_point_keywords(keyword):
    assert find_zero_point({keyword: 25.5, "BUNIT": "Jy"}) == (25.5, f"keyword {keyword}")


@pytest.mark.parametrize("value", [None, "", "n/a", float("nan")])
def test_useless_zero_points_are_passed_over(value):
    assert find_zero_point({"MAGZERO": value, "ZP": 24}) == (24.0, "keyword ZP")


def test_hst():
    # ACS/WFC F814W: the published AB zero point of this PHOTFLAM is 25.94.
    acs = {"PHOTFLAM": 7.07236e-20, "PHOTPLAM": 8045.0, "EXPTIME": 2000.0}
    assert find_zero_point({**acs, "BUNIT": "ELECTRONS/S"})[0] == pytest.approx(25.94, abs=0.01)
    assert find_zero_point({**acs, "BUNIT": "electron s-1"})[0] == pytest.approx(25.94, abs=0.01)
    counts = find_zero_point({**acs, "BUNIT": "ELECTRONS"})
    assert counts[0] == pytest.approx(25.94 + 2.5 * math.log10(2000), abs=0.01)
    assert "EXPTIME" in counts[1]
    assert find_zero_point({"PHOTFLAM": 7e-20, "PHOTPLAM": 8045.0, "BUNIT": "COUNTS"}) is None


def test_jwst():
    # NIRCam long wavelength, 0.063 arcsec: 1 MJy/sr per pixel is AB 26.49.
    area = (0.063 / 206264.806) ** 2
    by_area = find_zero_point({"BUNIT": "MJy/sr", "PIXAR_SR": area})
    assert by_area[0] == pytest.approx(-2.5 * math.log10(area * 1e6 / 3631), abs=1e-9)
    assert by_area[0] == pytest.approx(26.475, abs=0.005)
    by_scale = find_zero_point({"BUNIT": "MJy/sr"}, 0.063)
    assert by_scale[0] == pytest.approx(by_area[0], abs=1e-6)
    assert find_zero_point({"BUNIT": "MJy/sr"}) is None


@pytest.mark.parametrize(
    ("unit", "zero_point"),
    [("nanomaggy", 22.5), ("Jy", 8.9), ("mJy", 16.4), ("uJy", 23.9), ("nJy/pixel", 31.4)],
)
def test_units(unit, zero_point):
    assert find_zero_point({"BUNIT": unit})[0] == zero_point


def test_mega_is_not_milli():
    assert find_zero_point({"BUNIT": "MJy"}) is None


def test_fluxmag0_and_nothing():
    assert find_zero_point({"FLUXMAG0": 1e12})[0] == pytest.approx(30)
    assert find_zero_point({"BUNIT": "adu"}) is None
