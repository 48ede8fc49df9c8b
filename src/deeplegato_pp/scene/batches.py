"""Images, derivatives and likelihoods of many galaxies, computed in batches.

Rendering one image at a time is several times slower than rendering a batch. Rows of a likelihood
(a galaxy's index and a point in its coordinates) are therefore rendered together, with one call per
kind of PSF, and compared with the data together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.scene.components import PointSourceCoordinates
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.model_images import side_by_side
from deeplegato_pp.scene.noise import Residual, model_variance, residual, variance_slope
from deeplegato_pp.scene.observed_galaxies import SINGLE_PRECISION_PEAK
from deeplegato_pp.scene.prior import W_MAX
from deeplegato_pp.scene.render.derivatives import render_with_derivatives
from deeplegato_pp.scene.render.renderer import (
    PLANS,
    choose_plans,
    period_length,
)
from deeplegato_pp.scene.render.wings import Galaxies
from deeplegato_pp.scene.templates import Templates
from deeplegato_pp.scene.whitening import Whitening

_STEP = 1e-6
"""Finite-difference step for the renderer's columns, in standard-normal coordinates."""

_POINT_STEP = 1e-3
"""Finite-difference step for the images of a point source."""


@dataclass(frozen=True)
class Data:
    """Pixels and noise of galaxies, one row each; masked pixels hold harmless values.

    Attributes:
        image: Images, with shape (R, N, N), like all maps. [background sigma]
        sigma: Noise maps.
        good: True for unmasked pixels.
        gain: Electrons per background sigma, with shape (R,).
        templates: Templates of the constant sky and of the PSF-width error, R sets.
        psf_error: Relative error of the PSF's width that is fitted, with shape (R,).
        whitening: Whitening of correlated noise, R rows; None if all pixels are independent.
        model_error: Model error as a fraction of the model image.
    """

    image: Float[Tensor, "r n n"]
    sigma: Float[Tensor, "r n n"]
    good: Bool[Tensor, "r n n"]
    gain: Float[Tensor, " r"]
    templates: Templates
    psf_error: Float[Tensor, " r"]
    whitening: Whitening | None
    model_error: float

    @classmethod
    def of(cls, likelihood: Likelihood, rows: Int[Tensor, " r"]) -> Data:
        """Returns the pixels and noise of the given galaxies of a likelihood."""
        s = likelihood.stamps
        mask = s.mask[rows]
        return cls(
            torch.where(mask, 0.0, s.image[rows]),
            torch.where(mask, 1.0, s.sigma[rows]),
            ~mask,
            s.gain[rows],
            likelihood.templates(rows),
            likelihood.psf_widths.fitted[rows],
            likelihood.whitening(rows),
            likelihood.model_error,
        )

    def at(self, index: Tensor) -> Data:
        """Returns the selected rows."""
        return Data(
            self.image[index],
            self.sigma[index],
            self.good[index],
            self.gain[index],
            self.templates.at(index),
            self.psf_error[index],
            None if self.whitening is None else self.whitening.at(index.tolist()),
            self.model_error,
        )

    def variance(self, model: Float[Tensor, "r n n"]) -> Float[Tensor, "r n n"]:
        """Returns the variance per pixel under noiseless images, with shape (R, N, N)."""
        return model_variance(model, self.sigma, self.gain, self.model_error)

    def residual(self, model: Float[Tensor, "r n n"]) -> Residual:
        """Returns the residuals of noiseless images, with template amplitudes marginalised."""
        return residual(
            self.image,
            model,
            self.sigma,
            ~self.good,
            self.gain,
            self.templates,
            self.whitening,
            self.model_error,
        )

    def log_likelihood(self, model: Float[Tensor, "r n n"]) -> Float[Tensor, " r"]:
        """Returns ln L under noiseless images, with shape (R,)."""
        return self.residual(model).log_likelihood

    def unexplained(self, model: Float[Tensor, "r n n"]) -> tuple[Tensor, Tensor]:
        """Returns data minus images and best templates (0 where masked), and the variance."""
        found = self.residual(model)
        return found.left, found.variance

    def freeze(self, index: Tensor, width_slope: Float[Tensor, "r n n"]) -> None:
        """Sets the PSF-width templates of the given rows from the images' derivatives.

        Args:
            index: Rows to set.
            width_slope: Derivatives of the images with respect to ln(PSF width).
        """
        self.templates.images[index, 1] = self.psf_error[index, None, None] * width_slope

    def respond(self, model: Float[Tensor, "r n n"], jacobian: Float[Tensor, "r f p"]) -> Response:
        """Returns gradient and Fisher information of ln L; see :func:`respond`."""
        return respond(self, model, jacobian)

    def squared_distance(
        self, model: Float[Tensor, "r n n"], difference: Float[Tensor, "r p"]
    ) -> Float[Tensor, " r"]:
        """Returns the chi-square between pairs of images; see :func:`squared_distance`."""
        return squared_distance(self, model, difference)


@dataclass(frozen=True)
class Response:
    """Gradient and Fisher information of ln L with respect to the coordinates.

    Attributes:
        gradient: Gradient of ln L, with shape (R, F).
        information: Fisher information, with shape (R, F, F).
    """

    gradient: Float[Tensor, "r f"]
    information: Float[Tensor, "r f f"]


def respond(
    data: Data, model: Float[Tensor, "r n n"], jacobian: Float[Tensor, "r f p"]
) -> Response:
    r"""Computes gradient and Fisher information of ln L from images and their derivatives.

    With J the derivatives, the Fisher information of a Gaussian whose variance depends on the model
    is

    .. math:: J \Sigma^{-1} J^T + \tfrac12 \sum \nabla\!\ln V\, \nabla\!\ln V^T,

    with :math:`\Sigma` the covariance of pixels and templates (`scene.templates`). The second term
    vanishes for a fixed variance; it neglects the templates (a correction of order 1/pixels). The
    templates are held fixed.

    Args:
        data: Pixels and noise, R rows.
        model: Noiseless images.
        jacobian: Their derivatives, in the dtype in which sums over pixels are to be computed.
    """
    found = data.residual(model)
    templates = found.templates.images
    pulled = found.apply_inverse(torch.cat([found.left[:, None], templates], 1))
    follows = variance_slope(model, data.gain, data.model_error)
    relative = found.weight * follows  # of the variance
    squares = found.left * pulled[:, 0] + torch.einsum(
        "rjk,rjyx,rkyx->ryx", found.amplitudes.covariance, templates, pulled[:, 1:]
    )
    slope = pulled[:, 0] + 0.5 * relative * (squares - 1.0)
    # In float64: sums in float32 would depend on what else is in the batch.
    gradient = (jacobian.double() @ slope.flatten(1)[..., None])[..., 0]
    information = found.inner(jacobian, (0.5 * relative**2).flatten(1))
    return Response(gradient, 0.5 * (information + information.mT))


def squared_distance(
    data: Data, model: Float[Tensor, "r n n"], difference: Float[Tensor, "r p"]
) -> Float[Tensor, " r"]:
    """Computes the chi-square between pairs of images, template amplitudes marginalised.

    Args:
        data: Pixels and noise, R rows.
        model: Images that set the variance.
        difference: Difference of the two images of each row.
    """
    found = respond(data, model, difference[:, None])
    return found.information[:, 0, 0].clamp_min(0.0)


class Batches:
    """Renders rows of one likelihood's galaxies together.

    Args:
        likelihood: Likelihood of the galaxies under one hypothesis.
        single_precision_peak: Brightest pixel up to which float32 is used. [sigma]
        budget: Maximum number of pixels to render per galaxy; the caller enforces it.

    Attributes:
        renders: Number of images rendered per galaxy, with shape (B,); derivatives count as the
            number of images that take the same time.
        pixels: Number of pixels rendered per galaxy, with shape (B,), counted on the periodic
            square that contains the image, at the PSF's sampling.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        single_precision_peak: float = SINGLE_PRECISION_PEAK,
        budget: float = math.inf,
    ) -> None:
        self.likelihood, self.budget = likelihood, budget
        s = likelihood.stamps
        peak = torch.where(s.mask, 0.0, s.image.abs() / s.sigma).amax((-2, -1))
        self.double = (peak > single_precision_peak).cpu()
        self.renders = torch.zeros(len(likelihood), dtype=torch.long)
        self.pixels = torch.zeros(len(likelihood), dtype=torch.float64)
        self._areas = torch.tensor(
            [
                [
                    float(s * period_length(likelihood.size, tuple(psf.shape), s, plan)) ** 2
                    for plan in PLANS
                ]
                for psf, s in zip(likelihood.psfs, likelihood.oversampling, strict=True)
            ],
            dtype=torch.float64,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one galaxy's images, (N, N)."""
        return (self.likelihood.size, self.likelihood.size)

    def data(self, rows: Int[Tensor, " r"]) -> Data:
        """Returns the pixels of some of the galaxies."""
        return Data.of(self.likelihood, rows)

    def cost(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> Float[Tensor, " r"]:
        """Returns the number of pixels needed to render each row, with shape (R,)."""
        radius, q = self._columns(u)[:, [1, 3]].unbind(1)
        return self._areas[rows, choose_plans(radius, q, self.likelihood.size).cpu()].sum(0)

    def left(self, row: int) -> float:
        """Returns the number of pixels left in a galaxy's budget."""
        return self.budget - float(self.pixels[row])

    def count(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"], times: int = 1) -> None:
        """Adds images to the counters, including those rendered elsewhere."""
        self.renders += times * torch.bincount(rows, minlength=len(self.renders))
        self.pixels.index_add_(0, rows, times * self.cost(rows, u))

    def log_posterior(self, row: int, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln L + ln prior of one galaxy at many points; -inf beyond |u| = 8."""
        self.count(torch.full((len(u),), row), u)
        return self.likelihood.log_posterior(row, u)

    @property
    def derivative_cost(self) -> int:
        """Cost of an image with all its derivatives, in units of one image."""
        return 3 if isinstance(self.likelihood.coordinates, PointSourceCoordinates) else 4

    def render(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> Float[Tensor, "r n n"]:
        """Renders noiseless images; each row uses the precision it needs. Returns float64.

        Args:
            rows: Galaxy indices, with shape (R,); they may repeat.
            u: Points, with shape (R, F).
        """
        self.count(rows, u)
        return self._render(rows, u)

    def _render(self, rows: Tensor, u: Tensor, by_width: bool = False) -> Tensor:
        return self.likelihood.model.of_many(rows, u, self.double, by_width)

    def freeze(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> None:
        """Sets the points of the PSF-width templates; see `Likelihood.freeze`."""
        if self.likelihood.psf_is_uncertain:
            self.count(rows, u)
            self.likelihood.freeze(rows, u)

    def differentiate(
        self,
        rows: Int[Tensor, " r"],
        u: Float[Tensor, "r f"],
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Float[Tensor, "r n n"], Float[Tensor, "r f p"], Float[Tensor, "r n n"] | None]:
        """Returns images and their derivatives with respect to coordinates and PSF width.

        Derivatives are computed in Fourier space rather than by finite differences, in the
        precision that each row's image needs.

        Args:
            rows: Galaxy indices, with shape (R,); they may repeat.
            u: Points, with shape (R, F).
            dtype: Dtype of the returned derivatives; float64 forces float64 throughout.

        Returns:
            Images (R, N, N), their derivatives with respect to the coordinates (R, F, N * N), and
            with respect to ln(PSF width) (R, N, N), float64, or None if the PSFs are known.

        Raises:
            NumericalError: If a derivative is not finite.
        """
        self.count(rows, u, self.derivative_cost)
        point = isinstance(self.likelihood.coordinates, PointSourceCoordinates)
        slopes = self._point_slopes if point else self._galaxy_slopes
        found = slopes(rows, u, dtype)
        bad = ~torch.isfinite(found[1]).flatten(1).all(-1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0, 0])
            raise NumericalError(
                f"The image of galaxy {int(rows[first])} has no finite derivative at "
                f"{u[first].tolist()}."
            )
        return found

    def _galaxy_slopes(
        self, rows: Tensor, u: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        model = self.likelihood.model
        profiles = self._columns(u)
        number, columns, chain = len(profiles), side_by_side(profiles), self._chain(u).flatten(0, 1)
        rows = rows.repeat(number)
        images = torch.empty(len(rows), model.size, model.size, dtype=torch.float64)
        width = torch.empty_like(images) if self.likelihood.psf_is_uncertain else None
        jacobian = torch.empty(len(rows), u.shape[-1], model.size**2, dtype=dtype)
        double = torch.ones_like(self.double) if dtype == torch.float64 else self.double
        for group, at in model.calls(rows, double):
            working, place = group.psf.dtype, group.place[rows[at]]
            image, slopes, change = render_with_derivatives(
                Galaxies(*columns[:, at].to(working)),
                group.psf,
                place,
                model.size,
                oversampling=group.oversampling,
                psf_includes_pixel=group.includes_pixel,
                negligible=group.negligible[place].to(working),
                bands=group.bands,
                by_width=width is not None,
            )
            images[at] = image.double()
            jacobian[at] = (chain[at].to(working) @ slopes.flatten(2)).to(dtype)
            if width is not None and change is not None:
                width[at] = change.double()
        if number == 1:
            return images, jacobian, width

        def summed(parts: Tensor) -> Tensor:
            return parts.unflatten(0, (number, -1)).sum(0)

        return summed(images), summed(jacobian), None if width is None else summed(width)

    def _point_slopes(
        self, rows: Tensor, u: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Derivatives of point-source images by differences; for the flux, the image is scaled."""
        steps = torch.where(u > 0, -_POINT_STEP, _POINT_STEP)
        image = self._render(rows, u)
        width = self._render(rows, u, True) if self.likelihood.psf_is_uncertain else None
        flux = self._columns(u)[0, 0]
        jacobian = []
        for i in range(u.shape[-1]):
            moved = u.clone()
            moved[:, i] += steps[:, i]
            if i == 0:
                scale = self._columns(moved)[0, 0] / flux - 1.0
                change = scale[:, None, None] * image
            else:
                change = self._render(rows, moved) - image
            jacobian.append((change / steps[:, i, None, None]).flatten(1))
        return image, torch.stack(jacobian, 1).to(dtype), width

    def _columns(self, u: Tensor) -> Float[Tensor, "c 7 r"]:
        return self.likelihood.model.columns(u, self.likelihood.stamps.image.device)

    def _chain(self, u: Tensor) -> Float[Tensor, "c r f 7"]:
        """Derivatives of the renderer's columns with respect to u, by central differences."""
        count, dim = u.shape
        steps = _STEP * torch.eye(dim, dtype=torch.float64)
        u = u.double().clamp(-W_MAX + 2 * _STEP, W_MAX - 2 * _STEP)[:, None]
        both = torch.stack([u + steps, u - steps]).flatten(0, 2)
        up, down = self._columns(both).mT.unflatten(1, (2, count, dim)).unbind(1)
        change = up - down
        # The position angle wraps at 180 degrees.
        change[..., 4] = torch.remainder(change[..., 4] + 90.0, 180.0) - 90.0
        return change / (2.0 * _STEP)
