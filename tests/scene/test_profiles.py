"""The plain law of one galaxy on a grid of pixels."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.data import SersicParams, generate_sersic_profile
from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.render.sersic_profile import generate_sersic_profile as of_columns


def test_one_galaxy_is_a_row_of_the_batched_form():
    params = SersicParams(20.0, 1.0, 1.5, 0.6, 30.0, 2.0, -1.0)
    image = generate_sersic_profile(params, size=21, pixel_scale=0.5, zero_point=25.0)
    axis = torch.arange(21, dtype=torch.float64) - 10.0
    y, x = torch.meshgrid(axis + 1.0, axis - 2.0, indexing="ij")
    columns = torch.tensor([[100.0], [2.0], [1.5], [0.6], [30.0]], dtype=torch.float64)
    torch.testing.assert_close(image, of_columns(*columns, x, y)[0])
    torch.testing.assert_close(image, generate_sersic_profile(*columns, x, y)[0])
    assert divmod(int(image.argmax()), 21) == (9, 12)  # the row, the column


def test_a_smooth_galaxy_holds_its_flux():
    image = generate_sersic_profile(SersicParams(20.0, 1.5, 0.5, 1.0, 0.0), size=64)
    assert image.shape == (64, 64)
    assert float(image.sum()) == pytest.approx(10.0 ** (-0.4 * (20.0 - 30.5)), rel=1e-6)


def test_a_negative_size_is_refused():
    with pytest.raises(RangeError, match="size must be a whole number >= 1, got -3"):
        generate_sersic_profile(SersicParams(20.0, 1.0, 1.0, 1.0, 0.0), size=-3)
