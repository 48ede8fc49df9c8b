"""Errors of known shape, marginalised: against the covariance written out."""

import math

import pytest
import torch

from deeplegato_pp.errors import InputError, RangeError
from deeplegato_pp.scene.batches import Batches, Data, respond
from deeplegato_pp.scene.components import PointSourceCoordinates
from deeplegato_pp.scene.expansion import QuadraticLikelihood
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.templates import Templates
from simulated_galaxies import BOX, coordinates_of, make_psf, simulate

ROW = torch.tensor([0])
W = coordinates_of(magnitude=20.5)


def uncertain(error: float = 0.1, w: torch.Tensor = W, **options: float) -> Likelihood:
    likelihood = simulate(w[None], sky_sigma=0.3, **options).replace(psf_error=error)
    likelihood.stamps.mask[0, 3:9, 2:12] = True
    likelihood.freeze(ROW, w[None])
    return likelihood


def dense(likelihood: Likelihood, w: torch.Tensor) -> torch.distributions.MultivariateNormal:
    """The Gaussian of the unmasked pixels with sky and PSF error in its covariance."""
    s = likelihood.stamps
    good = ~s.mask[0]
    model = likelihood.render(0, w[None], torch.float64)[0]
    variance = likelihood.variance(0, model)[good]
    templates = likelihood.templates(0).images[:, good]
    covariance = torch.diag(variance) + templates.T @ templates
    return torch.distributions.MultivariateNormal(model[good], covariance)


@pytest.mark.parametrize("gain", [math.inf, 3.0])
def test_likelihood_is_that_of_a_gaussian_with_sky_and_psf_error(gain):
    likelihood = uncertain(gain=gain).replace(model_error=0.05)
    good = ~likelihood.stamps.mask[0]
    for w in (W, W + 0.02):
        expected = float(dense(likelihood, w).log_prob(likelihood.stamps.image[0][good]))
        found = float(likelihood.log_likelihood_row(0, w[None], torch.float64))
        assert found == pytest.approx(expected, abs=1e-6)
    known = likelihood.replace(psf_error=0.0)
    assert abs(float(known.log_likelihood_row(0, W[None])) - expected) > 0.5


@pytest.mark.parametrize("gain", [math.inf, 3.0])
def test_gradient_and_information_know_the_templates(gain):
    likelihood = uncertain(gain=gain).replace(model_error=0.05)
    w = W + 0.01
    image, jacobian, _ = Batches(likelihood).differentiate(ROW, w[None], torch.float64)
    found = respond(Data.of(likelihood, ROW), image, jacobian)
    step = 1e-4 * torch.eye(7, dtype=torch.float64)
    up, down = (likelihood.log_likelihood_row(0, w + s, torch.float64) for s in (step, -step))
    torch.testing.assert_close(found.gradient[0], (up - down) / 2e-4, rtol=1e-4, atol=1e-3)
    _, gradient, information = likelihood.linearize(0, w)
    torch.testing.assert_close(gradient, found.gradient[0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(information, found.information[0], rtol=1e-3, atol=1e-1)
    if math.isinf(gain):
        likelihood = likelihood.replace(model_error=0.0)
        _, _, information = likelihood.linearize(0, w)
        g = jacobian[0][:, (~likelihood.stamps.mask[0]).flatten()]
        expected = g @ torch.linalg.solve(dense(likelihood, w).covariance_matrix, g.T)
        torch.testing.assert_close(information, expected, rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize(("oversampling", "pixel"), [(1, True), (3, False)])
@pytest.mark.parametrize("point", [False, True])
def test_template_is_the_change_under_a_wider_psf(oversampling, pixel, point):
    """An analytic PSF is drawn two per cent wider and narrower."""

    def render(width: float) -> tuple[Likelihood, torch.Tensor]:
        stamps = simulate(W[None]).stamps
        psf = make_psf(3.5 * width, 20 * oversampling + 1, oversampling)
        likelihood = Likelihood(stamps, [psf], [oversampling], [pixel], BOX, psf_error=[0.1])
        u = W[None]
        if point:
            likelihood = likelihood.under(PointSourceCoordinates(BOX))
            u = likelihood.coordinates.project(u)
        likelihood.freeze(ROW, u)
        return likelihood, likelihood.images(ROW, u, single_below=0.0)[0]

    likelihood, image = render(1.0)
    found = likelihood.templates(0).images[1] / 0.1
    expected = (render(1.02)[1] - render(1.0 / 1.02)[1]) / (2.0 * math.log(1.02))
    assert float((found - expected).norm()) < 0.01 * float(expected.norm())
    assert float(expected.norm()) > 0.1 * float(image.norm())
    # The search's by-product is the same image.
    u = likelihood.coordinates.project(W[None])
    _, _, width = Batches(likelihood).differentiate(ROW, u, torch.float64)
    torch.testing.assert_close(width[0], found, rtol=0, atol=1e-5 * float(found.abs().max()))


def test_sums_taken_once_know_the_psf_error():
    likelihood = uncertain(0.2, coordinates_of(magnitude=19.5)).replace(model_error=0.03)
    w = coordinates_of(magnitude=19.5)
    reference = likelihood.render(0, w[None], torch.float64)[0]
    basis = (likelihood.render(0, w + 2e-3 * torch.eye(7), torch.float64) - reference).flatten(1)
    b = torch.randn(40, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    quadratic = QuadraticLikelihood(Data.of(likelihood, ROW), reference, basis, b[:12])
    exact = likelihood.log_likelihood_of(0, reference + (b @ basis).unflatten(1, (24, 24)))
    torch.testing.assert_close(quadratic(b), exact, rtol=0, atol=0.03)
    known = likelihood.replace(psf_error=0.0)
    other = known.log_likelihood_of(0, reference + (b @ basis).unflatten(1, (24, 24)))
    assert float((exact - other).std()) > 0.5


def test_likelihoods_keep_the_error_and_where_it_acts():
    likelihood = uncertain(0.1)
    log_l = likelihood.log_likelihood_row(0, W[None])
    for same in (likelihood.select([0]), likelihood.replace(), likelihood.replace(psf_error=0.1)):
        torch.testing.assert_close(same.log_likelihood_row(0, W[None]), log_l)
        torch.testing.assert_close(same.frozen_at(0), W)
    twice = likelihood.replace(psf_error=0.2).templates(0).images[1]
    torch.testing.assert_close(twice, 2.0 * likelihood.templates(0).images[1])
    fresh = simulate(W[None]).replace(psf_error=0.1)
    with pytest.raises(InputError, match="freeze"):
        fresh.log_likelihood_row(0, W[None])
    for error in (-0.01, 0.5, math.nan):
        with pytest.raises(RangeError, match="psf_error"):
            likelihood.replace(psf_error=error)


def test_one_set_of_templates_serves_many_models_as_many_sets_do():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    one = Templates.of(torch.tensor(0.3), 5, images[0])
    many = Templates.of(torch.full((3,), 0.3), 5, images[:1].expand(3, 5, 5))
    torch.testing.assert_close(one.project(images), many.project(images))
    torch.testing.assert_close(one.products(images), many.products(images))
    expected = torch.einsum("kyx,lyx,syx->skl", one.images, one.images, images)
    torch.testing.assert_close(one.products(images), expected)
