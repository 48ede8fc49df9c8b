"""What is asked of a model's folder before it is used: it may come from anyone.

Nothing in it is run. The configuration is plain JSON, which names no file and no variable of the
environment, and sizes are bounded before any memory is taken for them.
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
"""Formats of a model's configuration that this version reads."""

LARGEST_TEXT = 4 * 1024**2
"""Most that a model's JSON files may hold; the packaged model's have some 10 kB. [bytes]"""

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
"""Largest value of each size, of lists of every entry: some ten times what was ever useful."""

LONGEST_LIST = 8
"""Stages of a backbone."""

SPARE = 2e7
"""Weights by which the configuration may seem to promise more than the file holds."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a model's folder.

    Raises:
        ValueError: If it is too large, no JSON, or no mapping.
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
    """Refuses a model of another format, as a later version may write it.

    Raises:
        FormatError: If it is of another format, or its version is no text.
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
    """Refuses what a run's configuration may say and a model's may not: references.

    ``${...}`` would be replaced by variables of the reader's environment, ``include`` by files.

    Raises:
        FormatError: If there is one; the message names its key.
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
    """Refuses a configuration that asks for more memory than its weights can be worth.

    Args:
        config: The model's.
        weights: Its file of weights.

    Raises:
        FormatError: If a size lies beyond its bound, or the network would be far larger than the
            file.
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
    promised, held = _least_weights(config), weights.stat().st_size / 2.0  # of two bytes at least
    if promised > 2.0 * held + SPARE:
        raise FormatError(
            f"{weights.parent}: the configuration asks for a network of some {promised:.0e} "
            f"weights, and {weights.name} holds {held:.0e} at most. They do not belong together."
        )


def _least_weights(config: Config) -> float:
    """Roughly how many weights a network has at least, from its sizes alone."""
    backbone, npe = config.model.backbone, config.model.npe
    total = float(npe.num_flow_layers * npe.num_blocks * npe.hidden_dim**2 + npe.trunk_dim**2)
    if backbone.type == "compact":
        stages = enumerate(backbone.depths)
        total += sum(12.0 * depth * (backbone.embed_dim * 2**i) ** 2 for i, depth in stages)
    return total


def check_weights(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Refuses weights of another type than the network's, or that are not finite.

    Args:
        own: The network's, before loading.
        state: Those to be loaded, of the same names.

    Raises:
        FormatError: If there is one; the message names it.
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
