"""The likelihood of a batch of observed galaxies: ln L, chi-square, p-value and residuals.

It uses the simulator's own forward model: `scene.render` draws the galaxies and `scene.noise`
compares them with the data.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.errors import InputError, NumericalError
from deeplegato_pp.scene.noise import Residual, model_variance, residual, variance_slope
from deeplegato_pp.scene.observed_galaxies import ObservedGalaxies
from deeplegato_pp.scene.prior import W_MAX

_CHUNK_PIXELS = 2**19
"""Number of pixels of model images held at a time, for one galaxy."""


class Likelihood(ObservedGalaxies):
    """The likelihood of a batch of stamps, as a function of a hypothesis' coordinates.

    It is built from the arguments of
    :class:`~deeplegato_pp.scene.observed_galaxies.ObservedGalaxies`.
    """

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
