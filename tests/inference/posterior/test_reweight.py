"""Refined posteriors under another prior, noise or gain, by weights alone."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference import predictive
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.draws import _PREDICTIVE
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.verdict import verdict as verdicts
from fake_model import TRUTH, FakeModel, truth_image

GAIN = 400.0
SCALE = 7.0


def observe(noise: float = 1.0, gain: float | None = GAIN, **more: float) -> Observation:
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
        **more,
    )


NOISE = {"star_odds": None, "widths": "noise", "model_error": 0.0}
"""The posterior of the likelihood itself: draws that were not moved, no error of the model."""


@pytest.fixture(scope="module")
def refined():
    predictor = Predictor(FakeModel(TRUTH + torch.tensor([3.6, 0, 0, 0, 0, 0, 0]), 0.25), "cpu")
    predictor.model.image_size = 64
    network = predictor.posterior([observe(), np.zeros((2, 2, 2))], 300)
    return predictor, network, predictor.refine(network, ess=200, **NOISE)


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
    direct = predictor.refine(predictor.posterior(obs, 300), ess=150, **NOISE)
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
        network[0], ess=150, noise_correlation=4.0, **(NOISE | {"model_error": 0.05})
    )
    notes = exact.rows()[0]["notes"]
    assert "noise correlation of 4" in notes
    assert "model error of 5 %" in notes
    # No more than rounding: the draws' chi-square and p-value come out as they went in.
    same = exact.reweight(noise_factor=1.0 + 1e-9)
    assert same.log_evidence == pytest.approx(exact.log_evidence, abs=1e-4)
    assert same.chi2 == pytest.approx(exact.chi2, abs=0.01)
    assert same.p_value == pytest.approx(exact.p_value, abs=0.05)
    wider = exact.reweight(noise_factor=1.03)
    direct = predictor.refine(
        predictor.posterior(observe(1.03), 300),
        ess=150,
        noise_correlation=4.0,
        **(NOISE | {"model_error": 0.05}),
    )
    expected = direct.log_evidence - 64**2 * math.log(1.03)
    error = math.hypot(wider.log_evidence_error, direct.log_evidence_error)
    assert wider.log_evidence == pytest.approx(expected, abs=5 * error + 0.1)
    assert wider.p_value == pytest.approx(direct.p_value, abs=0.05)
    assert wider.p_value < 0.98  # 0.995 if pixels were independent


def same_weights(first: Posterior, second: Posterior) -> None:
    """Two posteriors of one galaxy whose draws weigh the same, and of which the same is said."""
    weights = [torch.softmax(p.log_weights, 0) for p in (first, second)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-7)  # images in float32
    for name in ("log_evidence", "log_evidence_error", "chi2", "p_value", "chi2_p", "ess"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-4), name
    assert first.flags == second.flags


def steep(p):
    """A prior that is no box's, in a function that can be stored."""
    return -2.0 * p[:, 0]


def test_twice_is_once(refined):
    first = refined[2][0]
    once = first.reweight(noise_factor=1.1 * 1.05, gain=0.5 * GAIN)
    same_weights(
        first.reweight(noise_factor=1.1).reweight(noise_factor=1.05, gain=0.5 * GAIN), once
    )
    back = first.reweight(noise_factor=1.1, gain=GAIN).reweight(noise_factor=1.0 / 1.1, gain=GAIN)
    assert back.log_evidence == pytest.approx(first.log_evidence, abs=1e-4)
    assert back.log_evidence_error == pytest.approx(first.log_evidence_error, abs=1e-5)
    low = first.boxes.sersic_index[0]
    wide, narrow = {"sersic_index": (low, 6.0, "linear")}, {"sersic_index": (low, 5.0, "linear")}
    same_weights(first.reweight(wide).reweight(narrow), first.reweight(narrow))
    other = {"axis_ratio": (first.boxes.axis_ratio[0], 1.0, "log")}
    same_weights(first.reweight(narrow).reweight(other), first.reweight(narrow | other))
    box = replace(first.boxes, sersic_index=(low, 4.0))
    same_weights(first.reweight(wide).reweight(box), first.reweight(box))
    same_weights(first.reweight(steep).reweight(box), first.reweight(box))
    mixed = first.reweight(noise_factor=1.1).reweight(narrow)
    same_weights(mixed, first.reweight(narrow, noise_factor=1.1))


def test_a_prior_must_lie_within_the_one_in_force(refined):
    low = refined[2][0].boxes.sersic_index[0]
    narrow = refined[2][0].reweight({"sersic_index": (low, 5.0)})
    with pytest.raises(RangeError, match="reaches beyond"):
        narrow.reweight({"sersic_index": (low, 6.0)})
    with pytest.raises(InputError, match="function in force"):
        refined[2][0].reweight(steep).reweight({"sersic_index": (low, 5.0)})


def test_the_new_noise_is_what_everything_speaks_of(refined):
    first = refined[2][0]
    wider = first.reweight(noise_factor=2.0)
    before, after = first.residual_image(), wider.residual_image()
    good = ~after.mask
    # Where the galaxy has no light of its own the noise is the map's.
    ratio = (after.sigma / before.sigma)[good]
    assert np.median(ratio) == pytest.approx(2.0, rel=1e-3)
    squares = (after.in_sigma[good] ** 2).sum() / (good.sum() - 7)
    assert squares == pytest.approx(wider.chi2, abs=2e-3)
    checked = predictive.check(wider, 20)
    assert checked.chi2[0] == pytest.approx(wider.chi2, abs=0.01)
    assert checked.p_value[0] == pytest.approx(wider.p_value, abs=0.01)
    assert Flag.NOISE_MISMATCH in Flag(wider.flags)


def test_a_check_sees_the_noise_refined_under(refined):
    predictor, network, _ = refined
    exact = predictor.refine(
        network[0], ess=100, star_odds=None, noise_correlation=1.2, model_error=0.5
    )
    found = predictive.check(exact, 50)
    likelihood = exact.measurements[0].likelihood()
    weights = exact.weights(0)
    # Each number is a mean over some of the draws; the row's own is of those before they moved.
    for p_value, posterior, draws in (
        (found.p_value[0], exact, 50),
        (exact.p_value, exact.under_noise(), _PREDICTIVE),
    ):
        each = likelihood.p_value(0, posterior.w).numpy()
        mean = weights @ each
        error = math.sqrt(weights @ (each - mean) ** 2 / draws)
        assert p_value == pytest.approx(mean, abs=5 * error)
    assert found.chi2[0] * 64**2 / (64**2 - 7) == pytest.approx(exact.chi2, abs=0.01)
    plain = predictive.check(network[0], 50)
    assert found.chi2[0] < plain.chi2[0]
    assert likelihood.model_error == 0.5
    assert float(likelihood.stamps.noise_correlation) == pytest.approx(1.2)


def test_a_network_row_speaks_of_the_noise_it_was_told(refined):
    row = refined[0].posterior(observe(noise_correlation=4.0), 50)
    likelihood = row.measurements[0].likelihood()
    assert float(likelihood.stamps.noise_correlation) == 4.0
    model = likelihood.render(0, row.w.mean(0, keepdim=True), torch.float64)
    checked = predictive.check(row, 20)
    # Each pixel counts as a quarter of an independent one.
    chi2, pixels = likelihood.chi2(0, row.w[:20]).numpy(), float(likelihood.num_pixels[0])
    assert checked.chi2[0] == pytest.approx(chi2.mean() / pixels, rel=1e-4)
    expected = stats.chi2.sf(chi2 / 4.0, pixels / 4.0).mean()
    assert checked.p_value[0] == pytest.approx(expected, rel=1e-3)
    assert float(likelihood.reduced_chi2(0, likelihood.residual(0, model).chi2[0])) == (
        pytest.approx(row.chi2, abs=0.02)
    )


def test_saved_and_loaded_it_is_the_same(refined):
    first = refined[2][0].reweight({"sersic_index": (1.0, 6.0, "linear")}, noise_factor=1.05)
    loaded = pickle.loads(pickle.dumps(first))
    same_weights(loaded.reweight(noise_factor=1.1), first.reweight(noise_factor=1.1))
    function = refined[2][0].reweight(steep)
    again = pickle.loads(pickle.dumps(function))
    same_weights(again.reweight(noise_factor=1.1), function.reweight(noise_factor=1.1))


def test_refined_rows_beside_the_networks(refined):
    _, network, exact = refined
    joined = Posterior.concatenate([network, exact])
    assert [m.method for m in joined.measurements] == ["amortized", "", exact.method[0], ""]
    same_weights(joined[2].reweight(noise_factor=1.1), exact[0].reweight(noise_factor=1.1))
    plain, alone = predictive.check(joined[[0, 2]]), predictive.check(exact[0])
    assert plain.p_value[1] == pytest.approx(alone.p_value[0], abs=0.05)
    for row, own in ((0, network[0]), (2, exact[0])):
        np.testing.assert_allclose(joined[row].residual_image().model, own.residual_image().model)


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


def test_an_error_of_the_psf_is_kept_and_acts_where_it_did(refined):
    predictor, network, _ = refined
    exact = predictor.refine(network[0], ess=200, psf_error=0.2, **NOISE)
    m = exact.measurements[0]
    assert m.psf_error == 0.2
    assert network.measurements[0].psf_error == 0.02
    used = torch.isfinite(exact.batch_log_weights[0])
    likelihood = m.likelihood()
    u = likelihood.coordinates.project(exact.batch_w[0, used])
    log_l = likelihood.log_likelihood_row(0, u) + likelihood.coordinates.log_prior(u)
    density = exact.batch_log_prob[0, used] - m.box.log_jacobian(exact.batch_w[0, used])
    probable = log_l > log_l.max() - 8.0
    difference = (exact.batch_log_weights[0, used] + density - log_l)[probable]
    assert int(probable.sum()) > 100
    assert float(difference.std()) < 0.1  # of sums of images, which serve to 3 per cent
    best = likelihood.coordinates.project(m.box.to_normal(torch.tensor([m.psf_reference])))
    assert float(likelihood.log_likelihood_row(0, best.double())) > float(log_l.max()) - 3.0
    again = exact.reweight(noise_factor=1.5).reweight(noise_factor=1.0 / 1.5)
    torch.testing.assert_close(
        again.batch_log_weights[0, used], exact.batch_log_weights[0, used], rtol=0, atol=0.01
    )
    (row,) = exact.rows()
    assert row["psf_error"] == 0.2
    assert exact.summary().meta["psferror"] == "0.2"
    with pytest.raises(RangeError, match="psf_error must lie in"):
        predictor.refine(network[0], psf_error=0.6)


def test_the_fitted_part_of_a_psf_error_is_kept(refined):
    predictor, network, _ = refined
    exact = predictor.refine(network[0], ess=200, psf_error=0.2, **NOISE)
    m = replace(exact.measurements[0], psf_share=0.25)
    assert m.likelihood().psf_widths.share.tolist() == [0.25]
    part = replace(exact, measurements=[m]).reweight(noise_factor=1.5)
    assert part.measurements[0].psf_share == 0.25
    assert part.measurements[0].psf_error == 0.2


def test_objections_that_the_widths_answer_stay_answered(refined, monkeypatch):
    eye = torch.eye(7, dtype=torch.float64)
    m = refined[2].measurements[0]
    mode = refined[2].batch_w[:1].mean(1)
    widening = Widening(mode, 1e4 * eye[None], eye[None], 1e-4 * eye, eye[0], 20, True, noise=1.5)
    honest = replace(refined[2][[0]], measurements=[replace(m, widening=widening)])
    found = verdicts.Verdict(int(Flag.NOISE_MISMATCH), (), 1.0, 0.5, 0.0)
    monkeypatch.setattr(verdicts, "judge", lambda *_: [found])
    (names,) = honest.reweight(noise_factor=1.01).flag_names
    assert "noise_measured" in names
    assert "noise_mismatch" not in names
