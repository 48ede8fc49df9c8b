"""The posterior's density, known up to the evidence, for a batch of observed galaxies.

The likelihood is the simulator's own: `scene.render` draws the galaxy and `scene.noise` judges it;
nothing of either is written here a second time.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import NumericalError, RangeError, ShapeError
from deeplegato_pp.scene.components import (
    Coordinates,
    PointSourceCoordinates,
    SersicCoordinates,
)
from deeplegato_pp.scene.noise import log_likelihood, model_variance
from deeplegato_pp.scene.prior import W_MAX, PriorBox
from deeplegato_pp.scene.render.point_source import render_points
from deeplegato_pp.scene.render.renderer import Bands, render_sersic
from deeplegato_pp.scene.stamps import StampBatch

SINGLE_PRECISION_PEAK = 1000.0
"""Brightest pixel [sigma] up to which draws are rendered in float32.

Against float64, ln L is off by 4e-6 times the brightest pixel in sigmas (n 1 and 4, R_e 2 and
10 px, both noise modes), so its differences are good to 4e-3 at this limit.
"""

NEGLIGIBLE_LIGHT = 1e-4
"""Light of periodic copies that is not worth subtracting, over the noise of the best pixel.

It is a bound; what is left out is a tenth of it or less, and changes ln L by less than 0.01.
"""

_CHUNK_PIXELS = 2**19
"""Pixels of model images held at a time, for one galaxy."""

_STEP = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Step of the finite differences, in coordinates whose prior is one wide, by precision."""


class Likelihood:
    """The likelihood of a batch of stamps, as a function of coordinates.

    Args:
        stamps: Observed galaxies in detector units (its network PSF is not used).
        psfs: PSF of each galaxy as observed, (Py, Px), odd-sided.
        oversampling: PSF samples per pixel, one per galaxy.
        includes_pixel: Whether the detector's pixel is in the PSF, one per galaxy.
        box: Prior box at the reference instrument.
        coordinates: Hypothesis; a Sérsic galaxy with nothing fixed if None.
        noise_correlation: Variance of the noise of sums over many pixels, over that of independent
            pixels; at least 1. See `scene.noise`.
        model_error: Error of the model as a fraction of itself, added in quadrature to the noise.

    Raises:
        RangeError: If `noise_correlation` or `model_error` cannot be.
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
    ) -> None:
        batch = len(stamps)
        for name, entries in (
            ("psfs", psfs),
            ("oversampling", oversampling),
            ("includes_pixel", includes_pixel),
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
        # Copies that autograd may use even if the caller works in inference mode.
        with torch.inference_mode(False):
            self.stamps = StampBatch(
                stamps.image.double().clone(),
                stamps.sigma.double().clone(),
                stamps.mask.clone(),
                stamps.psf,
                stamps.gain.double().clone(),
                stamps.sky_sigma.double().clone(),
                correlation.double().clone(),
            )
            self.psfs = [p.to(stamps.image.device).double().clone() for p in psfs]
        self._faintest = torch.where(stamps.mask, torch.inf, stamps.sigma).amin((-2, -1))
        self._kept_row = -1
        self._kept_bands: dict[torch.dtype, Bands] = {}
        self.oversampling = [int(s) for s in oversampling]
        self.includes_pixel = [bool(b) for b in includes_pixel]

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def size(self) -> int:
        """Side of the stamps. [px]"""
        return self.stamps.image.shape[-1]

    @property
    def num_pixels(self) -> Tensor:
        """Unmasked pixels per galaxy, with shape (B,)."""
        return (~self.stamps.mask).sum((-2, -1))

    def under(self, coordinates: Coordinates) -> Likelihood:
        """Returns the same data (pixels, mask, sky's prior) under another hypothesis."""
        return Likelihood(
            self.stamps,
            self.psfs,
            self.oversampling,
            self.includes_pixel,
            self.box,
            coordinates=coordinates,
            model_error=self.model_error,
        )

    def with_noise(self, *, noise_correlation: float = 1.0, model_error: float = 0.0) -> Likelihood:
        """Returns the same data under another noise correlation and model error."""
        return Likelihood(
            self.stamps.with_noise_correlation(noise_correlation),
            self.psfs,
            self.oversampling,
            self.includes_pixel,
            self.box,
            coordinates=self.coordinates,
            model_error=model_error,
        )

    def select(self, rows: list[int]) -> Likelihood:
        """Returns the likelihood of some of the galaxies."""
        return Likelihood(
            self.stamps[torch.tensor(rows, dtype=torch.long, device=self.stamps.image.device)],
            [self.psfs[i] for i in rows],
            [self.oversampling[i] for i in rows],
            [self.includes_pixel[i] for i in rows],
            self.box,
            coordinates=self.coordinates,
            model_error=self.model_error,
        )

    def render(self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype) -> Tensor:
        """Returns noiseless images of one galaxy at many points, with shape (S, N, N)."""
        u = u.double().clamp(-W_MAX, W_MAX).to(self.stamps.image.device)
        columns = self.coordinates.columns(u)
        flux, radius, n, q, angle, x, y = (c.to(dtype) for c in columns)
        if isinstance(self.coordinates, PointSourceCoordinates):  # no profile to transform
            return render_points(
                flux,
                x,
                y,
                self.psfs[row],
                self.size,
                oversampling=self.oversampling[row],
                psf_includes_pixel=self.includes_pixel[row],
            )
        return render_sersic(
            flux,
            radius,
            n,
            q,
            angle,
            x,
            y,
            self.psfs[row],
            self.size,
            oversampling=self.oversampling[row],
            psf_includes_pixel=self.includes_pixel[row],
            negligible=NEGLIGIBLE_LIGHT * float(self._faintest[row]),
            bands=self._bands_of(row, dtype),
        )

    def _bands_of(self, row: int, dtype: torch.dtype) -> Bands:
        """The PSF's transforms that are kept: of the last galaxy, to hold memory."""
        if self._kept_row != row:
            self._kept_row, self._kept_bands = row, {}
        return self._kept_bands.setdefault(dtype, {})

    def needed_dtype(self, row: int) -> torch.dtype:
        """Returns float32 where it provably serves, by :data:`SINGLE_PRECISION_PEAK`."""
        s = self.stamps
        peak = torch.where(s.mask[row], 0.0, s.image[row].abs() / s.sigma[row]).max()
        return torch.float32 if float(peak) <= SINGLE_PRECISION_PEAK else torch.float64

    def log_likelihood_row(
        self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, " s"]:
        """Returns ln L of one galaxy at many points, float64; see `log_likelihood`."""
        dtype = self.needed_dtype(row) if dtype is None else dtype
        data = self._data(row, dtype)
        chunk = max(1, _CHUNK_PIXELS // self.size**2)
        with torch.no_grad():
            parts = [
                log_likelihood(data[0], self.render(row, part, dtype), *data[1:])
                for part in u.split(chunk)
            ]
        result = torch.cat(parts).cpu()
        self._refuse_nan(row, u, result)
        return result

    def log_likelihood_of(self, row: int, images: Float[Tensor, "s n n"]) -> Float[Tensor, " s"]:
        """Returns ln L of one galaxy under given noiseless images, with shape (S,), float64."""
        data = self._data(row, images.dtype)
        chunk = max(1, _CHUNK_PIXELS // self.size**2)
        with torch.no_grad():
            parts = [log_likelihood(data[0], part, *data[1:]) for part in images.split(chunk)]
        return torch.cat(parts).cpu()

    def _refuse_nan(self, row: int, u: Tensor, result: Tensor) -> None:
        if bool(result.isnan().any()):
            bad = u[int(result.isnan().nonzero()[0, 0])].tolist()
            raise NumericalError(
                f"The likelihood of galaxy {row} is NaN at coordinates {bad}. Check its unmasked "
                "pixels, noise and PSF for values that are not finite."
            )

    def log_likelihood(self, u: Float[Tensor, "b s f"]) -> Float[Tensor, "b s"]:
        """Returns ln L of every galaxy at its own points, in bounded memory.

        Args:
            u: Coordinates, with shape (B, S, F).

        Returns:
            ln L, with shape (B, S), float64.

        Raises:
            NumericalError: If a value is NaN.
        """
        return torch.stack([self.log_likelihood_row(i, u[i]) for i in range(len(self))])

    def linearize(self, row: int, u: Float[Tensor, " f"]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns ln L of one galaxy, its gradient and its Fisher information at a point.

        Args:
            row: Galaxy.
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
        """Returns one galaxy's image at a point, and its derivatives there.

        They come from forward differences: on a CPU six more renders (the flux only scales the
        image) cost a third of forward-mode differentiation, and every branch of the renderer is
        served.

        Args:
            row: Galaxy.
            u: Point, with shape (F,).
            dtype: What the derivatives' images are rendered in. Of float32 a wider step leaves the
                derivatives good to about 1e-3, at half of the cost.

        Returns:
            The image (N, N) and its derivatives (F, N * N), both float64.

        Raises:
            NumericalError: If a derivative is not finite.
        """
        dim = self.coordinates.dim
        steps = torch.cat([u.new_zeros(1, dim), _STEP[dtype] * torch.eye(dim).to(u)])
        # Steps point to the origin, so none leaves the coordinates' range.
        steps = steps * torch.where(u > 0, -1.0, 1.0)
        with torch.no_grad():
            images = self._render_steps(row, u + steps, dtype).double()
            derivatives = (images[1:] - images[0]).flatten(1) / steps[1:].sum(-1, keepdim=True)
            image = images[0]
            if dtype != torch.float64:
                image = self.render(row, u[None], torch.float64)[0]
        if not bool(torch.isfinite(derivatives).all()):
            raise NumericalError(
                f"The image of galaxy {row} has no finite derivative at {u.tolist()}."
            )
        return image, derivatives

    def respond(
        self, row: int, image: Float[Tensor, "n n"], jacobian: Float[Tensor, "f p"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns ln L of one galaxy, its gradient and its Fisher information, from an image.

        With J the Jacobian, the information of a Gaussian whose variance follows the model is

        .. math:: J^T (V + \tau^2 1 1^T)^{-1} J
            + \tfrac12 \sum \nabla\!\ln V\, \nabla\!\ln V^T,

        the second term, absent for a fixed variance, taken without the sky's (a correction of
        order 1/pixels).

        Args:
            row: Galaxy.
            image: Its noiseless image, with shape (N, N), float64.
            jacobian: The image's derivatives, with shape (F, N * N), float64.

        Returns:
            ln L (), its gradient (F,) and the information (F, F), float64.

        Raises:
            NumericalError: If a derivative is not finite.
        """
        data = self._data(row, torch.float64)
        with torch.inference_mode(False), torch.enable_grad():
            model = image.clone().requires_grad_()
            value = log_likelihood(data[0], model, *data[1:])
            (slope,) = torch.autograd.grad(value, model)
        gradient = jacobian @ slope.flatten()
        information = self._information(data, image, jacobian)
        if not bool(torch.isfinite(information).all() and torch.isfinite(gradient).all()):
            raise NumericalError(f"The likelihood of galaxy {row} has no finite derivative.")
        return value.detach().cpu(), gradient.cpu(), information.cpu()

    def squared_distance(
        self, row: int, image: Float[Tensor, "n n"], difference: Float[Tensor, " p"]
    ) -> float:
        """Returns the chi-square between two images of one galaxy, the sky offset marginalised.

        Args:
            row: Galaxy.
            image: One of them, with shape (N, N); it sets the noise.
            difference: Of the two, with shape (N * N,).
        """
        data = self._data(row, torch.float64)
        return float(self._information(data, image, difference[None]))

    def _render_steps(
        self, row: int, u: Float[Tensor, "k f"], dtype: torch.dtype
    ) -> Float[Tensor, "k n n"]:
        """Images at points of which some differ from the first in nothing but the flux, (K, N, N).

        Those are scaled, not rendered.
        """
        flux, *others = self.coordinates.columns(u.clamp(-W_MAX, W_MAX))
        new = torch.stack([c != c[0] for c in others]).any(0)
        new[0] = True
        rendered = self.render(row, u[new], dtype)
        images = rendered.new_empty(len(u), *rendered.shape[1:])
        images[new] = rendered
        scale = (flux / flux[0]).to(images)[~new]
        images[~new] = scale[:, None, None] * images[0]
        return images

    def chi_square(self, row: int, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns the chi-square of one galaxy's images, the sky offset marginalised, (S,).

        Its expectation at the truth is the number of unmasked pixels, be they correlated or not.
        """
        image, sigma, mask, gain, sky_sigma, correlation, error = self._data(row, torch.float64)
        with torch.no_grad():
            model = self.render(row, u, self.needed_dtype(row)).double()
        weight = ~mask / model_variance(model, sigma, gain, error)
        weighted = weight * (image - model)
        tau2 = sky_sigma**2 / correlation
        sky = tau2 * weighted.sum((-2, -1)) ** 2 / (1.0 + tau2 * weight.sum((-2, -1)))
        return ((weighted * (image - model)).sum((-2, -1)) - sky).cpu()

    def _information(self, data: tuple[Any, ...], model: Tensor, jacobian: Tensor) -> Tensor:
        _, sigma, mask, gain, sky_sigma, correlation, error = data
        weight = (~mask / model_variance(model, sigma, gain, error)).flatten() / correlation
        light = model.flatten()
        slope = (light > 0) / gain + 2.0 * error**2 * light  # of the variance
        excess = 0.5 * correlation * (weight * slope) ** 2
        information = (jacobian * (weight + excess)) @ jacobian.T
        mean = jacobian @ weight
        tau2 = sky_sigma**2
        return information - tau2 / (1.0 + tau2 * weight.sum()) * torch.outer(mean, mean)

    def _data(self, row: int, dtype: torch.dtype) -> tuple[Any, ...]:
        """One galaxy's data and noise, as `log_likelihood` takes them around the model."""
        s = self.stamps
        # A masked pixel may hold anything; it must not reach the arithmetic.
        image = torch.where(s.mask[row], 0.0, s.image[row])
        sigma = torch.where(s.mask[row], 1.0, s.sigma[row])
        return (
            image.to(dtype),
            sigma.to(dtype),
            s.mask[row],
            s.gain[row].to(dtype),
            s.sky_sigma[row],
            s.noise_correlation[row],
            self.model_error,
        )
