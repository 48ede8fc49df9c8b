"""Fits of many galaxies at once: Levenberg-Marquardt steps under a Gaussian prior.

The same search finds posterior modes under the prior, the best point source, and the best model
within a network's posterior; these differ in the prior and in the stopping criterion.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.scene.components import Coordinates
from deeplegato_pp.scene.joint import AnyBatches, AnyLikelihood, batches_of
from deeplegato_pp.scene.prior import W_MAX

MAX_GAIN_RATIO = 30.0
"""Upper limit on the ratio of actual to predicted gain: a search that could not reach the required
level even at this ratio is stopped."""

MIN_GAIN_RATIO = 0.25
"""Ratio of actual to predicted gain below which derivatives are recomputed."""

BROYDEN_TOLERANCE = 0.1
"""Largest difference between images and their predictions, per posterior sigma stepped, at which
derivatives updated by secants are accepted at an optimum. [sigmas of the noise]"""

_DAMPING = 1e-3
_DAMPING_LIMIT = 1e10

_DAMPING_AFTER_FAILURE = 0.03
"""Minimum damping after a step that gained less than predicted."""

_ROUNDING = 0.01
"""Predicted gain that may be hidden by float32 rounding: a failed step that predicted less is taken
as convergence."""


@dataclass(frozen=True)
class GaussianPrior:
    """A Gaussian prior for each start; steps use coordinates z in which it is N(0, I).

    Attributes:
        mean: Means, with shape (M, F).
        scale_tril: Lower Cholesky factors of its covariances, with shape (M, F, F).
    """

    mean: Float[Tensor, "m f"]
    scale_tril: Float[Tensor, "m f f"]

    @classmethod
    def of(cls, coordinates: Coordinates, count: int) -> GaussianPrior:
        """Returns the prior of a hypothesis in its coordinates u."""
        mean, std = coordinates.normal_prior()
        tril = torch.diag(std).expand(count, -1, -1)
        return cls(mean.expand(count, -1), tril)

    def at(self, index: Tensor) -> GaussianPrior:
        """Returns the priors of the selected starts."""
        return GaussianPrior(self.mean[index], self.scale_tril[index])

    def whiten(self, u: Float[Tensor, "m f"]) -> Float[Tensor, "m f"]:
        """Converts u to z."""
        offset = (u - self.mean)[..., None]
        return torch.linalg.solve_triangular(self.scale_tril, offset, upper=False)[..., 0]

    def colour(self, z: Float[Tensor, "m f"]) -> Float[Tensor, "m f"]:
        """Converts z to u, clipped to the coordinates' range."""
        u = self.mean + (self.scale_tril @ z[..., None])[..., 0]
        return u.clamp(-W_MAX, W_MAX)

    def log_prob(self, z: Float[Tensor, "m f"]) -> Float[Tensor, " m"]:
        """Returns the log-density in u at z."""
        volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * (z**2).sum(-1) - volume - 0.5 * z.shape[-1] * math.log(2.0 * math.pi)


Satisfied = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps starts' indices (R,), points (R, F) and images (R, N, N) to whether they are acceptable."""


@dataclass(frozen=True)
class Stop:
    """Stopping criteria of a search.

    Attributes:
        tolerance: Squared distance to the optimum, in posterior sigmas, and gain of the ln
            posterior, below which the search has converged.
        iterations: Maximum number of steps.
        derivatives: Maximum number of times that derivatives are computed.
        longest_step: Largest change of any whitened coordinate in one step.
        out_of_reach: ln posterior per start, with shape (M,): a search is stopped if
            :data:`MAX_GAIN_RATIO` times the predicted gain would not reach it.
        satisfied: Function that says which models are good enough to stop.
    """

    tolerance: float = 1e-3
    iterations: int = 30
    derivatives: int = 1000
    longest_step: float = 1.5
    out_of_reach: Float[Tensor, " m"] | None = None
    satisfied: Satisfied | None = None


@dataclass(frozen=True)
class Fit:
    """Results of searches, one row per start.

    For a galaxy in several bands images have shape (K, N, N) instead of (N, N).

    Attributes:
        rows: Galaxy index of each start, with shape (M,).
        u: Coordinates of the optimum, with shape (M, F).
        covariance: Inverse of Fisher information plus prior precision, with shape (M, F, F).
        log_posterior: ln L + ln prior at the optimum, with shape (M,).
        converged: Whether the optimum was reached, with shape (M,).
        renders: Number of images rendered, with shape (M,).
        image: Noiseless image at the optimum, with shape (M, N, N). [background sigma]
        jacobian: Derivatives of the image with respect to u, as last updated by the search, with
            shape (M, F, N * N).
        residual: Data minus image and fitted templates (sky, PSF's width); 0 where masked. With
            shape (M, N, N).
        variance: Variance of the likelihood; 1 where masked. With shape (M, N, N).
    """

    rows: Int[Tensor, " m"]
    u: Float[Tensor, "m f"]
    covariance: Float[Tensor, "m f f"]
    log_posterior: Float[Tensor, " m"]
    converged: Bool[Tensor, " m"]
    renders: Int[Tensor, " m"]
    image: Float[Tensor, "m *n"]
    jacobian: Float[Tensor, "m f p"]
    residual: Float[Tensor, "m *n"]
    variance: Float[Tensor, "m *n"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Fit:
        """Returns the selected rows."""
        return Fit(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def concatenate(cls, fits: list[Fit]) -> Fit:
        """Concatenates fits of one likelihood."""
        return cls(*(torch.cat([getattr(fit, f.name) for fit in fits]) for f in fields(cls)))

    def log_evidence(self) -> float:
        """Returns Laplace's approximation of ln Z, of all modes of one galaxy together."""
        dim = self.u.shape[-1]
        return float(torch.logsumexp(self.log_mass(), 0)) + 0.5 * dim * math.log(2.0 * math.pi)

    def log_mass(self) -> Float[Tensor, " m"]:
        """Returns each mode's Laplace evidence in ln, up to a constant, with shape (M,)."""
        return self.log_posterior + 0.5 * torch.linalg.slogdet(self.covariance).logabsdet


def fit(
    likelihood: AnyLikelihood,
    rows: Int[Tensor, " m"],
    start: Float[Tensor, "m f"],
    *,
    prior: GaussianPrior | None = None,
    stop: Stop | None = None,
    batches: AnyBatches | None = None,
) -> Fit:
    """Searches from each start for a mode of its galaxy's posterior, all in one batch.

    Each step solves (H + damping diag H) step = gradient, with the gradient of the log posterior
    and H its Fisher information plus the prior's precision. Every rendered image updates the
    derivatives by the smallest change, in units of the posterior's widths, that reproduces it
    (Broyden 1965). Derivatives are recomputed where a step gains far less than predicted, and at
    the end unless the updates were negligible. For a round galaxy the image does not depend on the
    two shape coordinates to first order: H, and the returned covariance, are then those of the
    prior. The PSF-width template is that of the image at which derivatives were last computed. The
    result of a row does not depend on the other rows.

    Args:
        likelihood: Galaxies and hypothesis.
        rows: Galaxy index of each start, with shape (M,).
        start: Starting coordinates, with shape (M, F).
        prior: Prior of each start; the hypothesis' own if None.
        stop: Stopping criteria; convergence at an optimum if None.
        batches: Renders of this likelihood; created if None.

    Returns:
        The fits, in the order of the starts.

    Raises:
        NumericalError: If a likelihood or a derivative is not finite.

    References:
        | An algorithm for least-squares estimation of nonlinear parameters (Marquardt, 1963)
        | https://doi.org/10.1137/0111030
        | A class of methods for solving nonlinear simultaneous equations (Broyden, 1965)
        | https://doi.org/10.1090/S0025-5718-1965-0198670-6
        | Numerical Optimization (Nocedal & Wright, 2006), chapters 4 and 10
    """
    prior = GaussianPrior.of(likelihood.coordinates, len(start)) if prior is None else prior
    search = _Search(
        batches_of(likelihood) if batches is None else batches,
        rows,
        start.double(),
        prior,
        Stop() if stop is None else stop,
    )
    search.run()
    return search.result()


class _Search:
    """Searches from many starts.

    Attributes:
        z: Current points, in the prior's whitened coordinates, with shape (M, F).
        image: Images at z.
        jacobian: Derivatives of the images with respect to z.
        value: Log posteriors at z.
        gradient: Gradients of the log posterior with respect to z.
        hessian: Fisher information plus the prior's precision, in z.
        drift: Distance of images from predictions since derivatives were last computed.
        converged: Whether each search has converged.
        renders: Number of images rendered.
    """

    def __init__(
        self, batches: AnyBatches, rows: Tensor, start: Tensor, prior: GaussianPrior, stop: Stop
    ) -> None:
        self.batches, self.rows, self.prior, self.stop = batches, rows, prior, stop
        self.data = batches.data(rows)
        count, dim = start.shape
        shape = batches.shape
        options: dict[str, Any] = {"dtype": torch.float64}
        self.z = prior.whiten(start.clamp(-W_MAX, W_MAX))
        self.image = torch.empty(count, *shape, **options)
        self.jacobian = torch.empty(count, dim, math.prod(shape))
        self.value = torch.empty(count, **options)
        self.gradient = torch.empty(count, dim, **options)
        self.hessian = torch.empty(count, dim, dim, **options)
        self.drift = torch.zeros(count, **options)
        self.damping = torch.full((count,), _DAMPING, **options)
        self.converged = torch.zeros(count, dtype=torch.bool)
        self.renders = torch.zeros(count, dtype=torch.long)
        self.derivatives = torch.zeros(count, dtype=torch.long)
        self.differentiate(torch.arange(count))

    def run(self) -> None:
        """Takes steps until all searches have ended; those that have ended leave the batch."""
        active = self._unsatisfied(torch.arange(len(self.z)))
        for _ in range(self.stop.iterations):
            if not len(active):
                return
            distance2 = self._distance2(active)
            kept = self._within_reach(active, distance2)
            near = distance2 < self.stop.tolerance
            sure = self.drift[active] < BROYDEN_TOLERANCE
            self.converged[active[kept & near & sure]] = True
            may = self.derivatives[active] < self.stop.derivatives
            unsure = active[kept & near & ~sure & may]
            moving = active[kept & ~near & (self.damping[active] <= _DAMPING_LIMIT)]
            if len(unsure):
                self.differentiate(unsure)
            if len(moving):
                moving = self._unsatisfied(moving[self.step(moving)])
            active = torch.cat([unsure, moving]).sort().values

    def result(self) -> Fit:
        """Returns the current state of the searches."""
        tril = self.prior.scale_tril
        covariance = tril @ torch.linalg.inv(self.hessian) @ tril.mT
        residual, variance = self.data.unexplained(self.image)
        inverse = torch.linalg.inv(tril).mT.float()
        return Fit(
            self.rows,
            self.prior.colour(self.z),
            0.5 * (covariance + covariance.mT),
            self.value,
            self.converged,
            self.renders,
            self.image,
            inverse @ self.jacobian,
            residual,
            variance,
        )

    def _distance2(self, index: Tensor) -> Float[Tensor, " r"]:
        """Returns squared distances to the predicted optima. [posterior sigmas]"""
        gradient = self.gradient[index]
        return (torch.linalg.solve(self.hessian[index], gradient) * gradient).sum(-1)

    def _within_reach(self, index: Tensor, distance2: Tensor) -> Bool[Tensor, " r"]:
        if self.stop.out_of_reach is None:
            return torch.ones(len(index), dtype=torch.bool)
        best = self.value[index] + MAX_GAIN_RATIO * 0.5 * distance2
        return best >= self.stop.out_of_reach[index]

    def _unsatisfied(self, index: Tensor) -> Tensor:
        if self.stop.satisfied is None or not len(index):
            return index
        u = self.prior.at(index).colour(self.z[index])
        return index[~self.stop.satisfied(index, u, self.image[index])]

    def differentiate(self, index: Tensor) -> None:
        """Renders images and all their derivatives for some searches."""
        prior, z = self.prior.at(index), self.z[index]
        image, jacobian, psf_change = self.batches.differentiate(self.rows[index], prior.colour(z))
        if psf_change is not None:
            self.data.freeze(index, psf_change)
        self.image[index], self.jacobian[index] = image, prior.scale_tril.mT.float() @ jacobian
        self.renders[index] += self.batches.derivative_cost
        self.derivatives[index] += 1
        self.drift[index] = 0.0
        self.value[index] = self.data.at(index).log_likelihood(image) + prior.log_prob(z)
        self._respond(index)

    def _respond(self, index: Tensor) -> None:
        """Computes gradient and information from the current images and derivatives."""
        found = self.data.at(index).respond(self.image[index], self.jacobian[index])
        eye = torch.eye(self.z.shape[1], dtype=torch.float64)
        self.gradient[index] = found.gradient - self.z[index]
        self.hessian[index] = found.information + eye
        sums = self.gradient[index].sum(-1) + self.hessian[index].sum((-2, -1)) + self.value[index]
        if not bool(torch.isfinite(sums).all()):
            bad = int(self.rows[index][(~torch.isfinite(sums)).nonzero()[0, 0]])
            raise NumericalError(
                f"The likelihood of galaxy {bad} has no finite derivative. Check its unmasked "
                "pixels, noise and PSF for values that are not finite."
            )

    def step(self, index: Tensor) -> Bool[Tensor, " r"]:
        """Tries one damped step for each search; returns which searches continue."""
        gradient, hessian = self.gradient[index], self.hessian[index]
        damped = torch.diag_embed(self.damping[index, None] * hessian.diagonal(dim1=-2, dim2=-1))
        step = torch.linalg.solve(hessian + damped, gradient)
        longest = step.abs().amax(-1, keepdim=True).clamp_min(1e-300)
        prior = self.prior.at(index)
        u = prior.colour(self.z[index] + step * (self.stop.longest_step / longest).clamp_max(1.0))
        trial = prior.whiten(u)
        step = trial - self.z[index]
        slope = (hessian @ step[..., None])[..., 0]
        length2 = (step * slope).sum(-1).clamp_min(1e-300)
        predicted = (step * gradient).sum(-1) - 0.5 * length2
        image = self.batches.render(self.rows[index], u)
        self.renders[index] += 1
        value = self.data.at(index).log_likelihood(image) + prior.log_prob(trial)
        gain = value - self.value[index]
        better = gain > 0
        self._move(index[better], trial[better], image[better], value[better],
                   step[better], slope[better], length2[better])  # fmt: skip
        return self._decide(index, gain, predicted)

    def _move(
        self,
        index: Tensor,
        z: Tensor,
        image: Tensor,
        value: Tensor,
        step: Tensor,
        slope: Tensor,
        length2: Tensor,
    ) -> None:
        """Accepts steps that improve, and updates the derivatives with the rendered images."""
        if not len(index):
            return
        predicted = (step.float()[:, None] @ self.jacobian[index])[:, 0]
        missed = (image - self.image[index]).flatten(1).float() - predicted
        surprise = self.data.at(index).squared_distance(self.image[index], missed)
        self.drift[index] += (surprise / length2.clamp_max(1.0)).sqrt()
        self.jacobian[index] += (slope / length2[:, None]).float()[..., None] * missed[:, None]
        self.z[index], self.image[index], self.value[index] = z, image, value
        self._respond(index)

    def _decide(self, index: Tensor, gain: Tensor, predicted: Tensor) -> Bool[Tensor, " r"]:
        """Adapts the damping to the ratio of actual to predicted gain; returns which continue."""
        tolerance = self.stop.tolerance
        sure = self.drift[index] < BROYDEN_TOLERANCE
        last = torch.where(gain > 0, gain < tolerance, predicted < _ROUNDING) & sure
        self.converged[index[last]] = True
        self.damping[index[gain > 0.75 * predicted]] *= 0.1
        poor = ~last & (gain < MIN_GAIN_RATIO * predicted)
        known = self.drift[index] > 0  # derivatives are secant updates, not of this point
        again = poor & known & (self.derivatives[index] < self.stop.derivatives)
        if bool(again.any()):
            self.differentiate(index[again])
        harder = index[poor & ~again]
        self.damping[harder] = (8.0 * self.damping[harder]).clamp_min(_DAMPING_AFTER_FAILURE)
        return ~last
