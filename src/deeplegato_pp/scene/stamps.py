"""Batches of square stamps in detector units, the input of networks and likelihoods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.scene.correlated_noise import lags_of

PSF_GRID = 43
"""Side of the PSF array used by networks. [PSF samples]"""

PSF_GRID_OVERSAMPLING = 2
"""PSF samples per pixel on that grid.

Two samples per pixel are sufficient (Nyquist) for a PSF down to FWHM 1.25 px, the sharpest of
current cameras; three would cost 2.25 times as much without adding information.
"""

REFERENCE_PIXEL_SCALE = 0.25
"""Pixel scale of the reference instrument. [arcsec/px]"""

REFERENCE_ZERO_POINT = 30.5
"""Magnitude of one background sigma per pixel at the reference instrument."""


@dataclass(frozen=True)
class StampBatch:
    """Stamps in detector units: lengths in pixels, fluxes in background sigmas.

    Attributes:
        image: Pixel values divided by the stamp's background sigma, with shape (B, N, N).
        sigma: Noise map divided by the same number: background noise if `gain` is finite, total
            noise otherwise. With shape (B, N, N), > 0.
        mask: True for pixels to ignore, with shape (B, N, N).
        psf: PSF on the networks' grid, with shape (B, 43, 43); see :data:`PSF_GRID`.
        gain: Electrons per background sigma, with shape (B,); inf declares `sigma` total.
        sky_sigma: Prior standard deviation of the constant sky offset, in sigmas, with shape (B,).
        noise_correlation: Variance of sums over many pixels relative to independent pixels, with
            shape (B,), >= 1; 1 for independent pixels.
        lags: Correlation of the noise at lags (y, x), with shape (B, 17, 17); if None, the
            Gaussian family with those totals, see `NoiseCorrelation.gaussian`.
        psf_error: Relative standard error of the PSF's width, with shape (B,); None if not stated,
            which networks with this input treat as 0.
    """

    image: Float[Tensor, "b n n"]
    sigma: Float[Tensor, "b n n"]
    mask: Bool[Tensor, "b n n"]
    psf: Float[Tensor, "b k k"]
    gain: Float[Tensor, " b"]
    sky_sigma: Float[Tensor, " b"]
    noise_correlation: Float[Tensor, " b"]
    lags: Float[Tensor, "b 17 17"] | None = None
    psf_error: Float[Tensor, " b"] | None = None

    def __len__(self) -> int:
        return self.image.shape[0]

    def __getitem__(self, index: slice | Tensor) -> StampBatch:
        """Returns the stamps selected by a slice or an index tensor."""
        return self._each(lambda x: x[index])

    def to(self, device: torch.device | str) -> StampBatch:
        """Returns the batch on another device."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def with_noise_correlation(self, value: float | NoiseCorrelation) -> StampBatch:
        """Returns the same stamps with another noise correlation, the same for all.

        Args:
            value: The correlation, or its total, which stands for the Gaussian family.
        """
        lags = None
        if isinstance(value, NoiseCorrelation):
            lags = torch.from_numpy(value.padded_lags).to(self.noise_correlation)
            lags, value = lags.expand(len(self), -1, -1), max(value.total, 1.0)
        column = torch.full_like(self.noise_correlation, float(value))
        return replace(self, noise_correlation=column, lags=lags)

    def pin_memory(self) -> StampBatch:
        """Returns the batch in page-locked memory, for faster transfers to a GPU."""
        return self._each(lambda x: x.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> StampBatch:
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        found = {name: change(x) for name, x in parts.items() if x is not None}
        return StampBatch(**found)

    @property
    def full_lags(self) -> Float[Tensor, "b 17 17"]:
        """Correlation of the noise at lags (y, x), computed from the totals if not given."""
        return lags_of(self.noise_correlation) if self.lags is None else self.lags

    @property
    def stated_psf_error(self) -> Float[Tensor, " b"]:
        """Relative standard error of the PSF's width, 0 if not stated."""
        return torch.zeros_like(self.gain) if self.psf_error is None else self.psf_error

    def correlation(self, row: int) -> NoiseCorrelation | None:
        """Returns the correlation of one stamp's noise; None for independent pixels."""
        if self.lags is None and float(self.noise_correlation[row]) == 1.0:
            return None
        lags = self.full_lags[row].double().cpu().numpy()
        return NoiseCorrelation(lags) if np.count_nonzero(lags) > 1 else None

    @classmethod
    def concatenate(cls, batches: list[StampBatch]) -> StampBatch:
        """Joins batches of the same stamp size."""
        names = [f.name for f in fields(cls) if f.name not in ("lags", "psf_error")]
        plain = all(b.lags is None for b in batches)
        lags = None if plain else torch.cat([b.full_lags for b in batches])
        joined = {name: torch.cat([getattr(b, name) for b in batches]) for name in names}
        errors = [b.stated_psf_error for b in batches]
        error = None if all(b.psf_error is None for b in batches) else torch.cat(errors)
        return cls(**joined, lags=lags, psf_error=error)
