"""Input channels of the image network: one or two stretched views of each stamp."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from deeplegato_pp.errors import ShapeError
from deeplegato_pp.scene.stamps import StampBatch

NUM_CHANNELS = 8
"""Number of channels of two views: S/N, noise map and mask of each, and two coordinates."""

ONE_VIEW_CHANNELS = 5
"""Number of channels of one view."""


def one_view(stamps: StampBatch) -> Float[Tensor, "b 5 n n"]:
    """Returns the whole stamp at full resolution, and coordinates, as channels.

    Args:
        stamps: Stamps of side N.
    """
    pixels, noise, good = _cleaned(stamps)
    return torch.stack([*_stretch(pixels, noise, good), *_coordinates(pixels)], 1)


def two_views(stamps: StampBatch) -> Float[Tensor, "b 8 m m"]:
    """Returns the centre at full resolution and the whole stamp binned 2 x 2, as channels.

    The centre shows the galaxy's core, the binned stamp its wings and surroundings; together they
    cost a quarter of the full stamp. Coordinates are included because a pooled Swin transformer has
    relative positions only, but must infer the centre.

    Args:
        stamps: Stamps of even side N = 2 m.

    Raises:
        ShapeError: If the side is not a multiple of four.
    """
    size = stamps.image.shape[-1]
    if size % 4:
        raise ShapeError(f"The stamp's side must be a multiple of 4, got {size}.")
    quarter = size // 4
    centre = slice(quarter, size - quarter)
    pixels, noise, good = _cleaned(stamps)
    near = _stretch(pixels[:, centre, centre], noise[:, centre, centre], good[:, centre, centre])
    share = avg_pool2d(good[:, None], 2)[:, 0]
    filled = share.clamp_min(0.25)
    image = avg_pool2d((pixels * good)[:, None], 2)[:, 0] * 4 / filled
    variance = avg_pool2d((noise**2 * good)[:, None], 2)[:, 0] * 4 / filled
    sigma = torch.where(share > 0, variance, 4.0).sqrt()
    far = _stretch(image, sigma, (share > 0.5).float())
    return torch.stack([*near, *far, *_coordinates(image)], 1)


def _cleaned(stamps: StampBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Returns image and noise with masked pixels replaced, and the mask of valid pixels.

    Masked values, which may be infinite, must not propagate through 0 * inf.
    """
    pixels = stamps.image.masked_fill(stamps.mask, 0.0)
    noise = stamps.sigma.masked_fill(stamps.mask, 1.0)
    return pixels, noise, (~stamps.mask).float()


def _coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns column and row of every pixel, from -1 to 1."""
    size = images.shape[-1]
    a = torch.linspace(-1.0, 1.0, size, device=images.device, dtype=images.dtype)
    x = a.expand(len(images), size, -1)
    return x, x.transpose(1, 2)


def _stretch(image: Tensor, sigma: Tensor, good: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the asinh of the signal-to-noise, the logarithm of the noise, and valid pixels."""
    return torch.asinh(image / sigma) * good, sigma.log() * good, good
