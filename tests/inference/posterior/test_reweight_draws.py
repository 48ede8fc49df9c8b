import math
from dataclasses import replace

import pytest
import torch

from deeplegato_pp.errors import NumericalError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.reweight import prior_ratio, reweight
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.scene.prior import PriorBox
from simulated_galaxies import BOX, FakeNetwork, coordinates_of, simulate


@pytest.fixture(scope="module")
def refined():
    w = coordinates_of(magnitude=22.5)[None]
    likelihood = simulate(w, gain=5.0)
    network = FakeNetwork(likelihood, w)
    options = RefineOptions(fallback=False)
    return (
        likelihood,
        network,
        refine_batch(likelihood, *network.sample(300), network.log_prob, ess=200, options=options),
    )


def test_a_narrower_box_that_holds_the_posterior_only_moves_the_evidence(refined):
    galaxy = refined[2][0]
    narrow = replace(BOX, magnitude=(20.0, 25.0))
    ratio = prior_ratio(BOX.to_physical(galaxy.w), BOX, narrow)
    new = reweight(galaxy, ratio)
    torch.testing.assert_close(new.mean(), galaxy.mean(), atol=1e-6, rtol=0)
    # 13 mag of prior become 5.
    assert new.log_evidence - galaxy.log_evidence == pytest.approx(math.log(13 / 5), abs=1e-6)
    assert new.flags == 0


def test_a_box_that_cuts_leaves_nothing_outside(refined):
    galaxy = refined[2][0]
    physical = BOX.to_physical(galaxy.w)
    middle = float(physical[:, 2].median())
    new = reweight(galaxy, prior_ratio(physical, BOX, PriorBox(sersic_index=(0.3, middle))), 50.0)
    kept = torch.isfinite(new.log_weights)
    assert float(physical[kept, 2].max()) <= middle
    assert new.ess < galaxy.ess


def test_a_callable_prior(refined):
    galaxy = refined[2][0]
    physical = BOX.to_physical(galaxy.w)
    same = reweight(
        galaxy,
        prior_ratio(physical, BOX, lambda p: BOX.log_prior(galaxy.w) + BOX.log_jacobian(galaxy.w)),
    )
    assert same.log_evidence == pytest.approx(galaxy.log_evidence, abs=1e-6)


def test_a_prior_far_from_the_draws_is_flagged(refined):
    galaxy = refined[2][0]
    physical = BOX.to_physical(galaxy.w)
    steep = reweight(galaxy, -2000.0 * physical[:, 0])
    assert steep.flags & (Flag.LOW_ESS | Flag.HIGH_KHAT)


def test_another_noise_level(refined):
    likelihood, network, result = refined
    quieter = likelihood.replace(noise_factor=0.95)
    before, after = likelihood.compare_row(0, result[0].w, [likelihood, quieter])
    new = reweight(result[0], after - before)
    direct = refine_batch(
        quieter,
        *network.sample(300),
        network.log_prob,
        ess=200,
        options=RefineOptions(fallback=False),
    )[0]
    error = math.hypot(new.log_evidence_error, direct.log_evidence_error)
    assert abs(new.log_evidence - direct.log_evidence) < 5 * error
    assert float(((new.mean() - direct.mean()) / direct.std()).abs().max()) < 0.3


def test_bad_ratios_are_refused(refined):
    galaxy = refined[2][0]
    with pytest.raises(ShapeError):
        reweight(galaxy, torch.zeros(3))
    with pytest.raises(NumericalError):
        reweight(galaxy, torch.full_like(galaxy.log_weights, math.nan))
    with pytest.raises(RangeError, match="sersic_index"):
        prior_ratio(BOX.to_physical(galaxy.w), BOX, PriorBox(sersic_index=(0.1, 8.0)))
