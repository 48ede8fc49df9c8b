import numpy as np
import pytest

from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.noise_maps import (
    CORRELATION_LIMIT,
    border_sigma,
    noise_data_correlation,
    noise_data_slope,
    noise_follows_data,
    sigma_from_map,
)

NO_MASK = np.zeros((64, 64), dtype=bool)


def blurred(image, sigma):
    frequency = np.fft.fftfreq(image.shape[0])
    filter_ = np.exp(-2 * (np.pi * sigma) ** 2 * (frequency[:, None] ** 2 + frequency**2))
    return np.fft.ifft2(np.fft.fft2(image) * filter_).real


def galaxy(signal_to_noise, radius=6.0, size=64):
    rows, columns = np.indices((size, size)) - size / 2
    light = blurred(np.exp(-1.68 * np.hypot(columns, rows / 0.6) / radius), 1.3)
    return light / light.sum() * signal_to_noise * 2 * np.sqrt(np.pi) * radius


@pytest.mark.parametrize(
    ("noise_type", "power"), [("sigma", 1), ("variance", 2), ("ivar", -2), ("weight", -2)]
)
def test_each_type_gives_the_same_sigma(noise_type, power):
    rng = np.random.default_rng(0)
    sigma = 2 + 0.3 * rng.random((64, 64))
    image = rng.normal(size=(64, 64)) * sigma
    factor = 17.0 if noise_type == "weight" else 1.0
    got, ignore = sigma_from_map(factor * sigma**power, noise_type, image, NO_MASK)
    assert not ignore.any()
    # The scale of a weight is measured on the 1,500 pixels of the border.
    assert got == pytest.approx(sigma, rel=0.08 if noise_type == "weight" else 1e-12)


@pytest.mark.parametrize("noise_type", ["ivar", "weight"])
def test_zero_weight_means_ignore(noise_type):
    rng = np.random.default_rng(1)
    weight = np.ones((64, 64))
    weight[3, 4], weight[5, 6] = 0, -1
    sigma, ignore = sigma_from_map(weight, noise_type, rng.normal(size=(64, 64)), NO_MASK)
    assert np.argwhere(ignore).tolist() == [[3, 4]]
    assert sigma[5, 6] < 0  # for the check of positive noise to find


def test_unknown_type():
    with pytest.raises(InputError, match="sigma, variance, ivar, weight, got 'rms'"):
        sigma_from_map(np.ones((64, 64)), "rms", np.ones((64, 64)), NO_MASK)


def test_border_sigma_is_not_moved_by_the_galaxy_or_a_star():
    rng = np.random.default_rng(2)
    image = 3 * rng.normal(size=(64, 64)) + 3 * galaxy(300)
    image[1:5, 2:6] += 500
    assert border_sigma(image, NO_MASK) == pytest.approx(3, rel=0.1)


def test_border_sigma_needs_noise():
    with pytest.raises(InputError, match="cannot be estimated"):
        border_sigma(np.zeros((64, 64)), NO_MASK)


def test_border_sigma_of_a_masked_border_uses_the_rest():
    image = np.random.default_rng(3).normal(size=(64, 64))
    mask = np.ones_like(NO_MASK)
    mask[20:40, 20:40] = False
    assert border_sigma(image, mask) == pytest.approx(1, rel=0.15)


def simulated(seed):
    rng = np.random.default_rng(seed)
    signal_to_noise, gain = 10 ** rng.uniform(0.5, 3.5), 10 ** rng.uniform(-0.5, 2)
    light = galaxy(signal_to_noise, radius=rng.uniform(2, 12))
    variance = 1 + light / gain
    data = light + rng.normal(size=light.shape) * np.sqrt(variance)
    return data, variance, gain


@pytest.mark.parametrize("seed", range(20))
def test_variance_from_the_data_is_detected(seed):
    data, _, gain = simulated(seed)
    assert noise_follows_data(data, np.sqrt(1 + np.clip(data, 0, None) / gain), NO_MASK)


@pytest.mark.parametrize("seed", range(5))
def test_the_slope_of_such_a_map_is_the_inverse_of_the_gain(seed):
    data, _, gain = simulated(seed)
    noise = np.sqrt(3.0 + (data - data.min()) / gain)
    assert noise_data_slope(data, noise, NO_MASK) == pytest.approx(1 / gain, rel=1e-6)
    clipped = np.sqrt(1 + np.clip(data, 0, None) / gain)
    assert 0.4 / gain < noise_data_slope(data, clipped, NO_MASK) < 1.01 / gain
    assert noise_data_slope(data, np.ones_like(data), NO_MASK) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_honest_maps_pass(seed):
    data, variance, gain = simulated(seed)
    slope = 1 + 0.3 * np.linspace(0, 1, 64) * np.ones((64, 1))
    exposure = 1 + 0.1 * np.random.default_rng(seed).random((64, 64))
    smoothed = 1 + np.clip(blurred(data, 1.0), 0, None) / gain
    for honest in (variance, slope, exposure, smoothed, np.ones((64, 64))):
        assert noise_data_correlation(data, np.sqrt(honest), NO_MASK) < CORRELATION_LIMIT


def test_too_few_pixels_say_nothing():
    data, _, _ = simulated(0)
    noise = np.sqrt(1 + np.clip(data, 0, None))
    mask = np.ones_like(NO_MASK)
    mask[:12, :12] = False
    assert noise_data_correlation(data, noise, mask) == 0
    assert noise_data_correlation(data[:5, :5], noise[:5, :5], NO_MASK[:5, :5]) == 0
