"""How correlated noise is found to be, with and without sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation
from deeplegato_pp.errors import InputError, RangeError
from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.observation.noise_correlation import (
    measure_correlation,
    measure_noise_correlation,
)
from deeplegato_pp.scene.correlated_noise import correlate, lags_of


def noise(c: float, size: int = 128, seed: int = 0) -> np.ndarray:
    """Noise of unit variance, correlated as the simulator does."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(1, size, size, generator=generator, dtype=torch.float64)
    return correlate(white, lags_of(torch.tensor([c]).double()), generator)[0].numpy()


def galaxy(size: int = 128) -> np.ndarray:
    a = np.arange(size) - size / 2
    radius = np.hypot(a[:, None], a)
    return 300.0 * np.exp(-radius / 4.0)


def measured(image: np.ndarray, sigma: float = 1.0, mask: np.ndarray | None = None) -> float:
    empty = np.zeros(image.shape, dtype=bool)
    return measure_noise_correlation(
        image, np.full(image.shape, sigma), empty if mask is None else mask
    )


@pytest.mark.parametrize("c", [1.0, 1.5, 2.5, 5.0])
@pytest.mark.parametrize("source", [0.0, 1.0], ids=["empty", "galaxy"])
def test_it_finds_what_the_simulator_drew(c, source):
    found = [measured(noise(c, seed=seed) + source * galaxy()) for seed in range(6)]
    assert np.mean(found) == pytest.approx(c, rel=0.1, abs=0.1)
    assert np.std(found) < 0.15 * c


@pytest.mark.parametrize("drop", [1.0, 2.0])
def test_every_lag_is_found(drop):
    true = NoiseCorrelation.drizzle(1.0 / drop, 1.0)
    lags = torch.from_numpy(true.padded_lags)[None]
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(1, 128, 128, generator=generator, dtype=torch.float64)
    image = correlate(white, lags, generator)[0].numpy() + galaxy()
    nothing = np.zeros(image.shape, dtype=bool)
    found = measure_correlation(image, np.ones(image.shape), nothing)
    assert found.padded_lags == pytest.approx(true.padded_lags, abs=0.04)


def test_it_is_relative_to_the_noise_map():
    image = noise(3.0)
    assert measured(7.0 * image, 7.0) == pytest.approx(measured(image))
    # A map that was scaled up for the correlation declares the pixels independent.
    assert measured(image, np.sqrt(3.0)) == pytest.approx(1.0, abs=0.15)
    assert measured(noise(1.0), 3.0) == 1.0  # never less


def test_a_sloping_sky_is_not_seen():
    slope = np.linspace(-1.0, 1.0, 128)
    assert measured(noise(1.0) + slope + 5.0) == pytest.approx(measured(noise(1.0)), abs=0.1)


def test_masked_pixels_do_not_count():
    image, mask = noise(2.0), np.zeros((128, 128), dtype=bool)
    mask[:, 96:] = True
    mask[10:14, 10:90] = True
    spoilt = np.where(mask, np.nan, image)
    assert measured(spoilt, mask=mask) == pytest.approx(2.0, rel=0.3)


def test_too_little_background_is_told():
    with pytest.raises(InputError, match=r"pairs of 8 x 8 px without a source, expected at least"):
        measured(noise(1.0, 48))
    mask = np.ones((128, 128), dtype=bool)
    with pytest.raises(InputError, match="0 pairs"):
        measured(noise(1.0), mask=mask)


def test_a_noise_map_that_is_far_too_low_is_told():
    with pytest.raises(InputError, match="Check the noise"):
        measured(noise(1.0), 0.1)


def test_an_image_without_noise_is_told():
    with pytest.raises(InputError, match="no noise where no source is"):
        measured(np.zeros((128, 128)))


def test_an_observation_measures_it_when_asked():
    image = noise(3.0)
    observation = Observation.from_array(
        image, psf_fwhm=3.0, noise=np.ones(image.shape), noise_correlation="measure"
    )
    assert observation.noise_correlation == measured(image)
    assert any("noise correlation 2." in n or "correlation 3." in n for n in observation.notes)
    assert observation.correlation.total == observation.noise_correlation
    with pytest.raises(RangeError, match="at least 1"):
        Observation.from_array(image, psf_fwhm=3.0, noise=1.0, noise_correlation=0.5)
