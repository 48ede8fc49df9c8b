"""Training from a configuration to a stored model."""

from __future__ import annotations

import logging
from pathlib import Path

import pytorch_lightning as pl

from deeplegato_pp.config.schema import Config, ConfigLike, TrainingConfig, load_config
from deeplegato_pp.data.sersic_simulator import Truth
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.training.assembly import BEST, LAST, create_trainer, without_chatter
from deeplegato_pp.training.callbacks import CURVE, STEPS, RunRecord
from deeplegato_pp.training.checkpoints import read_checkpoint
from deeplegato_pp.training.trainer import DeepLeGAToPPTrainer
from deeplegato_pp.training.warm_start import initial_model

logger = logging.getLogger(__name__)

CHECKPOINT = LAST


def train(
    config: ConfigLike = None,
    *overrides: str,
    resume: bool | None = None,
    fast_dev_run: bool = False,
    trust_checkpoint: bool = False,
    truth: Truth | None = None,
) -> DeepLeGAToPP:
    """Trains a network and saves it.

    The output folder contains ``last.ckpt`` (full state), ``best.ckpt`` (weights with the best
    validation), ``training.csv`` and ``steps.csv`` (curves) and, at the end, ``model/`` (averaged
    weights and record, for `Predictor`; the best weights after early stopping). A killed run
    continues from its last epoch, with the same stream of batches.

    Args:
        config: The configuration or its source: a YAML file, the name of a packaged one, nested
            dictionaries.
        *overrides: ``"section.key=value"`` strings, applied last, as on the command line.
        resume: Continue from ``last.ckpt`` if it exists; otherwise start again. None for
            `training.resume_from_latest`.
        fast_dev_run: One trial step of training and validation, without files.
        trust_checkpoint: Allow a checkpoint with Python objects other than tensors and plain
            values, which can execute arbitrary code when it is read.
        truth: Function that finds the best-fitting profiles of galaxies with structure, required
            for `data.structure`: ``deeplegato_pp.calibration.truth.best_profiles``, as on the
            command line.

    Returns:
        The network with averaged weights, in evaluation mode.

    Raises:
        ConfigError: If a setting is unknown, the number of steps is not a multiple of an epoch, or
            the checkpoint in the folder or the initial weights belong to another network.
        FormatError: If the file is not a checkpoint, is damaged, or is not trusted.
    """
    config = load_config(config, overrides)
    _check_steps(config.training)
    folder = run_folder(config)
    pl.seed_everything(config.training.seed, verbose=False)
    module = DeepLeGAToPPTrainer(config, initial_model(config), truth)
    record = RunRecord(folder, config.training, config.logging.every_n_steps)
    if not fast_dev_run:
        folder.mkdir(parents=True, exist_ok=True)
    with without_chatter():
        trainer = create_trainer(
            config, folder, record, module.monitored, fast_dev_run=fast_dev_run
        )
    resume = config.training.resume_from_latest if resume is None else resume
    checkpoint = folder / LAST
    going_on = resume and not fast_dev_run and checkpoint.is_file()
    if going_on:
        read_checkpoint(checkpoint, trusted=trust_checkpoint)  # raises errors in one line
        logger.info("Going on from %s.", checkpoint)
    elif not fast_dev_run and trainer.is_global_zero:
        for name in (CURVE, STEPS, LAST, BEST):
            (folder / name).unlink(missing_ok=True)
    with without_chatter():
        trainer.fit(
            module,
            ckpt_path=checkpoint if going_on else None,
            weights_only=not trust_checkpoint,
        )
    if module.finished is not None:
        module.load_state_dict(module.finished)
    elif trainer.global_step < config.training.max_steps and not fast_dev_run:
        _load_best(module, folder / BEST)
    model = module.model.eval()
    model.card = _card(config, record, trainer, module)
    if trainer.is_global_zero and not fast_dev_run:
        model.save_pretrained(folder / "model")
    trainer.strategy.barrier()
    return model


def run_folder(config: Config) -> Path:
    """Returns the output folder of a run, on the drive if configured."""
    folder = Path(config.logging.output_dir)
    if config.training.save_to_drive and not folder.is_absolute():
        if not config.data.drive_base:
            raise ConfigError(
                "training.save_to_drive=true needs data.drive_base, which is empty. Give the "
                "drive's folder."
            )
        folder = Path(config.data.drive_base) / folder
    return folder


def _load_best(module: DeepLeGAToPPTrainer, path: Path) -> None:
    """Loads the weights with the best validation, after early stopping."""
    if path.is_file():
        module.load_state_dict(read_checkpoint(path)["state_dict"])


def _card(
    config: Config, record: RunRecord, trainer: pl.Trainer, module: DeepLeGAToPPTrainer
) -> dict[str, object]:
    """Returns the record stored with the weights."""
    card: dict[str, object] = {
        "training": record.card(trainer, module),
        "training_ranges": config.data.conditions.ranges(),
    }
    if config.model.name:
        card["name"] = config.model.name
    return card


def _check_steps(training: TrainingConfig) -> None:
    """Checks that a run ends with an epoch, which validates and saves."""
    steps, epoch = training.max_steps, training.steps_per_epoch
    if min(steps, epoch) < 1 or (steps > epoch and steps % epoch):
        whole = max(1, steps // max(1, epoch)) * max(1, epoch)
        raise ConfigError(
            "training.max_steps must be a multiple of training.steps_per_epoch, or fewer (both at "
            f"least 1), got {steps} and {epoch}. Set training.max_steps={whole} or change the "
            "length of an epoch."
        )
    if training.accumulation_steps < 1:
        raise ConfigError(
            f"training.accumulation_steps must be at least 1, got {training.accumulation_steps}."
        )
