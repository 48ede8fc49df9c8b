import pytest
import torch

from deeplegato_pp.data.psf import gaussian, radial_grid
from deeplegato_pp.scene.render.point_source import render_points
from deeplegato_pp.scene.render.renderer import render_sersic

X = torch.tensor([0.0, 0.37, -4.2], dtype=torch.float64)
Y = torch.tensor([0.0, -0.81, 3.5], dtype=torch.float64)
FLUX = torch.tensor([1.0, 50.0, 3.0], dtype=torch.float64)


def make_psf(size: int, oversampling: int) -> torch.Tensor:
    one = torch.ones(1, dtype=torch.float64)
    psf = gaussian(radial_grid(size, oversampling, one, 0 * one), 2.7 * one)[0]
    return psf / psf.sum()


@pytest.mark.parametrize(("size", "oversampling", "pixel"), [(24, 1, True), (33, 2, False)])
def test_a_point_is_a_galaxy_without_extent(size, oversampling, pixel):
    psf = make_psf(16 * oversampling + 1, oversampling)
    one = torch.ones_like(X)
    options = {"oversampling": oversampling, "psf_includes_pixel": pixel}
    galaxy = render_sersic(FLUX, 1e-6 * one, one, one, 0 * one, X, Y, psf, size, **options)
    point = render_points(FLUX, X, Y, psf, size, chunk_pixels=1, **options)
    torch.testing.assert_close(point, galaxy, rtol=0, atol=1e-7)
    torch.testing.assert_close(point, render_points(FLUX, X, Y, psf, size, **options))


def test_flux_and_centroid():
    image = render_points(FLUX, X, Y, make_psf(15, 1), 32)
    torch.testing.assert_close(image.sum((-2, -1)), FLUX, rtol=1e-3, atol=0)
    axis = torch.arange(32, dtype=torch.float64) - 15.5
    torch.testing.assert_close((image.sum(-2) @ axis) / FLUX, X, rtol=0, atol=5e-3)
    torch.testing.assert_close((image.sum(-1) @ axis) / FLUX, Y, rtol=0, atol=5e-3)
