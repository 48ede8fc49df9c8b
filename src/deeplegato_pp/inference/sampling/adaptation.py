"""Adaptation of a proposal mixture to weighted draws, by expectation-maximisation."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.inference.sampling.importance import (
    STUDENT_DOF,
    StudentMixture,
    effective_sample_size,
)

_SMALLEST_SHARE = 0.02
_ITERATIONS = 8
_MOST_SEEDS, _DRAWS_PER_SEED = 9, 20
_REACH = 1.5
"""Factor by which components grow while the draws have not reached the target."""

_SEED_SIZE = 0.2
"""Covariance of a new component relative to that of all draws; small, for curved ridges."""


def temper(log_weights: Float[Tensor, " s"], target: float) -> Float[Tensor, " s"]:
    """Returns normalised weights, tempered so that their effective size is at least `target`.

    A few dominant draws cannot define a covariance; raising the weights to a power below one
    increases the contribution of their neighbours.

    Args:
        log_weights: Unnormalised log weights, with shape (S,); -inf is allowed.
        target: Required effective sample size; at most half of the finite draws are used.
    """
    finite = torch.isfinite(log_weights)
    target = min(target, 0.5 * float(finite.sum()))
    low, high = 0.0, 1.0
    power = 1.0
    if float(effective_sample_size(log_weights)) < target:
        for _ in range(30):
            power = 0.5 * (low + high)
            flat = torch.where(finite, power * log_weights, -torch.inf)
            if float(effective_sample_size(flat)) < target:
                high = power
            else:
                low = power
        power = low
    return torch.softmax(torch.where(finite, power * log_weights, -torch.inf), -1)


def adapt(
    x: Float[Tensor, "s d"],
    log_weights: Float[Tensor, " s"],
    start: StudentMixture | None,
    generator: torch.Generator,
    *,
    defensive_log_prob: Float[Tensor, " s"] | None = None,
) -> tuple[StudentMixture, float]:
    """Fits a Student-t mixture and the weight of a fixed defensive component to weighted draws.

    Args:
        x: Draws of all rounds, with shape (S, D).
        log_weights: Their deterministic-mixture weights, with shape (S,).
        start: Initial components; further ones, one per twenty effective draws, are seeded at draws
            picked by weight. Components that end with zero weight are dropped.
        generator: Random generator for the seeds.
        defensive_log_prob: Log-density of the fixed component, with shape (S,).

    Returns:
        The mixture, and the weight of the defensive component.

    References:
        | Adaptive importance sampling in general mixture classes (Cappé et al., 2008)
        | https://arxiv.org/abs/0710.4242
    """
    dim = x.shape[-1]
    weights = temper(log_weights, 8.0 * dim)
    ess = float(effective_sample_size(log_weights))
    components = 1 + min(_MOST_SEEDS, int(ess / _DRAWS_PER_SEED))
    mixture = _seed(x, weights, start, generator, components)
    shares = torch.full((mixture.size,), 0.5 / mixture.size, dtype=torch.float64)
    share_fixed = 0.5 if defensive_log_prob is not None else 0.0
    shares = shares * (1.0 - share_fixed) / shares.sum()
    strength = 2.0 * dim / max(float(1.0 / (weights**2).sum()), 1.0)
    overall = _covariance(x, weights)
    for _ in range(_ITERATIONS):
        log_parts = mixture.component_log_prob(x) + shares.log()
        if defensive_log_prob is not None and share_fixed > 0:
            fixed = (defensive_log_prob + torch.tensor(share_fixed).log())[:, None]
            log_parts = torch.cat([log_parts, fixed], 1)
        responsibility = torch.softmax(log_parts, -1) * weights[:, None]
        mass = responsibility.sum(0)
        alive = mass[: mixture.size] > _SMALLEST_SHARE
        if not bool(alive.any()):
            alive[int(mass[: mixture.size].argmax())] = True
        if defensive_log_prob is not None:
            share_fixed = float(mass[-1]) if share_fixed > 0 else 0.0
        latent = (STUDENT_DOF + dim) / (STUDENT_DOF + mixture.distance2(x))
        part = responsibility[:, : mixture.size][:, alive]
        mixture = _maximise(x, part, latent[:, alive], overall, strength)
        shares = mixture.weights * (1.0 - share_fixed)
    if ess < 2.0 * dim:  # the target lies outside the draws: widen the proposal
        mixture = replace(mixture, scale_tril=_REACH * mixture.scale_tril)
    return mixture, share_fixed


def _seed(
    x: Tensor,
    weights: Tensor,
    start: StudentMixture | None,
    generator: torch.Generator,
    components: int,
) -> StudentMixture:
    """Returns the given components, and further ones at weighted draws."""
    extra = max(0, components - (0 if start is None else start.size))
    means = x[torch.multinomial(weights, max(extra, 1), replacement=True, generator=generator)]
    if extra == 0 and start is not None:
        return start
    scale = torch.linalg.cholesky(_SEED_SIZE * _covariance(x, weights))
    tril = scale.expand(len(means), -1, -1)
    if start is not None:
        means = torch.cat([start.means, means])
        tril = torch.cat([start.scale_tril, tril])
    shares = torch.full((len(means),), 1.0 / len(means), dtype=torch.float64)
    return StudentMixture(shares, means, tril)


def _maximise(
    x: Tensor, responsibility: Tensor, latent: Tensor, overall: Tensor, strength: float
) -> StudentMixture:
    """M step; `strength` pseudo-weights of the overall covariance regularise each covariance."""
    mass = responsibility.sum(0)
    pull = responsibility * latent
    means = (pull.T @ x) / pull.sum(0)[:, None]
    delta = x[None] - means[:, None]  # (K, S, D)
    scatter = torch.einsum("sk,ksd,kse->kde", pull, delta, delta)
    held = strength * 0.25
    covariance = (scatter + held * overall) / (mass + held)[:, None, None]
    return StudentMixture(mass / mass.sum(), means, torch.linalg.cholesky(covariance))


def _covariance(x: Tensor, weights: Tensor) -> Tensor:
    """Returns the weighted covariance, kept positive definite."""
    mean = weights @ x
    delta = x - mean
    covariance = (delta * weights[:, None]).T @ delta
    floor = 1e-6 * covariance.diagonal() + 1e-14
    return covariance + torch.diag(floor)
