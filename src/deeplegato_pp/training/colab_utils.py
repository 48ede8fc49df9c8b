"""Google Colab: drive, GPUs, and checkpoints that persist after a session.

All functions also work outside Colab, with local folders. They do not keep idle sessions alive: an
interrupted run continues from the last checkpoint on the drive.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from deeplegato_pp.errors import DeepLegatoError
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.training.assembly import BEST, LAST
from deeplegato_pp.training.checkpoints import read_checkpoint

logger = logging.getLogger(__name__)

DRIVE = Path("/content/drive")
"""Mount point of the user's drive in Colab."""

PROJECT = "deeplegato"
"""Folder of this project on the drive, as in the Colab configurations."""

FOLDERS = ("runs", "models", "data", "configs")

GIB = 2.0**30

CPU_CONFIG = "cpu"

BY_NAME = (("A100", "colab_a100"), ("H100", "colab_a100"), ("L4", "colab_l4"), ("T4", "colab_t4"))
"""Parts of GPU names, and the configurations for them."""

BY_MEMORY = ((38.0, "colab_a100"), (20.0, "colab_l4"), (0.0, "colab_t4"))
"""Minimum memory [GiB], and the configuration for an unknown GPU."""


def is_colab() -> bool:
    """Returns whether the code runs in Google Colab."""
    return "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ


def setup_drive_paths(base: str | Path | None = None) -> dict[str, Path]:
    """Creates the project's folders, on the drive if this is Colab.

    Args:
        base: Folder of the project. None for ``MyDrive/deeplegato`` on Colab's drive, which is
            mounted first (Colab asks for permission), and outside Colab for ``deeplegato`` in the
            working folder.

    Returns:
        The folders ``base``, ``runs``, ``models``, ``data`` and ``configs``, all of which exist.
        Use ``base`` as ``data.drive_base``.

    Raises:
        DeepLegatoError: If the drive could not be mounted.
    """
    if base is None:
        base = _mount_drive() / "MyDrive" / PROJECT if is_colab() else Path.cwd() / PROJECT
    root = Path(base).expanduser()
    paths = {"base": root, **{name: root / name for name in FOLDERS}}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    return paths


def get_latest_checkpoint(folder: str | Path) -> Path | None:
    """Returns the newest ``last.ckpt`` in a folder or its subfolders, or None.

    Args:
        folder: Folder of a run, or of several runs.
    """
    found = [p for p in Path(folder).rglob(LAST) if p.is_file()]
    return max(found, key=lambda p: p.stat().st_mtime, default=None)


def get_best_checkpoint(folder: str | Path) -> Path | None:
    """Returns the ``best.ckpt`` with the lowest validation loss in a folder or its subfolders.

    Losses are comparable only between runs with the same prior and conditions. Checkpoints without
    recorded loss are ignored.

    Args:
        folder: Folder of a run, or of several runs.

    Returns:
        The checkpoint, or None if there is none.

    Raises:
        FormatError: If a checkpoint cannot be read.
    """
    scores = {p: _score(p) for p in sorted(Path(folder).rglob(BEST)) if p.is_file()}
    known = {p: score for p, score in scores.items() if score is not None}
    return min(known, key=lambda p: known[p], default=None)


def auto_select_config(name: str | None = None, memory: float | None = None) -> str:
    """Returns the name of the packaged configuration for a GPU.

    It is selected by the GPU's name, or by its memory if the name is unknown.

    Args:
        name: Name of the GPU, such as "Tesla T4"; None for the current one, if any.
        memory: Memory of that GPU. [GiB]

    Example:
        >>> auto_select_config("Tesla T4", 15.0), auto_select_config("NVIDIA L40S", 44.4)
        ('colab_t4', 'colab_a100')
    """
    if name is None and memory is None:
        gpu = _gpu()
        if gpu is None:
            return CPU_CONFIG
        name, memory = gpu
    words = (name or "").replace("-", " ").upper().split()
    for part, config in BY_NAME:
        if part in words:
            return config
    least = 0.0 if memory is None else memory
    return next(config for limit, config in BY_MEMORY if least >= limit)


def gpu_info() -> str:
    """Returns one line on the GPU: name, memory, bfloat16, and the configuration for it."""
    gpu = _gpu()
    if gpu is None:
        return f"no GPU; configuration: {CPU_CONFIG}"
    name, memory = gpu
    free, _ = torch.cuda.mem_get_info()
    bf16 = "with" if torch.cuda.is_bf16_supported(including_emulation=False) else "without"
    return (
        f"{name}, {memory:.1f} GiB ({free / GIB:.1f} free), {bf16} bfloat16; "
        f"configuration: {auto_select_config(name, memory)}"
    )


def print_gpu_info() -> None:
    """Prints `gpu_info` to standard output."""
    sys.stdout.write(gpu_info() + "\n")


def save_model_to_drive(
    model: DeepLeGAToPP, name: str, drive: str | Path | None = None, tries: int = 3
) -> Path:
    """Saves a model on the drive, replacing one of the same name.

    It is written locally and then copied file by file, with a check of sizes: copies to a network
    drive occasionally fail, and are repeated.

    Args:
        model: The network.
        name: Name of the folder.
        drive: Folder of models. None for ``models`` of `setup_drive_paths`.
        tries: Maximum number of attempts per file.

    Returns:
        Path of the folder on the drive, for `DeepLeGAToPP.from_pretrained`.

    Raises:
        DeepLegatoError: If a file could not be copied.
    """
    folder = (setup_drive_paths()["models"] if drive is None else Path(drive)) / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        local = model.save_pretrained(Path(temporary) / folder.name)
        for path in sorted(local.iterdir()):
            _copy(path, folder / path.name, tries)
        # Files of an earlier model, such as its calibration, do not belong to this one.
        for path in [p for p in folder.iterdir() if not (local / p.name).exists() and p.is_file()]:
            path.unlink()
    logger.info("Saved %s.", folder)
    return folder


def clear_gpu_memory() -> None:
    """Frees GPU memory of tensors without references."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _mount_drive() -> Path:
    if not (DRIVE / "MyDrive").is_dir():
        # This library exists only in Colab's notebooks; it asks the user.
        importlib.import_module("google.colab.drive").mount(str(DRIVE))
    if not (DRIVE / "MyDrive").is_dir():
        raise DeepLegatoError(
            f"The drive was not mounted at {DRIVE}. Allow it when Colab asks, or give a folder."
        )
    return DRIVE


def _gpu() -> tuple[str, float] | None:
    """Returns name and memory [GiB] of the GPU."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory / GIB


def _score(path: Path) -> float | None:
    """Returns the validation loss of a checkpoint from Lightning's record."""
    for name, state in read_checkpoint(path)["callbacks"].items():
        if name.startswith("ModelCheckpoint") and state.get("best_model_score") is not None:
            return float(state["best_model_score"])
    return None


def _copy(source: Path, target: Path, tries: int) -> None:
    size = source.stat().st_size
    part = target.with_name(f"{target.name}.part")
    reason = "its size differs"
    for attempt in range(tries):
        try:
            shutil.copyfile(source, part)
            if part.stat().st_size == size:
                part.replace(target)
                return
        except OSError as error:
            reason = str(error)
        if attempt + 1 < tries:
            time.sleep(2.0**attempt)
    part.unlink(missing_ok=True)
    raise DeepLegatoError(
        f"{target.name} could not be copied to {target.parent} in {tries} tries ({reason}). Is the "
        "drive mounted, and has it room?"
    )
