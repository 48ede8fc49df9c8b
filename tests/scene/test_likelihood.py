import math

import pytest
import torch

from deeplegato_pp.errors import NumericalError, RangeError, ShapeError
from deeplegato_pp.scene import likelihood as module
from deeplegato_pp.scene.likelihood import Likelihood
from simulated_galaxies import (
    BOX,
    coordinates_of,
    empty_likelihood,
    every_coordinate_system,
    simulate,
)

GAINS = [math.inf, 3.0]


def dense_log_likelihood(likelihood: Likelihood, u: torch.Tensor) -> float:
    """The Gaussian with the sky in its covariance matrix, written out."""
    s = likelihood.stamps
    good = ~s.mask[0]
    model = likelihood.render(0, u[None], torch.float64)[0][good]
    variance = s.sigma[0][good] ** 2 + model.clamp_min(0) / s.gain[0]
    covariance = torch.diag(variance) + s.sky_sigma[0] ** 2
    gaussian = torch.distributions.MultivariateNormal(model, covariance)
    return float(gaussian.log_prob(s.image[0][good]))


@pytest.mark.parametrize("gain", GAINS)
def test_likelihood_is_that_of_a_gaussian_with_correlated_sky(gain):
    w = coordinates_of()
    likelihood = simulate(w[None], gain=gain, sky_sigma=0.3, size=24)
    likelihood.stamps.mask[0, 3:9, 2:20] = True
    value = likelihood.log_likelihood_row(0, w[None], torch.float64)
    assert float(value) == pytest.approx(dense_log_likelihood(likelihood, w), abs=1e-6)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("index", range(3))
def test_gradient_and_information(gain, index):
    coordinates = every_coordinate_system()[index]
    likelihood = simulate(coordinates_of()[None], gain=gain, sky_sigma=0.3).under(coordinates)
    u = coordinates.project(coordinates_of()) + 0.01
    value, gradient, information = likelihood.linearize(0, u)
    assert float(value) == pytest.approx(
        float(likelihood.log_likelihood_row(0, u[None], torch.float64)), abs=1e-8
    )
    step = 1e-4 * torch.eye(coordinates.dim, dtype=torch.float64)
    up = likelihood.log_likelihood_row(0, u + step, torch.float64)
    down = likelihood.log_likelihood_row(0, u - step, torch.float64)
    torch.testing.assert_close(gradient, (up - down) / 2e-4, rtol=2e-3, atol=2e-2)
    assert bool((torch.linalg.eigvalsh(information) > 0).all())


def test_information_is_the_gradients_variance():
    w = coordinates_of(magnitude=22.5)
    likelihood = empty_likelihood(1, 0.5, 0.3, size=16)
    model = likelihood.render(0, w[None], torch.float64)[0]
    variance = likelihood.stamps.sigma[0] ** 2 + model / 0.5
    gradients = []
    for _ in range(150):
        noise = variance.sqrt() * torch.randn_like(model)
        likelihood.stamps.image[0] = model + noise + 0.3 * torch.randn(())
        gradients.append(likelihood.linearize(0, w)[1])
    _, _, information = likelihood.linearize(0, w)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(information), torch.stack(gradients).T, upper=False
    )
    # 150 x 7 standard normals: their variance is known to 4.4 %.
    assert float(white.var()) == pytest.approx(1.0, abs=0.18)


def test_single_precision_is_used_only_where_it_serves():
    bright, faint = coordinates_of(magnitude=17.0), coordinates_of(magnitude=22.0)
    likelihood = simulate(torch.stack([bright, faint]))
    assert likelihood.needed_dtype(0) == torch.float64
    assert likelihood.needed_dtype(1) == torch.float32
    near = faint + 0.005 * torch.randn(20, 7, dtype=torch.float64)
    single = likelihood.log_likelihood_row(1, near, torch.float32)
    double = likelihood.log_likelihood_row(1, near, torch.float64)
    assert float((single - double).abs().max()) < 4e-3


def test_chunks_do_not_matter(monkeypatch):
    likelihood = simulate(coordinates_of()[None])
    u = coordinates_of() + 0.01 * torch.randn(9, 7, dtype=torch.float64)
    whole = likelihood.log_likelihood(u[None])
    monkeypatch.setattr(module, "_CHUNK_PIXELS", 2 * likelihood.size**2)
    # Single precision rounds a batch differently with its size, and by the processor.
    torch.testing.assert_close(likelihood.log_likelihood(u[None]), whole, rtol=0, atol=5e-3)


def test_a_point_sources_flux_lands_on_the_stamp():
    from deeplegato_pp.scene.components import PointSourceCoordinates, flux_of

    star = simulate(coordinates_of()[None]).under(PointSourceCoordinates(BOX))
    u = torch.tensor([[0.5, 0.1, -0.2]], dtype=torch.float64)
    magnitude = BOX.to_physical(torch.tensor([[0.5, 0, 0, 0, 0, 0, 0]]))[0, 0]
    image = star.render(0, u, torch.float64)[0]
    assert float(image.sum()) == pytest.approx(float(flux_of(magnitude)), rel=1e-4)


def test_masked_pixels_may_hold_anything():
    w = coordinates_of()
    likelihood = simulate(w[None])
    likelihood.stamps.mask[0, :4] = True
    before = likelihood.log_likelihood_row(0, w[None])
    likelihood.stamps.image[0, :4] = math.nan
    likelihood.stamps.sigma[0, :4] = 0.0
    torch.testing.assert_close(likelihood.log_likelihood_row(0, w[None]), before)
    assert bool(torch.isfinite(likelihood.linearize(0, w)[1]).all())


def test_nan_is_an_error():
    likelihood = simulate(coordinates_of()[None])
    likelihood.stamps.image[0, 5, 5] = math.nan
    with pytest.raises(NumericalError, match="galaxy 0"):
        likelihood.log_likelihood_row(0, coordinates_of()[None])


def test_noise_options_reach_value_gradient_and_information():
    w = coordinates_of()
    likelihood = simulate(w[None], gain=3.0, sky_sigma=0.3)
    likelihood = likelihood.replace(noise_correlation=2.0, model_error=0.1).select([0])
    value, gradient, information = likelihood.under(likelihood.coordinates).linearize(0, w + 0.01)
    plain = simulate(w[None], gain=3.0, sky_sigma=0.3).log_likelihood_row(0, w[None] + 0.01)
    assert abs(float(value) - float(plain)) > 10.0
    step = 1e-4 * torch.eye(7, dtype=torch.float64)
    up = likelihood.log_likelihood_row(0, w + 0.01 + step, torch.float64)
    down = likelihood.log_likelihood_row(0, w + 0.01 - step, torch.float64)
    torch.testing.assert_close(gradient, (up - down) / 2e-4, rtol=2e-3, atol=2e-2)
    assert bool((torch.linalg.eigvalsh(information) > 0).all())
    with pytest.raises(RangeError, match="noise_correlation"):
        likelihood.replace(noise_correlation=0.9)
    with pytest.raises(RangeError, match="model_error"):
        likelihood.replace(model_error=1.0)


def test_works_inside_inference_mode():
    likelihood = simulate(coordinates_of()[None])
    with torch.inference_mode():
        _, gradient, _ = likelihood.linearize(0, coordinates_of())
    assert gradient.shape == (7,)


def test_lists_must_match_the_stamps():
    likelihood = empty_likelihood(2, math.inf, 0.0)
    with pytest.raises(ShapeError, match="psfs"):
        Likelihood(likelihood.stamps, likelihood.psfs[:1], [1, 1], [True, True], BOX)


def test_chi_square_is_about_the_number_of_pixels():
    w = coordinates_of()
    likelihood = simulate(w[None], sky_sigma=0.5)
    chi2 = float(likelihood.chi2(0, w[None]))
    assert chi2 / float(likelihood.num_pixels) == pytest.approx(1.0, abs=0.15)
