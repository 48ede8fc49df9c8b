"""Posterior modes by Levenberg-Marquardt steps in coordinates whose prior is standard normal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import W_MAX

_TOLERANCE = 1e-3
"""A search ends when the squared distance to the optimum, in posterior sigmas, falls below this,
or when a step raises the log posterior by less."""

_LONGEST_STEP = 1.5
"""Largest change of a coordinate in one step; the prior is one wide."""

_DAMPING_LIMIT = 1e10

_DAMPING_AFTER_FAILURE = 0.03
"""Least damping of the step that follows one that did not keep its promise."""

_HOPE = 30.0
"""Gains over the promised one that are thought possible at all."""

_DRIFT = 0.1
"""Derivatives are taken anew before an optimum is believed if steps of a posterior sigma since have
led to images farther than this from what was foretold, in sigmas of the noise."""

_KEPT_PROMISE = 0.25
"""Share of the promised gain below which derivatives are taken anew."""

_CURVATURE_REACH = 0.1
"""Distance of the gradients that tell the curvature. [sigmas of the covariance to begin with]"""

_CURVATURE_STEPS = 3

_LEAST_CURVATURE = 0.02
"""Curvature over the Fisher information's below which it is not trusted: seven times the width."""


@dataclass(frozen=True)
class Optima:
    """Modes found, one row per start.

    Attributes:
        rows: Galaxy each start belongs to, with shape (M,).
        u: Coordinates of the optimum, with shape (M, F).
        covariance: Inverse of Fisher information plus prior precision, with shape (M, F, F).
        log_posterior: ln L + ln prior at the optimum, with shape (M,).
        converged: Whether the last step was below 3 % of a posterior sigma, with shape (M,).
        renders: Images rendered on the way, with shape (M,).
    """

    rows: Int[Tensor, " m"]
    u: Float[Tensor, "m f"]
    covariance: Float[Tensor, "m f f"]
    log_posterior: Float[Tensor, " m"]
    converged: Bool[Tensor, " m"]
    renders: Int[Tensor, " m"]

    def __getitem__(self, index: Tensor) -> Optima:
        """Returns some of the rows."""
        return Optima(
            self.rows[index],
            self.u[index],
            self.covariance[index],
            self.log_posterior[index],
            self.converged[index],
            self.renders[index],
        )

    def log_mass(self) -> Float[Tensor, " m"]:
        """Returns each mode's Laplace evidence, up to a constant, with shape (M,)."""
        return self.log_posterior + 0.5 * torch.linalg.slogdet(self.covariance).logabsdet


def maximize(
    likelihood: Likelihood,
    rows: Int[Tensor, " m"],
    starts: Float[Tensor, "m f"],
    *,
    max_iterations: int = 30,
    out_of_reach: Float[Tensor, " m"] | None = None,
) -> Optima:
    """Climbs from each start to a mode of its galaxy's posterior.

    Each step solves (H + damping diag H) step = gradient, with the gradient of the log posterior
    and H its Fisher information plus the prior's precision (the identity). Every image that a step
    renders corrects the image's derivatives by the least change, in units of the posterior's
    widths, that foretells it (Broyden 1965); they are taken anew where a step does not keep its
    promise, and at the end unless the corrections were negligible. Where the galaxy is round the
    image does not depend on its two shape coordinates to first order: H is then the prior's, and
    so is the covariance returned.

    Args:
        likelihood: Galaxies and hypothesis.
        rows: Galaxy of each start, with shape (M,).
        starts: Coordinates to start from, with shape (M, F).
        max_iterations: Steps after which a search is given up.
        out_of_reach: Log posterior per start, with shape (M,): a search is given up where thirty
            times what the next step promises would not lead to it.

    Returns:
        The optima, in the order of the starts.

    References:
        | An algorithm for least-squares estimation of nonlinear parameters (Marquardt, 1963)
        | https://doi.org/10.1137/0111030
        | A class of methods for solving nonlinear simultaneous equations (Broyden, 1965)
        | https://doi.org/10.1090/S0025-5718-1965-0198670-6
    """
    starts = starts.double().clamp(-W_MAX, W_MAX)
    levels = torch.full((len(rows),), -torch.inf) if out_of_reach is None else out_of_reach
    searches = [
        _Search(likelihood, int(row), start).climb(max_iterations, float(level))
        for row, start, level in zip(rows, starts, levels, strict=True)
    ]
    covariance = torch.linalg.inv(torch.stack([s.hessian for s in searches]))
    return Optima(
        rows,
        torch.stack([s.u for s in searches]),
        0.5 * (covariance + covariance.mT),
        torch.stack([s.value for s in searches]),
        torch.tensor([s.converged for s in searches]),
        torch.tensor([s.renders for s in searches]),
    )


class _Search:
    """One climb.

    Attributes:
        u: Where it is.
        value: Log posterior there.
        gradient: Its gradient.
        hessian: Fisher information plus the prior's precision.
        drift: How far images were from what was foretold since derivatives were taken.
        converged: Whether this is an optimum.
        renders: Images rendered.
    """

    def __init__(self, likelihood: Likelihood, row: int, start: Float[Tensor, " f"]) -> None:
        self.likelihood, self.row, self.u = likelihood, row, start
        self.dtype = likelihood.needed_dtype(row)
        self.damping = 1e-3
        self.converged, self.renders = False, 0
        self._differentiate()

    def climb(self, max_iterations: int, out_of_reach: float) -> _Search:
        """Takes steps until none is worth it."""
        for _ in range(max_iterations):
            distance2 = float(torch.linalg.solve(self.hessian, self.gradient) @ self.gradient)
            if float(self.value) + _HOPE * 0.5 * distance2 < out_of_reach:
                break
            if distance2 < _TOLERANCE:
                if self.drift < _DRIFT:
                    self.converged = True
                    break
                self._differentiate()
                continue
            if self.damping > _DAMPING_LIMIT:
                break
            gain = self._step()
            if 0.0 < gain < _TOLERANCE and self.drift < _DRIFT:
                self.converged = True
                break
        return self

    def _differentiate(self) -> None:
        """Renders the image and all its derivatives where the search is."""
        self.image, self.jacobian = self.likelihood.jacobian(self.row, self.u, self.dtype)
        self.renders += len(self.u) + 1
        self.drift = 0.0
        response = self.likelihood.respond(self.row, self.image, self.jacobian)
        self.value, self.gradient, self.hessian = _with_prior(self.likelihood, self.u, response)

    def _step(self) -> float:
        """Tries a damped step; returns what it gained, 0 if it was not taken."""
        scaled = self.hessian + self.damping * torch.diag(self.hessian.diagonal())
        step = torch.linalg.solve(scaled, self.gradient)
        step = step * (_LONGEST_STEP / step.abs().amax().clamp_min(1e-300)).clamp_max(1.0)
        trial = (self.u + step).clamp(-W_MAX, W_MAX)
        step = trial - self.u
        slope = self.hessian @ step
        length2 = max(float(step @ slope), 1e-300)
        promised = float(step @ self.gradient) - 0.5 * length2
        with torch.no_grad():
            image = self.likelihood.render(self.row, trial[None], torch.float64)[0]
        self.renders += 1
        # Images may be on another device than what is small.
        missed = (image - self.image).flatten() - step.to(image) @ self.jacobian
        updated = self.jacobian + torch.outer((slope / length2).to(image), missed)
        response = self.likelihood.respond(self.row, image, updated)
        value, gradient, hessian = _with_prior(self.likelihood, trial, response)
        gain = float(value - self.value)
        if gain > 0:
            surprise = self.likelihood.squared_distance(self.row, self.image, missed)
            self.drift += math.sqrt(surprise / min(length2, 1.0))
            self.u, self.image, self.jacobian = trial, image, updated
            self.value, self.gradient, self.hessian = value, gradient, hessian
        if gain > 0.75 * promised:
            self.damping *= 0.1
        elif gain < _KEPT_PROMISE * promised:
            if self.drift > 0:
                self._differentiate()
            else:
                self.damping = max(8.0 * self.damping, _DAMPING_AFTER_FAILURE)
        return max(gain, 0.0)


def _with_prior(
    likelihood: Likelihood, u: Tensor, response: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Log posterior, gradient and information plus prior precision, from those of ln L at u."""
    value, gradient, information = response
    identity = torch.eye(len(u)).to(u)
    return value + likelihood.coordinates.log_prior(u), gradient - u, information + identity


def choose_starts(
    u: Float[Tensor, "s f"], log_posterior: Float[Tensor, " s"], count: int
) -> Float[Tensor, "k f"]:
    """Returns the best draw and further good ones that lie apart from it.

    A further start is the best draw at least two standard deviations of all draws (in the
    Euclidean sense, over coordinates) from every start before it; fewer are returned if there is
    none.

    Args:
        u: Draws, with shape (S, F).
        log_posterior: Their log posterior, with shape (S,); -inf is allowed.
        count: Largest number of starts.
    """
    scale = u.std(0).clamp_min(1e-12) if len(u) > 1 else torch.ones_like(u[0])
    order = log_posterior.argsort(descending=True)
    chosen = [u[order[0]]]
    while len(chosen) < count:
        distance = torch.stack([((u[order] - c) / scale).norm(dim=-1) for c in chosen]).amin(0)
        far = order[distance > 2.0]
        far = far[torch.isfinite(log_posterior[far])]
        if far.numel() == 0:
            break
        chosen.append(u[far[0]])
    return torch.stack(chosen)


def distinct_modes(optima: Optima, *, separation: float = 2.0, depth: float = 12.0) -> list[Optima]:
    """Groups optima by galaxy and drops repetitions and modes without mass.

    Args:
        optima: Results of :func:`maximize`.
        separation: Two optima closer than this, in sigmas of the better one, are one mode.
        depth: A mode is dropped if its Laplace evidence is below the best one's by more than
            this factor, in ln.

    Returns:
        One set of modes per galaxy that occurs, by rising row, best first.
    """
    mass = optima.log_mass()
    groups = []
    for row in optima.rows.unique().tolist():
        members = (optima.rows == row).nonzero()[:, 0]
        members = members[mass[members].argsort(descending=True)]
        kept: list[int] = []
        for i in members.tolist():
            if kept and mass[i] < mass[kept[0]] - depth:
                continue
            if all(_distance(optima, i, k) > separation for k in kept):
                kept.append(i)
        groups.append(optima[torch.tensor(kept)])
    return groups


def _distance(optima: Optima, i: int, k: int) -> float:
    """Mahalanobis distance of optimum i from optimum k, whose covariance counts."""
    delta = optima.u[i] - optima.u[k]
    return float((delta @ torch.linalg.solve(optima.covariance[k], delta)).clamp_min(0.0).sqrt())


def laplace_widths(
    likelihood: Likelihood, start: Float[Tensor, "b f"]
) -> tuple[Float[Tensor, "b f"], Float[Tensor, "b f"], Bool[Tensor, " b"]]:
    """Returns the Gauss-Newton posterior's means and widths, for comparison with a network's.

    Args:
        likelihood: Galaxies.
        start: One start per galaxy in coordinates (the truth, in a test), with shape (B, F).

    Returns:
        Optimum (B, F), standard deviations (B, F), and whether each search converged (B,).
    """
    optima = maximize(likelihood, torch.arange(len(likelihood)), start)
    return optima.u, optima.covariance.diagonal(dim1=-2, dim2=-1).sqrt(), optima.converged


def use_full_curvature(likelihood: Likelihood, optima: Optima) -> Optima:
    r"""Returns optima with the covariance from the log posterior's own second derivatives.

    Where the data are far from any model, as for a bright spiral galaxy, the residuals' term
    :math:`\sum r\, \nabla^2 I / V`, which Fisher information leaves out, is no longer small: the
    posterior is still nearly Gaussian, but of another shape. Gradients a tenth of a sigma apart,
    in the directions of the covariance given, tell its curvature; a Newton step with it comes
    nearer to the optimum. Directions without positive curvature keep their width.

    Args:
        likelihood: Galaxies.
        optima: Results of :func:`maximize`.
    """
    parts = [_curved(likelihood, optima[torch.tensor([i])]) for i in range(len(optima.rows))]
    columns = zip(*((p.rows, p.u, p.covariance, p.log_posterior) for p in parts), strict=True)
    rows, u, covariance, value = (torch.cat(c) for c in columns)
    return Optima(rows, u, covariance, value, optima.converged, optima.renders)


def _curved(likelihood: Likelihood, mode: Optima) -> Optima:
    u, best = mode.u, mode.log_posterior
    tril = torch.linalg.cholesky(mode.covariance[0])
    for _ in range(_CURVATURE_STEPS):
        points = torch.cat([u, (u + _CURVATURE_REACH * tril.T).clamp(-W_MAX, W_MAX)])
        gradient = torch.stack(
            [
                _with_prior(likelihood, p, likelihood.linearize(int(mode.rows[0]), p))[1]
                for p in points
            ]
        )
        slope = gradient @ tril  # along the covariance's own directions
        curvature = -(slope[1:] - slope[:1]) / _CURVATURE_REACH
        value, vectors = torch.linalg.eigh(0.5 * (curvature + curvature.T))
        value = torch.where(value > _LEAST_CURVATURE, value, 1.0)
        step = tril @ vectors @ ((vectors.T @ slope[0]) / value)
        covariance = tril @ (vectors / value) @ vectors.T @ tril.T
        tril = torch.linalg.cholesky(0.5 * (covariance + covariance.T))
        trial = (u + step).clamp(-W_MAX, W_MAX)
        reached = likelihood.log_posterior(int(mode.rows[0]), trial, torch.float64)
        if float(reached) <= float(best) + _TOLERANCE:
            break
        u, best = trial, reached
    return Optima(mode.rows, u, (tril @ tril.T)[None], best, mode.converged, mode.renders)
