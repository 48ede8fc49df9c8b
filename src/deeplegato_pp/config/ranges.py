"""Ranges of numbers in configurations, checked before any work."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from deeplegato_pp.config.structure import KINDS, STRUCTURE_RANGES
from deeplegato_pp.errors import ConfigError

RANGES: dict[str, tuple[float, float]] = {
    "model.npe.num_flow_layers": (1, math.inf),
    "model.npe.hidden_dim": (1, math.inf),
    "model.npe.num_blocks": (1, math.inf),
    "model.npe.dropout": (0, 1),
    "model.npe.context_dim": (1, math.inf),
    "model.npe.trunk_dim": (1, math.inf),
    "model.npe.spline_bins": (2, math.inf),
    "model.npe.psf_channels": (1, math.inf),
    "model.backbone.embed_dim": (1, math.inf),
    "model.backbone.drop_path": (0, 1),
    "data.image_size": (4, math.inf),
    "data.drive_share": (0, 1),
    "data.real_share": (0, 1),
    "data.prefetch_factor": (1, math.inf),
    "training.batch_size": (1, math.inf),
    "training.accumulation_steps": (1, math.inf),
    "training.learning_rate": (0, math.inf),
    "training.min_learning_rate": (0, math.inf),
    "training.weight_decay": (0, math.inf),
    "training.warmup_steps": (0, math.inf),
    "training.decay_steps": (0, math.inf),
    "training.gradient_clip": (0, math.inf),
    "training.ema_decay": (0, 1),
    "training.hidden_share": (0, 1),
    "training.num_workers": (0, 1024),
    "training.early_stopping_patience": (0, math.inf),
    "training.checkpoint_every_n_epochs": (1, math.inf),
    "validation.num_images": (1, math.inf),
    "validation.batch_size": (1, math.inf),
    "validation.num_posterior_samples": (0, math.inf),
    "validation.val_check_interval": (1e-3, 1),
    "logging.every_n_steps": (1, math.inf),
    **STRUCTURE_RANGES,
}
"""Smallest and largest allowed value of settings; all numbers must also be finite."""


def check_ranges(config: Any) -> None:
    """Raises an error for numbers out of range.

    Args:
        config: A :class:`~deeplegato_pp.config.Config`, or an object with its ``data`` section
            only.

    Raises:
        ConfigError: If a number is not finite or out of range, or the ends of a range are reversed;
            the message names the key.
    """
    for key, value in _settings(config):
        numbers = [value] if isinstance(value, int | float) else value
        if not isinstance(numbers, tuple | list):
            continue
        if any(isinstance(n, float) and not math.isfinite(n) for n in numbers):
            raise ConfigError(f"Configuration key {key} must be finite, got {value}.")
        lowest, most = RANGES.get(key, (-math.inf, math.inf))
        if any(not lowest <= n <= most for n in numbers if not isinstance(n, str)):
            bound = f"at least {lowest:g}" if most == math.inf else f"in [{lowest:g}, {most:g}]"
            raise ConfigError(f"Configuration key {key} must be {bound}, got {value}.")
        _check_pair(key, value)
    structure = config.data.structure
    if structure.share and not structure.kinds:
        raise ConfigError(
            f"data.structure.share is {structure.share}, and no kind of structure has a share. "
            f"Give one to some of {', '.join(KINDS)}."
        )


_SECTIONS = ("data.conditions.", "data.structure.")
"""Sections in which pairs are ranges."""


def _check_pair(key: str, value: Any) -> None:
    """Checks that a range of the prior or of observing conditions is ascending."""
    if key.startswith("data.priors."):
        if not isinstance(value, list | tuple) or len(value) != 2 or not value[0] < value[1]:
            raise ConfigError(
                f"Configuration key {key} must be two numbers [lower, upper], lower < upper, got "
                f"{value}."
            )
    elif key.startswith(_SECTIONS) and isinstance(value, tuple) and value[0] > value[1]:
        raise ConfigError(
            f"Configuration key {key} must run from its lower end to its upper, got {list(value)}."
        )


def _settings(config: Any, section: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys of all settings with their values."""
    entries = (
        ((f.name, getattr(config, f.name)) for f in fields(config))
        if is_dataclass(config)
        else config.items()
    )
    for name, value in entries:
        key = f"{section}.{name}" if section else str(name)
        if is_dataclass(value) or isinstance(value, dict):
            yield from _settings(value, key)
        else:
            yield key, value
