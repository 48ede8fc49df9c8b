"""What a run leaves behind: its curve and its record."""

from __future__ import annotations

import csv
import platform
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class RunRecord(Callback):
    """Appends a line per validation to a CSV file and counts images and time over resumptions.

    Args:
        path: The CSV file; a resumed run goes on in the same one.
        batch_size: Images per step and process.
    """

    def __init__(self, path: Path, batch_size: int) -> None:
        self.path = path
        self.batch_size = batch_size
        self.seconds_before = 0.0
        self.started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Returns the time used so far, for the checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the time used before a resumption."""
        self.seconds_before = state_dict["seconds"]

    @property
    def seconds(self) -> float:
        """Wall time over all parts of the run. [s]"""
        return self.seconds_before + time.monotonic() - self.started

    def images(self, trainer: pl.Trainer) -> int:
        """Training images seen."""
        return trainer.global_step * self.batch_size * trainer.world_size

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes a line."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {
            k: float(v) for k, v in trainer.callback_metrics.items() if not k.endswith("_step")
        }
        row = {
            "step": trainer.global_step,
            "images": self.images(trainer),
            "seconds": round(self.seconds, 1),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "skipped_steps": int(pl_module.skipped_steps),  # type: ignore[arg-type]
            **{k: metrics[k] for k in sorted(metrics)},
        }
        # Written line by line, so that a killed run keeps its curve.
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as f:
            writer = csv.DictWriter(f, row)
            if is_new:
                writer.writeheader()
            writer.writerow(row)

    def card(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Returns the record that is stored with the weights."""
        device = pl_module.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
        return {
            "steps": trainer.global_step,
            "images": self.images(trainer),
            "hours": round(self.seconds / 3600, 3),
            "device": f"{device.type} {name}".strip(),
            "skipped_steps": int(pl_module.skipped_steps),  # type: ignore[arg-type]
            "torch": str(torch.__version__),
            "validation": {
                k: round(float(v), 4) for k, v in trainer.callback_metrics.items() if "val" in k
            },
        }
