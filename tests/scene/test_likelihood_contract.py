"""One number at every door: ln L, chi-square, p-value, residual and sky of one galaxy's image."""

import math

import pytest
import torch
from scipy import stats

from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.verdict.best_fit import MODEL_FLOOR, BestFits
from deeplegato_pp.scene.batches import Data
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import log_likelihood
from simulated_galaxies import coordinates_of, simulate

SKY, CORRELATION, MODEL_ERROR = 0.3, 2.5, 0.07
SIZE = 12

W = coordinates_of(magnitude=21.5, radius=0.5)
ROW = torch.zeros(1, dtype=torch.long)


@pytest.fixture(params=[3.0, math.inf], ids=["gain", "fixed"], scope="module")
def likelihood(request) -> Likelihood:
    """A galaxy with a raised sky and a mask, under everything that noise can be."""
    found = simulate(W[None], gain=request.param, sky_sigma=SKY, size=SIZE)
    found.stamps.image.add_(0.4)
    found.stamps.mask[0, 2, 3:7] = True
    found.stamps.image[0, 2, 3:7] = math.nan
    return found.replace(noise_correlation=CORRELATION, model_error=MODEL_ERROR)


def dense(likelihood: Likelihood) -> dict[str, float]:
    """All of it from the covariance matrix, written out; its correlation is inverted as it is."""
    s = likelihood.stamps
    good = ~s.mask[0]
    model = likelihood.render(0, W[None], torch.float64)[0][good]
    left = s.image[0][good] - model
    variance = s.sigma[0][good] ** 2 + model.clamp_min(0) / s.gain[0] + (MODEL_ERROR * model) ** 2
    # The correlation that the whitening stands for, which is close to the one asked for.
    images = torch.zeros(1, len(left), SIZE, SIZE, dtype=torch.float64)
    images[0][:, good] = torch.eye(len(left), dtype=torch.float64)
    white = likelihood.whitening(0)(images)[0][:, good]
    correlation = torch.linalg.inv(white @ white.T)
    apart = good.nonzero()[:, None] - good.nonzero() + 8
    near = (apart - 8).abs().amax(-1) <= 8
    apart = apart.clamp(0, 16)
    asked = torch.where(near, s.lags[0][apart[..., 0], apart[..., 1]], 0.0)
    torch.testing.assert_close(correlation, asked, rtol=0, atol=2e-3)
    noise = correlation * variance.sqrt() * variance.sqrt()[:, None]
    covariance = noise + SKY**2
    chi2 = float(left @ torch.linalg.solve(covariance, left))
    inverse = torch.linalg.inv(noise)
    sky = float((inverse @ left).sum() / (inverse.sum() + SKY**-2))
    log_v = float(torch.linalg.slogdet(2 * math.pi * covariance).logabsdet)
    return {
        "log_l": -0.5 * (chi2 + log_v),
        "chi2": chi2,
        "p_value": float(stats.chi2.sf(chi2, len(left))),
        "sky": sky,
        "squares": float(((left - sky) ** 2 / variance).sum()),
        "white": chi2 - (sky / SKY) ** 2,
    }


def close(values: list, expected: float) -> bool:
    return all(float(v) == pytest.approx(expected, rel=1e-9) for v in values)


def test_every_door_says_the_same(likelihood):
    expected, u = dense(likelihood), W[None]
    images = likelihood.render(0, u, torch.float64)
    one, many = likelihood.residual(0, images[0]), likelihood.residual(ROW, images)
    s = likelihood.stamps
    parts = (s.sigma, s.mask, s.gain, s.sky_sigma, s.noise_correlation, MODEL_ERROR)
    assert close(
        [
            one.log_likelihood,
            many.log_likelihood,
            log_likelihood(s.image, images, *parts),
            likelihood.log_likelihood_row(0, u, torch.float64),
            likelihood.log_likelihood_of(0, images),
            likelihood.linearize(0, W)[0],
            likelihood.respond(0, *likelihood.jacobian(0, W))[0],
            likelihood.log_posterior(0, u, torch.float64) - likelihood.coordinates.log_prior(u),
            likelihood.replace(gain=float(s.gain[0])).compare_row(
                0, u, [likelihood], torch.float64
            ),
        ],
        expected["log_l"],
    )
    doors = [one.chi2, many.chi2, likelihood.residual_row(0, u.double()).chi2]
    assert close(doors[:2], expected["chi2"])
    # In the precision that the galaxy needs.
    assert float(doors[2]) == pytest.approx(expected["chi2"], rel=1e-4)
    assert float(likelihood.chi2(0, u)) == pytest.approx(expected["chi2"], rel=1e-4)
    assert close([one.p_value, many.p_value], expected["p_value"])
    assert float(likelihood.p_value(0, u)) == pytest.approx(expected["p_value"], rel=1e-3)
    assert close([one.sky, many.sky], expected["sky"])
    assert close([(one.in_sigma**2).sum(), (many.in_sigma**2).sum()], expected["squares"])
    free = float(likelihood.num_pixels[0]) - 7
    assert float(likelihood.reduced_chi2(0, one.chi2)) == pytest.approx(expected["chi2"] / free)


def test_the_chi_square_is_the_squared_residual_and_what_the_sky_costs(likelihood):
    found = likelihood.residual(0, likelihood.render(0, W[None], torch.float64)[0])
    cost = float(found.sky) ** 2 / SKY**2
    white = found.whiten(found.left[None])
    assert float(found.chi2) == pytest.approx(float((white**2).sum()) + cost, rel=1e-9)


def test_batched_images_are_those_of_one_galaxy(likelihood):
    both = Likelihood(
        likelihood.stamps[torch.tensor([0, 0])],
        [likelihood.psfs[0], likelihood.psfs[0][2:-2, 2:-2]],
        [1, 1],
        [True, True],
        likelihood.box,
    )
    rows, u = torch.tensor([1, 0, 0]), torch.stack([W, W, W + 0.1])
    images = both.images(rows, u, single_below=0.0)
    for image, row, point in zip(images, rows.tolist(), u, strict=True):
        expected = both.render(row, point[None], torch.float64)[0]
        torch.testing.assert_close(image, expected, rtol=1e-6, atol=1e-6)


def test_a_fit_climbs_the_same_hill(likelihood):
    found = fit(likelihood, ROW, W[None])
    log_l = float(likelihood.residual(ROW, found.image).log_likelihood)
    assert close([found.log_posterior - likelihood.coordinates.log_prior(found.u)], log_l)
    again = likelihood.log_posterior(0, found.u, torch.float64)
    assert float(found.log_posterior) == pytest.approx(float(again), abs=4e-3)


@pytest.mark.parametrize("offset", [0.0, 0.02, 0.1])
def test_the_verdicts_search_knows_what_a_sky_costs(offset):
    """Its likelihood is that of a Gaussian with the sky in its covariance, s^2 / tau^2 included."""
    plain = simulate(W[None], sky_sigma=0.0, size=SIZE)
    raised = plain.replace()
    raised.stamps.sky_sigma.fill_(0.02)
    raised.stamps.image.add_(offset)
    w = W + 0.02 * torch.randn(
        50, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    fits = BestFits([w], raised)
    fits.evaluate(ROW, W[None])
    model, s = fits.model[0], raised.stamps
    variance = s.sigma[0] ** 2 + (MODEL_FLOOR * model) ** 2
    left = s.image[0] - model
    covariance = torch.diag(variance.flatten()) + 0.02**2
    normal = torch.distributions.MultivariateNormal(torch.zeros(SIZE**2).double(), covariance)
    found = Data.of(fits.batches.likelihood, ROW).residual(fits.model)
    assert float(found.log_likelihood) == pytest.approx(
        float(normal.log_prob(left.flatten())), abs=1e-6
    )
    torch.testing.assert_close(fits.residual, found.in_sigma)


def test_replace_shares_nothing_and_keeps_the_rest(likelihood):
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    other = likelihood.replace(mask=mask, noise_factor=1.5, gain=7.0)
    mask[0, 0, 0] = True
    assert not bool(other.stamps.mask.any())
    assert bool(likelihood.stamps.mask.any())
    torch.testing.assert_close(other.stamps.sigma, 1.5 * likelihood.stamps.sigma)
    assert float(other.stamps.gain) == 7.0
    assert other.model_error == MODEL_ERROR
    assert float(other.stamps.noise_correlation) == CORRELATION
    assert other.select([0]).under(other.coordinates).model_error == MODEL_ERROR
