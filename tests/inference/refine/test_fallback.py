"""What becomes of galaxies whose weights fail; the chain itself is in `test_exact`."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.evidence import compare
from deeplegato_pp.inference.refine.fallback import point_source_log_odds, weights_failed
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.scene.components import PointSourceCoordinates
from simulated_galaxies import BOX, FakeNetwork, coordinates_of, simulate


def test_no_chain_is_run_for_a_bright_star():
    w = coordinates_of(magnitude=18.0, radius=0.11)[None]
    likelihood = simulate(w)
    star = likelihood.under(PointSourceCoordinates(BOX))
    noise = torch.randn(
        likelihood.size, likelihood.size, generator=torch.Generator().manual_seed(2)
    )
    u = PointSourceCoordinates(BOX).project(w)
    likelihood.stamps.image[0] = star.render(0, u, torch.float64)[0] + noise
    network = FakeNetwork(likelihood, w)
    draws, log_q = network.sample(200)

    options = RefineOptions(chain_steps=5, interpolate=False, star_odds=1.0)
    result = refine_batch(
        likelihood, draws, log_q, network.log_prob, ess=60, max_draws=200, options=options
    )
    galaxy = result[0]
    assert galaxy.method == "adapted"
    assert galaxy.flags & Flag.HIGH_KHAT
    assert galaxy.star_log_odds > 1e5
    compared = compare(result)
    assert float(compared.star_probability[0]) == pytest.approx(1.0)
    assert galaxy.star_log_odds < float(compared.star_log_evidence[0]) - galaxy.log_evidence
    rarely = point_source_log_odds(result.likelihood, 0, galaxy, 1e-3)
    assert rarely == pytest.approx(galaxy.star_log_odds + math.log(1e-3), abs=1e-3)


def test_a_bad_khat_or_far_too_few_draws_are_a_failure():
    nothing = torch.zeros(1, dtype=torch.float64)
    galaxy = RefinedGalaxy(torch.zeros(1, 7), nothing, nothing, nothing, "adapted", ess=30.0)
    assert not weights_failed(galaxy, 100.0)
    assert weights_failed(galaxy, 130.0)
    galaxy.flags = int(Flag.HIGH_KHAT)
    assert weights_failed(galaxy, 100.0)
