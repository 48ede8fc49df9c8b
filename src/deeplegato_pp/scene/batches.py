"""Rows of many galaxies at once: their images, derivatives, and what the pixels say of them.

A render alone costs several times one in a batch. Here rows of a likelihood, each a galaxy's number
and a point, are rendered together, PSFs of one kind in one call, and judged together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.scene.components import PointSourceCoordinates
from deeplegato_pp.scene.likelihood import SINGLE_PRECISION_PEAK, Likelihood
from deeplegato_pp.scene.model_images import side_by_side
from deeplegato_pp.scene.noise import Residual, model_variance, residual, variance_slope
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
"""Step of the differences of the renderer's columns, in coordinates whose prior is one wide."""

_POINT_STEP = 1e-3
"""Step of the differences of a point source's images."""


@dataclass(frozen=True)
class Data:
    """Galaxies' pixels and noise, a row each, masked ones replaced by numbers that do no harm.

    Attributes:
        image: With shape (R, N, N), as all maps. [background sigma]
        sigma: Noise map.
        good: Unmasked pixels.
        gain: With shape (R,), as what follows.
        templates: Constant sky and error of the PSF's width, R sets.
        psf_error: Relative error of the PSF's width.
        whitening: Of correlated noise, R rows; None where all pixels are independent.
        model_error: Error of the model as a fraction of itself.
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
        """Returns the pixels of some of a likelihood's galaxies."""
        s = likelihood.stamps
        mask = s.mask[rows]
        return cls(
            torch.where(mask, 0.0, s.image[rows]),
            torch.where(mask, 1.0, s.sigma[rows]),
            ~mask,
            s.gain[rows],
            likelihood.templates(rows),
            likelihood.psf_error[rows],
            likelihood.whitening(rows),
            likelihood.model_error,
        )

    def at(self, index: Tensor) -> Data:
        """Returns some of the rows."""
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
        """Returns the variance under noiseless images."""
        return model_variance(model, self.sigma, self.gain, self.model_error)

    def residual(self, model: Float[Tensor, "r n n"]) -> Residual:
        """Returns data less noiseless images under the noise, the templates marginalised."""
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
        """Returns data less images and templates, 0 where masked, and the variance, (R, N, N)."""
        found = self.residual(model)
        return found.left, found.variance

    def freeze(self, index: Tensor, width_slope: Float[Tensor, "r n n"]) -> None:
        """Takes what an error of the PSF's width changes in some rows from images' derivatives.

        Args:
            index: The rows.
            width_slope: Derivatives of images with the logarithm of the PSF's width.
        """
        self.templates.images[index, 1] = self.psf_error[index, None, None] * width_slope

    def respond(self, model: Float[Tensor, "r n n"], jacobian: Float[Tensor, "r f p"]) -> Response:
        """Returns gradient and Fisher information of ln L; see :func:`respond`."""
        return respond(self, model, jacobian)

    def squared_distance(
        self, model: Float[Tensor, "r n n"], difference: Float[Tensor, "r p"]
    ) -> Float[Tensor, " r"]:
        """Returns the chi-squares between images; see :func:`squared_distance`."""
        return squared_distance(self, model, difference)


@dataclass(frozen=True)
class Response:
    """How ln L answers to a change of the coordinates.

    Attributes:
        gradient: Of ln L, with shape (R, F).
        information: Fisher's, with shape (R, F, F).
    """

    gradient: Float[Tensor, "r f"]
    information: Float[Tensor, "r f f"]


def respond(
    data: Data, model: Float[Tensor, "r n n"], jacobian: Float[Tensor, "r f p"]
) -> Response:
    r"""Returns gradient and Fisher information of ln L, from images and their derivatives.

    With J the derivatives, the information of a Gaussian whose variance follows the model is

    .. math:: J \Sigma^{-1} J^T + \tfrac12 \sum \nabla\!\ln V\, \nabla\!\ln V^T,

    with the covariance of pixels and templates (`scene.templates`), the second term, absent for a
    fixed variance, taken without the templates' (a correction of order 1/pixels). The templates
    stay as they are.

    Args:
        data: R rows.
        model: Noiseless images.
        jacobian: Their derivatives, in the precision in which sums over pixels are to be taken.
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
    """Returns the chi-squares between images, the templates' amplitudes marginalised.

    Args:
        data: R rows.
        model: Images that set the noise.
        difference: Between two images of each row.
    """
    found = respond(data, model, difference[:, None])
    return found.information[:, 0, 0].clamp_min(0.0)


class Batches:
    """Renders rows of one likelihood's galaxies together.

    Args:
        likelihood: Galaxies and hypothesis.
        single_precision_peak: Brightest pixel up to which float32 serves. [sigma]
        budget: Pixels that may be rendered per galaxy; what exceeds it is up to the caller.

    Attributes:
        renders: Images rendered so far per galaxy, with shape (B,); derivatives count as the
            images that they cost.
        pixels: Pixels rendered so far per galaxy, with shape (B,): those of the periodic square
            that the image is the middle of, at the PSF's sampling.
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
        """Returns the pixels that images cost, with shape (R,)."""
        radius, q = self._columns(u)[:, [1, 3]].unbind(1)
        return self._areas[rows, choose_plans(radius, q, self.likelihood.size).cpu()].sum(0)

    def left(self, row: int) -> float:
        """Returns the pixels that may still be rendered for a galaxy."""
        return self.budget - float(self.pixels[row])

    def count(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"], times: int = 1) -> None:
        """Notes that images were rendered, here or elsewhere."""
        self.renders += times * torch.bincount(rows, minlength=len(self.renders))
        self.pixels.index_add_(0, rows, times * self.cost(rows, u))

    def log_posterior(self, row: int, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln L + ln prior of one galaxy at many points; -inf beyond |u| = 8."""
        self.count(torch.full((len(u),), row), u)
        return self.likelihood.log_posterior(row, u)

    @property
    def derivative_cost(self) -> int:
        """Images that one galaxy's image and all its derivatives cost."""
        return 3 if isinstance(self.likelihood.coordinates, PointSourceCoordinates) else 4

    def render(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> Float[Tensor, "r n n"]:
        """Returns noiseless images, float64, computed in the precision that each row needs.

        Args:
            rows: Galaxies; one may come more than once.
            u: Points.
        """
        self.count(rows, u)
        return self._render(rows, u)

    def _render(self, rows: Tensor, u: Tensor, by_width: bool = False) -> Tensor:
        return self.likelihood.model.of_many(rows, u, self.double, by_width)

    def freeze(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> None:
        """Takes points for where the PSF's error acts, see :meth:`Likelihood.freeze`."""
        if self.likelihood.psf_is_uncertain:
            self.count(rows, u)
            self.likelihood.freeze(rows, u)

    def differentiate(
        self,
        rows: Int[Tensor, " r"],
        u: Float[Tensor, "r f"],
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Float[Tensor, "r n n"], Float[Tensor, "r f p"], Float[Tensor, "r n n"] | None]:
        """Returns images, float64, and their derivatives, also with the PSF's width.

        Derivatives come from the spectrum, not from differences; they are computed in the
        precision that each row's image needs.

        Args:
            rows: Galaxies; one may come more than once.
            u: Points.
            dtype: In which derivatives are returned; float64 is computed in throughout.

        Returns:
            Images (R, N, N), their derivatives with the coordinates (R, F, N * N), and with the
            logarithm of the PSF's width (R, N, N), float64, None where the PSFs are known.

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
        """Differences: of three coordinates the flux only scales the image."""
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
        """Derivatives of the renderer's columns with the coordinates, by central differences."""
        count, dim = u.shape
        steps = _STEP * torch.eye(dim, dtype=torch.float64)
        u = u.double().clamp(-W_MAX + 2 * _STEP, W_MAX - 2 * _STEP)[:, None]
        both = torch.stack([u + steps, u - steps]).flatten(0, 2)
        up, down = self._columns(both).mT.unflatten(1, (2, count, dim)).unbind(1)
        change = up - down
        # The angle starts anew at 180 degrees.
        change[..., 4] = torch.remainder(change[..., 4] + 90.0, 180.0) - 90.0
        return change / (2.0 * _STEP)
