"""One call from a configuration to a trained model on disk."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar

from deeplegato_pp.config import Config
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.training.callbacks import RunRecord
from deeplegato_pp.training.trainer import DeepLeGAToPPTrainer

logger = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"
CURVE = "training.csv"


def train(config: Config, *, resume: bool = True) -> DeepLeGAToPP:
    """Trains a network and saves it.

    The output folder holds ``last.ckpt`` (everything to go on with), ``training.csv`` (the
    curve) and, at the end, ``model/`` (averaged weights and record, for `Predictor`). A killed
    run goes on from its last epoch, with the same stream of simulations.

    Args:
        config: The configuration.
        resume: Go on from ``last.ckpt`` if it is there; otherwise start anew.

    Returns:
        The network with averaged weights, in evaluation mode.

    Raises:
        ConfigError: If a setting names something unknown.
    """
    folder = Path(config.logging.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    pl.seed_everything(config.training.seed, verbose=False)
    record = RunRecord(folder / CURVE, config.training.batch_size)
    checkpoint = folder / CHECKPOINT
    going_on = resume and checkpoint.is_file()
    if not going_on:
        (folder / CURVE).unlink(missing_ok=True)
    module = DeepLeGAToPPTrainer(config)
    trainer = _lightning(config, folder, record)
    if going_on:
        logger.info("Going on from %s.", checkpoint)
    with warnings.catch_warnings():
        # Simulating in the training process is faster than handing batches over on few cores.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        # The checkpoint is our own: weights, optimizer moments and the time used.
        trainer.fit(module, ckpt_path=checkpoint if going_on else None, weights_only=False)
    model = module.model.eval()
    model.card = {
        "training": record.card(trainer, module),
        "training_ranges": config.to_dict()["data"]["conditions"],
    }
    model.save_pretrained(folder / "model")
    return model


def _lightning(config: Config, folder: Path, record: RunRecord) -> pl.Trainer:
    training = config.training
    callbacks: list[Any] = [
        record,
        EMAWeightAveraging(decay=training.ema_decay),
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
    return pl.Trainer(
        accelerator=training.accelerator,
        devices=1,
        precision=training.precision,  # type: ignore[arg-type]
        max_steps=training.max_steps,
        callbacks=callbacks,
        logger=False,
        log_every_n_steps=min(config.logging.every_n_steps, training.steps_per_epoch),
        enable_progress_bar=config.logging.progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
