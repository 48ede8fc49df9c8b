"""The residual of a posterior, judged at the posterior's own width."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation
from deeplegato_pp.inference.verdict.goodness import MISFITS, goodness
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene import units
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.renderer import render_sersic
from fake_model import TRUTH, truth_image

BOX = PriorBox()
W = BOX.to_normal(TRUTH[None])[0]


def stamp(image=None, **options):
    image = truth_image().numpy() if image is None else image
    return prepare(
        Observation.from_array(
            image,
            **{"noise": 1.0, "psf_fwhm": 3.0, "pixel_scale": 0.25, "zero_point": 30.5} | options,
        )
    )


def draws(offset: float = 0.0, width: float = 0.02, number: int = 400) -> torch.Tensor:
    """Draws about a point that is `offset` widths off the truth in every coordinate."""
    noise = torch.randn(number, 7, generator=torch.Generator().manual_seed(3)).double()
    return W + width * (offset + noise)


def judge(w, prepared):
    return goodness([w], w.mean(0, keepdim=True), Likelihood.of([prepared], BOX))[0]


def rendered(w, prepared):
    return Likelihood.of([prepared], BOX).images(torch.zeros(1, dtype=torch.long), w[None])[0]


def test_a_right_posterior_fits():
    fit = judge(draws(0.0, 1e-4), stamp())
    assert fit.chi2 == pytest.approx(1.0, abs=5 * math.sqrt(2 / 128**2))
    assert set(fit.misfits) == set(MISFITS)
    assert max(fit.misfits.values()) < 4
    assert fit.p_value > 1e-3
    assert fit.renders == 1
    assert fit.noise == []
    assert abs(fit.residual_fraction) < 4 * fit.residual_error
    assert fit.detection > 100


def test_a_wide_posterior_is_judged_at_its_own_width():
    # At its mean the model is far off; within the posterior there is one that fits.
    fit = judge(draws(1.0, 0.05), stamp())
    assert fit.chi2 > 1.3
    assert fit.p_value > 1e-3
    assert fit.step == pytest.approx(1.0, abs=0.7)
    assert 5 <= fit.renders <= 12  # derivatives cost as much as four


def test_a_posterior_that_the_pixels_contradict():
    fit = judge(draws(7.0, 0.02), stamp())
    assert fit.step > 5
    assert fit.p_value > 1e-3  # the galaxy is a Sérsic galaxy all the same


def test_light_that_is_not_the_models_is_found():
    y, x = np.mgrid[:128, :128]
    arms = 60.0 * np.cos(2 * np.arctan2(y - 63, x - 63)) * np.exp(-np.hypot(x - 63, y - 63) / 6)
    fit = judge(draws(0.0, 0.05), stamp(truth_image().numpy() + arms))
    assert fit.p_value < 1e-6
    assert fit.residual_fraction > 5 * fit.residual_error > 0


def test_masked_pixels_do_not_count():
    image, mask = truth_image().numpy(), np.zeros((128, 128), dtype=bool)
    image[20:40, 20:40] = 1e6
    mask[20:40, 20:40] = True
    clean, masked = (
        judge(draws(0.0, 1e-4), stamp(mask=mask)),
        judge(draws(0.0, 1e-4), stamp(image, mask=mask)),
    )
    assert masked.chi2 == pytest.approx(clean.chi2)
    assert masked.misfits == pytest.approx(clean.misfits)


def test_a_sky_within_its_prior_is_no_misfit():
    raised = truth_image().numpy() + 0.3
    assert judge(draws(0.0, 1e-4), stamp(raised, sky_sigma=0.3)).p_value > 1e-3
    assert judge(draws(0.0, 1e-4), stamp(raised)).p_value < 1e-6


def test_noise_that_its_map_understates_is_told_apart_from_misfit():
    noise = torch.randn(128, 128, generator=torch.Generator().manual_seed(1)).numpy()
    model = rendered(W, stamp()).numpy()
    fit = judge(draws(0.0, 1e-4), stamp(model + 1.3 * noise))
    assert any("pixels scatter" in remark for remark in fit.noise)
    assert fit.p_value > 1e-3


def test_few_draws_are_judged_too():
    for number in (1, 2, 5):
        fit = judge(draws(0.0, 0.01, number), stamp())
        assert math.isfinite(fit.step)
        assert 0.0 <= fit.p_value <= 1.0


def test_a_fixed_parameter_stays_fixed():
    w = draws(0.5, 0.03)
    w[:, 2] = W[2]
    fit = judge(w, stamp())
    assert fit.p_value > 1e-3
    assert fit.step < 2


def test_shot_noise_belongs_to_the_noise():
    generator = torch.Generator().manual_seed(5)
    model = rendered(W, stamp())
    image = model + (1 + model.clamp_min(0) / 2).sqrt() * torch.randn(128, 128, generator=generator)
    right = judge(draws(0.0, 1e-4), stamp(image.numpy(), gain=2.0))
    wrong = judge(draws(0.0, 1e-4), replace(stamp(image.numpy(), gain=2.0), gain=20.0))
    assert right.p_value > 1e-3 > 1e-6 > wrong.p_value


def test_galaxies_do_not_mind_each_other():
    """Alike or not: PSFs of other shapes, brightness that asks for float64, some that fit."""
    image = truth_image().numpy()
    cases = [
        (draws(1.0, 0.05), stamp()),
        (draws(0.0, 1e-4), stamp()),
        (draws(2.0, 0.05), stamp(psf_fwhm=4.0)),
        (draws(0.5, 0.03, 90), stamp(noise=0.01)),
        (draws(1.0, 0.05), stamp(image + 0.2, sky_sigma=0.3, gain=5.0)),
    ]
    together = goodness(
        [w for w, _ in cases],
        torch.stack([w.mean(0) for w, _ in cases]),
        Likelihood.of([s for _, s in cases], BOX),
    )
    for fit, (w, s) in zip(together, cases, strict=True):
        alone = judge(w, s)
        assert fit.renders == alone.renders
        assert fit.chi2 == pytest.approx(alone.chi2, rel=1e-5)
        assert fit.step == pytest.approx(alone.step, rel=1e-3)
        assert fit.misfits == pytest.approx(alone.misfits, rel=1e-3, abs=1e-3)
        assert fit.residual_fraction == pytest.approx(alone.residual_fraction, rel=1e-3, abs=1e-6)
        assert fit.detection == pytest.approx(alone.detection, rel=1e-5)


def test_another_instrument():
    """The prior is shifted with the instrument: what is rendered is what the row says."""
    options = {"pixel_scale": 0.1, "zero_point": 26.0, "noise": 2.0}
    prepared = stamp(2.0 * truth_image().numpy(), **options)
    box = units.user_box(BOX, prepared)
    fit = judge(draws(0.0, 1e-4), prepared)
    mean = box.to_physical(draws(0.0, 1e-4).mean(0, keepdim=True))
    columns = units.renderer_columns(mean, prepared)
    expected = render_sersic(*columns, torch.from_numpy(prepared.psf), 128)[0]
    torch.testing.assert_close(fit.model, expected, rtol=1e-4, atol=1e-4)
