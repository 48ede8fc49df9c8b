import math

import pytest
import torch

from deeplegato_pp.inference.fit.curvature import use_full_curvature
from deeplegato_pp.inference.fit.fit import Fit, GaussianPrior, Stop, fit
from deeplegato_pp.inference.fit.modes import choose_starts, distinct_modes, laplace_widths
from deeplegato_pp.scene.batches import Batches
from simulated_galaxies import coordinates_of, simulate


@pytest.mark.parametrize("gain", [math.inf, 2.0])
def test_finds_the_mode_from_a_distance(gain):
    w = torch.stack([coordinates_of(), coordinates_of(magnitude=20.0, n=3.0, q=0.3)])
    likelihood = simulate(w, gain=gain)
    optima = fit(likelihood, torch.tensor([0, 1]), w + 0.2)
    assert bool(optima.converged.all())
    delta = (w - optima.u)[..., None]
    distance2 = (delta.mT @ torch.linalg.solve(optima.covariance, delta)).flatten()
    assert float(distance2.max()) < 30.0  # chi-squared of 7
    for i in range(2):
        near = optima.u[i] + 0.1 * optima.covariance[i].diagonal().sqrt() * torch.eye(7).double()
        values = likelihood.log_likelihood_row(i, near, torch.float64)
        values = values + likelihood.coordinates.log_prior(near)
        assert float(values.max()) <= float(optima.log_posterior[i]) + 1e-2


def test_steps_learn_the_derivatives_instead_of_rendering_them():
    w = coordinates_of(magnitude=20.0)[None]
    optima = fit(simulate(w), torch.tensor([0]), w + 0.2)
    assert bool(optima.converged[0])
    assert int(optima.renders[0]) <= 40  # derivatives at every one of its steps: 55


def test_a_round_galaxy_leaves_its_shape_to_the_prior():
    w = coordinates_of(q=1.0, magnitude=24.0)
    likelihood = simulate(w[None])
    start = w.clone()
    _, _, information = likelihood.linearize(0, start)
    assert float(information[3:5].abs().max()) < 1e-3 * float(information.abs().max())
    optimum, widths, converged = laplace_widths(likelihood, start[None])
    assert bool(torch.isfinite(optimum).all())
    assert bool(torch.isfinite(widths).all())
    assert converged.shape == (1,)


def test_starts_lie_apart():
    u = torch.cat([torch.randn(50, 3) * 0.01, torch.randn(50, 3) * 0.01 + 3.0]).double()
    value = torch.linspace(0.0, -1.0, 100).double()
    starts = choose_starts(u, value, 3)
    assert len(starts) == 2
    torch.testing.assert_close(starts[0], u[0])
    assert float(starts[1].mean()) > 2.0


def test_repeated_and_massless_modes_are_dropped():
    u = torch.tensor([[0.0, 0.0], [0.01, 0.0], [5.0, 0.0], [9.0, 0.0], [1.0, 1.0]]).double()
    none = torch.zeros(5, 1, 1)
    optima = Fit(
        rows=torch.tensor([0, 0, 0, 0, 1]),
        u=u,
        covariance=0.1 * torch.eye(2).double().expand(5, 2, 2),
        log_posterior=torch.tensor([0.0, -0.1, -1.0, -50.0, 3.0]).double(),
        converged=torch.ones(5, dtype=torch.bool),
        renders=torch.zeros(5, dtype=torch.long),
        image=none,
        jacobian=none,
        residual=none,
        variance=none,
    )
    first, second = distinct_modes(optima)
    torch.testing.assert_close(first.u, u[[0, 2]])
    torch.testing.assert_close(second.u, u[[4]])


def misfit_likelihood():
    """A galaxy with a ring that no Sérsic profile has, chi-square far above one a pixel."""
    likelihood = simulate(coordinates_of(n=4.0)[None])
    grid = torch.arange(likelihood.size, dtype=torch.float64) - (likelihood.size - 1) / 2
    r = torch.hypot(grid[:, None], grid)
    likelihood.stamps.image[0] += 10.0 * torch.exp(-0.5 * (r - 6.0) ** 2) * (grid > 0)
    return likelihood


def test_the_full_curvature_is_that_of_the_log_posterior():
    likelihood = misfit_likelihood()
    plain = fit(likelihood, torch.tensor([0]), coordinates_of()[None])
    assert float(likelihood.chi2(0, plain.u) / likelihood.num_pixels[0]) > 3.0
    full = use_full_curvature(Batches(likelihood), plain)
    assert float(full.log_posterior[0]) >= float(plain.log_posterior[0]) - 1e-6
    curvatures = []
    for optima in (plain, full):
        steps = 0.3 * torch.linalg.cholesky(optima.covariance[0]).T
        points = torch.cat([full.u, full.u + steps, full.u - steps])
        value = likelihood.log_posterior(0, points, torch.float64)
        curvatures.append(-(value[1:8] + value[8:] - 2.0 * value[0]) / 0.3**2)
    assert float((curvatures[0] - 1.0).abs().max()) > 0.1
    torch.testing.assert_close(curvatures[1], torch.ones(7).double(), atol=0.05, rtol=0)


def test_corrected_widths_cover_where_noise_is_correlated():
    """Scatter of optima over their widths, from simulated correlated noise."""
    truth = coordinates_of(magnitude=21.0).expand(25, 7)
    likelihood = simulate(truth, sky_sigma=0.0, noise_correlation=4.0)
    pulls = {}
    for c in (1.0, 4.0):
        corrected = likelihood.replace(noise_correlation=c)
        optimum, width, converged = laplace_widths(corrected, truth)
        assert bool(converged.all())
        pulls[c] = float((((optimum - truth) / width) ** 2).mean())
    # 25 x 7 squares, some correlated: known to 15 %. The whole inflation holds for the widest
    # structure only, so the corrected widths err on the safe side.
    assert pulls[1.0] > 1.6
    assert 0.4 < pulls[4.0] < 1.25


def test_a_model_error_widens_what_is_bright():
    truth = coordinates_of(magnitude=18.0)[None]
    likelihood = simulate(truth)
    plain = laplace_widths(likelihood, truth)[1]
    wider = laplace_widths(likelihood.replace(model_error=0.05), truth)[1]
    assert float((wider / plain).min()) > 1.5


def test_the_prior_may_be_any_gaussian():
    """A posterior under N(m, C): checked on a grid of draws, in a likelihood with a free sky."""
    w = coordinates_of(magnitude=22.5)[None]
    likelihood = simulate(w, sky_sigma=0.3)
    spread = torch.diag(torch.tensor([0.02, 0.05, 0.1, 0.1, 0.1, 0.02, 0.02]).double())
    prior = GaussianPrior(w + 0.02, spread[None])
    found = fit(likelihood, torch.tensor([0]), w + 0.02, prior=prior)
    assert bool(found.converged[0])
    near = found.u + 0.05 * torch.linalg.cholesky(found.covariance[0]).T
    values = likelihood.log_likelihood_row(0, near) + prior.log_prob(prior.whiten(near))
    assert float(values.max()) <= float(found.log_posterior[0]) + 1e-2
    # The sky's own prior is part of what is climbed: an offset is worth what ln L says of it.
    level = likelihood.log_likelihood_row(0, found.u) + prior.log_prob(prior.whiten(found.u))
    torch.testing.assert_close(found.log_posterior, level, rtol=0, atol=1e-3)


def test_what_is_handed_on_is_that_of_the_optimum():
    w = torch.stack([coordinates_of(), coordinates_of(magnitude=20.0, n=3.0, q=0.3)])
    likelihood = simulate(w, gain=2.0, sky_sigma=0.1)
    found = fit(likelihood, torch.tensor([1, 0]), w[[1, 0]] + 0.05)
    batches = Batches(likelihood)
    image, jacobian, _ = batches.differentiate(found.rows, found.u)
    torch.testing.assert_close(found.image, image, rtol=0, atol=1e-3)
    error = (found.jacobian - jacobian).norm(dim=-1) / jacobian.norm(dim=-1)
    assert float(error.max()) < 0.05  # secants' error, in all directions
    left = likelihood.residual(found.rows, image)
    sky = left.sky[:, None, None]
    torch.testing.assert_close(found.residual, left.difference - sky, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.variance, left.variance, rtol=1e-4, atol=0)


def test_rows_do_not_mind_each_other():
    w = torch.stack([coordinates_of(), coordinates_of(magnitude=20.0, n=3.0, q=0.3)])
    likelihood = simulate(w)
    together = fit(likelihood, torch.tensor([0, 1, 0]), torch.cat([w, w[:1]]) + 0.1)
    alone = fit(likelihood.select([1]), torch.tensor([0]), w[1:] + 0.1)
    torch.testing.assert_close(together.u[1], alone.u[0], rtol=0, atol=1e-5)
    assert int(together.renders[1]) == int(alone.renders[0])


def test_a_search_ends_where_it_is_told_to():
    w = coordinates_of(magnitude=21.0)[None]
    likelihood = simulate(w)
    start = w + 0.2
    seen = []

    def after_two(which, u, images):
        seen.append((which.tolist(), tuple(u.shape), tuple(images.shape)))
        return torch.full((len(which),), len(seen) > 2)

    short = fit(likelihood, torch.tensor([0]), start, stop=Stop(satisfied=after_two))
    assert len(seen) == 3
    assert seen[0] == ([0], (1, 7), (1, 24, 24))
    assert not bool(short.converged[0])
    hopeless = torch.tensor([math.inf], dtype=torch.float64)
    given_up = fit(likelihood, torch.tensor([0]), start, stop=Stop(out_of_reach=hopeless))
    assert int(given_up.renders[0]) == 4
    once = fit(likelihood, torch.tensor([0]), start, stop=Stop(derivatives=1))
    assert int(once.renders[0]) <= 4 + 30
