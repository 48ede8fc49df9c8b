"""One source never ends a run, and a row does not depend on its company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.refine.policy import Refining
from deeplegato_pp.inference.refine.refiner import Refiner
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.isolation import isolated, reason_of
from deeplegato_pp.scene.parameters import MAGNITUDE
from deeplegato_pp.stats import weighted as statistics
from fake_model import TRUTH, FakeModel, truth_image

SIDE = 32


def make_predictor(params: torch.Tensor = TRUTH) -> Predictor:
    model = FakeModel(params, 0.03)
    model.image_size = SIDE
    return Predictor(model, "cpu")


def observe(seed: int, noise: float | np.ndarray = 1.0) -> Observation:
    options = {"psf_fwhm": 3.0, "pixel_scale": 0.25, "zero_point": 30.5, "name": f"g{seed}"}
    return Observation.from_array(truth_image(SIDE, seed).numpy(), noise=noise, **options)


def one_dark_pixel(value: float) -> np.ndarray:
    noise = np.ones((SIDE, SIDE))
    noise[SIDE // 2, SIDE // 2 + 5] = value
    return noise


def test_the_mean_lies_among_the_draws():
    values = np.random.default_rng(0).uniform(15.0, 28.0, 300)
    draws = np.tile(values, (7, 1))
    assert (np.average(draws, axis=0) != values).any()  # as rounding has it
    assert (statistics.mean(draws) == values).all()


@pytest.mark.parametrize("magnitude", [15.0, 28.0])
def test_a_galaxy_on_the_bound_of_the_prior_is_measured(magnitude):
    params = TRUTH.clone()
    params[MAGNITUDE] = magnitude
    posterior = make_predictor(params).posterior([observe(0)], 3000)
    assert posterior.measurements[0].measured, posterior.reasons
    assert posterior.rows()[0]["magnitude"] == pytest.approx(magnitude, abs=1e-6)


def test_items_that_break_take_no_other_along():
    calls = []

    def work(items):
        calls.append(list(items))
        return [1 / i for i in items]

    assert isolated([1, 0, 2], work, lambda i, error: reason_of(error)) == [
        1.0,
        "unexpected ZeroDivisionError: division by zero",
        0.5,
    ]
    assert calls == [[1, 0, 2], [1], [0], [2]]


def test_a_row_whose_verdict_breaks_is_failed_and_the_others_are_as_without_it(monkeypatch):
    judge = verdicts.judge

    def broken(cases, *known):
        if any(case.prepared.scale == 7.0 for case in cases):
            raise ZeroDivisionError("float division by zero")
        return judge(cases, *known)

    monkeypatch.setattr(verdicts, "judge", broken)
    predictor = make_predictor()
    together = predictor.posterior([observe(0), observe(1, 7.0), observe(2)], 50)
    assert together.reasons[1] == "unexpected ZeroDivisionError: float division by zero"
    assert together.flags[1] & Flag.FAILED
    alone = predictor.posterior([observe(0), observe(2)], 50)
    torch.testing.assert_close(together[[0, 2]].samples, alone.samples)
    assert together.chi2_p[[0, 2]] == pytest.approx(alone.chi2_p, rel=1e-3)


def test_a_galaxy_that_breaks_keeps_the_networks_draws_and_the_others_are_as_alone(monkeypatch):
    run = Refiner._run

    def broken(self, posterior, *arguments):
        if any(m.prepared.scale == 7.0 for m in posterior.measurements):
            raise torch.linalg.LinAlgError("not positive-definite")
        return run(self, posterior, *arguments)

    monkeypatch.setattr(Refiner, "_run", broken)
    predictor = make_predictor()
    network = predictor.posterior([observe(0), observe(1, 7.0)], 100)
    refined = Refining("laplace").apply(predictor, network, [3, 4])
    assert refined.method == ["laplace", "amortized"]
    assert refined.reasons[1] == "not refined: unexpected _LinAlgError: not positive-definite"
    alone = Refining("laplace").apply(predictor, network[[0]], [3])
    torch.testing.assert_close(refined[0].samples, alone[0].samples, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [1e-30, 1e-300])
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_a_noise_pixel_near_zero_ends_no_run(value):
    predictor = make_predictor()
    network = predictor.posterior([observe(0), observe(1, one_dark_pixel(value))], 100)
    refined = Refining("laplace").apply(predictor, network, [3, 4])
    assert refined.method[0] == "laplace"
    assert all(np.isfinite(row["magnitude"]) for row in refined.rows())


def test_values_that_no_galaxy_can_have_are_refused_before_work():
    prior = make_predictor().model.prior
    Refining(fixed={"sersic_index": 4.0, "center_x": 50.0}).check(prior)
    with pytest.raises(RangeError, match="sersic_index must lie in"):
        Refining(fixed={"sersic_index": 50.0}).check(prior)
    with pytest.raises(RangeError, match="fix both or neither"):
        Refining(fixed={"axis_ratio": 0.5}).check(prior)
