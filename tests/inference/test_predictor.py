from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import deeplegato_pp
from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import (
    ConfigError,
    InputError,
    ModelNotFoundError,
    RangeError,
    ShapeError,
)
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.observation import binning
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.units import user_box
from fake_model import TRUTH, FakeModel, truth_image

PACKAGED = Path(deeplegato_pp.__file__).with_name("pretrained") / "default"


def observe(image=None, **options) -> Observation:
    image = truth_image().numpy() if image is None else image
    return Observation.from_array(
        image, **{"noise": 1.0, "psf_fwhm": 3.0, "pixel_scale": 0.25, "zero_point": 30.5} | options
    )


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(FakeModel(TRUTH), "cpu")


def test_the_answer_comes_out_in_the_users_units(predictor):
    # The same pixels through another instrument: 5 times finer, counts 7 times as many.
    obs = observe(7 * truth_image().numpy(), noise=7.0, pixel_scale=0.05, zero_point=26.0)
    posterior = predictor.posterior(obs, 2000)
    median = posterior.samples.median(0).values
    assert posterior.samples.shape == (2000, 7)
    assert float(median[0]) == pytest.approx(21.0 - 30.5 + 26.0 - 2.5 * math.log10(7), abs=0.01)
    assert float(median[1]) == pytest.approx(0.2, rel=0.01)
    assert median[2:4].tolist() == pytest.approx([2.5, 0.6], rel=0.01)
    assert median[5:].tolist() == pytest.approx([0.5, -1.0], abs=0.02)
    assert bool(posterior.boxes.contains(posterior.samples).all())
    assert posterior.boxes.effective_radius == pytest.approx((0.02, 2.0))
    assert posterior.method == "amortized"
    assert posterior.flag_names == ["psf_from_fwhm"]


def test_a_model_that_is_right_fits(predictor):
    posterior = predictor.posterior(observe())
    assert posterior.chi2 == pytest.approx(1.0, abs=5 * math.sqrt(2 / 128**2))
    wrong = predictor.posterior(observe(truth_image().numpy() + 3 * np.eye(128)))
    assert wrong.chi2 > 1.05


def test_a_constant_sky_within_its_prior_is_no_misfit(predictor):
    raised = truth_image().numpy() + 0.3
    assert predictor.posterior(observe(raised, sky_sigma=0.3)).chi2 == pytest.approx(1.0, abs=0.06)
    # With tau = 0.02 the mean of N pixels, m, leaves N m^2/(1 + N tau^2).
    n = 128**2
    before, after = (predictor.posterior(observe(i)).chi2 for i in (truth_image().numpy(), raised))
    assert after - before == pytest.approx(0.3**2 / (1 + n * 0.02**2), abs=0.2 * 0.0119)


def test_crop_offsets_are_undone(predictor):
    # The galaxy sits 0.5, -1 px off the centre of a stamp cut from an odd-sized image.
    image = np.random.default_rng(0).normal(size=(161, 171))
    image[17:145, 22:150] = truth_image().numpy()
    posterior = predictor.posterior(observe(image), widths="noise")
    prepared = posterior.prepared
    assert Flag.CROPPED & posterior.flags
    x, y = prepared.center_to_user(0.5, -1.0)
    assert (prepared.offset_x, prepared.offset_y) != (0.0, 0.0)
    got = posterior.samples[:, 5:].mean(0).tolist()
    assert got == pytest.approx([x, y], abs=0.02)
    lower, upper = posterior.boxes.center_x
    assert (lower, upper) == pytest.approx((prepared.offset_x - 5, prepared.offset_x + 5))


def test_log_prob_is_a_density_in_physical_units(predictor):
    posterior = predictor.posterior(observe(), 50, widths="noise")
    box, w = posterior.boxes, posterior.w
    torch.testing.assert_close(box.to_physical(w), posterior.samples)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(box.to_physical, row).det().abs().log() for row in w]
    )
    network = predictor.model.log_prob(predictor.model.center[None], w[None])[0]
    torch.testing.assert_close(posterior.log_prob, network - jacobian, rtol=0, atol=1e-6)


def test_order_and_batch_do_not_matter(predictor):
    observations = [observe(truth_image(seed=i).numpy()) for i in range(4)]
    honest = predictor.posterior(observations, 100, seed=3)
    together = honest.under_noise()
    backwards = predictor.posterior(observations[::-1], 100, seed=3, batch_size=3)
    for i in range(4):
        torch.testing.assert_close(backwards[3 - i].under_noise().samples, together[i].samples)
        alone = predictor.posterior(observations[i], 100, seed=3)
        torch.testing.assert_close(alone.under_noise().samples, together[i].samples)
        # The search for the optimum ends within 3 % of a posterior sigma.
        off = (alone.w - honest[i].w).abs() / honest[i].w.std(0)
        assert float(off.max()) < 0.1
    assert not torch.equal(together[0].w, together[1].w)
    assert not torch.equal(predictor.posterior(observations[0], 100, seed=4).w, together[0].w)


def test_a_failed_one_keeps_its_place_and_takes_no_one_along(predictor):
    masked = np.zeros((300, 300), dtype=bool)
    masked[50:250, 50:250] = True  # all that the stamp sees
    hidden = observe(np.zeros((300, 300)), mask=masked, name="hidden")
    poisoned = truth_image().numpy()
    poisoned[3, 3] = 1e9
    posterior = predictor.posterior(
        [observe(), hidden, np.zeros((3, 3, 3)), observe(poisoned, name="hot"), observe()]
    )
    assert [bool(f & Flag.FAILED) for f in posterior.flags] == [False, True, True, True, False]
    assert posterior.names[1] == "hidden"
    assert "mask" in posterior.reasons[1]
    assert "two-dimensional" in posterior.reasons[2] or "2-D" in posterior.reasons[2]
    assert "not finite" in posterior.reasons[3]
    assert np.isnan(posterior.samples[1:4].numpy()).all()
    torch.testing.assert_close(posterior[0].samples, posterior[4].samples)
    rows = posterior.rows()
    assert rows[3]["magnitude"] is None
    assert rows[4]["magnitude"] == pytest.approx(21.0, abs=0.05)
    with pytest.raises(InputError):
        predictor.posterior(hidden)


def test_bad_calls_are_refused(predictor):
    with pytest.raises(RangeError, match="num_samples"):
        predictor.posterior(observe(), 0)
    with pytest.raises(InputError, match="empty"):
        predictor.posterior([])
    with pytest.raises(InputError, match="beside an observation"):
        predictor.predict(observe(), psf=np.ones((3, 3)))
    with pytest.raises(InputError, match="2 images came with 3"):
        predictor.predict_batch(np.zeros((2, 9, 9)), psfs=np.ones((3, 5, 5)))
    with pytest.raises(ModelNotFoundError, match="nowhere"):
        Predictor.from_pretrained("nowhere")


# --- too large galaxies -----------------------------------------------------------------------


class GrowingModel(FakeModel):
    """Finds R_e = 40 px of the image, at whatever scale: the pixels' noise tells the binning."""

    def encode(self, stamps):
        context = super().encode(stamps).clone()
        # sky_sigma is 0.02 k of the stamp's noise where k x k pixels of constant noise are summed
        bins = (stamps.sky_sigma / 0.02).round().double()
        target = TRUTH.expand(len(stamps), 7).clone()
        target[:, 1] = 40.0 / bins * 0.25
        target[:, 1] = target[:, 1].clamp(max=9.9)
        context[:] = self.prior.to_normal(target)
        return context


def test_a_large_galaxy_is_binned_until_it_fits():
    predictor = Predictor(GrowingModel(TRUTH), "cpu")
    image = np.random.default_rng(0).normal(size=(512, 512))
    large, small = predictor.posterior([observe(image), observe(image[:100, :100])])
    assert large.prepared.bin == 4
    assert large.flags & Flag.BINNED
    assert not large.flags & Flag.TOO_LARGE
    radius = large.samples[:, 1].median() / 0.25
    assert float(radius) == pytest.approx(40.0, rel=0.02)
    assert large.boxes.effective_radius == pytest.approx((0.4, 40.0))
    assert large.boxes.center_x == pytest.approx((-20.0, 20.0))
    assert large.rows()[0]["bin"] == 4
    # 100 px allow a bin of 3, which is still not coarse enough by the goal, but by the limit.
    assert small.prepared.bin == 3
    assert not small.flags & Flag.TOO_LARGE


def test_a_tight_stamp_is_not_binned_away():
    predictor = Predictor(GrowingModel(TRUTH), "cpu")
    posterior = predictor.posterior(observe(np.random.default_rng(0).normal(size=(47, 69))))
    assert posterior.prepared.bin == 1
    assert posterior.flags & Flag.TOO_LARGE
    assert posterior.flags & Flag.PADDED


@pytest.mark.parametrize(
    ("radius", "current", "shape", "expected"),
    [
        (16.0, 1, (500, 500), 1),
        (16.1, 1, (500, 500), 2),
        (39.0, 1, (500, 500), 4),
        (39.0, 1, (64, 500), 2),
        (20.0, 3, (500, 500), 6),
        (20.0, 3, (64, 64), 3),
    ],
)
def test_next_bin(radius, current, shape, expected):
    assert binning.next_bin(radius, current, shape) == expected


# --- flags ------------------------------------------------------------------------------------


def test_edges_of_the_prior():
    draws = torch.randn(4000, 7, generator=torch.Generator().manual_seed(0)).double()
    assert verdicts.edge_parameters(draws) == []  # knows nothing, leans nowhere
    assert verdicts.edge_parameters(0.05 * draws + 1.0) == []
    upper = draws.clone() * 0.05
    uniform = torch.rand(4000, generator=torch.Generator()).double()
    upper[:, 2] = torch.special.ndtri(1 + 0.01 * uniform.log().clamp(min=-50))
    # falls off exponentially from the edge over 1 % of the prior
    assert verdicts.edge_parameters(upper) == ["sersic_index"]
    beyond = 0.01 * draws
    beyond[:, 0] -= 4.0
    assert verdicts.edge_parameters(beyond) == ["magnitude"]
    thin = 0.1 * draws
    thin[:, 3] += 5.0
    assert verdicts.edge_parameters(thin) == ["axis_ratio"]
    round_ = 0.01 * draws
    assert "axis_ratio" not in verdicts.edge_parameters(round_)


def test_flags_of_core_and_training_ranges(predictor):
    predictor.model.card["training_ranges"] = {"psf_fwhm": [4.0, 8.0], "sky_sigma": [0.001, 0.1]}
    mask = np.zeros((128, 128), dtype=bool)
    mask[62, 64] = True
    posterior = predictor.posterior(observe(mask=mask))
    assert posterior.flag_names == ["psf_from_fwhm", "masked_core", "outside_training"]
    assert "psf_fwhm" in posterior.rows()[0]["notes"]
    mask = np.roll(mask, 20, axis=0)
    predictor.model.card["training_ranges"] = {"psf_fwhm": [1.5, 6.0]}
    assert predictor.posterior(observe(mask=mask)).flag_names == ["psf_from_fwhm"]


def test_user_box_maps_the_reference_box():
    obs = observe(np.zeros((300, 301)) + np.eye(300, 301), pixel_scale=0.1, zero_point=25.0)
    prepared = prepare(obs, bin=2)
    box, mine = PriorBox(), user_box(PriorBox(), prepared)
    w = torch.randn(20, 7, generator=torch.Generator().manual_seed(1)).double()
    reference, user = box.to_physical(w), mine.to_physical(w)
    flux_reference = 10 ** (-0.4 * (reference[:, 0] - 30.5)) * prepared.scale
    torch.testing.assert_close(flux_reference, 10 ** (-0.4 * (user[:, 0] - 25.0)))
    torch.testing.assert_close(user[:, 1] / 0.2, reference[:, 1] / 0.25)
    torch.testing.assert_close(user[:, 2:5], reference[:, 2:5])
    x, y = prepared.center_to_user(reference[:, 5], reference[:, 6])
    torch.testing.assert_close(user[:, 5:], torch.stack([x, y], 1))


# --- the short way ----------------------------------------------------------------------------


def test_predict_returns_the_dictionary(predictor, capsys):
    result = predictor.predict(truth_image().numpy(), num_samples=300, return_samples=True)
    assert list(result["params"]) == list(NAMES)
    entry = result["params"]["effective_radius"]
    assert set(entry) == {"value", "std", "ci_lower", "ci_upper", "unit"}
    assert entry["unit"] == "arcsec"
    assert entry["ci_lower"] < entry["value"] < entry["ci_upper"]
    assert entry["value"] == pytest.approx(1.0, rel=0.05)
    assert result["mean"].shape == (7,)
    assert result["samples"].shape == (300, 7)
    assert {"no_psf", "no_noise", "no_pixel_scale", "no_zero_point"} <= set(result["flags"])
    assert "samples" not in predictor.predict(truth_image(), num_samples=10)
    predictor.print_results(result)
    text = capsys.readouterr().out
    assert text.count("\n") == 9
    assert "effective_radius" in text
    assert "arcsec" in text


def test_predict_batch_is_predict_of_each(predictor):
    images = torch.stack([truth_image(seed=i) for i in range(2)])
    psf = np.ones((5, 5))
    many = predictor.predict_batch(images, psfs=psf, num_samples=100)
    one = predictor.predict(images[1], psf=psf, num_samples=100)
    assert many["params"]["magnitude"]["value"].shape == (2,)
    assert many["mean"].shape == (2, 7)
    np.testing.assert_allclose(many["mean"][1], one["mean"], rtol=1e-5)


# --- refining ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refined() -> tuple:
    predictor = Predictor(FakeModel(TRUTH, 0.03), "cpu")
    network = predictor.posterior(
        [observe(pixel_scale=0.05), np.zeros((2, 2, 2)), observe(pixel_scale=0.05)], 200
    )
    return predictor, network, predictor.refine(network, ess=150)


def test_refine_weighs_the_draws(refined):
    _, network, exact = refined
    assert len(exact) == 3
    assert exact.method[0] in ("importance", "adapted")
    assert exact.ess[0] >= 150
    assert exact.khat[0] < 0.7
    assert math.isfinite(exact.log_evidence[0])
    assert exact.method[1] == ""
    assert exact.reasons[1] == network.reasons[1]
    assert exact.chi2[0] == pytest.approx(1.0, abs=0.06)
    truth = TRUTH.clone()
    truth[1] = 0.2
    row = exact.rows()[0]
    for i, name in enumerate(NAMES):
        if name != "position_angle":
            assert abs(row[name] - float(truth[i])) < 5 * row[f"{name}_std"], name
    # The magnitude of so bright a galaxy is known better than the network's 0.03 in w.
    assert row["magnitude_std"] < 0.5 * network.rows()[0]["magnitude_std"]
    torch.testing.assert_close(exact[0].samples, exact[2].samples)


def test_refining_is_not_done_twice(refined):
    predictor, network, exact = refined
    with pytest.raises(InputError, match="network's own"):
        predictor.refine(exact)
    with pytest.raises(ConfigError, match="method"):
        predictor.refine(network, method="magic")
    with pytest.raises(RangeError, match="sersic"):
        predictor.refine(network, fixed={"sersic": 4.0})


def test_fixed_values_are_in_the_users_units(refined):
    predictor, network, _ = refined
    single = predictor.refine(network[0], ess=60, fixed={"effective_radius": 0.2})
    assert single.single
    torch.testing.assert_close(
        single.samples[:, 1], torch.full_like(single.samples[:, 1], 0.2), rtol=1e-6, atol=0
    )


def test_each_galaxy_may_have_its_own_fixed_values(refined):
    predictor, network, _ = refined
    pair = network[[0, 2]]
    forced = predictor.refine(
        pair, ess=60, fixed={"center_x": [0.5, 0.4], "center_y": -1.0, "sersic_index": 2.5}
    )
    for i, x in enumerate((0.5, 0.4)):
        assert forced.samples[i, :, 5].tolist() == pytest.approx([x] * forced.samples.shape[1])
    # 0.1 px is many sigma for so bright a galaxy, and the evidence knows it.
    assert forced.log_evidence[0] > forced.log_evidence[1] + 10.0
    assert np.isnan(forced.star_probability).all()  # a point source's centre is free
    with pytest.raises(ShapeError, match="center_x"):
        predictor.refine(pair, fixed={"center_x": [0.5, 0.4, 0.3]})


def test_a_bright_star_is_called_one_and_costs_no_chain(monkeypatch):
    def chain(*_, **__):
        raise LookupError("a chain")

    monkeypatch.setattr("deeplegato_pp.inference.refine.fallback.sample_chain", chain)
    monkeypatch.setattr("deeplegato_pp.inference.refine.engine.weights_failed", lambda *_: True)
    brilliant = torch.tensor([18.0, 0.15, 1.0, 0.9, 0.0, 0.5, 0.5], dtype=torch.float64)
    predictor = Predictor(FakeModel(brilliant, 0.05), "cpu")
    predictor.model.image_size = 48
    star = 1e5 * np.pad(moffat_psf(3.0)[0], [(9, 8), (9, 8)])  # its centre on a pixel
    noise = np.random.default_rng(3).normal(size=(48, 48))
    network = predictor.posterior(observe(noise + star), 100)
    # With errors of model or PSF, so bright a star may be a galaxy.
    exact = {"ess": 25, "model_error": 0.0, "psf_error": 0.0}
    row = predictor.refine(network, **exact).rows()[0]
    assert row["method"] == "adapted"
    assert row["star_probability"] == pytest.approx(1.0)
    assert "no Markov chain was run" in row["notes"]
    unrefined = predictor.refine(network, ess=25, star_odds=None).rows()[0]
    assert "LookupError: a chain" in unrefined["reason"]


def test_empty_sky_is_no_detection_and_gets_a_limit():
    faint = TRUTH.clone()
    faint[0] = 26.5
    predictor = Predictor(FakeModel(faint, 0.6), "cpu")
    predictor.model.image_size = 48
    noise = np.random.default_rng(3).normal(size=(48, 48))
    exact = predictor.refine(predictor.posterior(observe(noise), 300), ess=100, star_odds=0.25)
    row = exact.rows()[0]
    assert "undetected" in row["flag_names"]
    assert row["detection"] < math.log(100.0)
    assert row["star_odds"] == 0.25
    assert row["flux_limit"] == pytest.approx(3631e9 * 10 ** (-0.4 * row["magnitude_limit"]))
    assert 21.0 < row["magnitude_limit"] < 27.5
    with pytest.raises(RangeError, match="odds"):
        predictor.refine(exact, star_odds=-1.0)


# --- the packaged model -----------------------------------------------------------------------


@pytest.mark.skipif(not PACKAGED.is_dir(), reason="no packaged model yet")
def test_the_packaged_model_measures_a_simulated_galaxy():
    predictor = Predictor.from_pretrained(device="cpu")
    posterior = predictor.posterior(observe(), 500)
    row = posterior.rows()[0]
    truth = dict(zip(NAMES, TRUTH.tolist(), strict=True))
    assert row["model"].startswith("default")
    for name in ("magnitude", "effective_radius", "sersic_index", "axis_ratio"):
        assert abs(row[name] - truth[name]) < 5 * row[f"{name}_std"], name
    assert row["magnitude_std"] < 0.5
    other = observe(truth_image(seed=1).numpy())
    batch = predictor.posterior([other, observe()], 500)
    off = (batch[1].samples - posterior.samples).abs() / posterior.samples.std(0)
    off[:, 4] = 0.0  # the seam of the angle
    assert float(off.max()) < 1e-3


def test_correlated_noise_and_a_model_error_widen_the_exact_posterior(predictor):
    network = predictor.posterior(observe(), 150)
    widths = [
        predictor.refine(network, ess=80, star_odds=None, **options).summary()["magnitude_std"]
        for options in ({}, {"noise_correlation": 4.0}, {"model_error": 0.2})
    ]
    plain, correlated, wrong = (float(w[0].value) for w in widths)
    assert correlated > 1.4 * plain
    assert wrong > 1.2 * plain
    with pytest.raises(RangeError, match="noise_correlation"):
        predictor.refine(network, noise_correlation=0.0)


def test_each_observation_brings_its_own_correlation(predictor):
    both = predictor.posterior([observe(), observe(noise_correlation=4.0)], 150)
    refined = predictor.refine(both, ess=80, star_odds=None)
    plain, correlated = refined.summary()["magnitude_std"]
    assert correlated > 1.4 * plain
    assert [m.noise_correlation for m in refined.measurements] == [1.0, 4.0]
    assert "noise correlation of 4" in refined.rows()[1]["notes"]


def test_one_image_answers_for_one_and_several_with_an_axis(predictor):
    images = torch.stack([truth_image(seed=i) for i in range(2)])
    one = predictor.predict(images[0], num_samples=40, return_samples=True)
    assert {k: one[k].shape for k in ("mean", "std", "ci_lower", "ci_upper")} == dict.fromkeys(
        ("mean", "std", "ci_lower", "ci_upper"), (7,)
    )
    assert one["samples"].shape == (40, 7)
    for several in (images, images[:, None].numpy(), list(images)):
        result = predictor.predict(several, num_samples=40, return_samples=True)
        assert result["samples"].shape == (2, 40, 7)
        np.testing.assert_allclose(result["mean"][0], one["mean"])
        assert result["params"]["magnitude"]["value"].shape == (2,)
    assert predictor.predict(images[:1], num_samples=40)["mean"].shape == (1, 7)


def test_several_channels_are_refused(predictor):
    with pytest.raises(ShapeError, match="one channel"):
        predictor.predict(torch.zeros(2, 3, 64, 64))
