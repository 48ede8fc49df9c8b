from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from fake_model import TRUTH, FakeModel, truth_image

SCALE = 3.0


@pytest.fixture(scope="module")
def posteriors():
    """A galaxy with a neighbour, cut off the centre of a larger image, before and after."""
    image = np.random.default_rng(0).normal(size=(150, 141))
    image[9:137, 6:134] = truth_image().numpy()
    image[100:104, 30:34] += 40.0
    mask = np.zeros(image.shape, dtype=bool)
    mask[40:43, :60] = True
    obs = Observation.from_array(
        SCALE * image, noise=SCALE, mask=mask, psf_fwhm=3.0, pixel_scale=0.25, zero_point=30.5
    )
    # The stamp's middle is the image's row 74.5, the pasted one's 72.5; the columns agree.
    truth = TRUTH - torch.tensor([0.0, 0, 0, 0, 0, 0, 2.0], dtype=torch.float64)
    predictor = Predictor(FakeModel(truth, 0.02), "cpu")
    network = predictor.posterior([obs, np.zeros((1, 1, 1))], 200)
    return network, predictor.refine(network, ess=60)


def test_residuals_of_the_best_draw_are_noise(posteriors):
    network, exact = posteriors
    found = exact[0].residual_image()
    assert found.data.shape == found.model.shape == found.mask.shape == (128, 128)
    left = found.in_sigma[~found.mask]
    assert left.std() == pytest.approx(1.0, abs=0.03)
    assert (left**2).sum() / (len(left) - 7) == pytest.approx(exact[0].chi2, abs=2e-3)
    np.testing.assert_allclose(found.residual[found.mask], 0.0)
    np.testing.assert_allclose(
        (found.data - found.model)[~found.mask], found.residual[~found.mask], rtol=1e-12
    )
    # The network's mean is that of a wide posterior, and off.
    assert network[0].residual_image().in_sigma.std() > left.std()


def test_masks_are_handed_back(posteriors):
    network, exact = posteriors
    found = exact[0].residual_image()
    column, row = (round(x) for x in found.origin)
    assert found.mask[40 - row : 43 - row, 0 : 60 - column].all()
    assert exact[0].flags & Flag.NEIGHBOURS_MASKED
    neighbour = found.neighbours[100 - row : 104 - row, 30 - column : 34 - column]
    assert neighbour.all()
    assert found.neighbours.sum() < 150
    assert not network[0].residual_image().neighbours.any()


def test_goodness_of_fit_is_in_the_table(posteriors):
    _, exact = posteriors
    row = exact.rows()[0]
    assert row["chi2"] == pytest.approx(1.0, abs=0.06)
    assert 0.001 < row["p_value"] < 0.999
    assert row["num_modes"] >= 1
    assert row["star_probability"] < 1e-6
    assert row["detection"] > 1000
    assert row["flux_limit"] is None
    assert exact.star_probability[0] == row["star_probability"]
    assert np.isnan(exact.p_value[1])


def test_residuals_are_of_one_measured_galaxy(posteriors):
    _, exact = posteriors
    with pytest.raises(InputError, match="one galaxy"):
        exact.residual_image()
    with pytest.raises(InputError, match="not measured"):
        exact[1].residual_image()
