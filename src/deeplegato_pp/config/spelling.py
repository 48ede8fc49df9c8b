"""Alternative spellings of configurations: older names, nested optimizers, derived settings.

Works on nested dictionaries, one layer (file, dictionary, overrides) at a time.
"""

from __future__ import annotations

import math
from typing import Any

from deeplegato_pp.errors import ConfigError

Layer = dict[str, Any]

MOVED = {
    "data.checkpoint_path": "logging.output_dir",
    "data.num_workers": "training.num_workers",
    "data.num_val_samples": "validation.num_images",
    "logging.log_every_n_steps": "logging.every_n_steps",
    "model.backbone.drop_path_rate": "model.backbone.drop_path",
    "training.optimizer.learning_rate": "training.learning_rate",
    "training.optimizer.lr": "training.learning_rate",
    "training.optimizer.weight_decay": "training.weight_decay",
    "training.optimizer.betas": "training.betas",
    "training.optimizer.type": "training.optimizer",
    "training.scheduler.T_0": "training.restart_epochs",
    "training.scheduler.T_mult": "training.restart_factor",
    "training.scheduler.eta_min": "training.min_learning_rate",
    "training.scheduler.warmup_steps": "training.warmup_steps",
    "training.scheduler.type": "training.scheduler",
}
"""Alternative keys and the keys of the schema; the `type` of a mapping comes last."""

RETIRED = {
    "model.npe.num_transforms": "model.npe.num_flow_layers counts the transforms.",
}
"""Retired keys without effect, and the settings that replace them."""

SCHEDULERS = {
    "cosineannealingwarmrestarts": "cosine_restarts",
    "onecyclelr": "one_cycle",
    "onecycle": "one_cycle",
    "cosineannealinglr": "cosine",
}

PRECISIONS = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}

_ALTERNATIVES = {
    "max_steps": ("training", "max_epochs"),
    "steps_per_epoch": ("data", "num_train_samples"),
}
"""Settings of `training` that disable an earlier layer's alternative for the same quantity."""


def normalise(layer: Layer) -> Layer:
    """Returns a layer with the schema's names; unknown keys are kept, and rejected by the schema.

    Args:
        layer: Nested dictionaries, as in a YAML file; not modified.

    Raises:
        ConfigError: If a key is retired, two names of one setting disagree, or there are not seven
            parameters.
    """
    layer = _copy(layer)
    for old, remedy in RETIRED.items():
        if _take(layer, old) is not None:
            raise ConfigError(f"Configuration key {old} has no effect. {remedy}")
    count = _take(layer, "model.num_params")
    if count not in (None, 7):
        raise ConfigError(f"Configuration key model.num_params is 7, got {count!r}. Leave it out.")
    offset = _take(layer, "data.priors.center_offset")
    if offset is not None:
        for axis in ("x", "y"):
            _put(layer, f"data.priors.center_{axis}", list(offset), "data.priors.center_offset")
    for old, new in MOVED.items():
        value = _take(layer, old)
        if value is not None:
            _put(layer, new, value, old)
    training = layer.get("training")
    for name in ("optimizer", "scheduler"):
        left = training.get(name) if isinstance(training, dict) else None
        if isinstance(left, dict) and left:
            raise ConfigError(f"Configuration key training.{name}.{min(left)} is unknown.")
    _shorten(training)
    for name, (section, alternative) in _ALTERNATIVES.items():
        given = isinstance(layer.get("training"), dict) and name in layer["training"]
        if given and isinstance(layer.setdefault(section, {}), dict):
            layer[section].setdefault(alternative, None)
    return {key: value for key, value in layer.items() if value != {}}


def settle(config: Any) -> None:
    """Computes derived settings, in place.

    Epochs are converted to steps, and a camera (`data.noise`) to detector units: electrons per
    background sigma, fraction of read noise, and the magnitude of one sigma.

    Args:
        config: A :class:`~deeplegato_pp.config.Config`, or an object with its ``data`` section
            only.

    Raises:
        ConfigError: If a number is out of range.
    """
    if hasattr(config, "training"):
        _settle_length(config.training, config.data)
    if config.data.noise.gain is not None:
        _settle_camera(config.data)


def _settle_length(training: Any, data: Any) -> None:
    if data.num_train_samples is not None:
        images = training.batch_size * training.accumulation_steps
        training.steps_per_epoch = max(1, data.num_train_samples // max(1, images))
        data.num_train_samples = None
    if training.max_epochs is not None:
        training.max_steps = training.max_epochs * training.steps_per_epoch
        training.max_epochs = None


def _settle_camera(data: Any) -> None:
    noise = data.noise
    variance = noise.gain * noise.sky_background + noise.read_noise**2
    if not (noise.gain > 0 and variance > 0 and noise.spread >= 1):
        raise ConfigError(
            "data.noise needs gain > 0, sky_background or read_noise > 0 and spread >= 1, got "
            f"gain {noise.gain}, sky_background {noise.sky_background}, read_noise "
            f"{noise.read_noise}, spread {noise.spread}."
        )
    electrons = math.sqrt(variance)  # one background sigma
    data.conditions.gain = (electrons / noise.spread, electrons * noise.spread)
    data.conditions.read_fraction = noise.read_noise**2 / variance
    if noise.zero_point is not None:
        data.zero_point = noise.zero_point - 2.5 * math.log10(electrons / noise.gain)
    data.noise = type(noise)()  # the camera has been applied; later layers may override the result


def _shorten(training: Any) -> None:
    """Converts names of schedules, optimizers and precisions to their canonical form."""
    if not isinstance(training, dict):
        return
    for key, names in (("scheduler", SCHEDULERS), ("precision", PRECISIONS), ("optimizer", {})):
        value = training.get(key)
        if isinstance(value, str) and not value.startswith("${"):
            lower = value.lower()
            training[key] = names.get(lower, lower)
    if isinstance(training.get("precision"), int):
        training["precision"] = {32: "32-true", 16: "16-mixed"}.get(
            training["precision"], str(training["precision"])
        )


def _copy(layer: Any) -> Any:
    return {k: _copy(v) for k, v in layer.items()} if isinstance(layer, dict) else layer


def _take(layer: Layer, dotted: str) -> Any:
    """Removes a key and returns its value, or None if it is not there."""
    *parents, last = dotted.split(".")
    node: Any = layer
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    return node.pop(last, None) if isinstance(node, dict) else None


def _put(layer: Layer, dotted: str, value: Any, old: str) -> None:
    *parents, last = dotted.split(".")
    node: Any = layer
    for name in parents:
        node = node.setdefault(name, {})
    present = node.get(last)
    if isinstance(present, dict):  # the mapping from which the value was taken
        if present:
            raise ConfigError(f"Configuration key {dotted}.{min(present)} is unknown.")
    elif present is not None and present != value:
        raise ConfigError(
            f"Configuration keys {old} and {dotted} are the same setting, got {value!r} and "
            f"{present!r}. Leave one out."
        )
    node[last] = value
