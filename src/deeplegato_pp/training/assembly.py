"""Lightning trainer for a configuration."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
)

from deeplegato_pp.config.schema import Config, TrainingConfig
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.training.callbacks import RunRecord
from deeplegato_pp.training.loggers import StampPictures, create_loggers

logger = logging.getLogger(__name__)

LAST = "last.ckpt"
BEST = "best.ckpt"

AVERAGE_EVERY = 10
"""Steps between updates of the averaged weights: each costs a tenth of a step on a CPU."""


def create_trainer(
    config: Config, folder: Path, record: RunRecord, monitored: str, *, fast_dev_run: bool = False
) -> pl.Trainer:
    """Returns Lightning's trainer as configured.

    Args:
        config: The whole configuration.
        folder: Folder of the run.
        record: Record of the run's curves.
        monitored: Metric by which the best weights are selected.
        fast_dev_run: One step of training and validation, and no files.

    Raises:
        ConfigError: If accelerator, precision, devices or strategy are not available.
    """
    training = config.training
    try:
        return pl.Trainer(
            accelerator=training.accelerator,
            devices=training.devices,
            num_nodes=training.num_nodes,
            strategy=_strategy(training),
            precision=_precision(training),  # type: ignore[arg-type]
            max_steps=training.max_steps,
            accumulate_grad_batches=training.accumulation_steps,
            val_check_interval=config.validation.val_check_interval,
            callbacks=_callbacks(config, folder, record, monitored, fast_dev_run),
            logger=False if fast_dev_run else create_loggers(config.logging, folder),
            log_every_n_steps=config.logging.every_n_steps,
            enable_progress_bar=config.logging.progress_bar,
            enable_checkpointing=not fast_dev_run,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
            fast_dev_run=fast_dev_run,
        )
    except (ValueError, MisconfigurationException, ModuleNotFoundError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"training.accelerator={training.accelerator} with training.precision="
            f"{training.precision}, training.devices={training.devices} and training.strategy="
            f"{training.strategy} cannot be had: {error}"
        ) from error


@contextmanager
def without_chatter() -> Iterator[None]:
    """Suppresses selected messages of Lightning that are expected here."""
    lightning = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = lightning.level
    with warnings.catch_warnings():
        for message in (
            # With few cores, simulating in the training process is faster than in workers.
            ".*does not have many workers.*",
            # The folder is used for resumption, and last.ckpt is replaced.
            ".*exists and is not empty.*",
            # The folder of a run may be moved.
            ".*dirpath has changed from.*",
            # Epochs may be shorter than the logging interval.
            ".*smaller than the logging interval.*",
            # Runs of an older version had other callbacks, whose state is not needed.
            ".*callbacks used to create the checkpoint need to be provided.*",
        ):
            warnings.filterwarnings("ignore", message)
        # Lightning uses a class that torch has renamed.
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*", FutureWarning)
        # Hardware information and tips; warnings are shown.
        lightning.setLevel(max(level, logging.WARNING))
        try:
            yield
        finally:
            lightning.setLevel(level)


def _callbacks(
    config: Config, folder: Path, record: RunRecord, monitored: str, fast_dev_run: bool
) -> list[Callback]:
    training = config.training
    # Buffers are copied, because counters and index tables cannot be averaged.
    callbacks: list[Callback] = [
        EMAWeightAveraging(
            decay=training.ema_decay**AVERAGE_EVERY,
            update_every_n_steps=AVERAGE_EVERY,
            use_buffers=False,
        )
    ]
    if config.logging.progress_bar:
        callbacks.append(RichProgressBar())
    if fast_dev_run:
        return callbacks
    callbacks.insert(0, record)
    if training.early_stopping_patience:
        callbacks.append(EarlyStopping(monitored, patience=training.early_stopping_patience))
    if config.logging.tensorboard or config.logging.use_wandb:
        callbacks.append(LearningRateMonitor("step"))
        if config.logging.log_images_every_n_epochs:
            callbacks.append(StampPictures(config.logging.log_images_every_n_epochs))
    # Checkpoints come last: the best validated weights, and the full state, with all metrics.
    shared: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
    callbacks.append(
        ModelCheckpoint(
            filename=Path(BEST).stem,
            monitor=monitored,
            save_top_k=1,
            save_on_train_epoch_end=False,
            **shared,
        )
    )
    callbacks.append(
        ModelCheckpoint(
            filename=Path(LAST).stem,
            monitor=None,
            save_top_k=1,
            every_n_epochs=training.checkpoint_every_n_epochs,
            save_on_train_epoch_end=True,
            **shared,
        )
    )
    return callbacks


def _strategy(training: TrainingConfig) -> str:
    """Returns the strategy: if the head has no gradients, DDP must not wait for them."""
    several = training.devices * training.num_nodes > 1
    if training.strategy == "auto" and several and training.task == "reconstruction":
        return "ddp_find_unused_parameters_true"
    return training.strategy


def _precision(training: TrainingConfig) -> str:
    """Returns the precision; float16 becomes bfloat16 on a CPU, which lacks it."""
    if training.precision == "16-mixed" and training.accelerator == "cpu":
        logger.info("A CPU has no float16 arithmetic: training in bf16-mixed.")
        return "bf16-mixed"
    return training.precision
