"""Affine-invariant ensemble sampling (emcee), started from weighted draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.likelihood import Likelihood

WALKERS = 40
"""Default number of walkers."""


@dataclass(frozen=True)
class Chain:
    """Draws of an ensemble, converged or not.

    Attributes:
        u: Thinned draws, with shape (S, F).
        log_posterior: ln L + ln prior at the draws, with shape (S,).
        autocorrelation_time: Longest autocorrelation time over the coordinates. [steps]
        steps: Steps per walker, including burn-in.
        ess: Number of draws kept divided by the autocorrelation time.
        converged: Whether the chain is longer than 50 autocorrelation times.
        renders: Number of likelihood evaluations.
    """

    u: Float[Tensor, "s f"]
    log_posterior: Float[Tensor, " s"]
    autocorrelation_time: float
    steps: int
    ess: float
    converged: bool
    renders: int


def sample_chain(
    likelihood: Likelihood,
    row: int,
    start: Float[Tensor, "s f"],
    *,
    seed: int,
    ess: float = 400.0,
    walkers: int = WALKERS,
    max_steps: int = 1000,
) -> Chain:
    """Runs emcee on one galaxy until it is 50 autocorrelation times long and `ess` is reached.

    Args:
        likelihood: Galaxies and hypothesis.
        row: Index of the galaxy.
        start: Draws from which the walkers start, with shape (S, F); repeated ones are perturbed.
        seed: Random seed of the walkers' moves.
        ess: Required effective sample size.
        walkers: Number of walkers; even and at least twice the dimension.
        max_steps: Maximum number of steps.

    References:
        | emcee: The MCMC Hammer (Foreman-Mackey et al., 2013)
        | https://arxiv.org/abs/1202.3665
    """
    import emcee

    def log_prob(points: np.ndarray) -> np.ndarray:
        return likelihood.log_posterior(row, torch.from_numpy(points)).numpy()

    rng = np.random.RandomState(seed % 2**32)
    position = _spread(start.cpu().numpy(), walkers, rng)
    sampler = emcee.EnsembleSampler(
        walkers,
        position.shape[1],
        log_prob,
        vectorize=True,
        # emcee's snooker move (up to 3.1.6 at least) has steps of the wrong length and a Jacobian
        # with half the exponent, which makes seven-dimensional posteriors 12 % too narrow.
        moves=[(emcee.moves.DEMove(), 0.8), (emcee.moves.StretchMove(), 0.2)],
    )
    sampler.random_state = rng.get_state()
    tau, steps = math.inf, 0
    while steps < max_steps:
        block = min(200, max_steps - steps)
        position = sampler.run_mcmc(position, block, skip_initial_state_check=True)
        steps += block
        # For few steps, emcee's estimate can be below one or negative; it is NaN while a walker
        # has not moved yet.
        with np.errstate(invalid="ignore"):
            times = sampler.get_autocorr_time(tol=0, quiet=True)
        tau = float(np.max(np.maximum(times, 1.0)))
        if math.isfinite(tau) and steps > 50 * tau and _effective(steps, tau, walkers) >= ess:
            break
    if not math.isfinite(tau):
        tau = float(steps)
    burn = min(int(5 * tau), steps // 2)
    thin = max(1, int(tau / 2))
    return Chain(
        u=torch.from_numpy(sampler.get_chain(discard=burn, thin=thin, flat=True)),
        log_posterior=torch.from_numpy(sampler.get_log_prob(discard=burn, thin=thin, flat=True)),
        autocorrelation_time=tau,
        steps=steps,
        ess=_effective(steps, tau, walkers),
        converged=steps > 50 * tau,
        renders=(steps + 1) * walkers,
    )


def _effective(steps: int, tau: float, walkers: int) -> float:
    return walkers * max(0.0, steps - 5 * tau) / tau


def _spread(start: np.ndarray, walkers: int, rng: np.random.RandomState) -> np.ndarray:
    """Picks starting points and perturbs repeated ones by a tenth of the draws' spread."""
    picked = start[rng.choice(len(start), walkers, replace=len(start) < walkers)]
    scale = np.maximum(start.std(0), 1e-6)
    return np.asarray(picked + 0.1 * scale * rng.standard_normal(picked.shape))
