"""Self-supervision: pixels are hidden from the backbone, and a small decoder fills them in.

It needs no reference parameters, so that real images can teach the backbone what galaxies,
neighbours and noise look like.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from deeplegato_pp.models.stamp_channels import two_views
from deeplegato_pp.scene.stamps import StampBatch

CELLS = 16
"""The stamp is hidden in cells, this many to a side."""

GRID = 32
"""Side of the pictures that are filled in."""

_NEAR, _NEAR_VALID, _FAR, _FAR_VALID = 0, 2, 3, 5
"""Channels of the two views: stretched images, and where they are valid."""


class PixelDecoder(nn.Module):
    """Draws both views of a stamp from the backbone's features, coarsely.

    Small on purpose: what is learnt is to be in the backbone.

    Args:
        in_features: Length of the feature vectors.
        channels: Of the first, smallest map.
    """

    def __init__(self, in_features: int, channels: int = 64) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(in_features, channels * 64),
            nn.GELU(),
            nn.Unflatten(1, (channels, 8, 8)),
            nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, 2, 4, stride=2, padding=1),
        )

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, "b 2 32 32"]:
        """Returns the central and the whole view, as asinh of the signal-to-noise."""
        images: Tensor = self.network(features)
        return images


def hide_cells(stamps: StampBatch, share: float) -> tuple[StampBatch, Bool[Tensor, "b n n"]]:
    """Masks a random share of each stamp's cells.

    Args:
        stamps: The stamps.
        share: Of the cells, 0 to 1.

    Returns:
        The stamps, and where they have been masked now.
    """
    batch, size = stamps.image.shape[:2]
    cells = torch.rand(batch, CELLS, CELLS, device=stamps.image.device) < share
    place = torch.arange(size, device=stamps.image.device) * CELLS // size
    hidden = cells[:, place][:, :, place]
    return replace(stamps, mask=stamps.mask | hidden), hidden


def targets(
    stamps: StampBatch, hidden: Bool[Tensor, "b n n"]
) -> tuple[Float[Tensor, "b 2 32 32"], Bool[Tensor, "b 2 32 32"]]:
    """Returns what a decoder should draw, and where it is not asked: seen or invalid pixels.

    Args:
        stamps: The stamps before anything was hidden.
        hidden: Where it was.
    """
    views = two_views(stamps)
    valid = views[:, (_NEAR_VALID, _FAR_VALID)]
    share = adaptive_avg_pool2d(valid, GRID)
    images = adaptive_avg_pool2d(views[:, (_NEAR, _FAR)] * valid, GRID) / share.clamp_min(1e-3)
    quarter = stamps.image.shape[-1] // 4
    centre = hidden[:, quarter:-quarter, quarter:-quarter]
    covered = torch.stack([_pool(centre), _pool(hidden)], 1)
    return images, (share < 0.5) | (covered < 0.5)


def _pool(mask: Tensor) -> Tensor:
    return adaptive_avg_pool2d(mask.float()[:, None], GRID)[:, 0]
