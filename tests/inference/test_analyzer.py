from __future__ import annotations

import json
import math

import numpy as np
import pytest

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.inference import Posterior, UncertaintyAnalyzer
from deeplegato_pp.inference.posterior import covariates
from deeplegato_pp.scene.parameters import NAMES, SNR_CLASSES
from fake_model import TRUTH, FakeModel, truth_image
from toy_posteriors import Toy, toy


def analyzer_of(case: Toy, **options: object) -> UncertaintyAnalyzer:
    """An analyzer of a toy moved to where radii and indices are positive."""
    move = np.array([20.0, 50.0, 50.0, 0.0, 0.0, 0.0, 0.0])
    return UncertaintyAnalyzer(case.samples + move, case.truth + move, **options)


@pytest.fixture(scope="module")
def right() -> UncertaintyAnalyzer:
    case = toy(1500, 100)
    return analyzer_of(case)


def test_a_right_posterior_is_found_right(right):
    metrics = right.metrics()
    assert metrics["galaxies"] == 1500
    for figures in metrics["parameters"].values():
        assert figures["coverage"]["0.68"] == pytest.approx(0.68, abs=0.05)
        assert figures["rank_p_value"] > 1e-3
        assert figures["pull_width"] == pytest.approx(1.0, abs=0.12)
        assert abs(figures["bias"]) < 0.15
    assert metrics["joint"]["tarp"]["p_value"] > 1e-3
    assert metrics["parameters"]["magnitude"]["rmse"] == pytest.approx(math.sqrt(0.9), rel=0.1)


def test_a_narrow_posterior_is_found_narrow():
    figures = analyzer_of(toy(1500, 100, width=0.7)).metrics()["parameters"]
    for name in NAMES:
        assert figures[name]["coverage"]["0.68"] < 0.6
        assert figures[name]["pull_width"] > 1.2


def test_intervals_hold_what_they_say(right):
    for kind in ("equal-tailed", "highest-density"):
        ends = right.credible_intervals(0.9, kind)
        assert ends.shape == (1500, 7, 2)
        inside = (right.truth >= ends[..., 0]) & (right.truth <= ends[..., 1])
        assert inside[:, 0].mean() == pytest.approx(0.9, abs=0.05)
    with pytest.raises(InputError, match="kind"):
        right.credible_intervals(0.9, "shortest")


def test_classes_are_made_of_the_data(right):
    deciles = right.by_class("sersic_index")
    assert [c["galaxies"] for c in deciles] == [150] * 10
    assert deciles[0]["lower"] is None
    assert deciles[0]["upper"] == deciles[1]["lower"]
    assert min(c["parameters"]["sersic_index"]["rank_p_value"] for c in deciles) > 1e-4
    # By the truth, a perfect posterior fails: that is why no class is made of it.
    by_truth = analyzer_of(toy(1500, 100), covariates={"true_index": right.truth[:, 2]})
    extreme = by_truth.by_class("true_index")[-1]["parameters"]["sersic_index"]
    assert extreme["rank_p_value"] < 1e-6
    with pytest.raises(InputError, match="covariate"):
        right.by_class("colour")


def test_given_edges_are_used(right):
    classes = right.by_class("magnitude", (-math.inf, 20.0, math.inf))
    assert [(c["lower"], c["upper"]) for c in classes] == [(None, 20.0), (20.0, None)]
    assert sum(c["galaxies"] for c in classes) == 1500


def test_outliers_are_named_the_worst_first():
    case = toy(50, 200)
    case.truth[7, 1] += 30.0
    case.truth[9, 4] = (case.truth[9, 4] + 60.0) % 180.0
    found = analyzer_of(case).outliers(6.0)
    assert [(f["row"], f["parameter"]) for f in found] == [
        (7, "effective_radius"),
        (9, "position_angle"),
    ]
    assert found[0]["pull"] == pytest.approx(-30.0, rel=0.3)
    assert found[0]["lower"] < found[0]["median"] < found[0]["upper"] < found[0]["truth"]
    assert analyzer_of(toy(50, 200)).outliers(9.0) == []
    with pytest.raises(RangeError, match="sigma"):
        analyzer_of(case).outliers(0.0)


def test_what_was_not_measured_is_left_out_and_counted():
    case = toy(30, 50)
    case.samples[3] = np.nan
    case.truth[4, 0] += 100.0
    analyzer = analyzer_of(case)
    assert analyzer.left_out == 1
    assert len(analyzer.truth) == 29
    assert analyzer.outliers(20.0)[0]["row"] == 4


def test_weights_count():
    case = toy(600, 300, proposal=1.3)
    move = np.array([20.0, 50.0, 50.0, 0.0, 0.0, 0.0, 0.0])
    samples, truth = case.samples + move, case.truth + move
    plain = UncertaintyAnalyzer(samples, truth).metrics()["parameters"]["magnitude"]
    weighted = UncertaintyAnalyzer(samples, truth, log_weights=case.log_weights)
    figures = weighted.metrics()["parameters"]["magnitude"]
    assert plain["coverage"]["0.68"] > 0.75
    assert figures["coverage"]["0.68"] == pytest.approx(0.68, abs=0.06)


def test_the_report_is_strict_json(right):
    report = right.report()
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text)["draws"] == 100
    assert set(report["classes"]) == {
        "magnitude", "effective_radius", "sersic_index", "axis_ratio"
    }  # fmt: skip
    assert "predictive" not in report


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    good = [truth_image(seed=i).numpy() for i in range(3)]
    bad = truth_image(seed=3).numpy() + 30.0 * np.eye(128)
    options = {"noise": 1.0, "psf_fwhm": 3.0, "pixel_scale": 0.25, "zero_point": 30.5}
    observations = [Observation.from_array(i, name=f"g{n}", **options) for n, i in enumerate(good)]
    spoilt = Observation.from_array(bad, name="spoilt", **options)
    # The network of these tests refuses stamps as bright as this.
    refused = Observation.from_array(good[0] + 2e6, name="refused", **options)
    return Predictor(FakeModel(TRUTH, 0.001), "cpu").posterior([*observations, spoilt, refused], 60)


def test_of_a_posterior_everything_follows(posterior):
    analyzer = UncertaintyAnalyzer(
        posterior, TRUTH.expand(5, 7).numpy(), log_prob_truth=np.zeros(5)
    )
    assert analyzer.left_out == 1
    assert set(analyzer.covariates) == {"snr", "radius_over_psf", "sersic_index", "axis_ratio"}
    # The last image measured is spoilt, and what is fitted to it is nobody's truth.
    np.testing.assert_allclose(analyzer.covariates["snr"][:3], 370.0, rtol=0.1)
    np.testing.assert_allclose(analyzer.covariates["sersic_index"][:3], 2.5, rtol=0.05)
    assert analyzer.by_class("snr")[0]["lower"] == 100.0
    assert set(analyzer.joint_levels) == {"tarp", "highest_density"}
    report = analyzer.report(predictive_draws=3)
    assert report["predictive"]["bad_share"] == 0.25


def test_the_predictive_check_finds_the_bad_image(posterior):
    analyzer = UncertaintyAnalyzer(posterior, TRUTH.expand(5, 7).numpy())
    check = analyzer.predictive_check(4)
    assert check.p_value[3] < 1e-6 < check.p_value[:3].min()
    assert check.chi2[:3] == pytest.approx(1.0, abs=0.1)
    with pytest.raises(InputError, match="needs the images"):
        analyzer_of(toy(5, 20)).predictive_check()


def test_bad_calls_are_refused(posterior):
    truth = TRUTH.expand(5, 7).numpy()
    with pytest.raises(InputError, match="own weights"):
        UncertaintyAnalyzer(posterior, truth, log_weights=np.zeros((5, 60)))
    with pytest.raises(ShapeError, match="truth"):
        UncertaintyAnalyzer(posterior, truth[:2])
    with pytest.raises(ShapeError, match="seeing"):
        UncertaintyAnalyzer(posterior, truth, covariates={"seeing": np.ones(3)})
    with pytest.raises(InputError, match="nothing to judge"):
        UncertaintyAnalyzer(np.full((2, 5, 7), np.nan), truth[:2])


def test_classes_of_signal_to_noise_are_the_projects():
    assert covariates.class_edges("snr", np.ones(3)) == SNR_CLASSES
    edges = covariates.class_edges("axis_ratio", np.linspace(0, 1, 101), 4)
    assert edges == (-math.inf, 0.25, 0.5, 0.75, math.inf)


# --- without truths ---------------------------------------------------------------------------


def test_without_truths_there_are_intervals_checks_and_outliers(posterior):
    analyzer = UncertaintyAnalyzer(posterior)
    with_truths = UncertaintyAnalyzer(posterior, TRUTH.expand(5, 7).numpy())
    np.testing.assert_array_equal(analyzer.credible_intervals(), with_truths.credible_intervals())
    assert analyzer.predictive_check(4).p_value[3] < 1e-6
    found = analyzer.outliers()
    assert [(f["row"], f["name"], f["reason"]) for f in found] == [(3, "spoilt", "chi2_p")]
    report = analyzer.report()
    assert json.loads(json.dumps(report, allow_nan=False))["left_out"] == 1
    assert set(report) == {"galaxies", "left_out", "draws", "widths", "outliers"}
    assert 0.0 < report["widths"]["magnitude"] < 0.1


def test_what_predict_returned_is_taken(posterior):
    one = UncertaintyAnalyzer({"posterior": posterior[0]}, TRUTH.numpy())
    assert one.truth.shape == (1, 7)
    assert one.credible_intervals().shape == (1, 7, 2)


def test_calibration_without_truths_says_what_is_missing(posterior):
    analyzer = UncertaintyAnalyzer(posterior)
    for ask in (analyzer.metrics, lambda: analyzer.ranks, lambda: analyzer.by_class("snr")):
        with pytest.raises(InputError, match="needs truths"):
            ask()
    draws = UncertaintyAnalyzer(posterior.samples[:3].numpy())
    assert set(draws.report()) == {"galaxies", "left_out", "draws", "widths"}
    with pytest.raises(InputError, match="Give truths, or the Posterior"):
        draws.outliers()
    with pytest.raises(ShapeError, match=r"draws must have shape \(B, S, 7\), got \(60, 7\)"):
        UncertaintyAnalyzer(posterior.samples[0].numpy())
