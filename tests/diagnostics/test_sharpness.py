from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp.diagnostics import crps, errors, interval_score, mean_width, rmse
from deeplegato_pp.stats import weighted as statistics
from toy_posteriors import toy

RNG = np.random.default_rng(13)


def crps_by_hand(draws: np.ndarray, value: float, weights: np.ndarray, period: float | None):
    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = np.abs(a - b)
        return d if period is None else np.minimum(d % period, period - d % period)

    pairs = np.outer(weights, weights)
    between = (pairs * distance(draws[:, None], draws)).sum() / (1.0 - (weights**2).sum())
    return (weights * distance(draws, value)).sum() - 0.5 * between


@pytest.mark.parametrize("angle", [3.0, 200.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_crps_is_its_definition_on_the_line_and_round_the_circle(angle, weighted):
    case = toy(10, 25, angle=angle)
    log_weights = RNG.normal(size=(10, 25)) if weighted else None
    found = crps(case.samples, case.truth, log_weights)
    for i in range(10):
        w = np.full(25, 1 / 25)
        if log_weights is not None:
            w = statistics.normalised_weights(log_weights[i])
        for j, period in ((0, None), (4, 180.0)):
            expected = crps_by_hand(case.samples[i, :, j], case.truth[i, j], w, period)
            assert found[i, j] == pytest.approx(expected, abs=1e-9)


def test_crps_of_a_gaussian_does_not_depend_on_the_number_of_draws():
    # The score of N(0, s^2) for truths of N(0, s^2) is s / sqrt(pi); s^2 = 9/10 in the toy.
    for draws in (5, 80):
        case = toy(4000, draws)
        expected = np.sqrt(0.9 / np.pi)
        assert crps(case.samples, case.truth)[:, 0].mean() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("score", [crps, interval_score])
def test_the_right_posterior_scores_best(score):
    def mean(width: float, shift: float = 0.0) -> np.ndarray:
        case = toy(4000, 50, width, shift)
        return score(case.samples, case.truth).mean(0)

    right = mean(1.0)
    for wrong in (mean(0.6), mean(1.6), mean(1.0, 0.6)):
        assert (right < wrong).all()


def test_errors_go_round_the_circle():
    samples, truth = np.zeros((1, 2, 7)), np.zeros((1, 7))
    samples[0, :, 4], truth[0, 4] = [178.0, 4.0], 179.0
    assert errors(samples, truth)[0, 4] == pytest.approx(2.0)
    truth[0, 4] = 3.0
    assert errors(samples, truth)[0, 4] == pytest.approx(-2.0)


def test_rmse_and_width_of_a_gaussian():
    case = toy(3000, 100)
    np.testing.assert_allclose(
        rmse(case.samples, case.truth)[[0, 4]], [np.sqrt(0.9), 5.0], rtol=0.06
    )
    width = mean_width(case.samples, 0.68)
    np.testing.assert_allclose(width[[0, 4]], 2 * 0.9945 * np.array([np.sqrt(0.9), 5.0]), rtol=0.06)
    wide = toy(3000, 100, width=2.0)
    assert mean_width(wide.samples)[0] == pytest.approx(2.0 * width[0], rel=0.06)


def test_the_interval_score_is_width_and_fine():
    samples = np.linspace(0.0, 100.0, 1001)[None, :, None] * np.ones(7)
    samples[..., 4] = np.linspace(170.0, 190.0, 1001) % 180.0
    truth = np.array([[50.0, -10.0, 120.0, 50.0, 175.0, 50.0, 50.0], [50.0] * 4 + [165.0, 50, 50]])
    found = interval_score(np.repeat(samples, 2, 0), truth, 0.8)
    np.testing.assert_allclose(found[0, :3], [80.0, 80.0 + 10 * 20.0, 80.0 + 10 * 30.0], rtol=0.002)
    np.testing.assert_allclose(found[:, 4], [16.0, 16.0 + 10 * 7.0], atol=0.3)


def test_weights_repair_a_wide_proposal():
    case = toy(800, 400, proposal=1.3)
    weighted = mean_width(case.samples, 0.68, case.log_weights)[0]
    assert weighted == pytest.approx(2 * 0.9945 * np.sqrt(0.9), rel=0.05)
    assert mean_width(case.samples, 0.68)[0] > 1.2 * weighted
