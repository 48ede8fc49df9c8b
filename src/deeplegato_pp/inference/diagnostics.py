"""Are the error bars right? Ranks of the truth among posterior draws, and what follows from them.

Pure functions of draws, weights and truths; no files, no plots.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from deeplegato_pp.errors import ShapeError
from deeplegato_pp.inference.statistics import circular_mean, normalised_weights, unwrap
from deeplegato_pp.parameters import PARAMETERS

Array = np.ndarray


def truth_ranks(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    log_weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "b 7"]:
    """Returns the posterior probability below the truth, uniform in [0, 1] if all is well.

    An angle's circle is cut opposite to the draws' own circular mean: where it is cut depends on
    the data only, never on the truth. Blind to errors that leave every marginal as it is.

    Args:
        samples: Draws in physical units, with shape (B, S, 7).
        truth: True parameters, with shape (B, 7).
        log_weights: Logarithms of the draws' weights, with shape (B, S), or None.

    Returns:
        Ranks, with shape (B, 7).

    Raises:
        ShapeError: If shapes do not agree.

    References:
        | Validating Bayesian inference algorithms with simulation-based calibration
        | (Talts et al., 2018), https://arxiv.org/abs/1804.06788
    """
    if samples.shape[0] != truth.shape[0] or samples.shape[2] != truth.shape[1]:
        raise ShapeError(
            f"samples (B, S, 7) and truth (B, 7) must agree, got {samples.shape} and {truth.shape}."
        )
    ranks = np.empty(truth.shape)
    for i in range(len(samples)):
        weights = None if log_weights is None else normalised_weights(log_weights[i])
        for j, parameter in enumerate(PARAMETERS):
            draws, value = samples[i, :, j], truth[i, j]
            if parameter.period is not None:
                center = circular_mean(draws, parameter.period, weights)
                draws = unwrap(draws, center, parameter.period)
                value = float(unwrap(np.array([value]), center, parameter.period)[0])
            ranks[i, j] = np.average(draws < value, weights=weights)
    return ranks


def central_coverage(ranks: Float[Array, "b p"], level: float) -> Float[Array, " p"]:
    """Returns the share of truths inside the central interval of a level, per parameter.

    Args:
        ranks: From `truth_ranks`.
        level: Probability of the interval, e.g. 0.68.

    Example:
        >>> central_coverage(np.linspace(0, 1, 1001)[:, None], 0.5).round(2).tolist()
        [0.5]
    """
    return np.mean(np.abs(ranks - 0.5) <= 0.5 * level, axis=0)


def binomial_error(level: float, number: int) -> float:
    """Returns the standard deviation of a coverage measured on `number` galaxies.

    Example:
        >>> round(binomial_error(0.68, 2000), 4)
        0.0104
    """
    return math.sqrt(level * (1.0 - level) / number)
