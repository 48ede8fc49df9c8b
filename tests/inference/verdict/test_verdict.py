"""Flags of a row: each must be set by what it is about, and by nothing less."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.amortized import AmortizedMeasurer
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.correlated_noise import correlate, lags_of
from fake_model import TRUTH, FakeModel, truth_image


def observe(image=None, **options) -> Observation:
    psf, _ = moffat_psf(3.0)
    image = truth_image().numpy() if image is None else image
    known = {"noise": 1.0, "psf": psf, "pixel_scale": 0.25, "zero_point": 30.5}
    return Observation.from_array(image, **known | options)


def verdict(image=None, width=0.02, card=None, **options):
    model = FakeModel(TRUTH, width)
    model.card |= card or {}
    return Predictor(model, "cpu").posterior(observe(image, **options), 300)


def test_a_right_image_is_good():
    row = verdict()
    assert row.flag_names == []
    assert row.quality == "good"
    assert row.chi2_p > 1e-3
    assert np.isnan(row.ood)
    plain = row.rows()[0]
    assert plain["quality"] == "good"
    assert plain["ood_p"] is None
    assert plain["chi2_p"] == row.chi2_p
    assert "gross_misfit" in row.summary()["quality"].info.description


def with_star(image):
    image[100:102, 100:102] += 40.0
    return image


def with_companion(image):
    image[70:76, 78:84] += 60.0
    return image


def upside_down(image):
    return -image


def flattened(image):
    return np.minimum(image, 0.5 * image.max())


def noisier(image):
    return image + 0.8 * np.random.default_rng(1).normal(size=image.shape)


def elsewhere(image):
    return np.roll(image, 2, axis=0)


@pytest.mark.parametrize(
    ("spoil", "width", "flags", "quality"),
    [
        (with_star, 0.02, {"neighbour_held"}, "good"),
        (with_companion, 0.02, {"neighbour", "mean_off"}, "bad"),
        (upside_down, 0.02, {"poor_fit", "gross_misfit", "undetected"}, "bad"),
        (flattened, 0.02, {"saturated"}, "bad"),
        (np.zeros_like, 0.02, {"no_contrast", "noise_mismatch", "undetected"}, "bad"),
        (elsewhere, 0.02, {"mean_off"}, "bad"),
        (noisier, 0.02, {"noise_measured"}, "good"),
        (lambda image: 1.3 * image, 1e-3, {"poor_fit", "mean_off"}, "bad"),
    ],
    ids=[
        "star",
        "companion",
        "upside-down",
        "saturated",
        "zeros",
        "elsewhere",
        "noisier",
        "brighter",
    ],
)
def test_what_is_wrong_is_said(spoil, width, flags, quality):
    row = verdict(spoil(truth_image().numpy()), width)
    assert flags <= set(row.flag_names)
    assert row.quality == quality


def test_noise_alone_is_undetected():
    faint = TRUTH.clone()
    faint[0] = 27.8
    noise = np.random.default_rng(0).normal(size=(128, 128))
    row = Predictor(FakeModel(faint), "cpu").posterior(observe(noise), 300)
    assert "undetected" in row.flag_names
    assert row.quality == "caution"


def test_few_draws_do_not_contradict():
    # From 20 draws a width is not known well enough.
    model = FakeModel(TRUTH, 0.02)
    shifted = observe(np.roll(truth_image().numpy(), 2, axis=0))
    few, many = (Predictor(model, "cpu").posterior(shifted, n) for n in (20, 200))
    assert not few.flags & Flag.MEAN_OFF
    assert many.flags & Flag.MEAN_OFF


def test_a_narrow_psf_matters_to_small_galaxies_only():
    prepared = prepare(observe())
    ranges = {"psf_fwhm": [4.0, 8.0]}
    assert verdicts.outside_training(prepared, 3.0, 20.0, ranges) == []
    assert len(verdicts.outside_training(prepared, 3.0, 10.0, ranges)) == 1
    assert len(verdicts.outside_training(prepared, 9.0, 20.0, ranges)) == 1


def test_correlated_noise_has_a_range_and_is_expected_where_it_is_told():
    white = torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    image = (truth_image() - white + correlate(white, lags_of(torch.tensor([4.0]))))[0].numpy()
    told = observe(image, noise_correlation=4.0)
    assert verdicts.outside_training(prepare(told), 3.0, 4.0, {}) == []
    ranges = {"noise_correlation": [1.0, 1.0]}
    (remark,) = verdicts.outside_training(prepare(told), 3.0, 4.0, ranges)
    assert "noise_correlation 4" in remark
    predictor = Predictor(FakeModel(TRUTH, 0.02), "cpu")
    untold = predictor.posterior(observe(image), 300, widths="noise")
    assert "noise_mismatch" in untold.flag_names
    assert "noise_mismatch" not in predictor.posterior(told, 300, widths="noise").flag_names
    # Honest widths are those of the noise that was measured.
    measured = predictor.posterior(observe(image), 300)
    assert "noise_measured" in measured.flag_names
    assert measured.measurements[0].widening.noise == pytest.approx(1.9, abs=0.2)


def test_the_visible_side_has_a_range_too():
    small = prepare(observe(truth_image().numpy()[48:80, 44:84]))
    assert verdicts.outside_training(small, 3.0, 4.0, {"smallest_stamp": 32}) == []
    (remark,) = verdicts.outside_training(small, 3.0, 4.0, {"smallest_stamp": 33})
    assert "32 px" in remark


def test_features_unlike_those_of_training_images(monkeypatch):
    model = FakeModel(TRUTH)
    predictor = Predictor(model, "cpu")
    monkeypatch.setattr(
        AmortizedMeasurer,
        "_unfamiliarity",
        lambda self, context, number: ([3.0] * number, [1e-5] * number),
    )
    row = predictor.posterior(observe(), 100)
    assert row.flag_names == ["unfamiliar"]
    assert row.quality == "bad"
    assert (row.ood, row.ood_p) == (3.0, 1e-5)


def test_refining_makes_the_verdict_anew():
    predictor = Predictor(FakeModel(TRUTH, 0.03), "cpu")
    network = predictor.posterior(observe(with_star(truth_image().numpy()), pixel_scale=0.05), 200)
    assert "neighbour_held" in network.flag_names
    exact = predictor.refine(network, ess=60, star_odds=None)
    assert "neighbours_masked" in exact.flag_names
    assert "neighbour" not in exact.flag_names
    assert exact.chi2_p > 1e-3
    assert exact.prepared is network.prepared


def test_every_flag_has_a_level_and_quality_is_the_worst():
    assert {flag.level for flag in Flag} == {"good", "caution", "bad"}
    assert Flag.quality(Flag.PADDED) == "good"
    assert Flag.quality(Flag.PADDED | Flag.NEIGHBOUR) == "caution"
    assert Flag.quality(Flag.NEIGHBOUR | Flag.FAILED) == "bad"
    assert Flag.quality(Flag.UNFAMILIAR | Flag.HIGH_KHAT, refined=True) == "bad"
