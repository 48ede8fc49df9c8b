"""What honest error bars answer for, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.background import (
    measured_noise,
    pull_of_image,
    pull_of_light,
)
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.verdict.held import held_by_widths

BOTH = int(Flag.NOISE_MISMATCH | Flag.NEIGHBOUR | Flag.PADDED)


def widening(noise: float, light: float, judged: bool = True) -> Widening:
    eye = torch.eye(7, dtype=torch.float64)
    return Widening(eye[:1], eye[None], eye[None], eye, eye[0], 20, judged, noise, light)


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (widening(1.5, 0.1), Flag.NOISE_MEASURED | Flag.NEIGHBOUR_HELD),
        (widening(0.6, 0.9), Flag.NOISE_MEASURED | Flag.NEIGHBOUR),
        (widening(0.2, 0.1), Flag.NOISE_MISMATCH | Flag.NEIGHBOUR_HELD),
        (widening(8.0, 0.9), Flag.NOISE_MISMATCH | Flag.NEIGHBOUR),
        (widening(1.5, 0.1, judged=False), Flag.NOISE_MISMATCH | Flag.NEIGHBOUR),
        (None, Flag.NOISE_MISMATCH | Flag.NEIGHBOUR),
    ],
)
def test_objections_are_answered_where_widths_hold_them(found, left):
    assert held_by_widths(BOTH, found) == int(left | Flag.PADDED)
    assert held_by_widths(int(Flag.PADDED), found) == int(Flag.PADDED)


def test_structure_may_hold_a_fifth_of_the_light_of_a_galaxy_that_is_seen():
    held = widening(1.0, 0.0)
    gross = int(Flag.GROSS_MISFIT)
    assert held_by_widths(gross, held, 0.15) == int(Flag.MISFIT_HELD)
    assert held_by_widths(gross, held, 0.3) == gross
    assert held_by_widths(gross, held) == gross
    unseen = int(gross | Flag.UNDETECTED)
    assert held_by_widths(unseen, held, 0.15) == unseen
    assert Flag.quality(Flag.MISFIT_HELD, honest=True) == "good"
    assert Flag.quality(gross, honest=True) == "caution"
    assert Flag.quality(unseen, honest=True) == Flag.quality(Flag.MISFIT_HELD) == "bad"


@pytest.mark.parametrize(("pull", "held"), [(0.3, True), (0.8, False)])
def test_weights_that_follow_the_noise_are_held_where_they_hardly_move_it(pull, held):
    found = replace(widening(1.0, 0.0), weights=pull)
    expected = Flag.NOISE_FROM_DATA_HELD if held else Flag.NOISE_FROM_DATA
    assert held_by_widths(int(Flag.NOISE_FROM_DATA), found) == int(expected)
    quality = Flag.quality(expected, refined=True, honest=True)
    assert quality == ("good" if held else "caution")


def test_an_instrument_outside_the_training_is_no_matter_of_the_likelihood():
    assert Flag.quality(Flag.OUTSIDE_TRAINING) == "caution"
    assert Flag.quality(Flag.OUTSIDE_TRAINING, refined=True) == "good"


def test_remarks_are_objections_to_widths_of_the_stated_noise():
    for remark in (Flag.NOISE_MEASURED, Flag.NEIGHBOUR_HELD, Flag.NOISE_FROM_DATA_HELD):
        assert Flag.quality(remark, refined=True) == "caution"
        assert Flag.quality(remark, refined=True, honest=True) == "good"


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (1.05, 1.0), (1.5, 1.5), (0.6, 0.6)])
def test_the_backgrounds_noise_is_measured_where_the_map_is_wrong(factor, expected):
    noise = torch.randn(96, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    everywhere = torch.ones(96, 96, dtype=torch.bool)
    assert measured_noise(factor * noise, everywhere, 1.0) == pytest.approx(expected, rel=0.12)
    few = torch.zeros_like(everywhere)
    few[:4, :4] = True
    assert measured_noise(factor * noise, few, 1.0) == 1.0  # too few pixels to tell


def test_the_pull_of_light_is_what_masking_it_takes_away():
    generator = torch.Generator().manual_seed(1)
    derivatives = 30.0 * torch.randn(3, 24, 24, generator=generator, dtype=torch.float64)
    data = torch.randn(24, 24, generator=generator, dtype=torch.float64)
    light = torch.zeros(24, 24, dtype=torch.bool)
    light[5:7, 5:7] = True
    data[light] += 40.0
    good, variance = torch.ones_like(light), torch.full_like(data, 2.0)

    def optimum(used):
        g = derivatives.flatten(1) * used.flatten()
        information = g @ g.T / 2.0 + torch.eye(3, dtype=torch.float64)
        return torch.linalg.solve(information, g @ data.flatten() / 2.0)

    u = optimum(good)
    residual = data - (u @ derivatives.flatten(1)).reshape(24, 24)
    spared = good.clone()
    spared[3:9, 3:9] = False
    pull = pull_of_light(derivatives, residual, variance, good, light)
    # Linear, but for the prior's own pull on the rest.
    assert u - optimum(spared) == pytest.approx(pull, abs=2e-3 * float(pull.abs().max()))


def test_the_pull_of_an_image_is_what_adding_it_does():
    generator = torch.Generator().manual_seed(2)
    derivatives = 20.0 * torch.randn(3, 16, 16, generator=generator, dtype=torch.float64)
    templates = torch.ones(1, 16, 16, dtype=torch.float64)
    data, extra = torch.randn(2, 16, 16, generator=generator, dtype=torch.float64)
    good = torch.ones(16, 16, dtype=torch.bool)
    good[:4] = False
    variance = torch.rand(16, 16, generator=generator, dtype=torch.float64) + 1.0

    def optimum(image):
        g = torch.cat([derivatives, templates])[:, good]
        information = (g / variance[good]) @ g.T + torch.eye(4, dtype=torch.float64)
        return torch.linalg.solve(information, g @ (image / variance)[good])[:3]

    pull = pull_of_image(derivatives, extra / variance, variance, good, templates)
    torch.testing.assert_close(pull, optimum(data + extra) - optimum(data))


def test_weights_that_follow_the_noise_pull_as_expected():
    """The mean over many noises of weighted means, each pixel's weight from its own data."""
    generator = torch.Generator().manual_seed(3)
    light, slope = torch.linspace(20.0, 60.0, 64, dtype=torch.float64), 0.5
    variance = 4.0 + slope * light
    noise = variance.sqrt() * torch.randn(20_000, 64, generator=generator, dtype=torch.float64)
    weight = 1.0 / (variance + slope * noise)
    found = (weight * light * noise).sum(1) / ((weight * light**2).sum(1) + 1.0)
    pull = pull_of_image(
        light.reshape(1, 8, 8),
        -slope * (variance / variance**2).reshape(8, 8),
        variance.reshape(8, 8),
        torch.ones(8, 8, dtype=torch.bool),
        torch.zeros(1, 8, 8, dtype=torch.float64),
    )
    assert float(pull[0]) == pytest.approx(float(found.mean()), rel=0.1)
