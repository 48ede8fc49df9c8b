"""Rows of many galaxies at once: as one by one, and derivatives of ln L as autograd's."""

import math

import pytest
import torch

from deeplegato_pp.scene.batches import Batches, Data, respond, squared_distance
from deeplegato_pp.scene.components import PointSourceCoordinates
from simulated_galaxies import BOX, coordinates_of, simulate

W = torch.stack([coordinates_of(), coordinates_of(magnitude=20.0, n=3.0, q=0.3)])
ROWS = torch.tensor([1, 0, 1])


def points() -> torch.Tensor:
    noise = torch.randn(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return W[ROWS] + 0.02 * noise


@pytest.mark.parametrize("gain", [math.inf, 2.0])
@pytest.mark.parametrize("error", [0.0, 0.03])
def test_gradient_and_information_are_those_of_the_one_likelihood(gain, error):
    given = simulate(W, gain=gain, sky_sigma=0.3, noise_correlation=2.0)
    given.stamps.mask[:, :5] = True
    likelihood = given.replace(model_error=error, noise_correlation=2.0)
    u = points()
    images, jacobian, _ = Batches(likelihood).differentiate(ROWS, u, torch.float64)
    data = Data.of(likelihood, ROWS)
    found = respond(data, images, jacobian)
    for i, row in enumerate(ROWS.tolist()):
        value, gradient, information = likelihood.respond(row, images[i], jacobian[i])
        torch.testing.assert_close(data.residual(images).log_likelihood[i], value)
        torch.testing.assert_close(found.gradient[i], gradient, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.information[i], information, rtol=1e-8, atol=1e-8)
        change = 0.1 * images[i].flatten()
        distance = squared_distance(data.at(torch.tensor([i])), images[i : i + 1], change[None])
        expected = likelihood.squared_distance(row, images[i], change)
        assert float(distance) == pytest.approx(expected)


def test_derivatives_follow_the_coordinates():
    likelihood = simulate(W)
    batches = Batches(likelihood)
    images, jacobian, _ = batches.differentiate(ROWS, points())
    for i, row in enumerate(ROWS.tolist()):
        image, slopes = likelihood.jacobian(row, points()[i])
        torch.testing.assert_close(images[i], image, rtol=0, atol=1e-4 * float(image.max()))
        error = (jacobian[i].double() - slopes).norm(dim=1) / slopes.norm(dim=1)
        assert float(error.max()) < 1e-3
    assert batches.renders.tolist() == [4, 8]


def test_a_round_galaxy_has_derivatives():
    w = W[:1].clone()
    w[:, 3:5] = 0.0
    _, jacobian, _ = Batches(simulate(w)).differentiate(torch.tensor([0]), w)
    assert bool(torch.isfinite(jacobian).all())
    assert float(jacobian[0, 3:5].norm()) < 1e-3 * float(jacobian[0, 0].norm())


def test_point_sources_have_derivatives_too():
    likelihood = simulate(W).under(PointSourceCoordinates(BOX))
    u = points()[:, [0, 5, 6]]
    images, jacobian, _ = Batches(likelihood, 0.0).differentiate(ROWS, u, torch.float64)
    for i, row in enumerate(ROWS.tolist()):
        image, slopes = likelihood.jacobian(row, u[i])
        torch.testing.assert_close(images[i], image)
        torch.testing.assert_close(
            jacobian[i], slopes, rtol=0.01, atol=1e-3 * float(slopes.abs().max())
        )


def test_cost_is_counted_in_pixels_of_the_period():
    likelihood = simulate(W, size=24)
    batches = Batches(likelihood, budget=1e5)
    one = float(batches.cost(torch.tensor([0]), W[:1]))
    assert one >= 30**2
    batches.render(ROWS, W[ROWS])
    assert batches.renders.tolist() == [1, 2]
    assert batches.left(0) == pytest.approx(1e5 - one)
    batches.log_posterior(0, W[:1])
    assert batches.left(0) == pytest.approx(1e5 - 2 * one)
    fine = likelihood.select([0])
    fine.oversampling[0] = 3
    assert float(Batches(fine).cost(torch.tensor([0]), W[:1])) > 4 * one
