"""Hypotheses of several components: posteriors, evidences, odds and columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference.posterior import scene_record
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.inference.refine.scenes import (
    check_scene,
    compare_scenes,
    explore,
    hypotheses_of,
    tempered,
)
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.galaxy_scene import GalaxyScene
from deeplegato_pp.scene.likelihood import Likelihood
from simulated_galaxies import BOX, FakeNetwork, coordinates_of, empty_likelihood, make_psf

SIDE = 40
SUM = {
    # magnitude, share, outer radius, ratio, inner n q PA, outer n q PA, x, y
    "bulge+disc": [19.0, 0.4, 1.2, 0.25, 4.0, 0.8, 30.0, 1.0, 0.5, 60.0, 0.3, -0.2],
    # magnitude, share, radius, n, q, PA, x, y
    "sersic+point": [19.0, 0.3, 1.0, 1.5, 0.6, 40.0, 0.2, 0.1],
    "sersic": [19.0, 1.0, 1.5, 0.6, 40.0, 0.3, -0.2],
}


def observed(name: str, seed: int = 0) -> tuple[Likelihood, torch.Tensor]:
    """A galaxy of the scene, under the single profile, and the truth in its scene."""
    scene = GalaxyScene(name, BOX)
    truth = torch.tensor([SUM[name]], dtype=torch.float64)
    likelihood = empty_likelihood(1, np.inf, 0.02, SIDE)
    image = likelihood.under(scene).render(0, scene.scene.to_coordinates(truth), torch.float64)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    likelihood.stamps.image[:] = image + noise
    return likelihood, truth


def refine(likelihood: Likelihood, start: torch.Tensor):
    network = FakeNetwork(likelihood, start)
    w, log_q = network.sample(200)
    options = RefineOptions(fallback=False)
    return refine_batch(likelihood, w, log_q, network.log_prob, ess=150, options=options)


@pytest.fixture(scope="module")
def single():
    likelihood, _ = observed("sersic")
    return refine(likelihood, coordinates_of(magnitude=19.0, radius=1.0)[None])


@pytest.fixture(scope="module")
def double():
    likelihood, _ = observed("bulge+disc")
    return refine(likelihood, coordinates_of(magnitude=19.0, radius=1.0, n=3.0)[None])


def stamp_of(likelihood: Likelihood):
    """A stamp on which detector units are the user's, but for the zero point."""
    observation = Observation.from_array(
        likelihood.stamps.image[0].numpy(),
        psf=make_psf().numpy(),
        noise=1.0,
        pixel_scale=0.25,
        zero_point=30.5,
    )
    return replace(prepare(observation, SIDE), scale=1.0)


def test_the_single_profile_explored_as_a_scene_has_its_own_evidence(single):
    (found,) = explore(single, "sersic", [3], ess=300)
    galaxy = single.galaxies[0]
    error = 4.0 * np.hypot(found.log_evidence_error, galaxy.log_evidence_error) + 0.02
    assert found.log_evidence == pytest.approx(galaxy.log_evidence, abs=error)
    weights = torch.softmax(found.log_weights, 0)
    torch.testing.assert_close(weights @ found.u, galaxy.mean(), atol=0.05, rtol=0)


def test_a_bulge_and_a_disc_are_found_and_measured(double):
    (record,) = compare_scenes(double, [stamp_of(double.likelihood)], "auto", [5], ess=200)
    assert record.best == "bulge+disc"
    assert record.odds > 1e3
    assert record.log_evidence["bulge+disc"] > record.log_evidence["sersic+point"]
    assert record.khat < 0.7
    row = scene_record.columns_of(record)
    truth = {"bulge_to_total": 0.4, "disc_effective_radius": 1.2, "disc_axis_ratio": 0.5}
    truth |= {"bulge_effective_radius": 0.3, "magnitude": 19.0, "disc_position_angle": 60.0}
    for name, value in truth.items():
        assert abs(row[name] - value) < 4.5 * row[f"{name}_std"], name
        assert row[f"{name}_q16"] < row[f"{name}_q84"]
    assert row["bulge_to_total_std"] < 0.05
    assert row["bulge_sersic_index"] == pytest.approx(4.0)
    assert row["host_magnitude"] is None


def test_laplace_s_method_agrees_with_the_exact_one(double):
    likelihood, _ = observed("bulge+disc")
    start = coordinates_of(magnitude=19.0, radius=1.0, n=3.0)[None]
    network = FakeNetwork(likelihood, start)
    w, log_q = network.sample(200)
    gaussian = refine_batch(likelihood, w, log_q, network.log_prob, method="laplace")
    stamps = [stamp_of(double.likelihood)]
    (exact,) = compare_scenes(double, stamps, "auto", [5], ess=200)
    (found,) = compare_scenes(gaussian, stamps, "auto", [5], method="laplace")
    assert gaussian[0].peak == pytest.approx(double[0].peak, abs=0.5)
    assert found.best == exact.best == "bulge+disc"
    for name, value in exact.log_evidence.items():
        assert found.log_evidence[name] == pytest.approx(value, abs=1.5), name
    assert np.isnan(found.log_evidence_error["bulge+disc"])
    assert np.isnan(found.khat)
    ours, theirs = (scene_record.columns_of(record) for record in (found, exact))
    for name in ("bulge_to_total", "disc_effective_radius", "magnitude", "effective_radius"):
        assert abs(ours[name] - theirs[name]) < theirs[f"{name}_std"], name
        assert ours[f"{name}_std"] == pytest.approx(theirs[f"{name}_std"], rel=0.4), name


def test_a_single_profile_needs_no_second(single):
    (record,) = compare_scenes(single, [stamp_of(single.likelihood)], "auto", [5], ess=200)
    assert record.best == "sersic"
    assert record.odds > 1.0
    assert record.draws == {}


def test_a_scene_that_is_asked_for_is_the_one_reported(single):
    stamps = [stamp_of(single.likelihood)]
    (record,) = compare_scenes(single, stamps, "sersic+point", [5], ess=100, honest=False)
    assert record.best == "sersic+point"
    assert record.compared == ("sersic", "sersic+point")
    for name, draws in record.draws.items():
        assert draws is record.noise_draws[name] or np.array_equal(draws, record.noise_draws[name])
    assert scene_record.columns_of(record)["point_to_total"] < 0.1


def test_tempering_keeps_the_priors_volume_and_scales_the_fit():
    log_z, log_l = {"a": -10.0, "b": -7.0}, {"a": -4.0, "b": 6.0}
    assert tempered(log_z, log_l, 1.0) == log_z
    found = tempered(log_z, log_l, 0.2)
    assert found["b"] - found["a"] == pytest.approx(3.0 - 0.8 * 10.0)


def test_columns_are_the_same_whatever_is_best(single, double):
    rows = []
    for refined in (single, double):
        stamps = [stamp_of(refined.likelihood)]
        (record,) = compare_scenes(refined, stamps, "bulge+disc", [5], ess=60)
        rows.append({**scene_record.columns_of(record)})
    assert set(rows[0]) == set(rows[1])
    assert set(rows[0]) - {"magnitude", "effective_radius", "center_x", "center_y"} <= {
        *scene_record.units(),
        *(f"{name}_{end}" for name in scene_record.OF_THE_SUM for end in ENDS),
    }
    assert set(scene_record.units()) == set(scene_record.descriptions())


ENDS = ("std", "std_noise", "q025", "q16", "q50", "q84", "q975")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("disk", False), "unknown scene 'disk', expected one of sersic, sersic"),
        (("bulge+disc", True), "parameters are fixed"),
    ],
)
def test_scenes_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_scene(*arguments)
    check_scene("sersic", True)
    assert hypotheses_of("auto") == ("sersic", "sersic+point", "bulge+disc")


def test_projections_start_where_a_single_profile_is():
    w = coordinates_of(magnitude=19.0)[None]
    for name in ("bulge+disc", "sersic+point", "sersic+sersic"):
        scene = GalaxyScene(name, BOX)
        parts = scene.parts(scene.project(w))
        flux = sum(10 ** (-0.4 * values[:, 0]) for values in parts.values())
        expected = 10 ** (-0.4 * BOX.to_physical(w)[:, 0])
        torch.testing.assert_close(flux, expected, rtol=1e-5, atol=0)
    assert GalaxyScene("sersic", BOX).dim == SersicCoordinates(BOX).dim
