"""Learning-rate schedules, as functions of the step."""

from __future__ import annotations

import math

from deeplegato_pp.config.schema import TrainingConfig
from deeplegato_pp.errors import ConfigError

SCHEDULERS = ("wsd", "cosine", "one_cycle", "cosine_restarts")

ONE_CYCLE_START = 1 / 25
"""Fraction of the peak learning rate at which a cycle starts."""


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Returns the learning rate at a step as a fraction of its peak.

    ``cosine`` decreases over the whole run; ``wsd`` is constant and decreases linearly over the
    last `decay_steps`, so that a run can be extended; ``one_cycle`` increases from a twenty-fifth
    to the peak and decreases, both as cosines; ``cosine_restarts`` decreases repeatedly, in periods
    of `restart_epochs` at first, each `restart_factor` times longer. The cosines end at
    `min_learning_rate`. All except ``one_cycle`` have a linear warm-up.

    Args:
        step: Optimizer step, from 0.
        config: Settings: schedule, warm-up, decay and length.

    Raises:
        ConfigError: If the schedule is unknown.

    References:
        | MiniCPM: unveiling the potential of small language models (Hu et al., 2024; wsd)
        | https://arxiv.org/abs/2404.06395
        | SGDR: stochastic gradient descent with warm restarts (Loshchilov & Hutter, 2017)
        | https://arxiv.org/abs/1608.03983
        | Super-convergence (Smith & Topin, 2018; one cycle), https://arxiv.org/abs/1708.07120

    Example:
        >>> config = TrainingConfig(scheduler="wsd", warmup_steps=10, decay_steps=10, max_steps=100)
        >>> [round(learning_rate_factor(s, config), 2) for s in (0, 50, 95, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = max(0, config.max_steps - step)
    floor = config.min_learning_rate / config.learning_rate
    if config.scheduler == "wsd":
        return warm * min(1.0, left / max(1, config.decay_steps))
    if config.scheduler == "cosine":
        return warm * _cosine(1.0, floor, 1.0 - left / config.max_steps)
    if config.scheduler == "one_cycle":
        if step < config.warmup_steps:
            return _cosine(ONE_CYCLE_START, 1.0, step / config.warmup_steps)
        falling = max(1, config.max_steps - config.warmup_steps)
        return _cosine(1.0, floor, 1.0 - min(1.0, left / falling))
    if config.scheduler == "cosine_restarts":
        return warm * _cosine(1.0, floor, _phase(step, config))
    raise ConfigError(
        f"training.scheduler is one of {', '.join(SCHEDULERS)}, got {config.scheduler!r}."
    )


def _cosine(start: float, end: float, share: float) -> float:
    """Returns half a cosine from start to end at a fraction of its length."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def _phase(step: int, config: TrainingConfig) -> float:
    """Returns the elapsed fraction of the current period."""
    period = max(1, config.restart_epochs * config.steps_per_epoch)
    while step >= period:
        step -= period
        period *= max(1, config.restart_factor)
    return step / period
