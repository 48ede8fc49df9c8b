"""Galaxies mirrored and turned by right angles: eight training images from one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deeplegato_pp.data.datasets import Batch
from deeplegato_pp.scene.parameters import AXIS_RATIO, CENTER_X, CENTER_Y, POSITION_ANGLE
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch


def is_symmetric(prior: PriorBox) -> bool:
    """Returns whether mirrored galaxies stay in the box: it is as wide to every side."""
    lower, upper = prior.center_x
    return prior.center_y == (lower, upper) == (-upper, -lower)


def mirrored_at_random(stamps: StampBatch, w: Tensor, generator: torch.Generator) -> Batch:
    """Returns each galaxy as one of its eight mirror images, drawn with equal odds.

    Args:
        stamps: The galaxies.
        w: Their coordinates, (B, 7), under a box of which :func:`is_symmetric` is true.
        generator: Draws which.
    """
    flip_x, flip_y, transpose = torch.rand(3, len(w), generator=generator) < 0.5
    return mirrored(stamps, w, flip_x, flip_y, transpose)


def mirrored(
    stamps: StampBatch, w: Tensor, flip_x: Tensor, flip_y: Tensor, transpose: Tensor
) -> Batch:
    """Returns galaxies mirrored left to right, upside down and along the diagonal.

    Args:
        stamps: The galaxies.
        w: Their coordinates, under a box whose centre's bounds are the same for x and y, and
            symmetric.
        flip_x: Which rows are mirrored left to right, with shape (B,).
        flip_y: Which rows are mirrored upside down.
        transpose: Which rows have x and y exchanged, after that.
    """

    def turn(images: Tensor) -> Tensor:
        images = torch.where(flip_x[:, None, None], images.flip(-1), images)
        images = torch.where(flip_y[:, None, None], images.flip(-2), images)
        return torch.where(transpose[:, None, None], images.transpose(-2, -1), images)

    w = w.clone()
    # With the angle t from +y: mirrored t -> -t, exchanged t -> 90 degrees - t.
    w[:, CENTER_X] = torch.where(flip_x, -w[:, CENTER_X], w[:, CENTER_X])
    w[:, CENTER_Y] = torch.where(flip_y, -w[:, CENTER_Y], w[:, CENTER_Y])
    w[:, POSITION_ANGLE] = torch.where(flip_x ^ flip_y, -w[:, POSITION_ANGLE], w[:, POSITION_ANGLE])
    w[:, AXIS_RATIO] = torch.where(transpose, -w[:, AXIS_RATIO], w[:, AXIS_RATIO])
    x, y = w[:, CENTER_X].clone(), w[:, CENTER_Y].clone()
    w[:, CENTER_X] = torch.where(transpose, y, x)
    w[:, CENTER_Y] = torch.where(transpose, x, y)
    turned = {name: turn(getattr(stamps, name)) for name in ("image", "sigma", "mask", "psf")}
    return replace(stamps, **turned), w
