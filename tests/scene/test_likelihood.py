import math

import pytest
import torch

from deeplegato_pp.errors import NumericalError, RangeError, ShapeError
from deeplegato_pp.scene import likelihood
from deeplegato_pp.scene.likelihood import ExactProblem
from simulated_galaxies import BOX, coordinates_of, empty_problem, every_coordinate_system, simulate

GAINS = [math.inf, 3.0]


def dense_log_likelihood(problem: ExactProblem, u: torch.Tensor) -> float:
    """The Gaussian with the sky in its covariance matrix, written out."""
    s = problem.stamps
    good = ~s.mask[0]
    model = problem.render(0, u[None], torch.float64)[0][good]
    variance = s.sigma[0][good] ** 2 + model.clamp_min(0) / s.gain[0]
    covariance = torch.diag(variance) + s.sky_sigma[0] ** 2
    gaussian = torch.distributions.MultivariateNormal(model, covariance)
    return float(gaussian.log_prob(s.image[0][good]))


@pytest.mark.parametrize("gain", GAINS)
def test_likelihood_is_that_of_a_gaussian_with_correlated_sky(gain):
    w = coordinates_of()
    problem = simulate(w[None], gain=gain, sky_sigma=0.3, size=24)
    problem.stamps.mask[0, 3:9, 2:20] = True
    value = problem.log_likelihood_row(0, w[None], torch.float64)
    assert float(value) == pytest.approx(dense_log_likelihood(problem, w), abs=1e-6)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("index", range(3))
def test_gradient_and_information(gain, index):
    coordinates = every_coordinate_system()[index]
    problem = simulate(coordinates_of()[None], gain=gain, sky_sigma=0.3).under(coordinates)
    u = coordinates.project(coordinates_of()) + 0.01
    value, gradient, information = problem.linearize(0, u)
    assert float(value) == pytest.approx(
        float(problem.log_likelihood_row(0, u[None], torch.float64)), abs=1e-8
    )
    step = 1e-4 * torch.eye(coordinates.dim, dtype=torch.float64)
    up = problem.log_likelihood_row(0, u + step, torch.float64)
    down = problem.log_likelihood_row(0, u - step, torch.float64)
    torch.testing.assert_close(gradient, (up - down) / 2e-4, rtol=2e-3, atol=2e-2)
    assert bool((torch.linalg.eigvalsh(information) > 0).all())


def test_information_is_the_gradients_variance():
    w = coordinates_of(magnitude=22.5)
    problem = empty_problem(1, 0.5, 0.3, size=16)
    model = problem.render(0, w[None], torch.float64)[0]
    variance = problem.stamps.sigma[0] ** 2 + model / 0.5
    gradients = []
    for _ in range(150):
        noise = variance.sqrt() * torch.randn_like(model)
        problem.stamps.image[0] = model + noise + 0.3 * torch.randn(())
        gradients.append(problem.linearize(0, w)[1])
    _, _, information = problem.linearize(0, w)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(information), torch.stack(gradients).T, upper=False
    )
    # 150 x 7 standard normals: their variance is known to 4.4 %.
    assert float(white.var()) == pytest.approx(1.0, abs=0.18)


def test_single_precision_is_used_only_where_it_serves():
    bright, faint = coordinates_of(magnitude=17.0), coordinates_of(magnitude=22.0)
    problem = simulate(torch.stack([bright, faint]))
    assert problem.needed_dtype(0) == torch.float64
    assert problem.needed_dtype(1) == torch.float32
    near = faint + 0.005 * torch.randn(20, 7, dtype=torch.float64)
    single = problem.log_likelihood_row(1, near, torch.float32)
    double = problem.log_likelihood_row(1, near, torch.float64)
    assert float((single - double).abs().max()) < 4e-3


def test_chunks_do_not_matter(monkeypatch):
    problem = simulate(coordinates_of()[None])
    u = coordinates_of() + 0.01 * torch.randn(9, 7, dtype=torch.float64)
    whole = problem.log_likelihood(u[None])
    monkeypatch.setattr(likelihood, "_CHUNK_PIXELS", 2 * problem.size**2)
    # Single precision rounds a batch differently with its size, and by the processor.
    torch.testing.assert_close(problem.log_likelihood(u[None]), whole, rtol=0, atol=5e-3)


def test_a_point_sources_flux_lands_on_the_stamp():
    from deeplegato_pp.scene.components import PointSourceCoordinates, flux_of

    star = simulate(coordinates_of()[None]).under(PointSourceCoordinates(BOX))
    u = torch.tensor([[0.5, 0.1, -0.2]], dtype=torch.float64)
    magnitude = BOX.to_physical(torch.tensor([[0.5, 0, 0, 0, 0, 0, 0]]))[0, 0]
    image = star.render(0, u, torch.float64)[0]
    assert float(image.sum()) == pytest.approx(float(flux_of(magnitude)), rel=1e-4)


def test_masked_pixels_may_hold_anything():
    w = coordinates_of()
    problem = simulate(w[None])
    problem.stamps.mask[0, :4] = True
    before = problem.log_likelihood_row(0, w[None])
    problem.stamps.image[0, :4] = math.nan
    problem.stamps.sigma[0, :4] = 0.0
    torch.testing.assert_close(problem.log_likelihood_row(0, w[None]), before)
    assert bool(torch.isfinite(problem.linearize(0, w)[1]).all())


def test_nan_is_an_error():
    problem = simulate(coordinates_of()[None])
    problem.stamps.image[0, 5, 5] = math.nan
    with pytest.raises(NumericalError, match="galaxy 0"):
        problem.log_likelihood_row(0, coordinates_of()[None])


def test_noise_options_reach_value_gradient_and_information():
    w = coordinates_of()
    problem = simulate(w[None], gain=3.0, sky_sigma=0.3)
    problem = problem.with_noise(noise_correlation=2.0, model_error=0.1).select([0])
    value, gradient, information = problem.under(problem.coordinates).linearize(0, w + 0.01)
    plain = simulate(w[None], gain=3.0, sky_sigma=0.3).log_likelihood_row(0, w[None] + 0.01)
    assert abs(float(value) - float(plain)) > 10.0
    step = 1e-4 * torch.eye(7, dtype=torch.float64)
    up = problem.log_likelihood_row(0, w + 0.01 + step, torch.float64)
    down = problem.log_likelihood_row(0, w + 0.01 - step, torch.float64)
    torch.testing.assert_close(gradient, (up - down) / 2e-4, rtol=2e-3, atol=2e-2)
    assert bool((torch.linalg.eigvalsh(information) > 0).all())
    with pytest.raises(RangeError, match="noise_correlation"):
        problem.with_noise(noise_correlation=0.9)
    with pytest.raises(RangeError, match="model_error"):
        problem.with_noise(model_error=1.0)


def test_works_inside_inference_mode():
    problem = simulate(coordinates_of()[None])
    with torch.inference_mode():
        _, gradient, _ = problem.linearize(0, coordinates_of())
    assert gradient.shape == (7,)


def test_lists_must_match_the_stamps():
    problem = empty_problem(2, math.inf, 0.0)
    with pytest.raises(ShapeError, match="psfs"):
        ExactProblem(problem.stamps, problem.psfs[:1], [1, 1], [True, True], BOX)


def test_chi_square_is_about_the_number_of_pixels():
    w = coordinates_of()
    problem = simulate(w[None], sky_sigma=0.5)
    chi2 = float(problem.chi_square(0, w[None]))
    assert chi2 / float(problem.num_pixels) == pytest.approx(1.0, abs=0.15)
