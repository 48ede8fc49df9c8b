"""ln L of sums of basis images, against the pixels."""

import math

import pytest
import torch

from deeplegato_pp.scene.batches import Data
from deeplegato_pp.scene.expansion import QuadraticLikelihood
from deeplegato_pp.scene.whitened_expansion import WhitenedLikelihood
from simulated_galaxies import coordinates_of, simulate

W = coordinates_of(magnitude=19.5)


def expanded_and_exact(gain: float, error: float, correlation: float, spread: float):
    """An expansion, coefficients, and ln L by the images' pixels."""
    given = simulate(W[None], gain=gain, sky_sigma=0.2)
    given.stamps.mask[0, 3:6] = True
    given.stamps.image[0, 3:6] = torch.nan
    likelihood = given.replace(model_error=error, noise_correlation=correlation)
    reference = likelihood.render(0, W[None], torch.float64)[0]
    basis = (likelihood.render(0, W + 2e-3 * torch.eye(7), torch.float64) - reference).flatten(1)
    b = torch.randn(40, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    b = spread * b
    expanded = QuadraticLikelihood if correlation == 1.0 else WhitenedLikelihood
    quadratic = expanded(Data.of(likelihood, torch.tensor([0])), reference, basis, b[:12])
    images = reference + (b @ basis).unflatten(1, (24, 24))
    return quadratic, b, likelihood.log_likelihood_of(0, images)


def test_images_of_which_most_pixels_cannot_be_expanded_are_evaluated_as_they_are():
    quadratic, b, exact = expanded_and_exact(3.0, 0.0, 2.0, spread=20.0)
    assert quadratic.direct
    torch.testing.assert_close(quadratic(b), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("gain", "error", "correlation"),
    [
        (math.inf, 0.0, 1.0),
        (3.0, 0.0, 1.0),
        (math.inf, 0.03, 1.0),
        (math.inf, 0.0, 2.0),
        (3.0, 0.03, 2.0),
    ],
)
def test_sums_taken_once_give_the_pixels_likelihood(gain, error, correlation):
    quadratic, b, exact = expanded_and_exact(gain, error, correlation, spread=1.0)
    assert float(exact.max() - exact.min()) > 5.0
    follows = math.isfinite(gain) or error > 0
    torch.testing.assert_close(quadratic(b), exact, rtol=0, atol=0.02 if follows else 1e-3)
    assert bool(quadratic.exact.any()) <= follows
    assert int(quadratic.exact.sum()) < (0.7 if correlation == 1.0 else 0.9) * 24**2
