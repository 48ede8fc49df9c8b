"""The whole network: draws, seeds, precision, and what it says in physical units."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch

from deeplegato_pp.errors import (
    ConfigError,
    InputError,
    ModelNotFoundError,
    NumericalError,
    RangeError,
    ShapeError,
)
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP, _central_interval, _circular_moments
from deeplegato_pp.scene.parameters import POSITION_ANGLE
from models.conftest import small_config


def test_samples_are_float64_with_their_density(any_model, stamps):
    with torch.no_grad():
        context = any_model.encode(stamps)
    w, log_q = any_model.sample(context, 50, torch.arange(len(stamps)))
    assert w.shape == (len(stamps), 50, 7)
    assert log_q.shape == (len(stamps), 50)
    assert w.dtype == log_q.dtype == torch.float64
    assert bool(torch.isfinite(w).all())
    assert not bool((w[0] == w[1]).any())


@torch.no_grad()
def test_draws_depend_on_the_seed_and_not_on_company(model, stamps):
    seeds = torch.tensor([11, 5, 7, 2**40, 0, 3])
    w, log_q = model.sample(model.encode(stamps), 64, seeds)
    sigma = w.std(1, keepdim=True)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled, _ = model.sample(model.encode(stamps[order]), 64, seeds[order])
    alone, log_q_alone = model.sample(model.encode(stamps[2:3]), 64, seeds[2:3])
    assert float(((shuffled - w[order]) / sigma[order]).abs().max()) < 1e-4
    assert float(((alone - w[2:3]) / sigma[2:3]).abs().max()) < 1e-4
    torch.testing.assert_close(log_q_alone, log_q[2:3], atol=1e-4, rtol=0)
    other, _ = model.sample(model.encode(stamps), 64, seeds + 1)
    assert not bool((other == w).any())


@torch.no_grad()
def test_densities_stay_float32_under_autocast(model, stamps):
    w = 0.1 * torch.ones(len(stamps), 3, 7)
    exact = model.encode(stamps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        context = model.encode(stamps)
        log_prob = model.log_prob(context, w)
        draws, log_q = model.sample(context, 20, torch.arange(len(stamps)))
        gaussian = model.head.gaussian_log_prob(context, w[:, 0])
        again = model.log_prob(context, draws)
        same_context = model.log_prob(exact, w)
    assert context.mean.dtype == log_prob.dtype == gaussian.dtype == torch.float32
    # The backbone did run in bfloat16, and the flow did not.
    assert not torch.equal(context.mean, exact.mean)
    torch.testing.assert_close(again.double(), log_q, atol=1e-4, rtol=1e-5)
    assert torch.equal(same_context, model.log_prob(exact, w))


@torch.no_grad()
def test_correlation_is_an_input_where_training_has_it(stamps):
    config = small_config()
    independent = replace(stamps, noise_correlation=torch.ones(len(stamps)))
    config.data.conditions.correlated_noise = 0.0
    ignorant = DeepLeGAToPP(config).eval()
    assert ignorant.correlation is None
    assert torch.equal(ignorant.features(stamps), ignorant.features(independent))
    config.data.conditions.correlated_noise = 0.5
    model = DeepLeGAToPP(config).eval()
    assert torch.equal(model.features(stamps), model.features(independent))  # zero at first
    model.correlation.weight += 0.1
    model.psf_encoder.load_state_dict(ignorant.psf_encoder.state_dict())
    moved = model.features(stamps) - model.features(independent)
    expected = 0.1 * stamps.noise_correlation.log()[:, None].expand_as(moved)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_error_of_the_psf_is_an_input_where_training_has_it(stamps):
    config = small_config()
    told = replace(stamps, psf_error=torch.linspace(0.0, 0.03, len(stamps)))
    ignorant = DeepLeGAToPP(config).eval()
    assert torch.equal(ignorant.features(stamps), ignorant.features(told))
    config.data.conditions.psf_error_input = True
    model = DeepLeGAToPP(config).eval()
    assert torch.equal(model.features(stamps), model.features(told))  # zero at first
    model.psf_error.weight += 0.1
    moved = model.features(told) - model.features(stamps)
    expected = 0.1 * torch.linspace(0.0, 3.0, len(stamps))[:, None].expand_as(moved)
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)


def test_forward_speaks_of_physical_parameters(model, stamps):
    result = model.predict(stamps, num_samples=40)
    assert {k: tuple(v.shape) for k, v in result.items()} == {
        "samples": (6, 40, 7),
        "mean": (6, 7),
        "std": (6, 7),
        "ci_lower": (6, 7),
        "ci_upper": (6, 7),
    }
    assert bool(model.prior.contains(result["samples"]).all())
    assert not result["samples"].requires_grad


def test_moments_of_the_angle_go_round_the_circle():
    samples = torch.ones(1, 4, 7, dtype=torch.float64)
    samples[0, :, POSITION_ANGLE] = torch.tensor([178.0, 179.0, 1.0, 2.0])
    mean, std = _circular_moments(samples)
    assert float(mean[0, POSITION_ANGLE]) % 180.0 == pytest.approx(0.0, abs=1e-9) or float(
        mean[0, POSITION_ANGLE]
    ) == pytest.approx(180.0)
    assert float(std[0, POSITION_ANGLE]) == pytest.approx(torch.tensor([-2, -1, 1, 2.0]).std())
    assert float(std[0, 0]) == 0.0


def test_loss_terms_are_the_densities(model, stamps):
    w = torch.zeros(len(stamps), 7)
    terms = model.compute_loss(stamps, w)
    context = model.encode(stamps)
    torch.testing.assert_close(terms["flow"], -model.log_prob(context, w[:, None])[:, 0])
    torch.testing.assert_close(terms["gaussian"], -model.head.gaussian_log_prob(context, w))
    torch.testing.assert_close(terms["error"], -context.mean)
    assert not terms["error"].requires_grad


def test_stamps_that_are_not_finite_are_named(model, stamps):
    image = stamps.image.clone()
    row, column = (~stamps.mask[3, 20:30, 20:30]).nonzero()[0]
    image[3, 20 + row, 20 + column] = torch.nan
    with pytest.raises(NumericalError, match="stamp 3 are not finite"):
        model.encode(replace(stamps, image=image))


def test_what_masked_pixels_hold_never_matters(model, stamps):
    filled = replace(stamps, image=stamps.image.masked_fill(stamps.mask, torch.nan))
    assert torch.equal(model.encode(filled).mean, model.encode(stamps).mean)


def test_it_is_built_from_its_configuration(model):
    built = DeepLeGAToPP.from_config(model.config)
    assert built.image_size == 64
    assert {k: v.shape for k, v in built.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_one_view_reads_the_whole_stamp_at_full_resolution(model, stamps):
    config = copy.deepcopy(model.config)
    config.model.backbone.views = 1
    config.model.backbone.patch_size = 8
    network = DeepLeGAToPP(config).eval()
    one_pixel = stamps.image.clone()
    one_pixel[:, 1, 2] += 100.0 * stamps.sigma[:, 1, 2]
    seen = ~stamps.mask[:, 1, 2]
    changed = network.image_features(replace(stamps, image=one_pixel))
    change = changed - network.image_features(stamps)
    assert bool((change.abs().amax(1) > 0).eq(seen).all())


def test_another_number_of_views_is_refused(model):
    config = copy.deepcopy(model.config)
    config.model.backbone.views = 3
    with pytest.raises(ConfigError, match="views"):
        DeepLeGAToPP(config)


# --- plain images, in their own units ---------------------------------------------------------


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    axis = torch.arange(64) - 31.5
    blob = torch.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 9.0)
    return 5.0 * (50.0 * blob + torch.randn(2, 64, 64, generator=generator))


def test_plain_images_are_taken_in_any_shape(model, images):
    expected = model.predict(images, num_samples=20)
    assert expected["samples"].shape == (2, 20, 7)
    assert expected["flags"] == [["no_psf", "no_noise", "no_pixel_scale", "no_zero_point"]] * 2
    for same in (images[:, None], images.numpy(), list(images)):
        torch.testing.assert_close(
            model.predict(same, num_samples=20)["samples"], expected["samples"]
        )
    one = model.predict(images[0], num_samples=20)
    torch.testing.assert_close(one["samples"], expected["samples"][0], atol=1e-3, rtol=1e-4)
    assert one["mean"].shape == one["ci_lower"].shape == (7,)
    assert one["flags"] == expected["flags"][0]


def test_plain_images_answer_in_their_own_units(model, images):
    bright = model.predict(1000.0 * images, num_samples=20)["mean"]
    mean = model.predict(images, num_samples=20)["mean"]
    torch.testing.assert_close(bright[:, 0], mean[:, 0] - 7.5, atol=1e-4, rtol=0)
    torch.testing.assert_close(bright[:, 1:], mean[:, 1:], atol=1e-3, rtol=1e-3)


def test_the_interval_holds_95_of_100_draws(model, stamps):
    result = model.predict(stamps, num_samples=400)
    inside = (result["samples"] >= result["ci_lower"][:, None]) & (
        result["samples"] <= result["ci_upper"][:, None]
    )
    share = inside.double().mean(1)
    others = [i for i in range(7) if i != POSITION_ANGLE]
    torch.testing.assert_close(
        share[:, others], torch.full_like(share[:, others], 0.95), atol=0.006, rtol=0
    )


def test_an_interval_of_the_angle_runs_through_the_seam():
    samples = torch.ones(1, 101, 7, dtype=torch.float64)
    samples[0, :, POSITION_ANGLE] = (175.0 + torch.linspace(0.0, 10.0, 101)) % 180.0
    mean, _ = _circular_moments(samples)
    lower, upper = _central_interval(samples, mean)
    assert float(lower[0, POSITION_ANGLE]) == pytest.approx(175.25)
    assert float(upper[0, POSITION_ANGLE]) == pytest.approx(4.75)


def test_the_loss_takes_physical_parameters(model, stamps, images):
    w = torch.zeros(len(stamps), 7, dtype=torch.float64)
    by_w = model.compute_loss(stamps, w.float())
    physical = model.compute_loss(stamps, model.prior.to_physical(w), physical=True)
    torch.testing.assert_close(by_w["flow"], physical["flow"], atol=1e-4, rtol=1e-5)
    weight = model.config.training.gaussian_weight
    torch.testing.assert_close(
        by_w["loss"], (by_w["flow"] + weight * by_w["gaussian"]).mean(), atol=1e-5, rtol=1e-5
    )
    params = torch.tensor([[20.0, 1.0, 1.0, 0.7, 30.0, 0.0, 0.0]]).expand(2, 7)
    plain = model.compute_loss(images, params)
    scaled = params.clone()
    scaled[:, 0] -= 7.5
    same = model.compute_loss(1000.0 * images, scaled)
    torch.testing.assert_close(plain["flow"], same["flow"], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("source", ["file", "mapping", "config"])
def test_a_configuration_comes_in_any_form(source, tmp_path):
    config = small_config()
    given = {"config": config, "mapping": config.to_dict(), "file": tmp_path / "small.yaml"}[source]
    if source == "file":
        given.write_text(json.dumps(config.to_dict()))
    assert DeepLeGAToPP.from_config(given).config == config


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m, i: m.predict(i[:, None].expand(2, 3, 64, 64)), ShapeError, "one channel"),
        (lambda m, i: m.predict(i[0, 0]), ShapeError, r"\(B, 1, H, W\), got \(64,\). Reshape"),
        (lambda m, i: m.predict([]), InputError, "got no images"),
        (lambda m, i: m.predict([i[0], 0.0 * i[1]]), InputError, "image 1: the noise cannot"),
        (lambda m, i: m.predict(i, num_samples=-1), RangeError, "num_samples"),
        (lambda m, i: m.compute_loss(i, torch.ones(2, 6)), ShapeError, r"\(2, 7\), got \(2, 6\)"),
        (
            lambda m, i: m.compute_loss(i, torch.full((2, 7), 0.5)),
            RangeError,
            "image 0: magnitude must lie",
        ),
        (lambda m, i: DeepLeGAToPP.from_config("nowhere.yaml"), ConfigError, "one of: colab_a100"),
        (lambda m, i: DeepLeGAToPP.from_config(7), ConfigError, "Config, got int"),
        (lambda m, i: DeepLeGAToPP.from_pretrained("nowhere"), ModelNotFoundError, "nowhere"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(call, error, message, model, images):
    with pytest.raises(error, match=message) as caught:
        call(model, images)
    assert "\n" not in str(caught.value)
