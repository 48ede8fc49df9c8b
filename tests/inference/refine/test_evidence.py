import math

import pytest
import torch

from deeplegato_pp.errors import RangeError
from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.evidence import (
    LOST,
    blank_log_evidence,
    compare,
    flux_upper_limit,
    laplace_point_source,
    point_source_evidence,
    star_probability,
)
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.scene.components import PointSourceCoordinates
from deeplegato_pp.scene.likelihood import Likelihood
from simulated_galaxies import BOX, FakeNetwork, coordinates_of, make_psf, simulate


@pytest.fixture(scope="module")
def compared():
    """A galaxy, a star, and nothing, refined as galaxies and compared."""
    w = torch.stack([coordinates_of(), coordinates_of(radius=0.11), coordinates_of(magnitude=27.5)])
    likelihood = simulate(w)
    star = likelihood.under(PointSourceCoordinates(BOX))
    u = PointSourceCoordinates(BOX).project(w[1:2])
    noise = torch.randn(
        likelihood.size, likelihood.size, generator=torch.Generator().manual_seed(2)
    )
    likelihood.stamps.image[1] = star.render(1, u, torch.float64)[0] + noise
    network = FakeNetwork(likelihood, w)
    network.std[2], network.mean[2] = 1.0, 0.0
    refined = refine_batch(
        likelihood,
        *network.sample(300),
        network.log_prob,
        ess=100,
        options=RefineOptions(fallback=False),
    )
    return refined, compare(refined)


def test_the_three_are_told_apart(compared):
    _, comparison = compared
    galaxy, star, nothing = comparison.star_probability.tolist()
    assert galaxy < 1e-3
    assert star > 0.8
    assert 0.05 < nothing < 0.95
    assert comparison.detected().tolist() == [True, True, False]
    assert comparison.star_odds == 1.0


def test_evidence_of_a_point_source_against_a_sum_over_its_prior(compared):
    refined, comparison = compared
    star = refined.likelihood.under(PointSourceCoordinates(BOX))
    # The blank stamp's posterior is wide enough for the prior's own quantiles.
    quantile = torch.special.ndtri((torch.arange(24, dtype=torch.float64) + 0.5) / 24)
    log_l = star.log_likelihood_row(2, torch.cartesian_prod(quantile, quantile, quantile))
    direct = float(torch.logsumexp(log_l, 0)) - math.log(len(log_l))
    assert float(comparison.star_log_evidence[2]) == pytest.approx(direct, abs=0.25)


def test_evidence_does_not_depend_on_the_start(compared):
    refined, _ = compared
    start = torch.zeros(3, 1, 7, dtype=torch.float64)
    start[:, 0, 0] = 0.3
    first = point_source_evidence(refined.likelihood, start, ess=300)
    second = point_source_evidence(
        refined.likelihood, start + 0.1, seeds=torch.tensor([7, 8, 9]), ess=300
    )
    difference = (first.log_evidence - second.log_evidence)[1:].abs()
    assert bool((difference < 5 * (first.error**2 + second.error**2).sqrt()[1:]).all())


def test_hopeless_climbs_end_early_and_others_do_not(compared):
    refined, _ = compared
    start = torch.zeros(3, 1, 7, dtype=torch.float64)
    start[:, 0, 0] = 0.3
    free, modes = laplace_point_source(refined.likelihood, start)
    galaxy = torch.tensor([g.log_evidence for g in refined.galaxies])
    bound, shortened = laplace_point_source(refined.likelihood, start, galaxy - LOST)
    assert int(shortened[0].renders[0]) < int(modes[0].renders[0])
    assert float(bound[0]) < float(galaxy[0]) - LOST
    torch.testing.assert_close(bound[1:], free[1:], rtol=0, atol=1e-3)  # fewer climb together


def test_blank_sky_is_the_likelihood_of_no_light(compared):
    refined, _ = compared
    likelihood = refined.likelihood
    faintest = BOX.to_normal(torch.tensor([[28.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0]]).double())
    value = likelihood.log_likelihood_row(2, faintest)
    assert float(blank_log_evidence(likelihood)[2]) == pytest.approx(float(value), abs=5.0)


def test_the_upper_limit_lies_above_the_truth(compared):
    refined, _ = compared
    galaxy = refined[2]
    limit = flux_upper_limit(galaxy.w, galaxy.log_weights, BOX)
    assert 10 ** (0.4 * 3.0) < limit < 500.0
    assert limit < flux_upper_limit(galaxy.w, galaxy.log_weights, BOX, 0.99)
    with pytest.raises(RangeError):
        flux_upper_limit(galaxy.w, galaxy.log_weights, BOX, 1.5)


def test_prior_odds():
    even = star_probability(torch.zeros(2), torch.tensor([0.0, 2.0]))
    assert even[0] == 0.5
    assert float(star_probability(torch.zeros(1), torch.zeros(1), 0.25)) == pytest.approx(0.2)
    with pytest.raises(RangeError):
        star_probability(torch.zeros(1), torch.zeros(1), 0.0)


def test_a_psf_told_too_narrow_makes_no_galaxy_of_a_star():
    """Laplace's odds of a star of S/N 800 under a PSF that is 4 % too narrow."""
    w = coordinates_of(magnitude=20.8, radius=0.11)
    likelihood = simulate(w[None])
    star = likelihood.under(PointSourceCoordinates(BOX))
    noise = torch.randn(24, 24, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    u = star.coordinates.project(w[None])
    likelihood.stamps.image[0] = star.render(0, u, torch.float64)[0] + noise
    odds = []
    for error in (0.0, 0.02):
        told = Likelihood(likelihood.stamps, [make_psf(2.88)], [1], [True], BOX, psf_error=[error])
        point, _ = laplace_point_source(told, w[None, None])
        galaxy = fit(told, torch.zeros(2, dtype=torch.long), torch.stack([w, w + 0.3]))
        evidence = galaxy.log_mass().max() + 3.5 * math.log(2.0 * math.pi)
        odds.append(float(point[0] - evidence))
    assert odds[0] < -math.log(1e3)
    assert odds[1] > -math.log(1e3)
