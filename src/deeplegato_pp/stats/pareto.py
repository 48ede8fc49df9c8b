"""Pareto k-hat: shape of the tail of importance weights, a diagnostic of their reliability."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

GOOD_KHAT = 0.7
"""Largest k-hat of reliable weights, for any number of draws."""

_PRIOR_WEIGHT = 10.0
"""Weight of the prior that pulls k-hat to 1/2, in draws (Vehtari et al. 2024, appendix G)."""


def khat_threshold(draws: int) -> float:
    """Returns the k-hat above which the weights of this many draws are unreliable.

    Example:
        >>> round(khat_threshold(1000), 3)
        0.667
    """
    return min(GOOD_KHAT, 1.0 - 1.0 / math.log10(draws)) if draws > 10 else 0.0


def pareto_khat(log_weights: Float[Tensor, " s"]) -> float:
    """Returns the shape of the generalised Pareto distribution fitted to the largest weights.

    Below 0.5 the weights have a finite variance; above :func:`khat_threshold` their sums are
    unreliable. The tail contains min(S/5, 3 sqrt(S)) draws. Weights of zero (-inf) count as draws.

    Args:
        log_weights: Unnormalised log-weights, with shape (S,).

    Returns:
        k-hat; inf if the tail has fewer than five weights, 0 if all weights are equal.

    References:
        | Pareto smoothed importance sampling (Vehtari et al., 2024)
        | https://arxiv.org/abs/1507.02646
    """
    x = log_weights.double().sort().values
    total = len(x)
    if total == 0 or not math.isfinite(float(x[-1])):
        return math.inf
    x = x - x[-1]
    if float(x[0]) > -1e-12:
        return 0.0
    tail_length = math.ceil(min(total / 5.0, 3.0 * math.sqrt(total)))
    if tail_length >= total:
        return math.inf
    cutoff = max(float(x[-tail_length - 1]), math.log(torch.finfo(torch.float64).tiny))
    tail = x[x > cutoff]
    if len(tail) <= 4:
        return math.inf
    return fit_generalised_pareto(tail.exp() - math.exp(cutoff))[0]


def reliable(log_weights: Float[Tensor, " s"]) -> bool:
    """Returns whether k-hat is at most its threshold."""
    return pareto_khat(log_weights) <= khat_threshold(len(log_weights))


def fit_generalised_pareto(excess: Float[Tensor, " m"]) -> tuple[float, float]:
    r"""Returns shape k and scale of a generalised Pareto distribution (location 0).

    The density is :math:`\sigma^{-1} (1 + k x / \sigma)^{-1/k - 1}`. The posterior mean over the
    profile likelihood in :math:`b = -k / \sigma`, with k drawn weakly to 1/2.

    Args:
        excess: Excesses over the threshold, > 0, ascending, with shape (M,).

    References:
        | A new and efficient estimation method for the generalized Pareto distribution
        | (Zhang & Stephens, 2009)
        | https://doi.org/10.1198/tech.2009.08017
    """
    count = len(excess)
    nodes = 30 + int(math.sqrt(count))
    j = torch.arange(1, nodes + 1, dtype=torch.float64)
    quartile = excess[int(count / 4.0 + 0.5) - 1]
    b = 1.0 / excess[-1] + (1.0 - (nodes / (j - 0.5)).sqrt()) / (3.0 * quartile)
    k = torch.log1p(-b[:, None] * excess).mean(-1)
    profile = count * ((-b / k).log() - k - 1.0)
    weight = torch.softmax(profile, -1)
    b_mean = (b * weight).sum()
    shape = float(torch.log1p(-b_mean * excess).mean())
    scale = -shape / float(b_mean)
    return (count * shape + 0.5 * _PRIOR_WEIGHT) / (count + _PRIOR_WEIGHT), scale
