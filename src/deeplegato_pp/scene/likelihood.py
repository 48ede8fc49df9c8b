"""The likelihood of a batch of observed galaxies: ln L, chi-square, p-value and residuals.

It uses the simulator's own forward model: `scene.render` draws the galaxies and `scene.noise`
compares them with the data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.errors import InputError, NumericalError, RangeError, ShapeError
from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.components import Coordinates, SersicCoordinates
from deeplegato_pp.scene.model_images import ModelImages
from deeplegato_pp.scene.noise import Residual, model_variance, residual, variance_slope
from deeplegato_pp.scene.prior import W_MAX, PriorBox
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

_CHUNK_PIXELS = 2**19
"""Number of pixels of model images held at a time, for one galaxy."""


class Likelihood:
    """The likelihood of a batch of stamps, as a function of a hypothesis' coordinates.

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
    ) -> Likelihood:
        """Builds the likelihood of prepared stamps, in float64.

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

    def under(self, coordinates: Coordinates) -> Likelihood:
        """Returns the likelihood of the same data under another hypothesis.

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
    ) -> Likelihood:
        """Returns a likelihood of the same images with some settings replaced.

        The new likelihood shares no state with this one; for example, its mask can be changed.

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
            found.psf_widths = PsfWidths([psf_error] * len(self), found.stamps.image)
        return found

    def select(self, rows: Sequence[int]) -> Likelihood:
        """Returns the likelihood of some of the galaxies."""
        return self._with(self.stamps, rows=rows)

    def _with(
        self,
        stamps: StampBatch,
        *,
        coordinates: Coordinates | None = None,
        model_error: float | None = None,
        rows: Sequence[int] | None = None,
        keep_share: bool = True,
    ) -> Likelihood:
        """Returns a likelihood of other stamps or of some rows, with all other settings kept."""
        if rows is None:
            rows = range(len(self))
        else:
            stamps = stamps[torch.tensor(rows, dtype=torch.long, device=stamps.image.device)]
        coordinates = self.coordinates if coordinates is None else coordinates
        found = Likelihood(
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

    # --- data against images --------------------------------------------------------------------

    def residual(self, row: int | Int[Tensor, " r"], images: Float[Tensor, "*s n n"]) -> Residual:
        """Returns the residuals of images, with sky and PSF-width amplitudes marginalised.

        The result holds ln L, chi-square, p-value, the best sky and the residual in sigma.

        Args:
            row: One galaxy for all images, or one per image.
            images: Noiseless images, with shape (*, N, N); they also set the variance.
        """
        if unknown := self.psf_widths.unknown(row):
            raise InputError(
                f"the PSF of galaxy {unknown[0]} has an error of unknown effect: call freeze "
                "first, with where the galaxy's mode is."
            )
        s, dtype = self.stamps, images.dtype
        # Masked pixels may hold any value, NaN included; replace them before any arithmetic.
        image = torch.where(s.mask[row], 0.0, s.image[row]).to(dtype)
        sigma = torch.where(s.mask[row], 1.0, s.sigma[row]).to(dtype)
        return residual(
            image,
            images,
            sigma,
            s.mask[row],
            s.gain[row].to(dtype),
            self.templates(row),
            self.whitening(row),
            self.model_error,
        )

    def variance(
        self, row: int | Int[Tensor, " r"], images: Float[Tensor, "*s n n"]
    ) -> Float[Tensor, "*s n n"]:
        """Returns the variance per pixel under noiseless images, with shape (*, N, N).

        Args:
            row: One galaxy for all images, or one per image.
            images: Noiseless images, with shape (*, N, N).
        """
        s = self.stamps
        return model_variance(images, s.sigma[row], s.gain[row], self.model_error)

    def residual_row(self, row: int, u: Float[Tensor, "s f"]) -> Residual:
        """Returns the residuals of one galaxy's images at points, in float64; see `residual`."""
        with torch.no_grad():
            return self.residual(row, self.render(row, u, self.needed_dtype(row)).double())

    def chi2(self, row: int, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns the chi-square of one galaxy at points, with templates marginalised, (S,).

        At the true parameters it follows a chi-square distribution with as many degrees of freedom
        as there are unmasked pixels.
        """
        return self.residual_row(row, u).chi2.cpu()

    def reduced_chi2(
        self, row: int | Int[Tensor, " r"], chi2: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s"]:
        """Returns chi-square divided by unmasked pixels minus free parameters, with shape (S,)."""
        free = self.num_pixels[row].to(chi2) - self.coordinates.dim
        return chi2 / free.clamp_min(1.0)

    def p_value(self, row: int, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns the probability of a larger chi-square if a point is the truth, (S,)."""
        return self.residual_row(row, u).p_value.cpu()

    def log_likelihood_row(
        self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, " s"]:
        """Returns ln L of one galaxy at many points, float64; see `log_likelihood`."""
        return self.compare_row(row, u, [self], dtype)[0]

    def compare_row(
        self,
        row: int,
        u: Float[Tensor, "s f"],
        others: Sequence[Likelihood],
        dtype: torch.dtype | None = None,
    ) -> Float[Tensor, "l s"]:
        """Returns ln L of one galaxy under several likelihoods, rendering its images once.

        Args:
            row: Galaxy index, the same in each likelihood.
            u: Points, with shape (S, F).
            others: Likelihoods with the same galaxies, PSFs and coordinates.
            dtype: Dtype of the rendering; chosen by the galaxy's brightness if None.

        Returns:
            ln L, with shape (L, S) for L likelihoods, float64.

        Raises:
            NumericalError: If a value is NaN.
        """
        dtype = self.needed_dtype(row) if dtype is None else dtype
        parts = []
        with torch.no_grad():
            for part in u.split(self._chunk):
                images = self.render(row, part, dtype)
                values = [other.residual(row, images).log_likelihood for other in others]
                parts.append(torch.stack(values).cpu())
        result = torch.cat(parts, 1)
        self._refuse_nan(row, u, result.sum(0))
        return result

    def log_posterior(
        self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, " s"]:
        """Returns the unnormalised ln L + ln prior of one galaxy at many points.

        It is -inf for |u| > 8, the limit of the prior's bijection (1e-15 of the prior lies beyond).

        Args:
            row: Galaxy index.
            u: Points, with shape (S, F).
            dtype: Dtype of the rendering; chosen by the galaxy's brightness if None.
        """
        inside = (u.abs() <= W_MAX).all(-1)
        value = torch.full((len(u),), -torch.inf, dtype=torch.float64)
        if bool(inside.any()):
            kept = u[inside]
            log_l = self.log_likelihood_row(row, kept, dtype)
            value[inside] = log_l + self.coordinates.log_prior(kept)
        return value

    def log_likelihood_of(self, row: int, images: Float[Tensor, "s n n"]) -> Float[Tensor, " s"]:
        """Returns ln L of one galaxy under given noiseless images, with shape (S,), float64."""
        with torch.no_grad():
            parts = [self.residual(row, p).log_likelihood for p in images.split(self._chunk)]
        return torch.cat(parts).cpu()

    @property
    def _chunk(self) -> int:
        """Returns the number of images of one galaxy held at a time."""
        return max(1, _CHUNK_PIXELS // self.size**2)

    def _refuse_nan(self, row: int, u: Tensor, result: Tensor) -> None:
        if bool(result.isnan().any()):
            bad = u[int(result.isnan().nonzero()[0, 0])].tolist()
            raise NumericalError(
                f"The likelihood of galaxy {row} is NaN at coordinates {bad}. Check its unmasked "
                "pixels, noise and PSF for values that are not finite."
            )

    def log_likelihood(self, u: Float[Tensor, "b s f"]) -> Float[Tensor, "b s"]:
        """Returns ln L of every galaxy at its own points, using bounded memory.

        Args:
            u: Coordinates, with shape (B, S, F).

        Returns:
            ln L, with shape (B, S), float64.

        Raises:
            NumericalError: If a value is NaN.
        """
        return torch.stack([self.log_likelihood_row(i, u[i]) for i in range(len(self))])

    def linearize(self, row: int, u: Float[Tensor, " f"]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns ln L of one galaxy at a point, with its gradient and Fisher information.

        Args:
            row: Galaxy index.
            u: Point, with shape (F,).

        Returns:
            ln L (), its gradient (F,) and the information (F, F), float64.

        Raises:
            NumericalError: If a derivative is not finite.
        """
        return self.respond(row, *self.jacobian(row, u))

    def jacobian(
        self, row: int, u: Float[Tensor, " f"], dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, "f p"]]:
        """Returns one galaxy's image at a point, (N, N), and its derivatives, (F, N * N).

        See :meth:`~deeplegato_pp.scene.model_images.ModelImages.derivatives`.
        """
        return self.model.derivatives(row, u, dtype)

    def respond(
        self, row: int, image: Float[Tensor, "n n"], jacobian: Float[Tensor, "f p"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns ln L of one galaxy, its gradient and its Fisher information, given an image.

        With J the Jacobian, the Fisher information of a Gaussian whose variance depends on the
        model is

        .. math:: J \Sigma^{-1} J^T + \tfrac12 \sum \nabla\!\ln V\, \nabla\!\ln V^T,

        with :math:`\Sigma` the covariance of pixels and templates (`scene.templates`). The second
        term vanishes for a fixed variance; it neglects the templates (a correction of order
        1/pixels).

        Args:
            row: Galaxy index.
            image: Noiseless image, with shape (N, N), float64.
            jacobian: Derivatives of the image, with shape (F, N * N), float64.

        Returns:
            ln L (), its gradient (F,) and the information (F, F), float64.

        Raises:
            NumericalError: If a derivative is not finite.
        """
        with torch.inference_mode(False), torch.enable_grad():
            model = image.clone().requires_grad_()
            found = self.residual(row, model)
            value = found.log_likelihood
            (slope,) = torch.autograd.grad(value, model)
        gradient = jacobian @ slope.flatten()
        information = self._information(row, image, jacobian)
        if not bool(torch.isfinite(information).all() and torch.isfinite(gradient).all()):
            raise NumericalError(f"The likelihood of galaxy {row} has no finite derivative.")
        return value.detach().cpu(), gradient.cpu(), information.cpu()

    def squared_distance(
        self, row: int, image: Float[Tensor, "n n"], difference: Float[Tensor, " p"]
    ) -> float:
        """Returns the chi-square between two images of one galaxy, with templates marginalised.

        Args:
            row: Galaxy index.
            image: One of the images, with shape (N, N); it sets the variance.
            difference: Difference of the two images, with shape (N * N,).
        """
        return float(self._information(row, image, difference[None]))

    def _information(self, row: int, model: Tensor, jacobian: Tensor) -> Tensor:
        found = self.residual(row, model)
        slope = variance_slope(model, self.stamps.gain[row], self.model_error)
        excess = 0.5 * (found.weight * slope).flatten() ** 2  # term of the variance's change
        return found.inner(jacobian, excess)
