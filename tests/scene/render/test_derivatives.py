"""Derivatives from the spectrum against differences of whole renders."""

import pytest
import torch

from deeplegato_pp.scene.render.derivatives import COLUMNS, render_with_derivatives
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.render.wings import Galaxies
from simulated_galaxies import make_psf

# Compact, thin, nearly round, and so wide that its copies shed light on the stamp.
GALAXIES = torch.tensor(
    [
        [100.0, 3.0, 1.5, 0.6, 40.0, 0.4, -0.3],
        [200.0, 6.0, 4.0, 0.2, 100.0, 2.0, 1.0],
        [50.0, 1.0, 0.6, 0.99, 3.0, 0.0, 0.0],
        [50.0, 15.0, 6.0, 0.5, 178.0, 0.0, 0.0],
    ],
    dtype=torch.float64,
)
SIZE = 32


@pytest.mark.parametrize(("oversampling", "pixel"), [(1, True), (2, False)])
def test_derivatives_are_those_of_the_images(oversampling, pixel):
    options = {"oversampling": oversampling, "psf_includes_pixel": pixel}
    psf = make_psf(oversampling=oversampling)
    image, slopes, _ = render_with_derivatives(
        Galaxies(*GALAXIES.T), psf[None], torch.zeros(4, dtype=torch.long), SIZE, **options
    )

    def render(columns):
        return render_sersic(*columns.T, psf, SIZE, **options)

    torch.testing.assert_close(image, render(GALAXIES), rtol=1e-10, atol=1e-10)
    for column in range(COLUMNS):
        step = 1e-5 * torch.eye(COLUMNS, dtype=torch.float64)[column]
        difference = (render(GALAXIES + step) - render(GALAXIES - step)) / 2e-5
        error = (slopes[:, column] - difference).flatten(1).norm(dim=1)
        assert float((error / difference.flatten(1).norm(dim=1)).max()) < 2e-5


def test_a_galaxy_does_not_mind_its_company():
    """Plans and PSFs of others, one of which reaches farther."""
    psfs = torch.stack([make_psf(4.5), make_psf(2.0)])
    index = torch.tensor([0, 1, 0, 1])
    together = render_with_derivatives(Galaxies(*GALAXIES.T), psfs, index, SIZE, by_width=True)
    one = (Galaxies(*GALAXIES[:1].T), psfs[:1], index[:1], SIZE)
    alone = render_with_derivatives(*one, by_width=True)
    for whole, part in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[:1], part, rtol=1e-9, atol=1e-9)
