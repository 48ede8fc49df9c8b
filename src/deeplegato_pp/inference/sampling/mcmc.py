"""The last resort: an affine-invariant ensemble of walkers, started from the weighted draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.likelihood import Likelihood

WALKERS = 40
"""Walkers of an ensemble, unless told."""


@dataclass(frozen=True)
class Chain:
    """Draws of a converged, or not converged, ensemble.

    Attributes:
        u: Thinned draws, with shape (S, F).
        log_posterior: ln L + ln prior at them, with shape (S,).
        autocorrelation_time: Longest over the coordinates. [steps]
        steps: Steps per walker, the first part left out included.
        ess: Draws kept in all over the autocorrelation time.
        converged: Whether the chain is longer than 50 autocorrelation times.
        renders: Likelihoods evaluated.
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
        row: Which galaxy.
        start: Draws from which the walkers start, with shape (S, F); repeated ones are set apart.
        seed: Of the walkers' moves.
        ess: Effective sample size at which to stop.
        walkers: Number of walkers; even and at least twice the dimension.
        max_steps: Steps after which to stop in any case.

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
        # Not emcee's snooker move: up to 3.1.6 at least its steps are of the wrong length and its
        # Jacobian has half the exponent, and seven-dimensional posteriors come out 12 % too narrow.
        moves=[(emcee.moves.DEMove(), 0.8), (emcee.moves.StretchMove(), 0.2)],
    )
    sampler.random_state = rng.get_state()
    tau, steps = math.inf, 0
    while steps < max_steps:
        block = min(200, max_steps - steps)
        position = sampler.run_mcmc(position, block, skip_initial_state_check=True)
        steps += block
        # Of a few steps, emcee's estimate can fall below one or under zero; it is NaN where a
        # walker has not moved yet, and stays so.
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
    """Picks starting points and sets repeated ones apart by a tenth of the draws' spread."""
    picked = start[rng.choice(len(start), walkers, replace=len(start) < walkers)]
    scale = np.maximum(start.std(0), 1e-6)
    return np.asarray(picked + 0.1 * scale * rng.standard_normal(picked.shape))
