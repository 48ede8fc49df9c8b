"""PSF families, their widths, and the grid that networks see."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.data.psf import (
    draw_psfs,
    gaussian,
    kolmogorov,
    lopsided,
    moffat,
    radial_grid,
)
from deeplegato_pp.errors import RangeError
from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.scene import psf_grid
from deeplegato_pp.scene.psf_grid import convolve_separable, normalise, to_network_grid
from deeplegato_pp.scene.stamps import PSF_GRID, PSF_GRID_OVERSAMPLING

ONE = torch.ones(1, dtype=torch.float64)


def round_grid(size: int, oversampling: int) -> torch.Tensor:
    return radial_grid(size, oversampling, ONE, 0 * ONE)


def widths(psf: torch.Tensor, oversampling: int) -> torch.Tensor:
    found = [psf_fwhm(p.numpy(), oversampling) for p in psf]
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("size", [43, 87])
@pytest.mark.parametrize("fwhm", [1.5, 2.5, 4.0, 6.0])
@pytest.mark.parametrize(
    "profile",
    [gaussian, lambda r, f: moffat(r, f, 3.0), kolmogorov],
    ids=["gaussian", "moffat", "kolmogorov"],
)
def test_measured_width_is_the_one_asked_for(profile, fwhm, size):
    found = widths(normalise(profile(round_grid(size, 2), fwhm * ONE)), 2)
    assert float(found) == pytest.approx(fwhm, rel=0.02)


def test_width_of_a_rectangle_and_of_an_even_array():
    r = round_grid(61, 2)
    assert float(widths(gaussian(r, 4 * ONE)[:, 10:-10], 2)) == pytest.approx(4.0, rel=0.02)
    assert float(widths(gaussian(r, 4 * ONE)[:, :-1, :-1], 2)) == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("oversampling", [1, 2, 3])
def test_drawn_psfs_are_normalised_centred_and_near_their_width(oversampling):
    fwhm = torch.linspace(2.5, 6.0, 60, dtype=torch.float64)
    size = 2 * (20 * oversampling) + 1
    psf = draw_psfs(fwhm, size, oversampling, torch.Generator().manual_seed(0))
    assert psf.shape == (60, size, size)
    assert (psf.sum((1, 2)) - 1).abs().max() < 1e-12
    assert float(psf.min()) >= 0
    assert torch.equal(psf.flatten(1).argmax(1), torch.full((60,), size * size // 2))
    ratio = widths(psf, oversampling) / fwhm  # the pixel widens, an obscuration narrows
    assert float(ratio.min()) > 0.9
    assert float(ratio.max()) < 1.2


def test_drawn_psfs_repeat_with_the_generator_and_hold_every_family():
    fwhm = torch.full((200,), 3.0)
    one, two = (draw_psfs(fwhm, 41, 2, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two)
    outer = one[:, 0].sum(1)  # families differ by orders of magnitude in their wings
    assert float(outer.max() / outer.min().clamp_min(1e-30)) > 1e6


def test_only_telescopes_get_spikes_and_only_when_asked():
    fwhm = torch.full((400,), 2.0)
    plain = draw_psfs(fwhm, 43, 1, torch.Generator().manual_seed(0))
    spiky = draw_psfs(fwhm, 43, 1, torch.Generator().manual_seed(0), spikes=1.0)
    share = float(((plain - spiky).abs().amax((1, 2)) > 1e-6).float().mean())
    assert share == pytest.approx(1 / 3, abs=0.06)
    assert torch.isfinite(spiky).all()
    torch.testing.assert_close(spiky.sum((1, 2)), torch.ones(400))


def centroids(psf: torch.Tensor) -> torch.Tensor:
    a = torch.arange(psf.shape[-1], dtype=psf.dtype) - psf.shape[-1] // 2
    return torch.stack([(psf * a).sum((1, 2)), (psf * a[:, None]).sum((1, 2))], 1)


def test_offsets_move_the_middle_by_as_much_as_was_asked():
    fwhm = torch.full((600,), 2.5)
    moved = centroids(draw_psfs(fwhm, 61, 1, torch.Generator().manual_seed(0), offset=0.05))
    assert float(moved.std()) == pytest.approx(0.05, rel=0.1)


def test_aberrations_are_lopsided_and_stay_positive():
    fwhm = torch.full((300,), 2.5)
    round_ones = draw_psfs(fwhm, 61, 1, torch.Generator().manual_seed(0))
    aberrated = draw_psfs(fwhm, 61, 1, torch.Generator().manual_seed(0), aberrated=0.5)
    assert float(aberrated.min()) >= 0.0
    changed = (aberrated - round_ones).abs().amax((1, 2)) > 1e-7
    assert float(changed.float().mean()) == pytest.approx(0.5, abs=0.1)
    moved = centroids(aberrated).norm(dim=1)
    assert float(moved[~changed].max()) < 1e-3
    assert 0.05 < float(moved[changed].median()) < 0.4


def test_coma_moves_the_light_along_its_direction():
    fwhm, zero = torch.tensor([3.0]), torch.zeros(1, 2)
    factors = lopsided(41, 1, fwhm, torch.tensor([[0.0, 0.3]]), zero)
    assert float(factors[0, 20, 20]) == 1.0
    assert float(factors[0, 35, 20]) > 1.29 > 0.71 > float(factors[0, 5, 20])
    three = lopsided(41, 1, fwhm, zero, torch.tensor([[0.2, 0.0]]))[0]
    assert float(three[20, 40]) > 1.19
    assert float(three[20, 0]) < 0.81


def test_even_sides_are_refused():
    with pytest.raises(RangeError, match="side must be odd, got 40"):
        draw_psfs(torch.ones(1), 40, 2)


@pytest.mark.parametrize("oversampling", [1, 2, 3, 4])
def test_pixel_box_keeps_the_light_and_adds_its_variance(oversampling):
    r = round_grid(30 * oversampling + 1 - oversampling % 2, oversampling)
    psf = normalise(gaussian(r, 3 * ONE))
    box = psf_grid.convolve_pixel(psf, oversampling)
    a = (torch.arange(psf.shape[-1]) - psf.shape[-1] // 2) / oversampling
    added = ((box - psf).sum(1) * a**2).sum()
    assert float(box.sum()) == pytest.approx(1.0)
    # Of a box one pixel wide 1/12; the discrete one is as near as its samples allow.
    assert float(added) == pytest.approx(1 / 12, abs=0.17 / oversampling**2)


def test_separable_convolution_is_the_plain_one():
    images = torch.rand(2, 9, 11, dtype=torch.float64)
    weights = [0.1, 0.2, 0.4, 0.2, 0.1]
    kernel = torch.tensor(weights, dtype=torch.float64)
    padded = torch.nn.functional.pad(images[:, None], (2, 2, 2, 2), mode="replicate")
    plain = torch.nn.functional.conv2d(padded, (kernel[:, None] * kernel)[None, None])[:, 0]
    assert torch.allclose(convolve_separable(images, weights), plain)


@pytest.mark.parametrize("oversampling", [1, 2, 3, 4, 5])
def test_network_grid_is_the_same_from_every_sampling(oversampling):
    r = round_grid(20 * oversampling + 1, oversampling)
    psf = gaussian(r, 3.5 * ONE) / oversampling**2
    expected = gaussian(round_grid(PSF_GRID, 2), 3.5 * ONE) / PSF_GRID_OVERSAMPLING**2
    found = to_network_grid(psf, oversampling)
    assert found.shape == (1, PSF_GRID, PSF_GRID)
    # A native PSF of this width is sampled just well enough: its alias is 2e-5.
    assert float((found - expected).abs().max() / expected.max()) < (
        5e-4 if oversampling == 1 else 1e-8
    )


def test_network_grid_takes_rectangles_and_cuts_what_lies_outside():
    r = round_grid(201, 2)
    psf = normalise(moffat(r, 4 * ONE, 2.0))
    whole = to_network_grid(psf, 2)
    part = psf[:, 79:122, 79:122]
    assert torch.allclose(whole, part, atol=1e-12)
    assert 0.8 < float(whole.sum()) < 1.0
    narrow = to_network_grid(psf[:, 90:111], 2)
    assert torch.allclose(narrow[:, 11:32], whole[:, 11:32], atol=1e-12)


def test_network_grid_includes_the_pixel_when_asked():
    r = round_grid(81, 4)
    psf = normalise(gaussian(r, 3 * ONE))
    without = to_network_grid(psf, 4)
    within = to_network_grid(psf, 4, psf_includes_pixel=False)
    a = (torch.arange(PSF_GRID) - PSF_GRID // 2) / PSF_GRID_OVERSAMPLING
    added = ((within - without).sum(1) * a**2).sum()
    assert float(within.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(added) == pytest.approx(1 / 12, rel=1e-3)


def test_radial_grid_keeps_the_area_and_follows_the_angle():
    r = radial_grid(81, 2, 0.5 * ONE, 90 * ONE)
    inside = (r < 10).sum() / 4
    assert float(inside) == pytest.approx(math.pi * 100, rel=0.02)
    assert float(r[0, 40, 60]) < float(r[0, 60, 40])  # at 90 degrees it is longer along x
