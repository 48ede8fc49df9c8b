import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, NDData, StdDevUncertainty, VarianceUncertainty

from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.observation import Observation

IMAGE = np.random.default_rng(0).normal(size=(40, 40))
GIVEN = {"psf_fwhm": 3.0, "pixel_scale": 0.2}


def test_the_unit_of_a_quantity_counts():
    observation = Observation.from_array(IMAGE * u.uJy, noise=1e-3 * u.mJy, **GIVEN)
    assert observation.median_noise == pytest.approx(1.0)
    assert observation.zero_point == pytest.approx(23.9, abs=1e-3)
    assert observation.unit == "uJy"
    assert Observation.from_array(IMAGE * u.uJy, noise=1.0, **GIVEN).median_noise == 1.0
    variance = np.full(IMAGE.shape, 1e-6) * u.mJy**2
    told = Observation.from_array(IMAGE * u.uJy, noise=variance, noise_type="variance", **GIVEN)
    assert told.median_noise == pytest.approx(1.0)
    apart = Observation.from_array(IMAGE * u.uJy, noise=1.0 * u.electron, **GIVEN)
    assert apart.flags & Flag.NOISE_CONFLICT


def test_mask_and_uncertainty_of_nddata_count():
    mask = np.zeros(IMAGE.shape, bool)
    mask[0, :7] = True
    noise = VarianceUncertainty(np.full(IMAGE.shape, 4e-6), unit=u.mJy**2)
    data = NDData(IMAGE, unit=u.uJy, mask=mask, uncertainty=noise)
    observation = Observation.from_array(data, **GIVEN)
    assert observation.median_noise == pytest.approx(2.0)
    assert np.array_equal(observation.mask, mask)
    given = Observation.from_array(data, noise=3.0, mask=~mask & False, **GIVEN)
    assert (given.median_noise, given.mask.any()) == (3.0, False)


def test_metadata_and_psf_of_ccddata_count():
    psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
    data = CCDData(IMAGE, unit="adu", uncertainty=StdDevUncertainty(np.ones(IMAGE.shape)), psf=psf)
    data.meta["MAGZERO"], data.meta["PIXSCALE"] = 27.0, 0.3
    observation = Observation.from_array(data)
    assert (observation.zero_point, observation.pixel_scale) == (27.0, 0.3)
    assert np.array_equal(observation.psf, psf)
    assert not observation.flags & (Flag.NO_NOISE | Flag.NO_PSF | Flag.NO_ZERO_POINT)


def test_an_uncertainty_alone():
    noise = StdDevUncertainty(np.full(IMAGE.shape, 2.0))
    assert Observation.from_array(IMAGE, noise=noise, **GIVEN).median_noise == 2.0


def test_masks_keep_64_bits_and_a_map_of_sources_is_explained():
    bits = np.zeros(IMAGE.shape, dtype=np.int64)
    bits[3, 4] = (1 << 60) + 1
    bits[5, 6] = 1 << 60
    observation = Observation.from_array(IMAGE, noise=1.0, mask=bits, mask_bits=1, **GIVEN)
    assert np.argwhere(observation.mask).tolist() == [[3, 4]]
    both = Observation.from_array(IMAGE, noise=1.0, mask=bits, mask_bits=1 << 60, **GIVEN)
    assert int(both.mask.sum()) == 2
    labels = np.zeros(IMAGE.shape, dtype=np.int32)
    labels[17:24, 17:24], labels[2:6, 2:6], labels[2:6, 30:34] = 1, 2, 3
    with pytest.raises(ValueError, match="segmentation map"):
        Observation.from_array(IMAGE, noise=1.0, mask=labels, **GIVEN)


def test_placeholders_in_the_noise_are_masked_and_counted():
    noise = np.ones(IMAGE.shape)
    noise[0, :3] = 1e10, 1e-8, 0.0
    observation = Observation.from_array(IMAGE, noise=noise, **GIVEN)
    assert int(observation.mask.sum()) == 3
    assert observation.flags & Flag.NOISE_SENTINELS
    assert "2 pixels whose noise is a placeholder were masked" in observation.notes
    assert observation.median_noise == 1.0


def test_what_the_pixels_say_is_flagged():
    far = Observation.from_array(IMAGE, noise=1e-6, **GIVEN)
    assert far.flags & Flag.NOISE_OFF
    assert Flag.quality(far.flags) == "bad"
    hidden = np.zeros(IMAGE.shape, bool)
    hidden[10:30, 10:30] = True
    assert Observation.from_array(IMAGE, noise=1.0, mask=hidden, **GIVEN).flags & Flag.GALAXY_MASKED
    assert Observation.from_array(IMAGE + 5, noise=1.0, **GIVEN).flags & Flag.SKY_LEFT
    blank = IMAGE.copy()
    blank[:4, :4] = 0.0
    assert Observation.from_array(blank, noise=1.0, **GIVEN).flags & Flag.BLANK_VALUES
