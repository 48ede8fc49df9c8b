"""Optimizers."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer

from deeplegato_pp.config.schema import TrainingConfig
from deeplegato_pp.errors import ConfigError


def create_optimizer(model: nn.Module, training: TrainingConfig) -> Optimizer:
    """Returns a timm optimizer; its Muon uses AdamW for biases and norms.

    Args:
        model: Model to train; biases and norms have no weight decay.
        training: Settings: name, learning rate, decay and moments.

    Raises:
        ConfigError: If timm does not have the optimizer, or it does not use betas.
    """
    options: dict[str, Any] = {}
    if training.betas is not None:
        options["betas"] = tuple(training.betas)
    try:
        optimizer: Optimizer = create_optimizer_v2(
            model,
            opt=training.optimizer,
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            **options,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"training.optimizer is the name of a timm optimizer, got {training.optimizer!r}"
            f"{' with training.betas' if options else ''}: {error}"
        ) from error
    return optimizer
