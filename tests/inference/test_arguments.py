"""What may stand for a seed, a number or an image, and what is refused in one line."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.refine.policy import Refining
from fake_model import TRUTH, FakeModel, truth_image

SIDE = 32
IMAGE = truth_image(SIDE)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    model = FakeModel(TRUTH)
    model.image_size = SIDE
    return Predictor(model, "cpu")


def observe(image=IMAGE, **options) -> Observation:
    return Observation.from_array(image, **{"noise": 1.0, "psf_fwhm": 3.0} | options)


@pytest.mark.parametrize(
    ("seed", "plain"), [(np.int64(3), 3), (np.array([3]), [3]), ((np.int32(3),), [3])]
)
def test_seeds_are_whole_numbers_of_any_kind(predictor, seed, plain):
    got = predictor.posterior([observe()], 5, seed=seed)
    torch.testing.assert_close(got.samples, predictor.posterior([observe()], 5, seed=plain).samples)


def test_without_a_seed_each_call_differs(predictor):
    one, two = (predictor.posterior(observe(), 5, seed=None).samples for _ in range(2))
    assert not torch.equal(one, two)
    predictor.refine(predictor.posterior(observe(), 20), "laplace", seed=None)


@pytest.mark.parametrize("seed", [3.0, "3", [1.5], "ab", [1, 2], []])
def test_other_seeds_are_refused(predictor, seed):
    with pytest.raises(InputError, match="seed"):
        predictor.posterior([observe()], 5, seed=seed)


@pytest.mark.parametrize("number", ["three", None, 2.5, 0, 10**12])
def test_numbers_of_draws(predictor, number):
    with pytest.raises(InputError, match="num_samples must"):
        predictor.posterior(observe(), number)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_any_type_with_and_without_gradients(predictor, kind):
    image = IMAGE.to(kind).requires_grad_()
    noise = torch.ones(SIDE, SIDE, dtype=kind)
    psf = torch.ones(3, 3, dtype=kind)
    made = Observation.from_array(image, psf=psf, noise=noise)
    assert made.image.dtype == np.float64
    np.testing.assert_allclose(made.image, image.detach().double().numpy())
    assert predictor.posterior(image, 5).samples.shape == (5, 7)


@pytest.mark.parametrize("images", [None, 5, 2.5])
def test_what_is_no_image_is_named(predictor, images):
    with pytest.raises(InputError, match="images are observations"):
        predictor.posterior(images, 5)


def test_refining_takes_what_it_can(predictor):
    network = predictor.posterior(observe(), 20)
    with pytest.raises(InputError, match="fixed sersic_index takes one number"):
        predictor.refine(network, fixed={"sersic_index": "a"})
    with pytest.raises(InputError, match="ess must be one number"):
        predictor.refine(network, ess="many")
    with pytest.raises(InputError, match="got a int"):
        predictor.refine(3)
    with pytest.raises(InputError, match="device must be one"):
        Predictor(FakeModel(TRUTH), "nonsense")


@pytest.mark.parametrize("path", ["n" * 300 + ".fits", "a\0b", None, 5])
def test_names_that_no_file_can_have(path):
    with pytest.raises(InputError, match=r"no such file|named by a path"):
        Observation.from_fits(path)


@pytest.mark.parametrize(
    "options",
    [
        {"gain": 1e300},
        {"pixel_scale": 1e300},
        {"zero_point": 1e300},
        {"sky_sigma": 1e300},
        {"noise": 1e-300},
        {"noise": 1e160},
    ],
)
def test_numbers_without_a_meaning(options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name}.* must lie in"):
        observe(**options)


@pytest.mark.parametrize("truth", [True, np.True_])
@pytest.mark.parametrize("name", ["gain", "pixel_scale", "zero_point", "psf_fwhm"])
def test_truth_values_are_no_numbers(name, truth):
    with pytest.raises(InputError, match=f"{name} must be one number, got .*True"):
        observe(**{name: truth})


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.5, 1e300])
def test_an_error_of_the_model_is_a_fraction_of_it(predictor, value):
    with pytest.raises(InputError, match="model_error must"):
        Refining(model_error=value)
    with pytest.raises(InputError, match="model_error must"):
        predictor.refine(predictor.posterior(observe(), 5), model_error=value)


@pytest.mark.parametrize("odds", [math.nan, 0.0, -1.0])
def test_odds_are_positive(odds):
    with pytest.raises(InputError, match="must be positive"):
        Refining(star_odds=odds)


@pytest.mark.filterwarnings("error")
def test_one_draw_is_enough(predictor):
    row = predictor.refine(predictor.posterior(observe(), 1)).rows()[0]
    assert row["reason"] is None
    assert row["magnitude"] == pytest.approx(float(TRUTH[0]), abs=0.1)
    assert "undetected" not in row["flag_names"]
    assert "tension" not in row["flag_names"]
