"""Plain images as the network takes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.scene.plain_images import INSIDE, ImageBatch, planes
from deeplegato_pp.scene.prior import PriorBox


@pytest.mark.parametrize(
    ("images", "number", "single"),
    [
        (torch.zeros(5, 6), 1, True),
        (np.zeros((5, 6)), 1, True),
        (torch.zeros(1, 5, 6), 1, False),
        (torch.zeros(3, 5, 6), 3, False),
        (np.zeros((3, 1, 5, 6)), 3, False),
        ([torch.zeros(5, 6), np.zeros((1, 5, 6))], 2, False),
    ],
)
def test_images_come_one_by_one(images, number, single):
    found, alone = planes(images)
    assert [image.shape for image in found] == [(5, 6)] * number
    assert alone is single


def test_what_an_array_has_masked_stays_masked():
    image = np.ma.masked_array(np.zeros((1, 2, 2)), mask=[[[True, False], [False, False]]])
    assert planes(image)[0][0].mask[0, 0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 5, 6), r"one channel.*got shape \(2, 3, 5, 6\). Select one band"),
        (torch.zeros(5), r"got \(5,\). Reshape"),
        ([], "Give at least one"),
    ],
)
def test_other_shapes_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        planes(images)


def noise(number: int = 2) -> torch.Tensor:
    return torch.randn(number, 32, 32, generator=torch.Generator().manual_seed(0))


def test_physical_parameters_go_to_coordinates_and_back():
    batch = ImageBatch.of(10.0 * noise(), 32, PriorBox())
    params = torch.tensor([[20.0, 1.0, 2.0, 0.5, 30.0, 1.0, -1.0]], dtype=torch.float64)
    w = batch.to_normal(params.expand(2, 7))
    torch.testing.assert_close(batch.to_physical(w[:, None])[:, 0], params.expand(2, 7))
    assert not torch.equal(w[0], w[1])  # each image has its own noise


def test_magnitudes_just_beyond_the_edge_are_put_inside():
    batch = ImageBatch.of(noise(1), 32, PriorBox())
    lower, upper = batch.boxes[0].magnitude
    params = torch.tensor([[upper + 0.3, 1.0, 2.0, 0.5, 30.0, 1.0, -1.0]], dtype=torch.float64)
    moved = batch.to_physical(batch.to_normal(params)[:, None])
    assert float(moved[0, 0, 0]) == pytest.approx(upper - INSIDE)
    params[0, 0] = lower - 0.6
    with pytest.raises(RangeError, match="image 0: magnitude must lie"):
        batch.to_normal(params)


def test_parameters_of_another_number_of_images_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 7\), got \(1, 7\)"):
        ImageBatch.of(noise(), 32, PriorBox()).to_normal(torch.zeros(1, 7))
