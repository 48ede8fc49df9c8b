"""Reading of checkpoints, which may be untrusted: tensors and plain values only."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from deeplegato_pp.errors import FormatError

EXPECTED = {
    "state_dict": dict,
    "global_step": int,
    "callbacks": dict,
    "loops": dict,
    "skipped_steps": int,
}
"""Required entries of a checkpoint, and their types."""


def read_checkpoint(path: Path, *, trusted: bool = False) -> dict[str, Any]:
    """Reads a checkpoint; weights are loaded lazily.

    Args:
        path: The file.
        trusted: Allow Python objects other than tensors and plain values, which can execute
            arbitrary code when they are read.

    Raises:
        FormatError: If it is not a checkpoint of a run, is damaged, or contains such objects.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=not trusted, mmap=True)
    except UnpicklingError as error:
        if trusted or "eights only load failed" not in str(error):
            raise FormatError(_damaged(path)) from error
        raise FormatError(
            f"{path} holds more than tensors and plain values: reading it could run code of its "
            "author. Start anew with --restart or, if you made it yourself, add "
            "--trust-checkpoint."
        ) from error
    except Exception as error:  # torch raises many types for invalid files
        raise FormatError(_damaged(path)) from error
    content = saved if isinstance(saved, dict) else {}
    missing = [n for n, kind in EXPECTED.items() if not isinstance(content.get(n), kind)]
    if missing:
        raise FormatError(
            f"{path} is no checkpoint of a run: it lacks {', '.join(missing)}. Give another "
            "logging.output_dir, or start anew with --restart."
        )
    return content


def _damaged(path: Path) -> str:
    return (
        f"{path} ({path.stat().st_size} bytes) is damaged, or no checkpoint. Start anew with "
        "--restart, or put a whole one in its place."
    )
