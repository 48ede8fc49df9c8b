"""Transforms at few frequencies: distances of images without images."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.render.sampled_transform import SampledTransform
from simulated_galaxies import make_psf


def columns_of(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).T[None]


@pytest.mark.parametrize(("oversampling", "pixel"), [(1, True), (3, False)])
def test_distances_are_those_of_images(oversampling, pixel):
    psf = make_psf(3.0, 21 if oversampling == 1 else 45, oversampling)
    columns = columns_of(
        [
            [900.0, 3.0, 1.5, 0.6, 30.0, 0.2, -0.1],
            [900.0, 3.3, 1.5, 0.6, 30.0, 0.2, -0.1],
            [900.0, 3.0, 2.0, 0.5, 45.0, 0.3, 0.1],
            [1000.0, 2.8, 1.1, 0.6, 30.0, 0.2, -0.3],
        ]
    )
    transform = SampledTransform.about(columns[:, :, 0], psf, oversampling, pixel, 64)
    found = transform(columns)
    images = render_sersic(
        *columns[0], psf, 64, oversampling=oversampling, psf_includes_pixel=pixel
    )
    expected = torch.cdist(images.flatten(1), images.flatten(1))
    torch.testing.assert_close(torch.cdist(found, found), expected, rtol=0.03, atol=1e-4)


def test_profiles_add_up():
    psf = make_psf()
    columns = columns_of(
        [[500.0, 4.0, 1.0, 0.7, 10.0, 0.0, 0.0], [300.0, 1.0, 4.0, 0.9, 80.0, 0.5, 0.2]]
    )
    transform = SampledTransform.about(columns[:, :, 0], psf, 1, True, 64)
    both = transform(columns.permute(2, 1, 0).contiguous())
    torch.testing.assert_close(both, transform(columns).sum(0, keepdim=True))
