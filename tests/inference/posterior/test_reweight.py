"""Refined posteriors under another prior, noise or gain, by weights alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from fake_model import TRUTH, FakeModel, truth_image

GAIN = 400.0
SCALE = 7.0


def observe(noise: float = 1.0, gain: float | None = GAIN) -> Observation:
    """A faint copy of the truth (by its noise), in counts: a unit is a seventh of the noise."""
    image = truth_image().numpy() + 29.0 * np.random.default_rng(5).normal(size=(128, 128))
    return Observation.from_array(
        SCALE * image[32:96, 32:96],
        noise=SCALE * 29.0 * noise,
        gain=gain,
        psf_fwhm=3.0,
        pixel_scale=0.05,
        zero_point=26.0,
        name="faint",
    )


@pytest.fixture(scope="module")
def refined():
    predictor = Predictor(FakeModel(TRUTH + torch.tensor([3.6, 0, 0, 0, 0, 0, 0]), 0.25), "cpu")
    predictor.model.image_size = 64
    network = predictor.posterior([observe(), np.zeros((2, 2, 2))], 300)
    return predictor, network, predictor.refine(network, ess=200, star_odds=None)


def test_ranges_cut_and_keep_the_evidence_normalised(refined):
    _, _, exact = refined
    box = exact.boxes[0]
    low, high = box.sersic_index
    new = exact.reweight({"sersic_index": (low, high / 2.0)})
    kept = torch.isfinite(new.batch_log_weights[0])
    assert float(new.batch_samples[0, kept, 2].max()) <= high / 2.0
    weights = exact.weights(0)
    inside = weights[exact.batch_samples[0, :, 2].numpy() <= high / 2.0].sum()
    expected = math.log(inside) + math.log(math.log(high / low) / math.log(high / 2 / low))
    assert new.log_evidence[0] - exact.log_evidence[0] == pytest.approx(expected, abs=1e-6)
    assert math.isnan(new.ess[1])
    assert "another prior" in new.rows()[0]["notes"]


def test_a_scale_a_box_and_a_function_are_the_same_prior(refined):
    _, _, exact = refined
    first = exact[0]
    q_min = first.boxes.axis_ratio[0]
    by_name = first.reweight({"axis_ratio": (q_min, 1.0, "log")})

    def log_in_q(p):
        change = -p[:, 3].log() - math.log(math.log(1.0 / q_min)) + math.log(1.0 - q_min)
        return first.boxes.log_prior(first.w) + first.boxes.log_jacobian(first.w) + change

    by_function = first.reweight(log_in_q)
    assert by_name.single
    assert by_name.log_evidence == pytest.approx(by_function.log_evidence, abs=1e-5)
    narrow = replace(first.boxes, center_x=(-2.0, 2.0))
    by_box, by_range = first.reweight(narrow), first.reweight({"center_x": (-2.0, 2.0)})
    assert by_box.log_evidence == pytest.approx(by_range.log_evidence, abs=1e-9)
    assert by_box.boxes == narrow
    used = torch.isfinite(by_box.log_weights)
    torch.testing.assert_close(narrow.to_physical(by_box.w[used]), first.samples[used])


def test_draws_that_do_not_carry_a_prior_are_flagged(refined):
    _, _, exact = refined
    steep = exact[0].reweight(lambda p: 3000.0 * p[:, 0])
    assert steep.flags & (Flag.LOW_ESS | Flag.HIGH_KHAT)


def test_another_noise_is_what_refining_under_it_gives(refined):
    predictor, _, exact = refined
    new = exact[0].reweight(noise_factor=1.1, gain=0.5 * GAIN)
    obs = observe(1.1, 0.5 * GAIN)
    direct = predictor.refine(predictor.posterior(obs, 300), ess=150, star_odds=None)
    # Another unit of noise moves ln L by its logarithm per pixel.
    expected = direct.log_evidence - 64**2 * math.log(1.1)
    error = math.hypot(new.log_evidence_error, direct.log_evidence_error)
    assert new.log_evidence == pytest.approx(expected, abs=5 * error + 0.1)
    assert new.chi2 == pytest.approx(direct.chi2, abs=0.01)
    assert new.p_value == pytest.approx(direct.p_value, abs=0.1)
    assert new.khat < 0.7
    first, second = new.rows()[0], direct.rows()[0]
    for name in ("magnitude", "sersic_index", "center_x"):
        assert abs(first[name] - second[name]) < 0.5 * second[f"{name}_std"], name


def test_reality_s_floor_stays_in_force(refined):
    predictor, network, _ = refined
    exact = predictor.refine(
        network[0], ess=150, star_odds=None, noise_correlation=4.0, model_error=0.05
    )
    notes = exact.rows()[0]["notes"]
    assert "noise correlation of 4" in notes
    assert "model error of 5 %" in notes
    # No more than rounding: the draws' chi-square and p-value come out as they went in.
    same = exact.reweight(noise_factor=1.0 + 1e-9)
    assert same.log_evidence == pytest.approx(exact.log_evidence, abs=1e-4)
    assert same.chi2 == pytest.approx(exact.chi2, abs=0.01)
    assert same.p_value == pytest.approx(exact.p_value, abs=0.05)
    # Correlated pixels count a quarter of independent ones, in ln V and in the p-value.
    wider = exact.reweight(noise_factor=1.03)
    direct = predictor.refine(
        predictor.posterior(observe(1.03), 300),
        ess=150,
        star_odds=None,
        noise_correlation=4.0,
        model_error=0.05,
    )
    expected = direct.log_evidence - 64**2 / 4.0 * math.log(1.03)
    error = math.hypot(wider.log_evidence_error, direct.log_evidence_error)
    assert wider.log_evidence == pytest.approx(expected, abs=5 * error + 0.1)
    assert wider.p_value == pytest.approx(direct.p_value, abs=0.05)
    assert wider.p_value < 0.98  # 0.995 if pixels were independent


def test_what_cannot_be_is_refused(refined):
    _, network, exact = refined
    with pytest.raises(InputError, match="Refine them first"):
        network.reweight({"sersic_index": (1.0, 4.0)})
    with pytest.raises(InputError, match="nothing to change"):
        exact.reweight()
    with pytest.raises(RangeError, match="noise_factor"):
        exact.reweight(noise_factor=-1.0)
    with pytest.raises(RangeError, match="reaches beyond"):
        exact.reweight({"sersic_index": (0.1, 4.0)})
    with pytest.raises(RangeError, match="scale"):
        exact.reweight({"center_x": (-1.0, 1.0, "log")})
    with pytest.raises(RangeError, match="sersic"):
        exact.reweight({"sersic": (1.0, 4.0)})
    with pytest.raises(ShapeError, match="one log-density per draw"):
        exact.reweight(lambda p: p)
