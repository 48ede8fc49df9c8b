"""Curves and record of a training run."""

from __future__ import annotations

import csv
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from deeplegato_pp.config.schema import TrainingConfig

CURVE = "training.csv"
STEPS = "steps.csv"


class RunRecord(Callback):
    """Writes curves as CSV files, and counts images and time of resumed runs.

    ``training.csv`` has a row per validation, ``steps.csv`` one every few steps with the mean
    training loss since the last row. Rows are written immediately, so that a killed run keeps its
    curves; a resumed run continues the same files, after removing rows beyond its checkpoint.

    Args:
        folder: Folder of the files.
        training: Settings with batch size and accumulation, to count images.
        every_n_steps: Steps between rows of ``steps.csv``.
    """

    def __init__(self, folder: Path, training: TrainingConfig, every_n_steps: int) -> None:
        self.folder = folder
        self.images_per_step = training.batch_size * training.accumulation_steps
        self.every_n_steps = every_n_steps
        self.seconds_before = 0.0
        self.started = time.monotonic()
        self.validation: dict[str, float] = {}
        self._terms: dict[str, list[Tensor]] = {}
        self._last_step = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns time used and last validation, for the checkpoint."""
        return {"seconds": self.seconds, "validation": self.validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of a resumed run."""
        self.seconds_before = state_dict["seconds"]
        self.validation = state_dict.get("validation", {})

    @property
    def seconds(self) -> float:
        """Wall time of all parts of the run. [s]"""
        return self.seconds_before + time.monotonic() - self.started

    def images(self, trainer: pl.Trainer) -> int:
        """Returns the number of training images so far."""
        return trainer.global_step * self.images_per_step * trainer.world_size

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Removes the rows that a killed run wrote after its last checkpoint."""
        self._last_step = trainer.global_step
        if trainer.is_global_zero:
            for name in (CURVE, STEPS):
                _truncate(self.folder / name, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Writes a row of ``steps.csv`` at every interval."""
        for name, value in outputs.items():
            if name != "loss":
                self._terms.setdefault(name, []).append(value)
        complete, self._last_step = trainer.global_step > self._last_step, trainer.global_step
        if complete and trainer.global_step % self.every_n_steps == 0:
            # A skipped step has no loss; their number is stored with the mean.
            means = {name: torch.stack(values).nanmean() for name, values in self._terms.items()}
            means = {k: trainer.strategy.reduce(v, reduce_op="mean") for k, v in means.items()}
            self._terms.clear()
            if trainer.is_global_zero:
                row = self._where(trainer, pl_module)
                append_row(self.folder / STEPS, {**row, **{k: float(v) for k, v in means.items()}})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes a row of ``training.csv``."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        self.validation = {k: v for k, v in metrics.items() if k.startswith("val")}
        append_row(self.folder / CURVE, {**self._where(trainer, pl_module), **metrics})

    def card(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Returns the record stored with the weights, without NaN, which JSON lacks."""
        device = pl_module.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        return {
            "steps": trainer.global_step,
            "images": self.images(trainer),
            "hours": round(self.seconds / 3600, 3),
            "device": f"{device.type} {name}".strip(),
            "skipped_steps": _skipped(pl_module),
            "torch": str(torch.__version__),
            "validation": {
                k: round(v, 4) if math.isfinite(v) else None for k, v in self.validation.items()
            },
        }

    def _where(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        return {
            "step": trainer.global_step,
            "images": self.images(trainer),
            "seconds": round(self.seconds, 1),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "skipped_steps": _skipped(pl_module),
        }


def _skipped(module: pl.LightningModule) -> int:
    return int(module.skipped_steps)  # type: ignore[arg-type]


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Appends a row; new metrics get a new column."""
    names, rows = _read_rows(path)
    if names and set(row) <= set(names):
        with path.open("a", newline="") as f:
            csv.DictWriter(f, names).writerow(row)
    else:
        _write_rows(path, [*names, *(k for k in row if k not in names)], [*rows, dict(row)])


def _truncate(path: Path, step: int) -> None:
    """Keeps the rows up to a step, without an incomplete last row."""
    names, rows = _read_rows(path)
    if names:
        kept = [row for row in rows if None not in row.values() and int(row["step"]) <= step]
        _write_rows(path, names, kept)


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    if not path.exists():
        return [], []
    with path.open(newline="") as f:
        reader = csv.DictReader(f)
        return list(reader.fieldnames or []), list(reader)


def _write_rows(path: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
