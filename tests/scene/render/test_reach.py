"""Frequencies left out change no pixel by more than was granted, in any company."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.scene.render.derivatives import render_with_derivatives
from deeplegato_pp.scene.render.fourier import psf_band, to_stamp
from deeplegato_pp.scene.render.reach import _GRANTED, needed_reach
from deeplegato_pp.scene.render.renderer import COMPACT, by_reach, period_length, render_sersic
from deeplegato_pp.scene.render.wings import Galaxies
from simulated_galaxies import make_psf

SIZE = 48
NEGLIGIBLE = 1e-3
GALAXIES = Galaxies(
    *torch.tensor(
        [
            [900.0, 6.0, 1.5, 0.6, 30.0, 0.2, -0.1],
            [900.0, 1.0, 1.5, 0.6, 30.0, 0.2, -0.1],
            [9000.0, 6.0, 1.5, 0.2, 75.0, 0.3, 0.1],
            [30.0, 4.0, 4.0, 0.9, 10.0, -0.4, 0.1],
        ],
        dtype=torch.float64,
    ).T
)


def sharp_psf(oversampling: int) -> torch.Tensor:
    """One that is cut off at its array's edge, and reaches to all frequencies."""
    return make_psf(4.0, 7 * oversampling + 1 - oversampling % 2, oversampling)


@pytest.mark.parametrize("oversampling", [1, 2])
def test_nothing_that_shows_is_left_out(oversampling):
    psf = sharp_psf(oversampling)
    options = {"oversampling": oversampling}
    whole = render_sersic(*GALAXIES, psf, SIZE, **options)
    cut = render_sersic(*GALAXIES, psf, SIZE, negligible=NEGLIGIBLE, **options)
    error = (cut - whole).abs().flatten(1).amax(1)
    assert bool((error < (_GRANTED + 1) * NEGLIGIBLE).all())
    assert float(error.max()) > 0
    length = period_length(SIZE, tuple(psf.shape), oversampling, COMPACT)
    band = psf_band(psf, length, oversampling)
    reach = needed_reach(GALAXIES, band, NEGLIGIBLE)
    assert int(reach[0]) <= int(reach[1])
    if oversampling == 2:
        assert int(reach[0]) < 0.7 * (len(band.kx) - 1)


def test_an_image_is_the_same_in_any_company():
    psf = sharp_psf(2)
    options = {"oversampling": 2, "negligible": NEGLIGIBLE}
    together = render_sersic(*GALAXIES, psf, SIZE, **options)
    for i in range(4):
        alone = render_sersic(*GALAXIES.at(slice(i, i + 1)), psf, SIZE, **options)[0]
        torch.testing.assert_close(alone, together[i], rtol=1e-10, atol=1e-10)
    index, several = torch.tensor([1, 0, 1, 1]), torch.stack([make_psf(2.0, 15, 2), psf])
    mixed = render_sersic(*GALAXIES, several, SIZE, psf_index=index, **options)
    kept = torch.tensor([0, 2, 3])
    alike = render_sersic(*GALAXIES.at(kept), several, SIZE, psf_index=index[kept], **options)
    torch.testing.assert_close(alike, mixed[kept], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reach", [10, 29, 30, 31, 45])
def test_a_band_within_a_reach_is_the_band_with_zeros_beyond(reach):
    psf = make_psf(1.5, 15, 2)
    band = psf_band(psf, 60, 2)
    near = band.within(reach)
    row = torch.arange(len(band.ky)) + band.first
    kept = (row.abs() <= reach)[:, None] & (torch.arange(len(band.kx)) <= reach)
    expected = to_stamp((band.transfer * kept)[None], band, SIZE)
    torch.testing.assert_close(to_stamp(near.transfer[None], near, SIZE), expected)
    assert near.oversampling == (1 if reach < 30 else 2)


def test_without_a_limit_the_band_is_whole():
    band = psf_band(sharp_psf(1), 60, 1)
    ((rows, near),) = by_reach(GALAXIES, band, None, 0.0)
    assert near is band
    assert rows.tolist() == [0, 1, 2, 3]


def test_derivatives_leave_out_what_images_do():
    psf, index = sharp_psf(2)[None], torch.zeros(4, dtype=torch.long)
    options = {"oversampling": 2, "negligible": torch.full((4,), 0.1 * NEGLIGIBLE).double()}
    image, slopes, _ = render_with_derivatives(GALAXIES, psf, index, SIZE, **options)
    torch.testing.assert_close(
        image, render_sersic(*GALAXIES, psf, SIZE, psf_index=index, **options)
    )
    _, whole, _ = render_with_derivatives(GALAXIES, psf, index, SIZE, oversampling=2)
    error = (slopes - whole).flatten(2).norm(dim=2) / whole.flatten(2).norm(dim=2)
    assert float(error.max()) < 0.02
