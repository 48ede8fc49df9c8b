"""A batch of observed galaxies: stamps, PSFs, noise settings and the images of a hypothesis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.components import Coordinates, SersicCoordinates
from deeplegato_pp.scene.model_images import ModelImages
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.psf_width import PsfWidths
from deeplegato_pp.scene.stamps import StampBatch
from deeplegato_pp.scene.templates import Templates
from deeplegato_pp.scene.units import stamp_batch
from deeplegato_pp.scene.whitening import StampWhitening, Whitening

SINGLE_PRECISION_PEAK = 1000.0
"""Brightest pixel [sigma] up to which draws are rendered in float32.

Relative to float64, the error of ln L is 4e-6 times the brightest pixel in sigmas (n 1 and 4, R_e 2
and 10 px, both noise modes), so differences of ln L are accurate to 4e-3 at this limit.
"""


class ObservedGalaxies:
    """A batch of stamps with PSFs, noise and a hypothesis: all that a likelihood compares.

    Args:
        stamps: Observed galaxies in detector units (the network PSF is not used).
        psfs: PSF of each galaxy as observed, with shape (Py, Px), odd-sided.
        oversampling: PSF samples per pixel, one per galaxy.
        includes_pixel: Whether the PSF includes the detector's pixel, one per galaxy.
        box: Prior box at the reference instrument.
        coordinates: Hypothesis; a Sérsic galaxy with all parameters free if None.
        model_error: Model error as a fraction of the model image, added in quadrature to the noise.
        psf_error: Relative error of the PSF's width, one per galaxy; None if the PSFs are known.
            It takes effect once :meth:`freeze` has been called.

    Raises:
        RangeError: If the noise correlation, `model_error` or `psf_error` is out of range.
        ShapeError: If the lists do not have one entry per stamp.
    """

    def __init__(
        self,
        stamps: StampBatch,
        psfs: list[Tensor],
        oversampling: list[int],
        includes_pixel: list[bool],
        box: PriorBox,
        *,
        coordinates: Coordinates | None = None,
        model_error: float = 0.0,
        psf_error: Sequence[float] | None = None,
    ) -> None:
        batch = len(stamps)
        psf_error = [0.0] * batch if psf_error is None else list(psf_error)
        for name, entries in (
            ("psfs", psfs),
            ("oversampling", oversampling),
            ("includes_pixel", includes_pixel),
            ("psf_error", psf_error),
        ):
            if len(entries) != batch:
                raise ShapeError(
                    f"{name} must have one entry per stamp, {batch}, got {len(entries)}."
                )
        correlation = stamps.noise_correlation
        if not bool(((correlation >= 1.0) & correlation.isfinite()).all()):
            raise RangeError(
                f"noise_correlation must be at least 1 (independent pixels), got "
                f"{float(correlation.min()):g}."
            )
        if not 0.0 <= model_error < 1.0:
            raise RangeError(f"model_error must lie in [0, 1), got {model_error}.")
        self.model_error = float(model_error)
        self.box = box
        self.coordinates = SersicCoordinates(box) if coordinates is None else coordinates
        # Copies, so that autograd can use them even if the caller is in inference mode.
        with torch.inference_mode(False):
            self.stamps = StampBatch(
                stamps.image.double().clone(),
                stamps.sigma.double().clone(),
                stamps.mask.clone(),
                stamps.psf,
                stamps.gain.double().clone(),
                stamps.sky_sigma.double().clone(),
                correlation.double().clone(),
                stamps.full_lags.double().clone(),
            )
            self._whitenings: dict[tuple[bytes, bytes], StampWhitening | None] = {}
            self.psfs = [p.to(stamps.image.device).double().clone() for p in psfs]
            self.psf_widths = PsfWidths(psf_error, self.stamps.image)
        self.oversampling = [int(s) for s in oversampling]
        self.includes_pixel = [bool(b) for b in includes_pixel]
        self.model = ModelImages(
            self.coordinates,
            self.psfs,
            self.oversampling,
            self.includes_pixel,
            self.size,
            torch.where(stamps.mask, torch.inf, stamps.sigma).amin((-2, -1)),
        )

    @classmethod
    def of(
        cls,
        prepared: Sequence[PreparedStamp],
        box: PriorBox,
        *,
        coordinates: Coordinates | None = None,
        model_error: float = 0.0,
    ) -> Self:
        """Takes prepared stamps, in float64.

        Args:
            prepared: Prepared stamps, all of the same side.
            box: Prior box at the reference instrument.
            coordinates: Hypothesis; a Sérsic galaxy with all parameters free if None.
            model_error: Model error as a fraction of the model image.
        """
        return cls(
            stamp_batch(prepared, torch.float64),
            [torch.from_numpy(np.asarray(p.psf, dtype=np.float64)) for p in prepared],
            [p.psf_oversampling for p in prepared],
            [p.psf_includes_pixel for p in prepared],
            box,
            coordinates=coordinates,
            model_error=model_error,
            psf_error=[p.psf_error for p in prepared],
        )

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def size(self) -> int:
        """Side of the stamps. [px]"""
        return self.stamps.image.shape[-1]

    @property
    def num_pixels(self) -> Tensor:
        """Number of unmasked pixels per galaxy, with shape (B,)."""
        return (~self.stamps.mask).sum((-2, -1))

    def under(self, coordinates: Coordinates) -> Self:
        """Returns the same data under another hypothesis.

        The PSFs' whole errors are fitted: the parts in force were measured on other residuals.
        """
        return self._with(self.stamps, coordinates=coordinates, keep_share=False)

    def replace(
        self,
        *,
        noise_correlation: float | NoiseCorrelation | None = None,
        model_error: float | None = None,
        psf_error: float | None = None,
        noise_factor: float = 1.0,
        gain: float | None = None,
        mask: Bool[Tensor, "b n n"] | None = None,
        box: PriorBox | None = None,
    ) -> Self:
        """Returns the same images with some settings replaced.

        The new object shares no state with this one; for example, its mask can be changed.

        Args:
            noise_correlation: Variance of sums over many pixels relative to independent pixels, or
                the full correlation; the same for all galaxies.
            model_error: Model error as a fraction of the model image.
            psf_error: Relative error of the PSF's width.
            noise_factor: Factor that multiplies the noise map.
            gain: Electrons per background sigma; inf declares that the noise map is the total.
            mask: True for pixels to ignore, with shape (B, N, N).
            box: Prior box at the reference instrument; fixed parameters stay fixed.

        Raises:
            RangeError: If a value is out of range.
        """
        s = self.stamps
        if noise_correlation is not None:
            s = s.with_noise_correlation(noise_correlation)
        if not (math.isfinite(noise_factor) and noise_factor > 0):
            raise RangeError(f"noise_factor must be positive and finite, got {noise_factor}.")
        if noise_factor != 1.0:
            s = dataclasses.replace(s, sigma=s.sigma * noise_factor)
        if gain is not None:
            if not gain > 0:
                raise RangeError(f"gain must be positive, got {gain}.")
            s = dataclasses.replace(s, gain=torch.full_like(s.gain, gain))
        if mask is not None:
            s = dataclasses.replace(s, mask=mask.to(s.mask.device))
        coordinates = self.coordinates if box is None else self.coordinates.in_box(box)
        found = self._with(s, coordinates=coordinates, model_error=model_error)
        if psf_error is not None:
            found.psf_widths = self.psf_widths.with_error(psf_error)
        return found

    def select(self, rows: Sequence[int]) -> Self:
        """Returns some of the galaxies."""
        return self._with(self.stamps, rows=rows)

    def _with(
        self,
        stamps: StampBatch,
        *,
        coordinates: Coordinates | None = None,
        model_error: float | None = None,
        rows: Sequence[int] | None = None,
        keep_share: bool = True,
    ) -> Self:
        """Returns other stamps or some rows, with all other settings kept."""
        if rows is None:
            rows = range(len(self))
        else:
            stamps = stamps[torch.tensor(rows, dtype=torch.long, device=stamps.image.device)]
        coordinates = self.coordinates if coordinates is None else coordinates
        found = type(self)(
            stamps,
            [self.psfs[i] for i in rows],
            [self.oversampling[i] for i in rows],
            [self.includes_pixel[i] for i in rows],
            coordinates.box,
            coordinates=coordinates,
            model_error=self.model_error if model_error is None else model_error,
        )
        found._whitenings = self._whitenings  # keyed by correlation and mask, so safe to share
        found.psf_widths = self.psf_widths.of(rows, share=keep_share)
        return found

    # --- correlated noise -----------------------------------------------------------------------

    def whitening(self, row: int | Int[Tensor, " r"]) -> Whitening | None:
        """Returns the whitening of the galaxies' noise; None if all pixels are independent.

        It is computed once for each correlation and mask.

        Args:
            row: One galaxy for all images, or one per image.
        """
        rows = [row] if isinstance(row, int) else row.tolist()
        known: dict[int, StampWhitening | None] = {}
        for i in set(rows):
            lags, good = self.stamps.full_lags[i].cpu().numpy(), ~self.stamps.mask[i].cpu().numpy()
            key = lags.tobytes(), np.packbits(good).tobytes()
            if key not in self._whitenings:
                independent = np.count_nonzero(lags) == 1
                self._whitenings[key] = None if independent else StampWhitening(lags, good)
            known[i] = self._whitenings[key]
        if all(stamp is None for stamp in known.values()):
            return None
        return Whitening([known[i] for i in rows])

    # --- an imperfect PSF -----------------------------------------------------------------------

    @property
    def psf_error(self) -> Float[Tensor, " b"]:
        """Relative error of each PSF's width, with shape (B,)."""
        return self.psf_widths.error

    @property
    def psf_is_uncertain(self) -> bool:
        """Whether the PSF of any galaxy has an uncertain width."""
        return bool(self.psf_widths.uncertain.any())

    def freeze(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> None:
        """Sets the points at which the PSF-width templates are computed; they should be modes.

        The call renders one image per galaxy, or nothing if the PSFs are known, and replaces
        templates set earlier for these galaxies (see `scene.psf_width`).

        Args:
            rows: Galaxy indices, with shape (R,).
            u: Points, with shape (R, F).
        """
        uncertain = self.psf_widths.uncertain[rows].cpu()
        rows, u = rows[uncertain], u[uncertain]
        if not len(rows):
            return
        # Detached, so that autograd can use it even if the caller is in inference mode.
        with torch.inference_mode(False), torch.no_grad():
            double = self._peak(slice(None)) > SINGLE_PRECISION_PEAK
            slope = self.model.of_many(rows, u.clone(), double, by_width=True)
            self.psf_widths.set(rows, slope, u)

    def frozen_at(self, row: int) -> Float[Tensor, " f"] | None:
        """Returns the point last passed to :meth:`freeze` for a galaxy; None if there is none."""
        return self.psf_widths.points.get(row)

    def templates(self, row: int | Int[Tensor, " r"]) -> Templates:
        """Returns the templates with marginalised amplitudes: constant sky and PSF-width error.

        Args:
            row: One galaxy for all images, or one per image.
        """
        return Templates.of(self.stamps.sky_sigma[row], self.size, self.psf_widths.change(row))

    # --- images ---------------------------------------------------------------------------------

    def render(self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype) -> Tensor:
        """Returns noiseless images of one galaxy at many points, with shape (S, N, N)."""
        return self.model.of_one(row, u, dtype)

    def images(
        self,
        rows: Int[Tensor, " r"],
        u: Float[Tensor, "r f"],
        single_below: float = SINGLE_PRECISION_PEAK,
    ) -> Float[Tensor, "r n n"]:
        """Renders noiseless images of many galaxies, each at its own point, in few calls.

        Args:
            rows: Galaxy indices, with shape (R,); they may repeat.
            u: Points, with shape (R, F).
            single_below: Galaxies whose brightest pixel is fainter are rendered in float32. [sigma]

        Returns:
            Images, with shape (R, N, N), float64. [background sigma]
        """
        return self.model.of_many(rows, u, self._peak(slice(None)) > single_below)

    def needed_dtype(self, row: int) -> torch.dtype:
        """Returns float32 for galaxies fainter than :data:`SINGLE_PRECISION_PEAK`, else float64."""
        bright = float(self._peak(row)) > SINGLE_PRECISION_PEAK
        return torch.float64 if bright else torch.float32

    def _peak(self, row: int | slice) -> Float[Tensor, "*b"]:
        """Returns the brightest unmasked pixel. [sigma]"""
        s = self.stamps
        signal = s.image[row].abs() / s.sigma[row]
        return torch.where(s.mask[row], 0.0, signal).amax((-2, -1))
