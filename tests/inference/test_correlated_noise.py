"""A correlation of the noise, from the observation to the posterior that keeps it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.observation import NoiseCorrelation
from fake_model import TRUTH, FakeModel, truth_image

DRIZZLED = NoiseCorrelation.drizzle(0.6, 0.8)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(FakeModel(TRUTH, 0.02), "cpu")


def observe(noise_correlation) -> Observation:
    image = truth_image().numpy()
    return Observation.from_array(
        image,
        psf_fwhm=3.0,
        noise=np.ones(image.shape),
        pixel_scale=0.25,
        zero_point=30.5,
        noise_correlation=noise_correlation,
    )


def test_posteriors_keep_the_correlation_of_each_observation(predictor):
    given = [DRIZZLED.lags, 2.0, 1.0]
    both = predictor.posterior([observe(x) for x in given], 20)
    again = Posterior.concatenate([both[2:], both[:2]])[[1, 2, 0]]
    lags = [m.likelihood().stamps.lags[0] for m in again.measurements]
    torch.testing.assert_close(lags[0], torch.from_numpy(DRIZZLED.padded_lags))
    torch.testing.assert_close(
        lags[1], torch.from_numpy(NoiseCorrelation.gaussian(2.0).padded_lags)
    )
    assert int((lags[2] != 0).sum()) == 1
    # The image's noise is white: the more correlated it is said to be, the worse it fits.
    assert both.measurements[0].chi2 > 1.5 * both.measurements[2].chi2


def test_refining_takes_it_in_place_of_the_observations_own(predictor):
    network = predictor.posterior(observe(1.0), 60)
    options = {"ess": 20, "method": "laplace", "star_odds": None, "widths": "noise"}
    for given in ("drizzle:0.6,0.8", DRIZZLED, DRIZZLED.lags):
        (m,) = predictor.refine(network, noise_correlation=given, **options).measurements
        assert m.noise_correlation == pytest.approx(DRIZZLED.total)
        assert m.correlation.lags[8, 9] == pytest.approx(DRIZZLED.lags[2, 3])
        found = m.likelihood()
        torch.testing.assert_close(found.stamps.lags[0], torch.from_numpy(DRIZZLED.padded_lags))
    with pytest.raises(InputError, match="Give that to the observation"):
        predictor.refine(network, noise_correlation="measure")
