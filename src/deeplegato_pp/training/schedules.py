"""Learning-rate schedules, as pure functions of the step."""

from __future__ import annotations

import math

from deeplegato_pp.config import TrainingConfig
from deeplegato_pp.errors import ConfigError


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Returns the share of the peak learning rate at a step.

    ``cosine`` falls over the whole run; ``wsd`` stays and falls linearly over the last
    `decay_steps`, so that a run can be lengthened without starting over.

    Args:
        step: Optimizer step, from 0.
        config: Schedule, warm-up, decay and length.

    Raises:
        ConfigError: If the schedule is unknown.

    References:
        | MiniCPM: unveiling the potential of small language models (Hu et al., 2024; wsd)
        | https://arxiv.org/abs/2404.06395

    Example:
        >>> config = TrainingConfig(scheduler="wsd", warmup_steps=10, decay_steps=10, max_steps=100)
        >>> [round(learning_rate_factor(s, config), 2) for s in (0, 50, 95, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = max(0, config.max_steps - step)
    if config.scheduler == "cosine":
        return warm * 0.5 * (1.0 - math.cos(math.pi * left / config.max_steps))
    if config.scheduler == "wsd":
        return warm * min(1.0, left / max(1, config.decay_steps))
    raise ConfigError(f"training.scheduler is cosine or wsd, got {config.scheduler!r}.")
