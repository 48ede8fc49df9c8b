"""Encoder of the observing conditions: PSF, gain and sky."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deeplegato_pp.scene.stamps import PSF_GRID_OVERSAMPLING, StampBatch

_FLOOR = 1e-5
"""Fraction of the peak below which the encoder does not distinguish PSF samples."""

NUM_SCALARS = 7


class PSFEncoder(nn.Module):
    """Encodes PSF and observing conditions into one vector.

    Args:
        channels: Number of channels of the first convolution, doubled by each of the next two.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features = 4 * channels + NUM_SCALARS
        self.network = nn.Sequential(
            nn.Conv2d(2, channels, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * channels, 4 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(4 * channels * 6 * 6, 4 * channels),
        )

    def forward(self, stamps: StampBatch) -> Float[Tensor, "b f"]:
        """Returns encodings, with shape (B, num_features)."""
        relative = stamps.psf / stamps.psf.amax((-2, -1), keepdim=True)
        shape = torch.stack([relative, relative.clamp_min(_FLOOR).log10() / 4.0 + 0.6], 1)
        return torch.cat([self.network(shape), observing_scalars(stamps)], 1)


def observing_scalars(stamps: StampBatch) -> Float[Tensor, "b 7"]:
    """Returns scalars that describe an observation, each of order one.

    They are the width of the PSF (from its noise-equivalent area), the light on its grid, log gain
    and whether there is one, log sky sigma, fraction and extent of visible pixels.
    """
    total = stamps.psf.sum((-2, -1))
    area = total**2 / (stamps.psf**2).sum((-2, -1)) / PSF_GRID_OVERSAMPLING**2
    has_gain = torch.isfinite(stamps.gain)
    log_gain = torch.where(has_gain, stamps.gain, 1.0).clamp(1e-3, 1e7).log10()
    visible = (~stamps.mask).float()
    return torch.stack(
        [
            area.log() / 2.0 - 1.5,
            10.0 * (total - 1.0),
            log_gain / 2.0 - has_gain.float(),
            has_gain.float(),
            stamps.sky_sigma.clamp(1e-4, 10.0).log10() + 1.7,
            visible.mean((-2, -1)),
            visible.amax(-1).mean(-1),
        ],
        1,
    )
