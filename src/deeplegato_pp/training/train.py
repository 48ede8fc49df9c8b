"""One call from a configuration to a trained model on disk."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]
    MisconfigurationException,
)

from deeplegato_pp.config import Config, TrainingConfig
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.training.callbacks import CURVE, STEPS, RunRecord
from deeplegato_pp.training.trainer import DeepLeGAToPPTrainer

logger = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"

AVERAGE_EVERY = 10
"""Steps between updates of the averaged weights: each one would cost a tenth of a CPU's step."""


def train(config: Config, *, resume: bool = True) -> DeepLeGAToPP:
    """Trains a network and saves it.

    The output folder holds ``last.ckpt`` (everything to go on with), ``training.csv`` and
    ``steps.csv`` (the curves) and, at the end, ``model/`` (averaged weights and record, for
    `Predictor`). A killed run goes on from its last epoch, with the same stream of simulations.

    Args:
        config: The configuration.
        resume: Go on from ``last.ckpt`` if it is there; otherwise start anew.

    Returns:
        The network with averaged weights, in evaluation mode.

    Raises:
        ConfigError: If a setting names something unknown, the steps do not make whole epochs, or
            the checkpoint in the folder belongs to another network.
    """
    _check_steps(config.training)
    folder = Path(config.logging.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(config.training.seed, verbose=False)
    record = RunRecord(folder, config.training.batch_size, config.logging.every_n_steps)
    module = DeepLeGAToPPTrainer(config)
    with _without_chatter():
        trainer = _lightning(config, folder, record)
    checkpoint = folder / CHECKPOINT
    saved = _read_checkpoint(checkpoint, module) if resume and checkpoint.is_file() else None
    if saved is None:
        for name in (CURVE, STEPS):
            (folder / name).unlink(missing_ok=True)
    else:
        logger.info("Going on from %s.", checkpoint)
    with _without_chatter():
        # The checkpoint is our own: weights, optimizer moments and the time used.
        trainer.fit(module, ckpt_path=checkpoint if saved else None, weights_only=False)
    if saved is not None and saved["global_step"] >= config.training.max_steps:
        # Nothing was left to do, and it is only after steps that Lightning puts the averages in.
        module.load_state_dict(saved["state_dict"])
    model = module.model.eval()
    model.card = {
        "training": record.card(trainer, module),
        "training_ranges": config.to_dict()["data"]["conditions"],
    }
    model.save_pretrained(folder / "model")
    return model


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keeps back what Lightning says that is no news here, and only that."""
    lightning = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = lightning.level
    with warnings.catch_warnings():
        # Simulating in the training process is faster than handing batches over on few cores.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # The folder is there to go on in, and last.ckpt to be replaced.
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        # A run's folder may be moved.
        warnings.filterwarnings("ignore", ".*dirpath has changed from.*")
        # Lightning asks torch for a class that torch has renamed.
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*", FutureWarning)
        # Hardware found and tips; its warnings pass.
        lightning.setLevel(max(level, logging.WARNING))
        try:
            yield
        finally:
            lightning.setLevel(level)


def _check_steps(training: TrainingConfig) -> None:
    """A run ends with an epoch, which validates and saves."""
    steps, epoch = training.max_steps, training.steps_per_epoch
    if min(steps, epoch) < 1 or (steps > epoch and steps % epoch):
        whole = max(1, steps // max(1, epoch)) * max(1, epoch)
        raise ConfigError(
            "training.max_steps must be a multiple of training.steps_per_epoch, or fewer (both at "
            f"least 1), got {steps} and {epoch}. Set training.max_steps={whole} or change the "
            "length of an epoch."
        )


def _read_checkpoint(path: Path, module: DeepLeGAToPPTrainer) -> dict[str, Any]:
    """Returns a checkpoint if it fits the network that is to be trained."""
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    shapes = {k: v.shape for k, v in saved["state_dict"].items()}
    if shapes != {k: v.shape for k, v in module.state_dict().items()}:
        raise ConfigError(
            f"{path} belongs to a network of other sizes. Set another logging.output_dir, or "
            "start anew without resuming."
        )
    return saved


def _lightning(config: Config, folder: Path, record: RunRecord) -> pl.Trainer:
    training = config.training
    callbacks: list[Any] = [
        record,
        # Buffers are copied: averages of counters and of tables of indices are no such things.
        EMAWeightAveraging(
            decay=training.ema_decay**AVERAGE_EVERY,
            update_every_n_steps=AVERAGE_EVERY,
            use_buffers=False,
        ),
        ModelCheckpoint(
            dirpath=folder,
            filename=Path(CHECKPOINT).stem,
            save_top_k=1,
            monitor=None,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
    ]
    if config.logging.progress_bar:
        callbacks.append(RichProgressBar())
    try:
        return pl.Trainer(
            accelerator=training.accelerator,
            devices=1,
            precision=training.precision,  # type: ignore[arg-type]
            max_steps=training.max_steps,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=config.logging.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    except (ValueError, MisconfigurationException) as error:
        raise ConfigError(
            f"training.accelerator={training.accelerator} with training.precision="
            f"{training.precision} cannot be had: {error}"
        ) from error
