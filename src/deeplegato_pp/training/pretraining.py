"""Self-supervised pre-training: a small decoder reconstructs pixels hidden from the backbone.

It needs no reference parameters, so that the backbone can learn from real images.
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
"""Number of cells per side in which the stamp is hidden."""

GRID = 32
"""Side of the reconstructed images. [px]"""

_NEAR, _NEAR_VALID, _FAR, _FAR_VALID = 0, 2, 3, 5
"""Channels of the two views: stretched images, and valid pixels."""


class PixelDecoder(nn.Module):
    """Reconstructs both views of a stamp at low resolution from the backbone's features.

    It is small, so that the information is learnt by the backbone.

    Args:
        in_features: Length of the feature vectors.
        channels: Number of channels of the first, smallest map.
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
    """Masks a random fraction of each stamp's cells.

    Args:
        stamps: The stamps.
        share: Fraction of the cells, 0 to 1.

    Returns:
        The stamps, and the pixels that were masked.
    """
    batch, size = stamps.image.shape[:2]
    cells = torch.rand(batch, CELLS, CELLS, device=stamps.image.device) < share
    place = torch.arange(size, device=stamps.image.device) * CELLS // size
    hidden = cells[:, place][:, :, place]
    return replace(stamps, mask=stamps.mask | hidden), hidden


def targets(
    stamps: StampBatch, hidden: Bool[Tensor, "b n n"]
) -> tuple[Float[Tensor, "b 2 32 32"], Bool[Tensor, "b 2 32 32"]]:
    """Returns the images to be reconstructed, and the pixels to ignore: visible or invalid ones.

    Args:
        stamps: Stamps before pixels were hidden.
        hidden: Hidden pixels.
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
