"""What residuals and pixels say of the image itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation
from deeplegato_pp.inference.fit.background import (
    foreign_light,
    noise_ratios,
)
from deeplegato_pp.inference.verdict.defects import is_blank, is_saturated, noise_remarks
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.psf_grid import convolve_separable
from fake_model import TRUTH, truth_image

EVERYWHERE = torch.ones(128, 128, dtype=torch.bool)
NOWHERE = ~EVERYWHERE


def noise(seed: int = 0) -> torch.Tensor:
    return torch.randn(128, 128, generator=torch.Generator().manual_seed(seed)).double()


def stamp(image, **options):
    return prepare(Observation.from_array(np.asarray(image), noise=1.0, psf_fwhm=3.0, **options))


def test_noise_is_no_neighbour():
    assert not any(foreign_light(noise(i), EVERYWHERE, NOWHERE).any() for i in range(10))


def test_a_neighbour_is_compact_or_faint_and_extended():
    compact, extended, dead = noise(), noise(), noise()
    compact[20, 20:22] += 9.0
    extended[80:88, 80:88] += 2.0
    dead[20, 20:22] -= 20.0
    inside = NOWHERE.clone()
    inside[10:30, 10:30] = True
    assert foreign_light(compact, EVERYWHERE, NOWHERE).any()
    assert not foreign_light(compact, EVERYWHERE, inside).any()
    assert not foreign_light(compact, ~inside, NOWHERE).any()
    assert foreign_light(extended, EVERYWHERE, NOWHERE).any()
    assert not foreign_light(dead, EVERYWHERE, NOWHERE).any()


@pytest.mark.parametrize(("level", "expected"), [(0.4, True), (0.8, True), (2.0, False)])
def test_a_flat_top_is_saturated(level, expected):
    image = truth_image().numpy()
    prepared = stamp(np.minimum(image, level * image.max()))
    model = Likelihood.of([prepared], PriorBox()).render(
        0, PriorBox().to_normal(TRUTH[None]), torch.float64
    )[0]
    # Rendered with another pixel scale and zero point, the model only needs a steep core.
    model = torch.from_numpy(image) if model.max() < 10 else model
    assert is_saturated(prepared, model) is expected


def test_a_flat_galaxy_is_not_saturated():
    flat = np.full((128, 128), 0.0)
    flat[60:68, 60:68] = 100.0
    assert not is_saturated(stamp(flat + 0.0 * noise().numpy()), torch.from_numpy(flat))


def test_an_image_of_one_value_is_blank():
    assert is_blank(stamp(np.zeros((128, 128))))
    half = noise().numpy()
    half[:70] = 0.25
    assert is_blank(stamp(half))
    half[:70] = noise(1).numpy()[:70]
    assert not is_blank(stamp(half))


def test_wrong_noise_is_told():
    right = noise_ratios(noise(), EVERYWHERE)
    assert right == pytest.approx((1.0, 1.0), abs=0.12)
    assert noise_remarks(right, 128**2) == []
    wide = noise_ratios(1.3 * noise(), EVERYWHERE)
    assert wide[0] == pytest.approx(1.3, abs=0.05)
    assert len(noise_remarks(wide, 128**2)) >= 1
    assert "0.7" in noise_remarks(noise_ratios(0.7 * noise(), EVERYWHERE), 128**2)[0]


def test_correlated_noise_shows_in_blocks():
    smooth = convolve_separable(noise()[None], [0.5, 1.0, 0.5])[0]
    pixels, blocks = noise_ratios(smooth / smooth.std(), EVERYWHERE)
    assert pixels == pytest.approx(1.0, abs=0.05)
    assert blocks > 1.8
    assert ["blocks" in r for r in noise_remarks((pixels, blocks), 128**2)] == [True]


def test_neighbours_are_no_noise():
    crowded = noise()
    crowded[:40, :40] += 30.0
    assert noise_ratios(crowded, EVERYWHERE)[0] == pytest.approx(1.0, abs=0.2)


def test_too_few_pixels_say_nothing():
    few = NOWHERE.clone()
    few[:5, :5] = True
    assert np.isnan(noise_ratios(noise(), few)).all()
    assert noise_remarks((float("nan"), float("nan")), 25) == []
