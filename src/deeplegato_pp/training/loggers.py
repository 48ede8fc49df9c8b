"""Optional loggers: TensorBoard and Weights & Biases."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from deeplegato_pp.config.schema import LoggingConfig
from deeplegato_pp.errors import ConfigError

PICTURES = 16
"""Number of stamps in logged pictures."""


def create_loggers(logging: LoggingConfig, folder: Path) -> list[Logger]:
    """Returns the configured loggers, in addition to the run's CSV files.

    Args:
        logging: Section of the configuration.
        folder: Folder of the run.

    Raises:
        ConfigError: If a configured logger is not installed.
    """
    where = Path(logging.log_dir) if logging.log_dir else folder / "logs"
    loggers: list[Logger] = []
    if logging.tensorboard:
        _require("tensorboard", "logging.tensorboard", "pip install 'deeplegato-pp[train]'")
        loggers.append(TensorBoardLogger(where.parent, name=where.name, version="tensorboard"))
    if logging.use_wandb:
        _require("wandb", "logging.use_wandb", "pip install wandb")
        where.mkdir(parents=True, exist_ok=True)
        loggers.append(WandbLogger(project=logging.project_name, save_dir=where))
    return loggers


class StampPictures(Callback):
    """Logs validation stamps, as asinh of their signal-to-noise.

    Args:
        every_n_epochs: Number of epochs between pictures.
    """

    def __init__(self, every_n_epochs: int) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs the pictures at every interval."""
        if trainer.sanity_checking or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        loaders: Any = trainer.val_dataloaders
        stamps, _ = loaders[-1].dataset[0]
        images = pictures(stamps.image[:PICTURES], stamps.sigma[:PICTURES], stamps.mask[:PICTURES])
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_images("validation/stamps", images, trainer.global_step)
            elif isinstance(logger, WandbLogger):
                logger.log_image("validation/stamps", list(images), trainer.global_step)


def pictures(image: Tensor, sigma: Tensor, mask: Tensor) -> Tensor:
    """Returns stamps as grey pictures in [0, 1], masked pixels black, with shape (B, 1, N, N)."""
    stretched = torch.asinh(image / sigma)
    top = stretched.masked_fill(mask, 0.0).flatten(1).amax(1).clamp_min(2.0)[:, None, None]
    grey = ((stretched + 1.0) / (top + 1.0)).clamp(0.0, 1.0)
    return grey.masked_fill(mask, 0.0)[:, None].float().cpu()


def _require(module: str, key: str, remedy: str) -> None:
    if find_spec(module) is None:
        raise ConfigError(f"{key}=true needs {module}, which is not installed. Try: {remedy}")
