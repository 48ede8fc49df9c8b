"""Prior of the centre in exact posteriors: symmetric about the centre of the user's image.

The network's box is symmetric about the centre of its stamp, whose side is even. For an image with
an odd side, it would extend half a pixel farther to one side than to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.blocks import Block
from deeplegato_pp.scene.group import about
from deeplegato_pp.scene.parameters import CENTER_X, CENTER_Y
from deeplegato_pp.scene.prior import W_MAX, PriorBox

_NO_DENSITY = -1e4
"""ln of a zero density."""

_ROUNDING = 1e-6
_BEYOND = W_MAX + 1.0
"""Coordinate of values outside a box."""


def centred(box: PriorBox, prepared: PreparedStamp) -> PriorBox:
    """Returns a box whose centre's bounds are symmetric about the centre of the user's image.

    Args:
        box: Prior box at the reference instrument.
        prepared: Prepared stamp.
    """
    x, y = (float(v) for v in prepared.center_from_user(0.0, 0.0))
    return box if (x, y) == (0.0, 0.0) else about(box, x, y)


@dataclass(frozen=True)
class Moved:
    """Conversion of coordinates between boxes that differ only in the centre's bounds.

    Attributes:
        old: Box in which densities are known.
        new: Box in which coordinates are required.
    """

    old: PriorBox
    new: PriorBox

    def to_new(
        self, w: Float[Tensor, "*b 7"], log_prob: Float[Tensor, "*b"]
    ) -> tuple[Float[Tensor, "*b 7"], Float[Tensor, "*b"]]:
        """Returns coordinates and their log-density in the new box.

        Values outside the new box get |w| > 8, where the prior is zero.
        """
        moved, change, _ = _exchanged(self.old, self.new, w)
        return moved, log_prob - change

    def to_old(self, w: Float[Tensor, "*b 7"]) -> tuple[Float[Tensor, "*b 7"], Float[Tensor, "*b"]]:
        """Returns coordinates in the old box, and the term to add to their log-density.

        Outside the old box the density is zero.
        """
        moved, change, inside = _exchanged(self.new, self.old, w)
        moved = moved.clamp(-W_MAX, W_MAX)
        return moved, torch.where(inside, change, _NO_DENSITY)


def _exchanged(
    source: PriorBox, target: PriorBox, w: Float[Tensor, "*b 7"]
) -> tuple[Float[Tensor, "*b 7"], Float[Tensor, "*b"], Bool[Tensor, "*b"]]:
    """Returns coordinates in another box, ln d(target)/d(source), and whether they lie inside."""
    moved = w.double().clone()
    change = torch.zeros_like(moved[..., 0])
    inside = torch.ones_like(change, dtype=torch.bool)
    for column in (CENTER_X, CENTER_Y):
        before, after = (_block(box, column) for box in (source, target))
        there = moved[..., column : column + 1]
        value = before.to_physical(there)
        here = after.to_normal(value)
        change += after.log_jacobian(here, value) - before.log_jacobian(there, value)
        outside = here[..., 0].abs() > W_MAX - _ROUNDING
        inside &= ~outside
        moved[..., column] = torch.where(outside, here[..., 0].sign() * _BEYOND, here[..., 0])
    return moved, change, inside


def _block(box: PriorBox, column: int) -> Block:
    return next(block for block, columns in box.blocks if columns == (column,))
