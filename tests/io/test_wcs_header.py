import pytest
from astropy.io import fits

from deeplegato_pp.flags import Flag
from deeplegato_pp.io.wcs_header import read_sky

STEP = 0.2 / 3600
PLACE = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 5.0,
    "CRPIX2": 5.0,
}  # fmt: skip


def read(**cards):
    return read_sky(fits.Header({**PLACE, **cards}))


@pytest.mark.parametrize(
    "cards",
    [
        {"CD1_1": -STEP, "CD2_2": STEP},
        {"CD1_1": 0.0, "CD1_2": STEP, "CD2_1": STEP, "CD2_2": 0.0},
        {"CDELT1": -STEP, "CDELT2": STEP},
        {"CD1_1": -STEP, "CD2_2": STEP, "CDELT1": -STEP, "CDELT2": STEP},
        {"CD1_1": str(-STEP), "CD2_2": str(STEP)},
        {"PC1_1": -STEP, "PC2_2": STEP, "CDELT1": STEP, "CDELT2": STEP},
        {"CDELT1": -0.2, "CDELT2": 0.2, "CUNIT1": "arcsec", "CUNIT2": "arcsec"},
    ],
)
def test_what_can_be_read_or_mended(cards):
    sky = read(**cards)
    assert sky.scale == pytest.approx(0.2, rel=1e-6)
    assert sky.wcs is not None
    assert sky.flags == 0


@pytest.mark.parametrize(
    "cards",
    [
        {},
        {"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0},
        {"CD1_1": STEP, "CD1_2": STEP, "CD2_1": STEP, "CD2_2": STEP},
        {"CD1_1": "a", "CD2_2": "b"},
        {"CDELT1": -0.2, "CDELT2": 0.2},
        {"CDELT1": -1e-12, "CDELT2": 1e-12},
    ],
)
def test_what_cannot_be_right_is_left_out(cards):
    sky = read(**cards)
    assert sky.wcs is None
    assert sky.scale is None
    assert "WCS ignored" in sky.notes[-1]
    assert sky.flags == Flag.PIXEL_SCALE_CONFLICT


def test_pixels_that_are_not_square():
    assert read(CDELT1=-STEP, CDELT2=1.1 * STEP).flags == Flag.NOT_SQUARE
    slightly = read(CDELT1=-STEP, CDELT2=1.015 * STEP)
    assert slightly.flags == 0
    assert "not square" in slightly.notes[0]


def test_no_sky():
    assert read_sky(fits.Header()).wcs is None
    assert read_sky(fits.Header({**PLACE, "CTYPE1": "LINEAR", "CTYPE2": "LINEAR"})).flags == 0
