"""Mirror images and right-angle rotations of galaxies: eight training images from one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deeplegato_pp.data.datasets import Batch
from deeplegato_pp.scene.parameters import AXIS_RATIO, CENTER_X, CENTER_Y, POSITION_ANGLE
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch


def is_symmetric(prior: PriorBox) -> bool:
    """Returns whether mirrored galaxies remain in the box: its centre must be symmetric."""
    lower, upper = prior.center_x
    return prior.center_y == (lower, upper) == (-upper, -lower)


def mirrored_at_random(stamps: StampBatch, w: Tensor, generator: torch.Generator) -> Batch:
    """Returns each galaxy as one of its eight mirror images, with equal probability.

    Args:
        stamps: The galaxies.
        w: Their coordinates, (B, 7), for a box that satisfies :func:`is_symmetric`.
        generator: Source of randomness.
    """
    flip_x, flip_y, transpose = torch.rand(3, len(w), generator=generator) < 0.5
    return mirrored(stamps, w, flip_x, flip_y, transpose)


def mirrored(
    stamps: StampBatch, w: Tensor, flip_x: Tensor, flip_y: Tensor, transpose: Tensor
) -> Batch:
    """Returns galaxies mirrored horizontally, vertically and along the diagonal.

    Args:
        stamps: The galaxies.
        w: Their coordinates, for a box with symmetric bounds of the centre that are the same for x
            and y.
        flip_x: Rows to mirror horizontally, with shape (B,).
        flip_y: Rows to mirror vertically, with shape (B,).
        transpose: Rows in which x and y are exchanged afterwards, with shape (B,).
    """

    def turn(images: Tensor) -> Tensor:
        images = torch.where(flip_x[:, None, None], images.flip(-1), images)
        images = torch.where(flip_y[:, None, None], images.flip(-2), images)
        return torch.where(transpose[:, None, None], images.transpose(-2, -1), images)

    w = w.clone()
    # For the angle t from +y: mirrored t -> -t, exchanged t -> 90 degrees - t.
    w[:, CENTER_X] = torch.where(flip_x, -w[:, CENTER_X], w[:, CENTER_X])
    w[:, CENTER_Y] = torch.where(flip_y, -w[:, CENTER_Y], w[:, CENTER_Y])
    w[:, POSITION_ANGLE] = torch.where(flip_x ^ flip_y, -w[:, POSITION_ANGLE], w[:, POSITION_ANGLE])
    w[:, AXIS_RATIO] = torch.where(transpose, -w[:, AXIS_RATIO], w[:, AXIS_RATIO])
    x, y = w[:, CENTER_X].clone(), w[:, CENTER_Y].clone()
    w[:, CENTER_X] = torch.where(transpose, y, x)
    w[:, CENTER_Y] = torch.where(transpose, x, y)
    turned = {name: turn(getattr(stamps, name)) for name in ("image", "sigma", "mask", "psf")}
    return replace(stamps, **turned), w
