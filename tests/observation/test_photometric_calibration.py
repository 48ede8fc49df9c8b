import math

import pytest

from deeplegato_pp.flags import Flag
from deeplegato_pp.io.header_keywords import Cards
from deeplegato_pp.observation.photometric_calibration import reconcile_zero_point

CONFLICT = Flag.ZERO_POINT_CONFLICT
# WFC3/IR-like: 1 electron/s is AB 25.66.
HST = {"PHOTFLAM": 3.05e-20, "PHOTPLAM": 13922.9, "EXPTIME": 2611.7}
RATE = -2.5 * math.log10(3.05e-20) - 5 * math.log10(13922.9) - 2.408
TOTAL = RATE + 2.5 * math.log10(2611.7)
AREA = math.radians(0.063 / 3600) ** 2
MJY_SR = -2.5 * math.log10(1e6 * AREA / 3631)


@pytest.mark.parametrize("keyword", ["MAGZERO", "MAGZPT", "ZEROPT", "ZP", "PHOTZP"])
def test_keywords(keyword):
    taken = reconcile_zero_point({keyword: 25.5})
    assert (taken.value, taken.source, taken.flags) == (25.5, keyword, 0)


@pytest.mark.parametrize("value", [None, "", "n/a", float("nan"), True, -99, -1, 0, 99, 1e6])
def test_placeholders_are_refused(value):
    taken = reconcile_zero_point({"MAGZERO": value, "ZP": 24, "BUNIT": "adu"}, noise=0.05)
    assert (taken.value, taken.flags) == (24.0, 0)
    alone = reconcile_zero_point({"MAGZERO": value}, noise=0.05)
    assert alone.value is None
    assert alone.flags == (0 if value in (None, "") else CONFLICT)


def test_an_unusual_zero_point_is_believed_where_the_noise_is_that_of_an_image():
    # Pixels in maggies: the zero point is 0 and the noise some 1e-12.
    assert reconcile_zero_point({"MAGZERO": 0.0}, noise=1e-12).value == 0.0
    assert reconcile_zero_point({"MAGZERO": -99}, noise=1e-12).value is None
    leftover = reconcile_zero_point({"MAGZERO": 26.0}, noise=1e-12)
    assert leftover.flags == CONFLICT


@pytest.mark.parametrize(
    ("unit", "zero_point", "flags"),
    [
        ("ELECTRONS/S", RATE, 0), ("cps", RATE, 0), ("electrons per second", RATE, 0),
        ("e-/s", RATE, 0), ("ELECTRONS", TOTAL, 0), ("counts", TOTAL, 0), ("Jy", 8.9, CONFLICT),
        ("uJy", 23.9, CONFLICT), ("10.0*nanoJansky", 28.9, CONFLICT),
        ("erg/s/cm2/Angstrom", -5 * math.log10(13922.9) - 2.408, CONFLICT),
        ("", RATE, CONFLICT), ("foo", RATE, CONFLICT),
    ],
)  # fmt: skip
def test_units_beside_the_calibration_of_the_inputs(unit, zero_point, flags):
    taken = reconcile_zero_point({**HST, "BUNIT": unit})
    assert taken.value == pytest.approx(zero_point, abs=1e-3)
    assert taken.flags == flags


def test_calibration_in_the_images_unit_is_no_conflict():
    flam = 10 ** (-0.4 * (28.9 + 5 * math.log10(13922.9) + 2.408))
    taken = reconcile_zero_point({**HST, "PHOTFLAM": flam, "BUNIT": "10.0*nanoJansky"})
    assert (taken.value, taken.flags) == (pytest.approx(28.9, abs=1e-3), 0)


def test_a_unit_wins_over_leftover_keywords():
    taken = reconcile_zero_point({"BUNIT": "Jy", "MAGZERO": 25.5})
    assert (taken.value, taken.flags) == (pytest.approx(8.9, abs=1e-3), CONFLICT)
    assert any("25.5" in note and "8.9" in note for note in taken.notes)
    for good in (8.9, 8.90):
        assert reconcile_zero_point({"BUNIT": "Jy", "MAGZERO": good}).flags == 0
    assert reconcile_zero_point({"BUNIT": "nanomaggy", "MAGZERO": 22.5}).flags == 0


def test_a_unit_that_needs_more_leaves_the_keyword_in_doubt():
    flam = {"BUNIT": "erg/s/cm2/Angstrom", "PHOTFLAM": 3e-20}
    assert reconcile_zero_point(flam).value is None
    assert reconcile_zero_point(flam).flags == CONFLICT
    taken = reconcile_zero_point({**flam, "MAGZERO": 21.1})
    assert (taken.value, taken.flags) == (21.1, CONFLICT)
    assert reconcile_zero_point({"BUNIT": "MJy/sr"}).flags == CONFLICT


def test_surface_brightness_by_the_wcss_area():
    assert pytest.approx(26.475, abs=0.005) == MJY_SR
    by_wcs = reconcile_zero_point({"BUNIT": "MJy/sr", "PIXAR_SR": 4 * AREA}, 0.063, 0.063)
    assert (by_wcs.value, by_wcs.flags) == (pytest.approx(MJY_SR, abs=1e-6), CONFLICT)
    for scales in ((None, None), (0.063, 0.063), (0.0631, 0.0631)):
        good = reconcile_zero_point({"BUNIT": "MJy/sr", "PIXAR_SR": AREA}, *scales)
        assert (good.value, good.flags) == (pytest.approx(MJY_SR, abs=0.01), 0)
    by_scale = reconcile_zero_point({"BUNIT": "MJy/sr"}, 0.063)
    assert by_scale.value == pytest.approx(MJY_SR, abs=1e-6)
    dn = reconcile_zero_point({"BUNIT": "DN/s", "PHOTMJSR": 2.0, "PIXAR_SR": AREA})
    assert dn.value == pytest.approx(MJY_SR - 2.5 * math.log10(2))


def test_per_beam():
    beam = {"BMAJ": 1 / 3600, "BMIN": 0.5 / 3600, "BUNIT": "Jy/beam"}
    pixels_per_beam = math.pi / (4 * math.log(2)) * 0.5 / 0.04
    taken = reconcile_zero_point(beam, 0.2)
    assert taken.value == pytest.approx(8.9 + 2.5 * math.log10(pixels_per_beam), abs=1e-3)
    assert reconcile_zero_point({"BUNIT": "Jy/beam"}, 0.2).value is None


def test_counts_and_a_zero_point_that_may_be_per_second():
    counts = {"MAGZPT": 25.2, "EXPTIME": 300.0, "BUNIT": "counts"}
    total = 25.2 + 2.5 * math.log10(300)
    doubtful = reconcile_zero_point(counts)
    assert (doubtful.value, doubtful.flags) == (25.2, CONFLICT)
    assert any(f"{total:.4f}" in note for note in doubtful.notes)
    said = reconcile_zero_point(Cards(counts, {"MAGZPT": "mag of 1 count per second"}))
    assert (said.value, said.flags) == (pytest.approx(total), 0)
    plain = reconcile_zero_point(Cards(counts, {"MAGZPT": "total zero point"}))
    assert (plain.value, plain.flags) == (25.2, 0)
    assert reconcile_zero_point({**counts, "BUNIT": "counts/s"}).flags == 0
    assert reconcile_zero_point({**counts, "EXPTIME": 1.0}).flags == 0


def test_counts_with_two_sources_that_settle_it():
    settled = reconcile_zero_point({**HST, "BUNIT": "ELECTRONS", "MAGZPT": RATE})
    assert (settled.value, settled.flags) == (pytest.approx(TOTAL, abs=1e-6), 0)
    settled = reconcile_zero_point({**HST, "MAGZPT": TOTAL})
    assert (settled.value, settled.flags) == (pytest.approx(TOTAL, abs=1e-6), 0)


def test_two_cards_apart_and_a_third_that_decides():
    two = reconcile_zero_point({"MAGZERO": 25.0, "ZP": 27.0})
    assert (two.value, two.flags) == (25.0, CONFLICT)
    three = reconcile_zero_point({"MAGZERO": 25.0, "ZP": 27.0, "FLUXMAG0": 10 ** (27 / 2.5)})
    assert (three.value, three.flags) == (27.0, CONFLICT)


def test_vega_is_no_ab():
    vega = reconcile_zero_point({"MAGZERO": 25.0, "MAGSYS": "Vega"})
    assert (vega.value, vega.flags) == (25.0, Flag.NOT_AB)
    said = reconcile_zero_point(Cards({"ZP": 25.0}, {"ZP": "Vega magnitude of 1 DN/s"}))
    assert said.flags == Flag.NOT_AB
    better = reconcile_zero_point({"MAGZERO": 25.0, "MAGSYS": "Vega", "ABMAGZP": 26.0})
    assert (better.value, better.flags) == (26.0, 0)


def test_exposure_times_that_disagree():
    taken = reconcile_zero_point({**HST, "BUNIT": "ELECTRONS", "TEXPTIME": 5000.0})
    assert (taken.value, taken.flags) == (pytest.approx(TOTAL), CONFLICT)
    assert reconcile_zero_point({**HST, "BUNIT": "ELECTRONS/S", "TEXPTIME": 5000.0}).flags == 0


def test_other_sources_and_nothing():
    assert reconcile_zero_point({"FLUXMAG0": 1e12}).value == pytest.approx(30)
    assert reconcile_zero_point({"PHOTFNU": 1e-7, "BUNIT": "e/s"}).value == pytest.approx(
        26.4, abs=0.01
    )
    stack = {"FPA.ZP": 25.0, "EXPTIME": 100.0, "BSOFTEN": 10.0}
    assert reconcile_zero_point(stack).value == pytest.approx(30)
    assert reconcile_zero_point({"BUNIT": "adu"}).value is None
    assert reconcile_zero_point({"BUNIT": "adu"}).flags == 0
    assert (
        reconcile_zero_point({"PHOTFLAM": 7e-20, "PHOTPLAM": 8e3, "BUNIT": "COUNTS"}).value is None
    )


@pytest.mark.parametrize("cards", [{"PHOTFNU": 1e300}, {"BUNIT": "1e-200 Jy"}])
def test_absurd_calibrations_are_no_zero_point(cards):
    found = reconcile_zero_point(Cards(cards), 0.1)
    assert found.value is None
    assert "which is refused" in " ".join(found.notes)
    assert found.flags & Flag.ZERO_POINT_CONFLICT
