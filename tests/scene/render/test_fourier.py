"""A PSF's band and the folding of its aliases, against a transform written out."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.scene.render.fourier import BAND_FLOOR, psf_band, shift_phases, to_stamp
from simulated_galaxies import make_psf

LENGTH = 24


def sampled(psf: torch.Tensor, oversampling: int) -> torch.Tensor:
    """The periodic image of a PSF on sample (0, 0), every s-th sample of it, times s^2."""
    fine = LENGTH * oversampling
    image = torch.zeros(fine, fine, dtype=psf.dtype)
    py, px = psf.shape
    image[:py, :px] = psf
    rolled = torch.roll(image, (-(py // 2), -(px // 2)), (0, 1))
    return oversampling**2 * rolled[::oversampling, ::oversampling]


@pytest.mark.parametrize("oversampling", [1, 2, 3])
def test_sampling_folds_every_alias(oversampling):
    generator = torch.Generator().manual_seed(0)
    psf = torch.rand(9, 7, generator=generator, dtype=torch.float64)  # reaches every frequency
    band = psf_band(psf, LENGTH, oversampling)
    found = to_stamp(band.transfer[None], band, LENGTH)[0]
    torch.testing.assert_close(found, sampled(psf, oversampling), atol=1e-12, rtol=0)
    part = to_stamp(band.transfer[None], band, 10)[0]
    torch.testing.assert_close(part, found[:10, :10])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wide_psf_has_a_narrow_band(dtype):
    psf = make_psf(4.0, 47, 2).to(dtype)
    band = psf_band(psf, LENGTH, 2)
    assert band.transfer.numel() < 0.5 * (2 * LENGTH) * (LENGTH + 1)
    found = to_stamp(band.transfer[None], band, LENGTH)[0]
    error = (found - sampled(psf, 2)).abs().max() / psf.sum()
    assert float(error) < 4 * BAND_FLOOR[dtype]


def test_the_widest_reaching_psf_of_a_batch_makes_the_band():
    wide, narrow = (make_psf(f, 21) for f in (6.0, 2.0))
    both = psf_band(torch.stack([wide, narrow]), LENGTH, 1)
    alone = psf_band(narrow, LENGTH, 1)
    torch.testing.assert_close(both.ky, alone.ky)
    # A transform of two need not be rounded as one of one: that depends on the processor.
    found, peak = both.at(slice(1, 2)).transfer[0], float(alone.transfer.abs().max())
    torch.testing.assert_close(found, alone.transfer, rtol=0, atol=1e-6 * peak)


def test_phases_shift_by_whole_pixels():
    psf = make_psf(2.5, 9)
    band = psf_band(psf, LENGTH, 1)
    where = torch.tensor([5.0], dtype=torch.float64)
    columns, rows = shift_phases(band, where, where + 2, torch.ones_like(where))
    moved = to_stamp(band.transfer * rows[:, :, None] * columns[:, None], band, LENGTH)[0]
    assert divmod(int(moved.argmax()), LENGTH) == (7, 5)
    torch.testing.assert_close(moved[3:12, 1:10], psf, atol=1e-7, rtol=0)
