"""The border between images and networks: a batch of square stamps in detector units."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PSF_GRID = 43
"""Side of the PSF array that networks see. [PSF samples]"""

PSF_GRID_OVERSAMPLING = 2
"""PSF samples per pixel on that grid.

Two samples a pixel serve a PSF down to FWHM 1.25 px (Nyquist), the sharpest of today's cameras;
three would cost 2.25 times as much and show the network nothing more.
"""

REFERENCE_PIXEL_SCALE = 0.25
"""Pixel scale of the reference instrument. [arcsec/px]"""

REFERENCE_ZERO_POINT = 30.5
"""Magnitude of one background sigma per pixel at the reference instrument."""


@dataclass(frozen=True)
class StampBatch:
    """Stamps as the network and the likelihood see them: lengths in pixels, fluxes in sigmas.

    Attributes:
        image: Pixel values over the stamp's background sigma, with shape (B, N, N).
        sigma: Noise map over the same number: the background's if `gain` is finite, the total
            otherwise. With shape (B, N, N), > 0.
        mask: True where a pixel is to be ignored, with shape (B, N, N).
        psf: PSF on the networks' grid, with shape (B, 43, 43); see :data:`PSF_GRID`.
        gain: Electrons per background sigma, with shape (B,); inf declares `sigma` total.
        sky_sigma: Width of the constant sky offset's prior, in sigmas, with shape (B,).
        noise_correlation: Variance of the noise of sums over many pixels, over that of independent
            ones; 1 where pixels are independent. With shape (B,), >= 1.
    """

    image: Float[Tensor, "b n n"]
    sigma: Float[Tensor, "b n n"]
    mask: Bool[Tensor, "b n n"]
    psf: Float[Tensor, "b k k"]
    gain: Float[Tensor, " b"]
    sky_sigma: Float[Tensor, " b"]
    noise_correlation: Float[Tensor, " b"]

    def __len__(self) -> int:
        return self.image.shape[0]

    def __getitem__(self, index: slice | Tensor) -> StampBatch:
        """Returns the stamps at a slice or an index tensor."""
        return StampBatch(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> StampBatch:
        """Returns the batch on another device."""
        return StampBatch(
            *(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self))
        )

    def with_noise_correlation(self, value: float) -> StampBatch:
        """Returns the same stamps with another noise correlation, the same for all."""
        return replace(
            self, noise_correlation=torch.full_like(self.noise_correlation, float(value))
        )

    def pin_memory(self) -> StampBatch:
        """Returns the batch in page-locked memory, from which a GPU takes it faster."""
        return StampBatch(*(getattr(self, f.name).pin_memory() for f in fields(self)))

    @classmethod
    def concatenate(cls, batches: list[StampBatch]) -> StampBatch:
        """Joins batches of the same stamp size."""
        return cls(*(torch.cat([getattr(b, f.name) for b in batches]) for f in fields(cls)))
