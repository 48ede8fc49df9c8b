"""Posteriors that are right, too wide, too narrow or shifted, by construction.

Truths of a Gaussian prior (the angle's is flat), an estimate with Gaussian errors, and draws of
the posterior that follows, a Gaussian too. The position angle lives on its circle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deeplegato_pp.scene.parameters import POSITION_ANGLE

PRIOR = 3.0
"""Width of the prior of all but the angle, in units of the errors."""


@dataclass(frozen=True)
class Toy:
    """Draws (B, S, 7), truths (B, 7), log-densities of both, and log-weights (B, S) or None.

    The estimates (B, 7) are the data that the posteriors follow from.
    """

    samples: np.ndarray
    truth: np.ndarray
    estimate: np.ndarray
    log_prob: np.ndarray
    log_prob_truth: np.ndarray
    log_weights: np.ndarray | None


def toy(
    galaxies: int = 2000,
    draws: int = 100,
    width: float = 1.0,
    shift: float | np.ndarray = 0.0,
    *,
    angle: float = 5.0,
    proposal: float | None = None,
    seed: int = 0,
) -> Toy:
    """Makes a toy.

    Args:
        galaxies: B.
        draws: S.
        width: Of the posterior, in units of the right one's.
        shift: Of the posterior, in units of the right one's width; a number or (7,).
        angle: Width of the position angle's errors; beyond 60 it is hardly known. [deg]
        proposal: Width of the draws in units of the posterior's; they then have weights.
        seed: Of everything.
    """
    rng = np.random.default_rng(seed)
    sigma = np.ones(7)
    sigma[POSITION_ANGLE] = angle
    truth = PRIOR * rng.normal(size=(galaxies, 7))
    truth[:, POSITION_ANGLE] = rng.uniform(0.0, 180.0, galaxies)
    known = np.full(7, PRIOR**2 / (PRIOR**2 + 1.0))  # a Gaussian prior draws estimates to its mean
    known[POSITION_ANGLE] = 1.0
    estimate = truth + sigma * rng.normal(size=truth.shape)
    sigma *= np.sqrt(known)
    center = known * estimate + sigma * shift
    z = (proposal or 1.0) * rng.normal(size=(galaxies, draws, 7))
    samples = center[:, None] + width * sigma * z
    weights = None
    if proposal is not None:
        weights = -0.5 * (z**2).sum(-1) + 0.5 * ((z / proposal) ** 2).sum(-1)
    off = (truth - center) / (width * sigma)
    log_prob, log_prob_truth = -0.5 * (z**2).sum(-1), -0.5 * (off**2).sum(-1)
    samples[..., POSITION_ANGLE] %= 180.0
    return Toy(samples, truth, estimate, log_prob, log_prob_truth, weights)
