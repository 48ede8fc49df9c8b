"""Likelihoods from images interpolated between rendered ones, where that provably serves.

Over a bright galaxy's posterior the image is nearly a polynomial in the coordinates: after some
tens of renders the next ones can be foretold. Nothing is assumed: draws that were not used are
rendered as well, and only if ln L is foretold at every one of them within a tolerance is it
foretold at others, and at those only that are as well surrounded as the ones checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.inference.fit.optimize import Optima
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import W_MAX

TOLERANCE = 0.02
"""Largest error of ln L at the draws checked; a weight is then good to 2 %, at random."""

SIZES = (56, 112, 224)
"""Images interpolated between, tried in turn: in six coordinates beside the flux a quadratic has
28 coefficients, a cubic 84."""

CHECKS = 24

_FARTHEST = 5.5
"""Draws farther from the mode are rendered. [posterior sigmas]"""

_FLATNESS = 0.05
"""Inverse length of the kernel, in posterior sigmas: so flat, it amounts to a polynomial."""

_JITTER = 1e-12


@dataclass(frozen=True)
class ImageInterpolator:
    """Images of one galaxy of unit flux, by kernel interpolation between rendered ones.

    The kernel is exp(e^2 z.z') in coordinates whitened by the mode's covariance.

    Attributes:
        likelihood: Galaxies.
        row: Which one.
        mean: Mode, with shape (F,).
        whiten: Inverse Cholesky factor of its covariance, with shape (F, F).
        z: Whitened points, with shape (M, F).
        inverse: Inverse kernel matrix, with shape (M, M).
        middle: Mean of the images of unit flux, with shape (P,) over P pixels.
        deviation: Images of unit flux less that, with shape (M, P).
    """

    likelihood: Likelihood
    row: int
    mean: Float[Tensor, " f"]
    whiten: Float[Tensor, "f f"]
    z: Float[Tensor, "m f"]
    inverse: Float[Tensor, "m m"]
    middle: Float[Tensor, " p"]
    deviation: Float[Tensor, "m p"]

    @classmethod
    def fit(
        cls,
        likelihood: Likelihood,
        row: int,
        mode: Optima,
        u: Float[Tensor, "m f"],
        images: Float[Tensor, "m n n"],
        dtype: torch.dtype,
    ) -> ImageInterpolator:
        """Returns the interpolator through rendered images.

        Args:
            likelihood: Galaxies.
            row: Which one.
            mode: Its best mode, one row.
            u: Points, with shape (M, F).
            images: Images there, float64.
            dtype: What interpolated images are to be computed in.
        """
        tril = torch.linalg.cholesky(mode.covariance[0])
        whiten = torch.linalg.inv(tril)
        z = (u - mode.u[0]) @ whiten.T
        kernel = _kernel(z, z)
        kernel = kernel + _JITTER * torch.diag(kernel.diagonal())
        unit = (images / _flux(likelihood, u).to(images)[:, None, None]).flatten(1)
        middle = unit.mean(0)
        inverse = torch.linalg.inv(kernel)
        deviation = (unit - middle).to(dtype)
        return cls(likelihood, row, mode.u[0], whiten, z, inverse, middle.to(dtype), deviation)

    def unsupported(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns how badly points are surrounded: the kernel's variance left there, (S,)."""
        z = (u - self.mean) @ self.whiten.T
        cross = _kernel(z, self.z)
        prior = (_FLATNESS**2 * (z**2).sum(-1)).exp()
        return prior - ((cross @ self.inverse) * cross).sum(-1)

    def log_likelihood(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln L at interpolated images, with shape (S,), float64."""
        side = self.likelihood.size
        chunk = max(1, 2**20 // side**2)
        return torch.cat(
            [
                self.likelihood.log_likelihood_of(self.row, self._images(part).view(-1, side, side))
                for part in u.split(chunk)
            ]
        )

    def _images(self, u: Tensor) -> Tensor:
        z = (u - self.mean) @ self.whiten.T
        weights = (_kernel(z, self.z) @ self.inverse).to(self.deviation)
        flux = _flux(self.likelihood, u).to(self.deviation)
        return (self.middle + weights @ self.deviation) * flux[:, None]


class InterpolatedTarget:
    """The log posterior of one galaxy at its proposal's draws, rendered as rarely as can be.

    Args:
        likelihood: Galaxies and hypothesis.
        row: Which galaxy.
        modes: Its modes, best first.
    """

    def __init__(self, likelihood: Likelihood, row: int, modes: Optima) -> None:
        self.likelihood, self.row, self.modes = likelihood, row, modes
        self.interpolator: ImageInterpolator | None = None
        self.limit = 0.0
        self.renders = 0

    def __call__(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln L + ln prior, with shape (S,); -inf beyond |u| = 8."""
        log_l = torch.full((len(u),), torch.nan, dtype=torch.float64)
        log_l[~(u.abs() <= W_MAX).all(-1)] = -torch.inf
        near = self._near(u) & log_l.isnan()
        if self.interpolator is None and int(near.sum()) >= 2 * (SIZES[0] + CHECKS):
            self._learn(u, near.nonzero()[:, 0], log_l)
        if self.interpolator is not None:
            rows = (near & log_l.isnan()).nonzero()[:, 0]
            rows = rows[self.interpolator.unsupported(u[rows]) <= self.limit]
            if len(rows):
                log_l[rows] = self.interpolator.log_likelihood(u[rows])
        left = log_l.isnan().nonzero()[:, 0]
        if len(left):
            log_l[left] = self.likelihood.log_likelihood_row(self.row, u[left])
            self.renders += len(left)
        return log_l + self.likelihood.coordinates.log_prior(u)

    def _near(self, u: Tensor) -> Bool[Tensor, " s"]:
        delta = (u - self.modes.u[0]).T
        tril = torch.linalg.cholesky(self.modes.covariance[0])
        z = torch.linalg.solve_triangular(tril, delta, upper=False)
        return (z**2).sum(0) < _FARTHEST**2

    def _learn(self, u: Tensor, rows: Tensor, log_l: Tensor) -> None:
        """Renders draws until those not used are foretold, or too many are asked for.

        In float64: so flat a kernel amplifies rounding errors.
        """
        dtype = self.likelihood.needed_dtype(self.row)
        images = self._render(u[:0])
        rows = rows[_spread(len(rows))]
        for size in SIZES:
            if size + CHECKS > 0.7 * len(rows):
                return
            new = rows[len(images) : size + CHECKS]
            rendered = self._render(u[new])
            self.renders += len(new)
            log_l[new] = self.likelihood.log_likelihood_of(self.row, rendered)
            images = torch.cat([images, rendered])
            used, checked = rows[:size], rows[size : size + CHECKS]
            found = ImageInterpolator.fit(
                self.likelihood, self.row, self.modes, u[used], images[:size], dtype
            )
            error = (found.log_likelihood(u[checked]) - log_l[checked]).abs().max()
            if float(error) < TOLERANCE:
                self.interpolator = found
                self.limit = float(found.unsupported(u[checked]).max())
                return

    def _render(self, u: Tensor) -> Tensor:
        empty = torch.zeros_like(self.likelihood.stamps.image[:0])
        with torch.no_grad():
            parts = [
                self.likelihood.render(self.row, part, torch.float64)
                for part in u.split(32)
                if len(part)
            ]
        return torch.cat([empty, *parts])


def _spread(count: int) -> Tensor:
    """An order of 0 to count - 1 in which neighbours lie far apart, the same on every call."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (_FLATNESS**2 * (a @ b.T)).exp()


def _flux(likelihood: Likelihood, u: Tensor) -> Tensor:
    return likelihood.coordinates.columns(u)[0]
