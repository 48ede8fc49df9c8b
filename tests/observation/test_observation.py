import math
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

from deeplegato_pp.errors import FormatError, InputError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.observation import (
    REFERENCE_PIXEL_SCALE,
    REFERENCE_ZERO_POINT,
    Observation,
)
from deeplegato_pp.observation.preparation import prepare

SHAPE = (40, 48)
IMAGE = np.random.default_rng(0).normal(size=SHAPE)
AXIS = np.arange(-10, 11)
PSF = np.exp(-(AXIS[:, None] ** 2 + AXIS**2) / 4.0)
COMPLETE = {"psf": PSF, "noise": 1.0, "pixel_scale": 0.2, "zero_point": 27.0}


def observe(image=IMAGE, **changes):
    return Observation.from_array(image, **{**COMPLETE, **changes})


def test_a_complete_observation_has_no_flags():
    observation = observe(name="a", unit="adu")
    assert observation.flag_names == []
    assert observation.notes == []
    assert observation.shape == SHAPE
    assert observation.psf.sum() == pytest.approx(1)
    assert observation.psf_sum == pytest.approx(PSF.sum())
    assert observation.psf_fwhm == pytest.approx(2 * np.sqrt(2 * np.log(2) * 2), rel=0.01)
    assert observation.sky_sigma == pytest.approx(0.02)
    assert observation.gain is None
    assert "48 x 40 px" in repr(observation)


def test_nothing_given_is_all_flagged():
    observation = Observation.from_array(IMAGE)
    assert observation.flag_names == ["no_psf", "no_noise", "no_pixel_scale", "no_zero_point"]
    assert observation.median_noise == pytest.approx(1, rel=0.15)
    assert observation.pixel_scale == REFERENCE_PIXEL_SCALE
    assert observation.zero_point == REFERENCE_ZERO_POINT
    assert observation.psf_fwhm == pytest.approx(3, rel=0.01)
    assert len(observation.notes) == 4


def test_the_user_s_arrays_never_change():
    arrays = {
        "image": np.where(IMAGE > 2, np.nan, IMAGE),
        "noise": np.full(SHAPE, 2.0),
        "psf": PSF.copy(),
        "mask": IMAGE < -2,
    }
    before = {name: array.copy() for name, array in arrays.items()}
    observation = observe(arrays.pop("image"), **arrays)
    observation.image[:] = observation.noise[:] = observation.psf[:] = 7
    observation.mask[:] = True
    for name, array in arrays.items():
        assert np.array_equal(array, before[name]), name


def test_nonfinite_pixels_are_masked_counted_and_flagged():
    image, noise = IMAGE.copy(), np.ones(SHAPE)
    image[0, 0], image[1, 1], noise[2, 2] = np.nan, np.inf, np.nan
    observation = observe(image, noise=noise)
    assert observation.flag_names == ["nonfinite_pixels"]
    assert "3 pixels" in observation.notes[0]
    assert np.argwhere(observation.mask).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert np.isfinite(observation.image).all()
    assert (observation.noise > 0).all()

    masked = observe(image, noise=noise, mask=~np.isfinite(image + noise))
    assert masked.flag_names == []


@pytest.mark.parametrize(
    ("noise", "noise_type"), [(2.0, "sigma"), (4.0, "variance"), (0.25, "ivar")]
)
def test_noise_as_a_number(noise, noise_type):
    observation = observe(noise=noise, noise_type=noise_type)
    assert (observation.noise == 2).all()


def test_zero_weight_masks():
    weight = np.ones(SHAPE)
    weight[5] = 0
    observation = observe(noise=weight, noise_type="weight")
    assert observation.mask[5].all()
    assert observation.mask.sum() == SHAPE[1]
    assert observation.flag_names == []


def test_mask_bits():
    quality = np.zeros(SHAPE, dtype=np.int32)
    quality[0, 0], quality[0, 1], quality[0, 2] = 1, 4, 5
    assert observe(mask=quality).mask.sum() == 3
    assert np.argwhere(observe(mask=quality, mask_bits=1).mask).tolist() == [[0, 0], [0, 2]]


def test_gain_and_low_counts():
    assert observe(gain=100).flag_names == []
    assert observe(gain=100).gain == 100
    assert observe(gain=2).flag_names == ["low_counts"]


def test_noise_made_from_the_data_is_flagged():
    bright = IMAGE * np.sqrt(21) + 20
    flags = observe(bright, noise=np.sqrt(1 + bright.clip(0))).flag_names
    assert flags == ["noise_from_data", "sky_left"]


def test_psf_flags():
    off = np.exp(-(AXIS[:, None] ** 2 + (AXIS - 0.3) ** 2) / 4.0)
    narrow = np.exp(-(AXIS[:, None] ** 2 + AXIS**2) / 1.0)
    assert observe(psf=off).flag_names == ["psf_off_centre"]
    assert "(+0.30, " in observe(psf=off).notes[0]
    assert observe(psf=off, psf_oversampling=4).flag_names == []
    assert observe(psf=narrow).flag_names == ["psf_undersampled"]
    assert observe(psf=PSF - 0.001).flag_names == ["psf_negative"]
    assert observe(psf=PSF[8:13, 8:13]).flag_names == ["psf_truncated"]
    assert observe(psf=PSF[:, :-1], psf_even="shift").flag_names == ["psf_shifted"]
    assert observe(psf=PSF[3:-3]).psf.shape == (15, 21)


def test_psf_from_fwhm():
    observation = observe(psf=None, psf_fwhm=1.5, psf_includes_pixel=False)
    assert observation.flag_names == ["psf_from_fwhm"]
    assert observation.psf_oversampling == 2
    assert observation.psf_includes_pixel
    assert observation.psf_fwhm == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image": np.ones((2, 3, 4))}, ShapeError, "image must be 2-D"),
        ({"image": np.ones((0, 4))}, ShapeError, "must have pixels"),
        ({"image": np.full(SHAPE, np.nan)}, InputError, "all 1920 pixels are masked"),
        ({"image": np.full(SHAPE, np.nan), "noise": None}, InputError, "all 1920 pixels"),
        ({"image": np.zeros(SHAPE), "noise": None}, InputError, "cannot be estimated"),
        ({"mask": np.ones(SHAPE)}, InputError, "is it inverted"),
        ({"mask": np.ones((3, 3))}, ShapeError, r"mask must have the image's shape \(40, 48\)"),
        ({"mask": np.full(SHAPE, 0.5), "mask_bits": 1}, InputError, "whole numbers"),
        ({"mask_bits": 1}, InputError, "without a mask"),
        ({"noise": np.zeros(SHAPE)}, RangeError, "got 1920 zero or negative"),
        ({"noise": -1.0}, RangeError, "noise must be positive"),
        ({"noise": np.ones(5)}, ShapeError, "noise must be 2-D"),
        ({"noise": np.ones((4, 4))}, ShapeError, "noise must have the image's shape"),
        ({"noise_type": "rms"}, InputError, "noise_type must be one of"),
        ({"noise": None, "noise_type": "rms"}, InputError, "noise_type must be one of"),
        ({"noise": 1.0, "noise_type": "weight"}, InputError, "cannot be a weight"),
        ({"psf": PSF[:, 1:]}, ShapeError, "--psf-even shift"),
        ({"psf": PSF * np.nan}, InputError, "must be finite"),
        ({"psf": -PSF}, RangeError, "positive sum"),
        ({"psf": PSF[0]}, ShapeError, "PSF must be 2-D"),
        ({"psf_even": "drop"}, InputError, "refuse, shift"),
        ({"psf_fwhm": 3.0}, InputError, "both given"),
        ({"psf": None, "psf_oversampling": 3}, InputError, "without a PSF"),
        ({"psf_oversampling": 1.5}, RangeError, "whole number"),
        ({"gain": 0}, RangeError, "gain must be positive"),
        ({"pixel_scale": -0.2}, RangeError, "pixel_scale must be positive"),
        ({"zero_point": np.nan}, RangeError, "zero_point must be finite"),
        ({"sky_sigma": -1}, RangeError, "sky_sigma must be positive"),
        ({"noise_correlation": 0.9}, RangeError, "noise_correlation must be at least 1"),
        ({"noise_correlation": math.inf}, RangeError, "noise_correlation must be finite"),
    ],
)
def test_unusable_input_is_refused(changes, error, message):
    arguments = {"image": IMAGE, **COMPLETE, **changes}
    with pytest.raises(error, match=message) as caught:
        Observation.from_array(**arguments)
    assert "\n" not in str(caught.value)


def test_masking_more_leaves_the_first_one_alone():
    first = observe()
    extra = np.zeros(SHAPE, dtype=bool)
    extra[3, 3] = True
    second = first.masked(extra, Flag.NEIGHBOURS_MASKED)
    assert second.mask[3, 3]
    assert second.flag_names == ["neighbours_masked"]
    assert not first.mask.any()
    with pytest.raises(InputError):
        first.masked(~first.mask)


@pytest.fixture
def ccd_file(tmp_path):
    """A complete file in the CCDData layout."""
    noise = StdDevUncertainty(np.ones(SHAPE))
    ccd = CCDData(IMAGE, unit="adu", mask=IMAGE > 3, uncertainty=noise, psf=PSF)
    ccd.meta.update({"PIXSCALE": 0.2, "MAGZERO": 27.0, "GAIN": 5.0})
    ccd.write(tmp_path / "galaxy.fits.gz")
    return tmp_path / "galaxy.fits.gz"


def test_one_complete_file_suffices(ccd_file):
    observation = Observation.from_fits(ccd_file)
    assert observation.flag_names == []
    assert observation.name == "galaxy"
    assert observation.unit == "adu"
    assert (observation.pixel_scale, observation.zero_point) == (0.2, 27.0)
    assert observation.notes == [
        "pixel scale 0.2 arcsec/px from PIXSCALE",
        "zero point 27.0000 from MAGZERO",
    ]
    assert observation.gain is None, "a header's GAIN is never used unasked"
    assert np.array_equal(observation.mask, IMAGE > 3)


def test_arguments_win_over_the_file(ccd_file, tmp_path):
    fits.PrimaryHDU(np.full(SHAPE, 16.0)).writeto(tmp_path / "variance.fits")
    fits.PrimaryHDU(PSF[2:-2, 2:-2]).writeto(tmp_path / "psf.fits")
    quality = np.zeros(SHAPE, dtype=np.int16)
    quality[0, :2] = 1, 2
    fits.PrimaryHDU(quality).writeto(tmp_path / "mask.fits")
    observation = Observation.from_fits(
        ccd_file,
        psf=tmp_path / "psf.fits",
        noise=str(tmp_path / "variance.fits"),
        noise_type="variance",
        mask=tmp_path / "mask.fits",
        mask_bits=2,
        gain=30.0,
        pixel_scale=0.1,
        zero_point=25,
        sky_sigma=0.0,
    )
    assert (observation.noise == 4).all()
    assert observation.psf.shape == (17, 17)
    assert np.argwhere(observation.mask).tolist() == [[0, 1]]
    assert (observation.pixel_scale, observation.zero_point) == (0.1, 25)
    assert (observation.gain, observation.sky_sigma) == (30, 0)
    assert Observation.from_fits(ccd_file, psf_fwhm=3).flag_names == ["psf_from_fwhm"]
    assert (Observation.from_fits(ccd_file, noise=2.0).noise == 2).all()


def test_a_plain_image_is_flagged(tmp_path):
    fits.PrimaryHDU(IMAGE).writeto(tmp_path / "plain.fits")
    observation = Observation.from_fits(tmp_path / "plain.fits")
    assert observation.flag_names == ["no_psf", "no_noise", "no_pixel_scale", "no_zero_point"]


def test_jwst_layout(tmp_path):
    error, weight = np.ones(SHAPE), np.ones(SHAPE)
    error[0, 0] = weight[0, 0] = 0
    quality = np.zeros(SHAPE, dtype=np.uint32)
    quality[1, 1], quality[2, 2] = 1, 4
    header = fits.Header({"BUNIT": "MJy/sr", "PIXAR_SR": 2.1e-14, "PIXSCALE": 0.03})
    fits.HDUList(
        [
            fits.PrimaryHDU(header=fits.Header({"TELESCOP": "JWST"})),
            fits.ImageHDU(IMAGE, header, name="SCI"),
            fits.ImageHDU(error, name="ERR"),
            fits.ImageHDU(quality, name="DQ"),
            fits.ImageHDU(weight, name="WHT"),
        ]
    ).writeto(tmp_path / "i2d.fits")
    observation = Observation.from_fits(tmp_path / "i2d.fits", psf=PSF)
    assert observation.flag_names == []
    assert np.argwhere(observation.mask).tolist() == [[0, 0], [1, 1]]
    assert observation.zero_point == pytest.approx(28.09, abs=0.01)
    assert observation.unit == "MJy/sr"
    assert Observation.from_fits(tmp_path / "i2d.fits", psf=PSF, mask_bits=4).mask[2, 2]


def test_missing_companions_are_named(ccd_file, tmp_path):
    with pytest.raises(FormatError, match=r"absent\.fits: no such file"):
        Observation.from_fits(ccd_file, psf=tmp_path / "absent.fits")


def test_importing_costs_neither_torch_nor_astropy():
    code = (
        "import sys, deeplegato_pp.observation.observation, deeplegato_pp.observation.preparation\n"
        "loaded = {'torch', 'astropy', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(loaded) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("noise", [1e150, 1e-150])
def test_any_noise_that_a_double_holds_is_compared_with_the_gain(noise):
    seen = Observation.from_array(np.zeros((20, 20)), noise=noise, gain=1.0, psf_fwhm=3.0)
    assert bool(seen.flags & Flag.LOW_COUNTS) == (noise < 1.0)


def test_psf_error_is_two_per_cent_unless_told(tmp_path):
    assert observe().psf_error == 0.02
    assert observe(psf_error=0.0).psf_error == 0.0
    assert prepare(observe(psf_error=0.1), 16, bin=2).psf_error == 0.1
    path = tmp_path / "one.fits"
    fits.PrimaryHDU(IMAGE.astype(np.float32)).writeto(path)
    assert Observation.from_fits(path, psf_fwhm=3.0, noise=1.0, psf_error=0.05).psf_error == 0.05
    for wrong in (-0.1, 0.5, math.nan):
        with pytest.raises(RangeError, match=r"psf_error must (lie in \[0, 0\.5\)|be finite)"):
            observe(psf_error=wrong)
