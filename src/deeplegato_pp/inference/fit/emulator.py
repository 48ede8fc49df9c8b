"""Likelihoods from images interpolated between rendered ones, where that provably serves.

Over a bright galaxy's posterior the image is nearly a polynomial in the coordinates: after some
tens of renders the next ones can be predicted. Nothing is assumed: draws that were not used are
rendered as well, and only if ln L is predicted there closely enough, as draws of an importance
sample weigh, is it predicted at others, and at those only that are as well surrounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.inference.fit.fit import Fit
from deeplegato_pp.scene.batches import Batches, Data
from deeplegato_pp.scene.expansion import QuadraticLikelihood
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import W_MAX

TOLERANCE = 0.03
"""Largest error of ln L, root mean square, at the draws checked that matter: weights are then good
to 3 %, at random, which costs a thousandth of the effective size."""

WORST = 0.15
"""Largest error of ln L at any such draw."""

MATTERS = 12.0
"""Draws with a log posterior farther below the best one matter little (e^-12 of its weight): an
error of a tenth of that distance is granted."""

SIZES = (40, 64, 112, 224)
"""Images interpolated between, tried in turn: in six coordinates beside the flux a quadratic has
28 coefficients, a cubic 84."""

CHECKS = 24

_MARGIN = 0.5
"""Log posterior above the best rendered one from which a predicted draw is rendered after all."""

_TRIES = 3
"""Rounds of draws in which interpolation is tried; those after the first come from a proposal that
has been adapted to the posterior."""

_FARTHEST = 5.5
"""Draws farther from the mode are rendered. [posterior sigmas]"""

_FLATNESS = 0.05
"""Inverse length of the kernel, in posterior sigmas: so flat, it amounts to a polynomial."""

_JITTER = 1e-12
"""Smallest eigenvalue of the kernel that is divided by, over the largest."""

_PROBES = 12
"""Images by which it is told which pixels' shares of ln L are no quadratic forms."""


@dataclass(frozen=True)
class Ellipsoid:
    """Where a posterior lies.

    Attributes:
        mean: With shape (F,).
        scale_tril: Lower Cholesky factor of its covariance, with shape (F, F).
    """

    mean: Float[Tensor, " f"]
    scale_tril: Float[Tensor, "f f"]

    @classmethod
    def of_mode(cls, mode: Fit) -> Ellipsoid:
        """Returns that of a fit of one row."""
        return cls(mode.u[0], torch.linalg.cholesky(mode.covariance[0]))

    @classmethod
    def of_draws(cls, u: Float[Tensor, "s f"]) -> Ellipsoid:
        """Returns that of draws."""
        covariance = torch.cov(u.T)
        floor = torch.diag(1e-9 * covariance.diagonal() + 1e-18)
        return cls(u.mean(0), torch.linalg.cholesky(covariance + floor))

    def distance2(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns squared distances from the middle, in sigmas, with shape (S,)."""
        z = torch.linalg.solve_triangular(self.scale_tril, (u - self.mean).T, upper=False)
        return (z**2).sum(0)


@dataclass(frozen=True)
class ImageInterpolator:
    """ln L of one galaxy at images interpolated between rendered ones of unit flux.

    The kernel is exp(e^2 z.z') in coordinates whitened by the posterior's covariance. Its
    eigenvectors at the rendered points make K basis images, of which an interpolated image is a
    sum; so ln L needs no pixels but once.

    Attributes:
        likelihood: Galaxies.
        mean: Middle of the points, with shape (F,).
        whiten: Inverse Cholesky factor of their covariance, with shape (F, F).
        z: Whitened points, with shape (M, F).
        features: From kernels with the points to the basis' shares, with shape (M, K).
        flux: Of the mode.
        quadratic: ln L as a function of the shares.
    """

    likelihood: Likelihood
    mean: Float[Tensor, " f"]
    whiten: Float[Tensor, "f f"]
    z: Float[Tensor, "m f"]
    features: Float[Tensor, "m k"]
    flux: float
    quadratic: QuadraticLikelihood

    @classmethod
    def fit(
        cls,
        likelihood: Likelihood,
        mode: Fit,
        u: Float[Tensor, "m f"],
        images: Float[Tensor, "m n n"],
        about: Ellipsoid | None = None,
    ) -> ImageInterpolator:
        """Returns the interpolator through rendered images.

        Args:
            likelihood: Galaxies.
            mode: The galaxy's best mode, one row.
            u: Points, with shape (M, F).
            images: Images there, float64.
            about: Where the posterior lies; the mode's covariance if None.
        """
        about = Ellipsoid.of_mode(mode) if about is None else about
        whiten = torch.linalg.inv(about.scale_tril)
        z = (u - about.mean) @ whiten.T
        value, vectors = torch.linalg.eigh(_kernel(z, z))
        features = vectors / value.clamp_min(_JITTER * float(value[-1])).sqrt()
        flux = float(_flux(likelihood, mode.u[:1]))
        middle = mode.image[0].flatten() / flux
        unit = images.flatten(1) / _flux(likelihood, u).to(images)[:, None]
        basis = torch.cat([middle[None], features.T @ (unit - middle)])
        data = Data.of(likelihood, mode.rows[:1])
        some = (z**2).sum(1).argsort(descending=True)[:_PROBES]  # whose expansions are worst
        probes = _shares(_kernel(z[some], z) @ features, _flux(likelihood, u[some]), flux)
        quadratic = QuadraticLikelihood(data, mode.image[0], basis, probes)
        return cls(likelihood, about.mean, whiten, z, features, flux, quadratic)

    def unsupported(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns how badly points are surrounded: the kernel's variance left there, (S,)."""
        z = (u - self.mean) @ self.whiten.T
        prior = (_FLATNESS**2 * (z**2).sum(-1)).exp()
        return prior - ((_kernel(z, self.z) @ self.features) ** 2).sum(-1)

    def log_likelihood(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln L at interpolated images, with shape (S,), float64."""
        z = (u - self.mean) @ self.whiten.T
        shares = _kernel(z, self.z) @ self.features
        return self.quadratic(_shares(shares, _flux(self.likelihood, u), self.flux)).cpu()


class InterpolatedTarget:
    """The log posterior of one galaxy at its proposal's draws, rendered as rarely as can be.

    Args:
        batches: Renders of the galaxies.
        row: Which galaxy.
        modes: Its modes, best first.
    """

    def __init__(self, batches: Batches, row: int, modes: Fit) -> None:
        self.batches, self.likelihood = batches, batches.likelihood
        self.row, self.mode = row, modes[:1]
        self.about = Ellipsoid.of_mode(self.mode)
        self.interpolator: ImageInterpolator | None = None
        self.limit, self.best = 0.0, -math.inf
        self.tries = 0

    def __call__(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln L + ln prior, with shape (S,); -inf beyond |u| = 8."""
        log_prior = self.likelihood.coordinates.log_prior(u)
        log_l = torch.full((len(u),), torch.nan, dtype=torch.float64)
        inside = (u.abs() <= W_MAX).all(-1)
        log_l[~inside] = -torch.inf
        if self.interpolator is None and self.tries < _TRIES:
            if self.tries and int(inside.sum()) > 2 * u.shape[1]:
                self.about = Ellipsoid.of_draws(u[inside])
            near = self._near(u) & inside
            if int(near.sum()) >= 2 * (SIZES[0] + CHECKS):
                self.tries += 1
                self._learn(u, near.nonzero()[:, 0], log_l, log_prior)
        if self.interpolator is not None:
            rows = (self._near(u) & log_l.isnan()).nonzero()[:, 0]
            rows = rows[self.interpolator.unsupported(u[rows]) <= self.limit]
            if len(rows):
                found = self.interpolator.log_likelihood(u[rows])
                # Higher than anything rendered is too good to be believed unseen.
                believed = found + log_prior[rows] < self.best + _MARGIN
                log_l[rows[believed]] = found[believed]
        left = log_l.isnan().nonzero()[:, 0]
        if len(left):
            self.batches.count(torch.full((len(left),), self.row), u[left])
            log_l[left] = self.likelihood.log_likelihood_row(self.row, u[left])
        return log_l + log_prior

    def _near(self, u: Tensor) -> Bool[Tensor, " s"]:
        return self.about.distance2(u) < _FARTHEST**2

    def _learn(self, u: Tensor, rows: Tensor, log_l: Tensor, log_prior: Tensor) -> None:
        """Renders draws until those not used are predicted, or too many are asked for.

        In float64: so flat a kernel amplifies rounding errors.
        """
        images = self._render(u[:0])
        rows = rows[_spread(len(rows))]
        for size in SIZES:
            if size + CHECKS > 0.8 * len(rows):
                return
            new = rows[len(images) : size + CHECKS]
            rendered = self._render(u[new])
            log_l[new] = self.likelihood.log_likelihood_of(self.row, rendered)
            images = torch.cat([images, rendered])
            known = rows[: size + CHECKS]
            best = float((log_l + log_prior)[known].max())
            used, checked = known[:size], known[size:]
            found = ImageInterpolator.fit(
                self.likelihood, self.mode, u[used], images[:size], self.about
            )
            error = found.log_likelihood(u[checked]) - log_l[checked]
            if _serves(error, best - (log_l + log_prior)[checked]):
                self.interpolator = found
                matter = checked[(best - (log_l + log_prior)[checked]) < MATTERS]
                self.limit = float(found.unsupported(u[matter]).max())
                self.best = best
                return

    def _render(self, u: Tensor) -> Tensor:
        self.batches.count(torch.full((len(u),), self.row), u)
        empty = torch.zeros_like(self.likelihood.stamps.image[:0])
        with torch.no_grad():
            parts = [
                self.likelihood.render(self.row, part, torch.float64)
                for part in u.split(32)
                if len(part)
            ]
        return torch.cat([empty, *parts])


def _serves(error: Float[Tensor, " c"], below: Float[Tensor, " c"]) -> bool:
    """Whether errors of ln L are small enough for draws so far below the best one."""
    near = below < MATTERS
    if not bool(near.any()):
        return False
    typical = float(error[near].square().mean().sqrt())
    worst = torch.where(near, WORST, 0.1 * below)
    return typical < TOLERANCE and bool((error.abs() < worst).all())


def _spread(count: int) -> Tensor:
    """An order of 0 to count - 1 in which neighbours lie far apart, the same on every call."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (_FLATNESS**2 * (a @ b.T)).exp()


def _flux(likelihood: Likelihood, u: Tensor) -> Tensor:
    return likelihood.coordinates.profiles(u)[:, 0].sum(0)


def _shares(features: Tensor, flux: Tensor, reference: float) -> Float[Tensor, "s k"]:
    """What images are, over that of the mode, in terms of basis images of unit flux."""
    return torch.cat([(flux - reference)[:, None], flux[:, None] * features], 1)
