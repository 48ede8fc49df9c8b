"""What a file says of itself: stamps and mosaics take the same, and random headers do no harm."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deeplegato_pp.catalog.mosaics import open_mosaic
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.observation import Observation

IMAGE = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
STEP = 0.06 / 3600
WCS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 16.5,
    "CRPIX2": 16.5, "CD1_1": -STEP, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": STEP,
}  # fmt: skip


def write(path, cards, noise=None, mask=None, image=IMAGE):
    """A file with an image, and ERR and MASK extensions where (array, cards) are given."""
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, fits.Header(cards), name="SCI")]
    for name, extension in (("ERR", noise), ("MASK", mask)):
        if extension is not None:
            hdus.append(fits.ImageHDU(extension[0], fits.Header(extension[1]), name=name))
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def test_stamps_and_mosaics_take_the_same(tmp_path):
    noise = np.full(IMAGE.shape, 1e-3, np.float32)
    noise[0, 0] = 0
    planes = np.zeros(IMAGE.shape, np.int32)
    planes[:, 5:] |= 32
    planes[3, 3] |= 1
    cards = {**WCS, "BUNIT": "uJy", "MAGZERO": 25.0, "PIXSCALE": 0.1}
    path = write(
        tmp_path / "a.fits",
        cards,
        (noise, {"BUNIT": "mJy"}),
        (planes, {"HIERARCH MP_BAD": 0, "HIERARCH MP_DETECTED": 5}),
    )
    stamp, mosaic = Observation.from_fits(path, psf_fwhm=3), open_mosaic(path)
    assert (stamp.zero_point, stamp.pixel_scale) == (mosaic.zero_point, mosaic.pixel_scale)
    assert stamp.zero_point == pytest.approx(23.9, abs=1e-3)
    assert stamp.pixel_scale == pytest.approx(0.06)
    conflicts = Flag.ZERO_POINT_CONFLICT | Flag.PIXEL_SCALE_CONFLICT
    assert mosaic.flags == conflicts
    assert stamp.flags & conflicts == conflicts
    assert np.argwhere(stamp.mask).tolist() == [[0, 0], [3, 3]]
    assert stamp.median_noise == pytest.approx(1.0)
    assert mosaic.noise.read(0, 9, 1, 9).max() == pytest.approx(1.0)
    assert mosaic.mask_bits == 1
    assert set(mosaic.notes) <= set(stamp.notes)
    line = "zero point 23.90 (unit uJy), 0.06 arcsec/px (WCS), PSF (Moffat of 3 px), noise sigma (ERR), mask (MASK)"  # noqa: E501
    assert stamp.provenance == line


def test_what_is_given_wins_and_is_said(tmp_path):
    path = write(tmp_path / "a.fits", {**WCS, "BUNIT": "Jy"})
    stamp = Observation.from_fits(path, pixel_scale=0.1, zero_point=27.0, noise=1.0, psf_fwhm=3)
    assert (stamp.pixel_scale, stamp.zero_point, stamp.flags) == (0.1, 27.0, Flag.PSF_FROM_FWHM)
    assert "zero point 27.00 (given), 0.1 arcsec/px (given)" in stamp.provenance
    assert any("as given, the WCS has 0.06" in note for note in stamp.notes)


# --- header fuzz ---------------------------------------------------------------------------------

PHYSICAL = {"Jy": 8.9, "mJy": 16.4, "uJy": 23.9, "nJy": 31.4, "nanomaggy": 22.5, "10 nJy": 28.9}
"""Zero points of fluxes per pixel, to 0.0001."""

JUNK = st.sampled_from([True, False, "", "n/a", "unknown", -99, -1, 0, 99, 1e6, 1e300, "25.0"])
MAGNITUDES = st.one_of(st.floats(15, 35), JUNK)
SCALES = st.one_of(st.floats(0.005, 2.0), JUNK, st.floats(1e-6, 1e-3))
TIMES = st.one_of(st.floats(0.1, 1e5), JUNK)
UNITS = [
    *PHYSICAL, "MJy/sr", "erg/s/cm2/Angstrom", "ELECTRONS/S", "cps", "electrons per second", "adu",
    "counts", "DN/s", "Jy/beam", "foo", "", "e-", "MJY", "K", "((",
]  # fmt: skip
SOURCES = {
    "BUNIT": st.sampled_from(UNITS),
    "MAGZERO": MAGNITUDES, "MAGZPT": MAGNITUDES, "ZP": MAGNITUDES, "PHOTZP": MAGNITUDES,
    "PHOTFLAM": st.one_of(st.floats(1e-21, 1e-17), JUNK),
    "PHOTPLAM": st.one_of(st.floats(2000, 50000), JUNK),
    "PHOTFNU": st.one_of(st.floats(1e-10, 1e-5), JUNK),
    "PHOTMJSR": st.one_of(st.floats(0.1, 10), JUNK),
    "FLUXMAG0": st.one_of(st.floats(1e9, 1e13), JUNK),
    "EXPTIME": TIMES, "TEXPTIME": TIMES,
    "PIXSCALE": SCALES, "PIXELSCL": SCALES, "SECPIX": SCALES,
    "PIXAR_SR": st.one_of(st.floats(1e-15, 1e-11), JUNK),
    "BMAJ": st.one_of(st.floats(1e-5, 1e-3), JUNK), "BMIN": st.floats(1e-5, 1e-3),
    "MAGSYS": st.sampled_from(["AB", "Vega", "ST", 3]),
    "CDELT1": st.one_of(st.floats(-1e-3, 1e-3), JUNK), "CDELT2": st.floats(-1e-3, 1e-3),
    "CD1_1": st.one_of(st.floats(-1e-3, 1e-3), JUNK), "PC1_2": st.floats(-1, 1),
    "EQUINOX": st.sampled_from([1950.0, 2000.0, "J2000", True]),
    "RADESYS": st.sampled_from(["FK4", "FK5", "ICRS", "nonsense"]),
    "BSOFTEN": st.one_of(st.floats(1, 100), JUNK), "BOFFSET": st.floats(-10, 10),
    "LTV1": JUNK, "TELESCOP": st.sampled_from(["HST", "JWST", "EUCLID", 3]),
}  # fmt: skip

HEADERS = st.fixed_dictionaries({}, optional=SOURCES)


def check_header(cards, with_wcs):
    """What must hold of any header: no traceback, and no contradiction without a flag."""
    cards = {**(WCS if with_wcs else {}), **cards}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.fits", cards)
        stamp, mosaic = Observation.from_fits(path, psf_fwhm=3, noise=1.0), open_mosaic(path)
    header = fits.Header(cards)
    zero_flags = Flag.ZERO_POINT_CONFLICT | Flag.NO_ZERO_POINT
    scale_flags = Flag.PIXEL_SCALE_CONFLICT | Flag.NO_PIXEL_SCALE
    assert math.isfinite(stamp.zero_point)
    assert 1e-4 <= stamp.pixel_scale <= 100
    unit = header.get("BUNIT", "")
    if unit in PHYSICAL:
        assert stamp.zero_point == pytest.approx(PHYSICAL[unit], abs=1e-3)
    untouched = not {"CD1_1", "CDELT1", "CDELT2", "PC1_2"} & set(cards)
    if with_wcs and untouched:
        assert stamp.pixel_scale == pytest.approx(0.06, rel=1e-6)
        if unit == "MJy/sr":
            area = math.radians(0.06 / 3600) ** 2
            truth = -2.5 * math.log10(1e6 * area / 3631)
            assert stamp.zero_point == pytest.approx(truth, abs=1e-3)
    if not stamp.flags & zero_flags:
        apart = [k for k in ("MAGZERO", "MAGZPT", "ZP", "PHOTZP") if _apart(header, k, stamp)]
        assert not apart or stamp.flags & Flag.NOT_AB or _vega(header), apart
    if not stamp.flags & scale_flags:
        for keyword in ("PIXSCALE", "PIXELSCL", "SECPIX"):
            value = header.get(keyword)
            if isinstance(value, float) and 1e-4 <= value <= 100:
                near = stamp.pixel_scale / value, stamp.pixel_scale / value / 3600
                assert any(abs(ratio - 1) < 0.0201 for ratio in near), keyword
    if mosaic.zero_point is not None:
        assert mosaic.zero_point == pytest.approx(stamp.zero_point)
    if mosaic.pixel_scale is not None:
        assert mosaic.pixel_scale == pytest.approx(stamp.pixel_scale)
    shared = Flag.ZERO_POINT_CONFLICT | Flag.PIXEL_SCALE_CONFLICT | Flag.NOT_AB | Flag.NOT_SQUARE
    assert mosaic.flags & shared == stamp.flags & shared


def _apart(header, keyword, stamp):
    """Whether a plausible zero point in the header is another than the one taken."""
    value = header.get(keyword)
    if isinstance(value, bool) or not isinstance(value, float) or not 10 <= value <= 45:
        return False
    return abs(value - stamp.zero_point) > 0.0201 and not _per_second(header, value, stamp)


def _per_second(header, value, stamp):
    """Whether the value is the one taken for a second of exposure, by a second source."""
    times = [header.get(k) for k in ("EXPTIME", "TEXPTIME")]
    return any(
        isinstance(t, float) and abs(value + 2.5 * math.log10(t) - stamp.zero_point) < 0.0201
        for t in times
        if isinstance(t, float) and t > 0
    )


def _vega(header):
    return header.get("MAGSYS") in ("Vega", "ST")


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(HEADERS, st.booleans())
def test_header_fuzz(cards, with_wcs):
    check_header(cards, with_wcs)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HEADERS, st.booleans())
def test_header_fuzz_at_length(cards, with_wcs):
    check_header(cards, with_wcs)
