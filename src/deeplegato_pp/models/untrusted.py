"""Checks of a model's folder, which may come from an untrusted source, before it is used.

No code in it is executed. The configuration is plain JSON without references to files or
environment variables, and sizes are limited before memory is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplegato_pp.errors import FormatError

if TYPE_CHECKING:
    from torch import Tensor

    from deeplegato_pp.config.schema import Config

FORMATS = (1,)
"""Supported formats of a model's configuration."""

LARGEST_TEXT = 4 * 1024**2
"""Maximum size of a model's JSON files; the packaged model's have about 10 kB. [bytes]"""

MOST = {
    "data.image_size": 1024,
    "model.backbone.embed_dim": 2048,
    "model.backbone.patch_size": 64,
    "model.backbone.window_size": 64,
    "model.backbone.layout_channels": 4096,
    "model.backbone.depths": 48,
    "model.backbone.num_heads": 256,
    "model.npe.num_flow_layers": 64,
    "model.npe.hidden_dim": 4096,
    "model.npe.num_blocks": 32,
    "model.npe.context_dim": 4096,
    "model.npe.trunk_dim": 8192,
    "model.npe.spline_bins": 256,
    "model.npe.psf_channels": 512,
}
"""Maximum of each size, and of each entry of lists: about ten times useful values."""

LONGEST_LIST = 8
"""Maximum number of stages of a backbone."""

SPARE = 2e7
"""Number of weights by which the configuration may exceed the file."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a model's folder.

    Raises:
        ValueError: If it is too large, not JSON, or not a mapping.
        OSError: If it cannot be read.
    """
    size = path.stat().st_size
    if size > LARGEST_TEXT:
        raise ValueError(f"{path.name} has {size} bytes, expected at most {LARGEST_TEXT}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds a {type(content).__name__}, expected a mapping.")
    return content


def check_format(content: Mapping[str, Any], path: Path) -> None:
    """Raises an error for a model of another format, as written by a later version.

    Raises:
        FormatError: If it has another format, or its version is not a string.
    """
    found, version = content.get("format"), content.get("version")
    if found not in FORMATS or isinstance(found, bool):
        raise FormatError(
            f"{path} is of format {found!r}, expected {' or '.join(map(str, FORMATS))}: it was "
            f"written by deeplegato-pp {version}. Install that version, or a later one."
        )
    if not isinstance(version, str) or len(version) > 100:
        raise FormatError(f"{path} states no version: it is no model of this package.")


def refuse_references(value: Any, path: Path, key: str = "config") -> None:
    """Raises an error for references, which are allowed in configurations of runs only.

    ``${...}`` would be replaced by environment variables of the user, ``include`` by files.

    Raises:
        FormatError: If there is a reference; the message names its key.
    """
    if isinstance(value, Mapping):
        for name, entry in value.items():
            if name == "include" or "${" in str(name):
                raise FormatError(
                    f"{path}: {key}.{name} is not allowed: a model's configuration is plain JSON "
                    "and includes no file. Do not use this model unless you know its author."
                )
            refuse_references(entry, path, f"{key}.{name}")
    elif isinstance(value, list):
        for i, entry in enumerate(value):
            refuse_references(entry, path, f"{key}[{i}]")
    elif isinstance(value, str) and "${" in value:
        raise FormatError(
            f"{path}: {key} is {value[:80]!r}, expected a plain value: a model's configuration "
            "looks nothing up. Do not use this model unless you know its author."
        )


def check_sizes(config: Config, weights: Path) -> None:
    """Raises an error if the configuration requires more memory than its weights justify.

    Args:
        config: Configuration of the model.
        weights: File of weights.

    Raises:
        FormatError: If a size exceeds its maximum, or the network is much larger than the file.
    """
    for key, most in MOST.items():
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        entries = value if isinstance(value, tuple | list) else [value]
        if len(entries) > LONGEST_LIST or any(not 0 < entry <= most for entry in entries):
            bound = f"from 1 to {most}"
            if isinstance(value, tuple | list):
                bound = f"at most {LONGEST_LIST} numbers {bound}"
            raise FormatError(f"{weights.parent}: {key} is {value}, expected {bound}.")
    promised, held = _least_weights(config), weights.stat().st_size / 2.0  # at least two bytes each
    if promised > 2.0 * held + SPARE:
        raise FormatError(
            f"{weights.parent}: the configuration asks for a network of some {promised:.0e} "
            f"weights, and {weights.name} holds {held:.0e} at most. They do not belong together."
        )


def _least_weights(config: Config) -> float:
    """Returns a rough lower limit of a network's number of weights, from its sizes."""
    backbone, npe = config.model.backbone, config.model.npe
    total = float(npe.num_flow_layers * npe.num_blocks * npe.hidden_dim**2 + npe.trunk_dim**2)
    if backbone.type == "compact":
        stages = enumerate(backbone.depths)
        total += sum(12.0 * depth * (backbone.embed_dim * 2**i) ** 2 for i, depth in stages)
    return total


def check_weights(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises an error for weights of another type, or weights that are not finite.

    Args:
        own: Weights of the network, before loading.
        state: Weights to load, with the same names.

    Raises:
        FormatError: If there are such weights; the message names one.
    """
    for name, tensor in state.items():
        if tensor.dtype != own[name].dtype:
            raise FormatError(
                f"The weights {name} are of type {tensor.dtype}, expected {own[name].dtype}. "
                "Save the model anew with save_pretrained."
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FormatError(
                f"The weights {name} are not finite: the file is damaged, or training diverged."
            )
