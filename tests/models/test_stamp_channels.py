"""The two views: shapes, statistics, and silence about masked pixels."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from deeplegato_pp.errors import ShapeError
from deeplegato_pp.models.stamp_channels import (
    NUM_CHANNELS,
    ONE_VIEW_CHANNELS,
    one_view,
    two_views,
)

NEAR_SNR, NEAR_NOISE, NEAR_GOOD, FAR_SNR, FAR_NOISE, FAR_GOOD, X, Y = range(NUM_CHANNELS)


def flat(stamps, value: float, sigma: float):
    return replace(
        stamps,
        image=torch.full_like(stamps.image, value),
        sigma=torch.full_like(stamps.sigma, sigma),
        mask=torch.zeros_like(stamps.mask),
    )


@pytest.mark.parametrize("size", [32, 64])
def test_either_view_has_half_the_side(make_stamps, size):
    assert two_views(make_stamps(3, size)).shape == (3, NUM_CHANNELS, size // 2, size // 2)


def test_one_view_is_the_whole_stamp(stamps):
    views = one_view(flat(stamps, 6.0, 2.0))
    assert views.shape == (len(stamps), ONE_VIEW_CHANNELS, *stamps.image.shape[1:])
    torch.testing.assert_close(views[:, 0], torch.full_like(views[:, 0], math.asinh(3.0)))
    assert views[0, 3, 5, 0] == views[0, 4, 0, 5] == -1.0


def test_binning_doubles_the_signal_to_noise_of_a_flat_image(stamps):
    views = two_views(flat(stamps, 6.0, 2.0))
    torch.testing.assert_close(views[:, NEAR_SNR], torch.full_like(views[:, 0], math.asinh(3.0)))
    torch.testing.assert_close(views[:, FAR_SNR], torch.full_like(views[:, 0], math.asinh(6.0)))
    torch.testing.assert_close(views[:, NEAR_NOISE], torch.full_like(views[:, 0], math.log(2.0)))
    torch.testing.assert_close(views[:, FAR_NOISE], torch.full_like(views[:, 0], math.log(4.0)))
    assert bool((views[:, [NEAR_GOOD, FAR_GOOD]] == 1).all())


def test_the_binned_view_has_unit_noise_where_the_stamp_has(stamps):
    noise = torch.randn(stamps.image.shape, generator=torch.Generator().manual_seed(0))
    views = two_views(replace(flat(stamps, 0.0, 1.0), image=noise))
    assert float(views[:, FAR_SNR].sinh().std()) == pytest.approx(1.0, abs=0.03)


def test_the_near_view_is_the_centre(stamps):
    image = torch.zeros_like(stamps.image)
    image[:, 16, 48 - 1] = 5.0  # a corner of the central 32 x 32 of a stamp of 64
    views = two_views(replace(flat(stamps, 0.0, 1.0), image=image))
    assert views[0, NEAR_SNR].nonzero().tolist() == [[0, 31]]
    assert views[0, FAR_SNR].nonzero().tolist() == [[8, 23]]


def test_coordinates_run_along_columns_and_rows(stamps):
    views = two_views(stamps)
    assert views[0, X, 5, 0] == views[0, Y, 0, 5] == -1.0
    assert views[0, X, 5, -1] == views[0, Y, -1, 5] == 1.0


@pytest.mark.parametrize("filling", [0.0, -1e4, 1e30, 3.4e38])
def test_what_masked_pixels_hold_never_matters(stamps, filling):
    expected = two_views(stamps)
    image = stamps.image.masked_fill(stamps.mask, filling)
    sigma = stamps.sigma.masked_fill(stamps.mask, abs(filling) + 0.1)
    assert torch.equal(two_views(replace(stamps, image=image, sigma=sigma)), expected)


def test_a_bin_counts_if_more_than_half_of_it_is_visible(stamps):
    flat_stamps = flat(stamps, 6.0, 2.0)
    mask = flat_stamps.mask.clone()
    mask[:, 0, 0] = True
    mask[:, 2:4, 2] = True
    views = two_views(replace(flat_stamps, mask=mask))
    assert views[0, FAR_GOOD, 0, 0] == 1
    # Sums of the three are scaled up to four, sums of their variances likewise.
    assert float(views[0, FAR_SNR, 0, 0]) == pytest.approx(math.asinh(6.0))
    assert views[0, FAR_GOOD, 1, 1] == views[0, FAR_SNR, 1, 1] == 0


def test_an_odd_stamp_is_refused(make_stamps):
    with pytest.raises(ShapeError, match="multiple of 4, got 66"):
        two_views(make_stamps(2, 66))
