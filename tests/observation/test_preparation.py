import numpy as np
import pytest

from deeplegato_pp.errors import InputError, RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.effective_psf import MOST_SAMPLES, moffat_psf, psf_centroid
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import PreparedStamp, prepare

RNG = np.random.default_rng(0)
PSF = moffat_psf(3.0)[0]


def observe(height, width, image=None, **changes):
    arguments = {"psf": PSF, "noise": 2.0, "pixel_scale": 0.2, "zero_point": 27.0, **changes}
    image = RNG.normal(size=(height, width)) if image is None else image
    return Observation.from_array(image, **arguments)


def test_the_right_size_is_only_scaled():
    observation = observe(32, 32, gain=3.0, sky_sigma=0.1, noise_correlation=1.5)
    stamp = prepare(observation, size=32)
    assert stamp.scale == 2
    assert np.array_equal(stamp.image, observation.image / 2)
    assert (stamp.noise == 1).all()
    assert stamp.gain == pytest.approx(6)
    assert stamp.sky_sigma == pytest.approx(0.05)
    assert stamp.noise_correlation == 1.5
    assert (stamp.offset_x, stamp.offset_y) == (0, 0)
    assert (stamp.pixel_scale, stamp.zero_point) == (0.2, 27)
    assert stamp.flags == 0
    assert prepare(observe(32, 32), size=32).gain == np.inf


def test_masked_pixels_hold_neutral_values():
    mask = np.zeros((16, 16), dtype=bool)
    mask[3, 4] = True
    noise = np.full((16, 16), 2.0)
    noise[3, 4] = 50
    stamp = prepare(observe(16, 16, mask=mask, noise=noise), size=16)
    assert stamp.mask[3, 4]
    assert stamp.image[3, 4] == 0
    assert stamp.noise[3, 4] == 1


@pytest.mark.parametrize("height", [20, 21, 40, 41])
@pytest.mark.parametrize("width", [22, 23, 44, 45])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_point_is_found_where_it_was(height, width, factor):
    """Whatever the parities: pixel (x, y) of the user is where the stamp says."""
    x, y = width // 2 + 2, height // 2 - 3
    image = np.zeros((height, width))
    image[y, x] = 100.0
    stamp = prepare(observe(height, width, image), size=32, bin=factor)
    row, column = np.argwhere(stamp.image > 0)[0]
    centre_x, centre_y = stamp.center_to_user(column - 15.5, row - 15.5)
    assert centre_x == pytest.approx(x - (width - 1) / 2, abs=(factor - 1) / 2)
    assert centre_y == pytest.approx(y - (height - 1) / 2, abs=(factor - 1) / 2)
    assert abs(stamp.offset_x) <= 0.5
    assert abs(stamp.offset_y) <= 0.5
    assert stamp.center_from_user(centre_x, centre_y) == pytest.approx((column - 15.5, row - 15.5))


def test_padding_is_masked_and_flagged():
    stamp = prepare(observe(10, 60), size=32)
    assert Flag.names(stamp.flags) == ["padded", "cropped"]
    assert (~stamp.mask).sum() == 10 * 32
    assert not stamp.mask[11:21].any()


def test_cutting_about_a_point():
    image = np.zeros((80, 90))
    image[70, 5] = 100.0
    stamp = prepare(observe(80, 90, image), size=17, center=(5.0, 70.0))
    assert stamp.image[8, 8] == 50
    assert (stamp.offset_x, stamp.offset_y) == (5 - 44.5, 70 - 39.5)
    assert stamp.center_to_user(0, 0) == (-39.5, 30.5)
    with pytest.raises(RangeError, match="center must lie in the image"):
        prepare(observe(80, 90, image), size=17, center=(5.0, 80.0))


def test_binning_sums_pixels_and_variances():
    observation = observe(64, 64, sky_sigma=0.04, gain=5.0)
    stamp = prepare(observation, size=32, bin=2)
    blocks = observation.image.reshape(32, 2, 32, 2).sum(axis=(1, 3))
    assert stamp.scale == pytest.approx(4)
    assert stamp.image * stamp.scale == pytest.approx(blocks)
    assert stamp.sky_sigma * stamp.scale == pytest.approx(4 * 0.04)
    assert stamp.gain / stamp.scale == pytest.approx(5)
    assert stamp.pixel_scale == pytest.approx(0.4)
    assert stamp.psf_oversampling == 2
    assert Flag.names(stamp.flags) == ["binned"]
    assert stamp.radius_to_user(3.0) == 6
    assert stamp.radius_from_user(6.0) == 3


def test_half_masked_bins_are_rescaled_and_others_masked():
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = True  # one of four
    mask[0, 2:4] = True  # half
    mask[0, 4:6] = mask[1, 4] = True  # more than half
    stamp = prepare(observe(8, 8, np.full((8, 8), 3.0), mask=mask), size=4, bin=2)
    assert np.argwhere(stamp.mask).tolist() == [[0, 2]]
    image, noise = stamp.image * stamp.scale, stamp.noise * stamp.scale
    assert image[0, :2] == pytest.approx([12, 12])
    assert noise[0, 0] ** 2 == pytest.approx(3 * 4 * (4 / 3) ** 2)
    assert noise[0, 1] ** 2 == pytest.approx(2 * 4 * 4)
    assert noise[1, 1] ** 2 == pytest.approx(4 * 4)


@pytest.mark.parametrize("factor", [2, 3])
def test_binned_psf_describes_binned_stars(factor):
    """A star rendered with the native PSF and binned is the binned PSF, sampled."""
    size = 15
    side = size * factor
    half = (PSF.shape[0] - 1) // 2
    star = np.zeros((side + 2 * half,) * 2)
    # The central user's pixel, or the lower right one of the four.
    start = side // 2
    star[start : start + PSF.shape[0], start : start + PSF.shape[0]] = PSF
    star = star[half : half + side, half : half + side]
    stamp = prepare(observe(side, side, star, noise=1.0), size=size, bin=factor)
    centre = (stamp.psf.shape[0] - 1) // 2
    # An even side has no central pixel: the star is half a pixel off its centre.
    shift = 0.5 if factor % 2 == 0 else 0.0
    frequency = np.fft.fftfreq(stamp.psf.shape[0])
    phase = np.exp(-2j * np.pi * frequency * shift)
    fine = np.fft.ifft2(np.fft.fft2(stamp.psf) * phase[:, None] * phase).real
    steps = centre + factor * np.arange(-4, 5)
    expected = fine[np.ix_(steps, steps)] * factor**2
    got = (stamp.image * stamp.scale)[size // 2 - 4 : size // 2 + 5, size // 2 - 4 : size // 2 + 5]
    assert got == pytest.approx(expected, abs=2e-4 * expected.max())
    assert psf_centroid(stamp.psf) == pytest.approx((0, 0), abs=1e-6)
    assert stamp.psf.sum() == pytest.approx(1, abs=1e-9)


def test_psf_without_pixel_waits_for_a_wider_box():
    observation = observe(64, 64, psf_oversampling=2, psf_includes_pixel=False)
    stamp = prepare(observation, size=32, bin=2)
    assert np.array_equal(stamp.psf, observation.psf)
    assert stamp.psf_oversampling == 4
    assert not stamp.psf_includes_pixel


def test_a_fine_psf_is_thinned():
    observation = observe(64, 64, psf_oversampling=5)
    assert prepare(observation, size=16, bin=4).psf_oversampling == MOST_SAMPLES


def test_the_observation_is_left_alone():
    observation = observe(16, 16)
    before = observation.image.copy(), observation.psf.copy()
    stamp = prepare(observation, size=16)
    stamp.image[:] = 0
    stamp.psf[:] = 0
    assert np.array_equal(observation.image, before[0])
    assert np.array_equal(observation.psf, before[1])
    assert isinstance(stamp, PreparedStamp)


def test_unusable_requests():
    observation = observe(16, 16)
    for changes in ({"size": 0}, {"bin": 1.5}, {"size": -3}):
        with pytest.raises(RangeError):
            prepare(observation, **changes)
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True
    with pytest.raises(InputError, match="all 64 pixels"):
        prepare(observe(40, 40, mask=mask), size=8)
