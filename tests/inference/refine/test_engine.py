import math
from dataclasses import replace

import pytest
import torch

from deeplegato_pp.errors import ConfigError, NumericalError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.modes import ModeFinder
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.inference.sampling.mcmc import sample_chain
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.parameters import INDEX
from simulated_galaxies import (
    BOX,
    BULGE,
    DISC,
    FakeNetwork,
    coordinates_of,
    make_psf,
    observed,
    simulate,
)

NO_CHAIN = RefineOptions(fallback=False)


@pytest.fixture(scope="module")
def galaxies():
    """Two galaxies, bright and faint, with the network's stand-in and its draws."""
    w = torch.stack([coordinates_of(magnitude=20.0), coordinates_of(magnitude=24.5, radius=0.6)])
    likelihood = simulate(w, gain=5.0)
    network = FakeNetwork(likelihood, w)
    return w, likelihood, network, *network.sample(400)


@pytest.fixture(scope="module")
def refined(galaxies):
    _, likelihood, network, w, log_q = galaxies
    return refine_batch(likelihood, w, log_q, network.log_prob, ess=150, options=NO_CHAIN)


def test_the_truth_is_inside_and_the_verdict_is_good(galaxies, refined):
    for truth, galaxy in zip(galaxies[0], refined.galaxies, strict=True):
        assert float(((galaxy.mean() - truth) / galaxy.std()).abs().max()) < 4.5
        assert galaxy.ess >= 150
        assert galaxy.khat < 0.7
        assert galaxy.flags == 0
        assert galaxy.method in ("importance", "adapted")
        assert galaxy.chi2 == pytest.approx(1.0, abs=0.2)
        assert 0.001 < galaxy.p_value < 0.999
        assert galaxy.log_evidence_error < 0.3
    assert refined[0].efficiency > 0.5


def test_weights_are_likelihood_times_prior_over_proposal(galaxies, refined):
    _, likelihood, *_ = galaxies
    for i, galaxy in enumerate(refined.galaxies):
        some = torch.isfinite(galaxy.log_weights).nonzero()[:5, 0]
        log_l = likelihood.log_likelihood_row(i, galaxy.w[some], torch.float64)
        torch.testing.assert_close(log_l, galaxy.log_likelihood[some], atol=5e-3, rtol=0)
        expected = log_l + BOX.log_prior(galaxy.w[some]) - galaxy.log_proposal[some]
        torch.testing.assert_close(expected, galaxy.log_weights[some], atol=5e-3, rtol=0)


def test_structure_is_held_and_the_evidence_is_that_of_the_whole_psf_error():
    likelihood = observed([DISC, BULGE])
    likelihood.freeze(torch.tensor([0]), DISC[None])
    network = FakeNetwork(likelihood, DISC[None])
    w, log_q = network.sample(100)

    def refined(honest):
        options = replace(NO_CHAIN, honest=honest)
        return refine_batch(likelihood, w, log_q, network.log_prob, ess=100, options=options)

    plain, honest = refined(False), refined(True)
    assert plain.likelihood.psf_widths.share.tolist() == [1.0]
    assert float(honest.likelihood.psf_widths.share) < 0.3
    assert honest[0].log_evidence == pytest.approx(plain[0].log_evidence, abs=1.0)
    radius = INDEX["effective_radius"]
    assert honest[0].widening.covariance[radius, radius] > plain[0].std()[radius] ** 2


def test_rows_are_padded_with_weights_of_zero(refined):
    longest = max(len(g.w) for g in refined.galaxies)
    assert refined.w.shape == (2, longest, 7)
    assert refined.log_weights.shape == refined.log_proposal.shape == (2, longest)
    for i, galaxy in enumerate(refined.galaxies):
        assert bool((refined.log_weights[i, len(galaxy.w) :] == -math.inf).all())
    assert bool(torch.isfinite(refined.w).all())
    assert refined.ess.shape == refined.khat.shape == refined.chi2.shape == (2,)


def test_a_galaxy_alone_gives_the_same_draws(galaxies, refined):
    _, likelihood, network, w, log_q = galaxies
    alone = refine_batch(
        likelihood.select([1]),
        w[1:],
        log_q[1:],
        lambda rows, points: network.log_prob(rows + 1, points),
        ess=150,
        seeds=torch.tensor([1]),
        options=NO_CHAIN,
    )
    # Sums in float32 depend on the batch's shape, and adaptation carries that on to its draws.
    difference = (alone[0].w - refined[1].w).abs() / refined[1].std()
    assert float(difference.mean()) < 1e-4
    assert float(difference.max()) < 1e-3
    shift = (alone[0].mean() - refined[1].mean()).abs() / refined[1].std()
    assert float(shift.max()) < 1e-4
    assert alone[0].log_evidence == pytest.approx(refined[1].log_evidence, abs=1e-3)


def test_two_very_different_networks_lead_to_one_posterior(galaxies, refined):
    w, likelihood, *_ = galaxies
    other = FakeNetwork(likelihood, w, widen=4.0, seed=9)
    again = refine_batch(likelihood, *other.sample(400), other.log_prob, ess=150, options=NO_CHAIN)
    for one, two in zip(refined.galaxies, again.galaxies, strict=True):
        error = one.std() * (1 / one.ess + 1 / two.ess) ** 0.5
        assert float(((one.mean() - two.mean()) / error).abs().max()) < 5.0
        both = math.hypot(one.log_evidence_error, two.log_evidence_error)
        assert abs(one.log_evidence - two.log_evidence) < 5.0 * both


def test_fixed_parameters_condition_the_posterior(galaxies):
    w, likelihood, network, draws, log_q = galaxies
    fixed = {"sersic_index": 1.5, "center_x": 0.4}
    result = refine_batch(
        likelihood, draws, log_q, network.log_prob, ess=100, fixed=fixed, options=NO_CHAIN
    )
    for truth, galaxy in zip(w, result.galaxies, strict=True):
        physical = BOX.to_physical(galaxy.w)
        for name, value in fixed.items():
            column = physical[:, INDEX[name]]
            torch.testing.assert_close(column, torch.full_like(column, value))
        free = [0, 1, 3, 4, 6]
        z = (galaxy.mean() - truth)[free] / galaxy.std()[free]
        assert float(z.abs().max()) < 4.5
        assert galaxy.ess >= 100


def test_laplace_is_near_for_a_bright_galaxy(galaxies, refined):
    _, likelihood, network, w, log_q = galaxies
    result = refine_batch(likelihood, w, log_q, network.log_prob, method="laplace")
    laplace, exact = result[0], refined[0]
    assert laplace.method == "laplace"
    assert laplace.num_renders < 150
    assert float(((laplace.mean() - exact.mean()) / exact.std()).abs().max()) < 0.5
    assert float((laplace.std() / exact.std()).log().abs().max()) < 0.3
    assert laplace.log_evidence == pytest.approx(
        exact.log_evidence, abs=5 * laplace.log_evidence_error
    )


def test_a_neighbour_is_masked_counted_and_flagged(galaxies):
    _, likelihood, network, w, log_q = galaxies
    one = likelihood.select([0])
    one.stamps.image[0, :13, :13] += 3000.0 * make_psf(size=13)
    result = refine_batch(one, w[:1], log_q[:1], network.log_prob, ess=100, options=NO_CHAIN)
    galaxy = result[0]
    assert galaxy.flags & Flag.NEIGHBOURS_MASKED
    assert 10 < galaxy.masked_pixels < 200
    assert bool(result.likelihood.stamps.mask[0, 6, 6])
    assert int(galaxy.neighbours.sum()) == galaxy.masked_pixels
    assert bool(galaxy.neighbours[6, 6])
    assert not bool(one.stamps.mask.any())  # the caller's likelihood stays as it was
    assert float(((galaxy.mean() - galaxies[0][0]) / galaxy.std()).abs().max()) < 5.0
    assert not galaxy.flags & Flag.HIGH_KHAT


def test_a_network_that_is_wrong_is_in_tension():
    w = coordinates_of(magnitude=20.0)[None]
    likelihood = simulate(w)
    network = FakeNetwork(likelihood, w)
    network.mean = network.mean + 8.0 * network.std
    result = refine_batch(
        likelihood, *network.sample(200), network.log_prob, ess=100, options=NO_CHAIN
    )
    assert result[0].flags & Flag.TENSION
    assert float(((result[0].mean() - w[0]) / result[0].std()).abs().max()) < 4.5


def test_a_spent_budget_is_flagged(galaxies):
    _, likelihood, network, w, log_q = galaxies
    result = refine_batch(
        likelihood, w, log_q, network.log_prob, ess=1000, max_draws=150, options=NO_CHAIN
    )
    for galaxy in result.galaxies:
        assert len(galaxy.w) <= 150
        assert galaxy.flags & Flag.LOW_ESS


@pytest.mark.slow
def test_a_chain_agrees_with_the_weights(galaxies, refined):
    _, likelihood, *_ = galaxies
    exact = refined[0]
    generator = torch.Generator().manual_seed(0)
    chain = sample_chain(likelihood, 0, exact.resample(200, generator), seed=3, max_steps=1500)
    assert chain.ess > 300
    assert float(((chain.u.mean(0) - exact.mean()) / exact.std()).abs().max()) < 0.3
    assert float((chain.u.std(0) / exact.std()).log().abs().max()) < 0.2


def test_laplace_draws_from_every_mode(galaxies, monkeypatch):
    _, likelihood, network, w, log_q = galaxies
    find = ModeFinder.find
    apart = torch.tensor([0, 0, 0, 0, 0, 0, 1.0], dtype=torch.float64)

    def find_two(self):
        modes, pilot = find(self)
        two = modes[0][torch.tensor([0, 0])]
        value = two.log_posterior - torch.tensor([0.0, math.log(3.0)]).double()
        modes[0] = replace(two, u=torch.stack([two.u[0], two.u[1] + apart]), log_posterior=value)
        return modes, pilot

    monkeypatch.setattr(ModeFinder, "find", find_two)
    laplace = refine_batch(likelihood, w, log_q, network.log_prob, method="laplace")[0]
    assert laplace.num_modes == 2
    shift = laplace.w[:, 6] - laplace.w[:, 6].median()
    second = shift > 0.5
    # A quarter of the Gaussians' draws; the network's own do not reach that far.
    assert 0.15 < float(second.double().mean()) < 0.26
    # Both modes have the same density at their middles, but for their shares.
    peaks = [float(laplace.log_proposal[kept].max()) for kept in (second, ~second)]
    assert peaks[1] - peaks[0] == pytest.approx(math.log(3.0), abs=0.6)


def test_images_interpolated_lead_to_the_same_posterior(galaxies, refined):
    _, likelihood, network, w, log_q = galaxies
    options = RefineOptions(fallback=False, interpolate=False)
    plain = refine_batch(likelihood, w, log_q, network.log_prob, ess=300, options=options)[0]
    quick = refine_batch(likelihood, w, log_q, network.log_prob, ess=300, options=NO_CHAIN)[0]
    assert quick.num_renders < 0.8 * plain.num_renders
    torch.testing.assert_close(quick.w, plain.w)
    difference = (quick.log_likelihood - plain.log_likelihood).abs()
    matter = plain.log_likelihood > plain.log_likelihood.max() - 8.0
    assert float(difference[matter].max()) < 0.15
    assert float(difference[matter].square().mean().sqrt()) < 0.04
    assert quick.log_evidence == pytest.approx(plain.log_evidence, abs=0.02)
    assert float(((quick.mean() - plain.mean()) / plain.std()).abs().max()) < 0.01


def test_a_galaxy_that_is_no_sersic_profile_needs_no_chain(galaxies):
    _, likelihood, network, w, log_q = galaxies
    one = likelihood.select([0])
    grid = torch.arange(one.size, dtype=torch.float64) - (one.size - 1) / 2
    ring = torch.exp(-0.5 * (torch.hypot(grid[:, None], grid) - 4.0) ** 2)
    one.stamps.image[0] += 100.0 * ring * (grid > 0)
    options = RefineOptions(mask_neighbours=False)
    galaxy = refine_batch(one, w[:1], log_q[:1], network.log_prob, ess=150, options=options)[0]
    assert galaxy.chi2 > 3.0
    assert galaxy.method in ("importance", "adapted")
    assert galaxy.ess >= 150
    assert not galaxy.flags & Flag.HIGH_KHAT


def test_the_fallback_is_a_chain(galaxies):
    _, likelihood, network, w, log_q = galaxies
    result = refine_batch(
        likelihood.select([0]),
        w[:1],
        log_q[:1],
        network.log_prob,
        ess=2000,
        max_draws=30,
        options=RefineOptions(chain_steps=100),
    )
    galaxy = result[0]
    assert galaxy.method == "mcmc"
    assert set(galaxy.chain) == {"autocorrelation_time", "steps", "converged"}
    assert galaxy.flags & Flag.LOW_ESS
    assert len(galaxy.w) == len(galaxy.log_weights) == len(galaxy.log_proposal)


def test_a_galaxy_whose_weights_fail_is_no_star(galaxies):
    _, likelihood, network, w, log_q = galaxies
    options = RefineOptions(chain_steps=100, star_odds=1.0)
    result = refine_batch(
        likelihood.select([0]),
        w[:1],
        log_q[:1],
        network.log_prob,
        ess=2000,
        max_draws=30,
        options=options,
    )
    assert result[0].method == "mcmc"
    assert math.isnan(result[0].star_log_odds)


def test_bad_calls_are_refused(galaxies):
    _, likelihood, network, w, log_q = galaxies
    with pytest.raises(ConfigError, match="method"):
        refine_batch(likelihood, w, log_q, network.log_prob, method="fast")
    with pytest.raises(ShapeError):
        refine_batch(likelihood, w[:, :-1], log_q, network.log_prob)
    with pytest.raises(NumericalError):
        refine_batch(likelihood, w, log_q, lambda rows, points: points.sum(-1) * math.nan)


def test_a_budget_ends_at_the_best_tier_reached(galaxies):
    """In rendered pixels: too few for sampling, enough for some rounds, more than enough."""
    _, likelihood, network, w, log_q = galaxies
    one = float(Batches(likelihood).cost(torch.tensor([0]), w[:1, 0]))
    found = {}
    for renders in (60, 500, 100_000):
        options = RefineOptions(fallback=False, interpolate=False, pixel_budget=renders * one)
        found[renders] = refine_batch(
            likelihood, w, log_q, network.log_prob, ess=300, options=options
        )[0]
    assert found[60].method == "laplace"
    assert found[60].num_renders < 120
    assert found[60].flags & int(Flag.BUDGET)
    assert found[60].flags & int(Flag.LOW_ESS)
    # Laplace's evidence stands in, so that hypotheses can be weighed.
    assert found[60].log_evidence == pytest.approx(found[100_000].log_evidence, abs=0.5)
    assert math.isnan(found[60].log_evidence_error)
    assert found[500].method in ("importance", "adapted")
    assert found[500].num_renders < 600
    assert not found[100_000].flags & int(Flag.BUDGET)
    assert found[100_000].ess >= 300


def test_no_chain_where_the_model_is_at_fault(monkeypatch):
    """A bright galaxy with a spiral's arms: no Sérsic profile, so its draws stay, flagged."""
    w = coordinates_of(magnitude=19.0)[None]
    likelihood = simulate(w)
    grid = torch.arange(likelihood.size, dtype=torch.float64) - (likelihood.size - 1) / 2
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    arms = 60.0 * torch.cos(2.0 * torch.atan2(y, x)) * torch.exp(-torch.hypot(x, y) / 3.0)
    likelihood.stamps.image[0] += arms
    network = FakeNetwork(likelihood, w)
    draws, log_q = network.sample(200)

    def forbidden(*args, **kwargs):
        raise AssertionError("a chain was run")

    monkeypatch.setattr("deeplegato_pp.inference.refine.fallback.sample_chain", forbidden)
    monkeypatch.setattr(
        "deeplegato_pp.inference.refine.engine.weights_failed", lambda galaxy, ess: True
    )
    options = RefineOptions(mask_neighbours=False)
    refined = refine_batch(likelihood, draws, log_q, network.log_prob, ess=100, options=options)
    assert refined[0].chi2 > 1.2
    assert refined[0].ess > 50
    assert refined[0].method in ("importance", "adapted")
    few = replace(options, pilot=30)
    poor = refine_batch(
        likelihood, draws, log_q, network.log_prob, ess=4, max_draws=40, options=few
    )[0]
    assert poor.ess < 50
    assert poor.method == "laplace"
    assert len(poor.w) == 200
    assert not bool(poor.log_weights.any())  # all of one weight
    assert not math.isfinite(poor.log_evidence_error)
    # Widths and place of many weighted draws, not those of a few.
    torch.testing.assert_close(poor.std(), refined[0].std(), rtol=0.3, atol=0.0)
    assert bool(((poor.mean() - refined[0].mean()).abs() < 0.5 * refined[0].std()).all())
    log_l = likelihood.log_likelihood_row(0, poor.w[:5], torch.float64)
    torch.testing.assert_close(log_l, poor.log_likelihood[:5], atol=0.05, rtol=0)
