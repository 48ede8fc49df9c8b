"""The PSF encoder and the scalars beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from deeplegato_pp.models.psf_encoder import NUM_SCALARS, PSFEncoder, observing_scalars
from deeplegato_pp.scene.stamps import PSF_GRID

WIDTH, _, GAIN, HAS_GAIN, SKY, VISIBLE, EXTENT = range(NUM_SCALARS)


def test_one_vector_per_stamp_of_the_announced_length(stamps):
    encoder = PSFEncoder(3)
    assert encoder(stamps).shape == (len(stamps), encoder.num_features)


@pytest.mark.parametrize("gain", [math.inf, 1e-12, 1.0, 1e30])
@pytest.mark.parametrize("sky_sigma", [0.0, 0.02, 1e6])
def test_scalars_are_finite_and_of_order_one(stamps, gain, sky_sigma):
    scalars = observing_scalars(
        replace(
            stamps,
            gain=torch.full_like(stamps.gain, gain),
            sky_sigma=torch.full_like(stamps.sky_sigma, sky_sigma),
        )
    )
    assert scalars.shape == (len(stamps), NUM_SCALARS)
    assert bool((scalars.abs() < 5).all())
    assert bool((scalars[:, HAS_GAIN] == float(math.isfinite(gain))).all())


def test_no_gain_and_every_gain_look_different(stamps):
    scalars = observing_scalars(stamps)
    absent = torch.isinf(stamps.gain)
    assert bool((scalars[absent, GAIN] == 0).all())
    assert bool(scalars[~absent, GAIN] == pytest.approx(math.log10(50.0) / 2 - 1))


def test_the_width_grows_with_the_psf_and_not_with_its_scale(stamps):
    grid = torch.arange(PSF_GRID) - (PSF_GRID - 1) / 2
    radius2 = grid[:, None] ** 2 + grid**2
    psf = torch.stack([torch.exp(-0.5 * radius2 / s**2) for s in (1.0, 2.0, 4.0)])
    three = replace(stamps[:3], psf=psf)
    width = observing_scalars(three)[:, WIDTH]
    torch.testing.assert_close(width.diff(), torch.full((2,), math.log(2.0)), atol=1e-3, rtol=0)
    torch.testing.assert_close(observing_scalars(replace(three, psf=3 * psf))[:, WIDTH], width)


def test_share_and_extent_of_visible_pixels(stamps):
    mask = torch.ones_like(stamps.mask)
    mask[:, 16:48, 16:32] = False
    scalars = observing_scalars(replace(stamps, mask=mask))
    assert bool((scalars[:, VISIBLE] == 0.125).all())
    assert bool((scalars[:, EXTENT] == 0.5).all())


def test_a_psf_with_zeros_and_negative_wings_is_encoded(stamps):
    psf = stamps.psf.clone()
    psf[:, :3] = 0.0
    psf[:, -3:] = -1e-6
    assert bool(torch.isfinite(PSFEncoder(2)(replace(stamps, psf=psf))).all())
