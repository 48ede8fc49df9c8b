"""One call from a configuration to a trained model on disk."""

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
from deeplegato_pp.training.trainer import DeepLeGAToPPTrainer, mismatches

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

    The output folder holds ``last.ckpt`` (everything to go on with), ``best.ckpt`` (the weights
    that validated best), ``training.csv`` and ``steps.csv`` (the curves) and, at the end,
    ``model/`` (averaged weights and record, for `Predictor`; of a run that early stopping has
    ended, the best). A killed run goes on from its last epoch, with the same stream of batches.

    Args:
        config: The configuration, or what one is read from: a YAML file, the name of a packaged
            one, nested dictionaries.
        *overrides: ``"section.key=value"`` strings, applied last, as on the command line.
        resume: Go on from ``last.ckpt`` if it is there; otherwise start anew. None: as
            `training.resume_from_latest` says.
        fast_dev_run: Take one step of training and validation, and leave no files: a trial.
        trust_checkpoint: Go on from a checkpoint that holds Python objects beyond tensors and
            plain values. Reading it can run any code that its author wants.
        truth: What finds the best profiles of galaxies with structure, which `data.structure`
            needs: ``deeplegato_pp.calibration.truth.best_profiles``, as the command line gives.

    Returns:
        The network with averaged weights, in evaluation mode.

    Raises:
        ConfigError: If a setting names something unknown, the steps do not make whole epochs, or
            the checkpoint in the folder or the initial weights belong to another network.
        FormatError: If the checkpoint is none, damaged, or would have to be trusted.
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
        read_checkpoint(checkpoint, trusted=trust_checkpoint)  # what is wrong is said in a line
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
    """Returns where a run leaves its files: on the drive, if the configuration wants it there."""
    folder = Path(config.logging.output_dir)
    if config.training.save_to_drive and not folder.is_absolute():
        if not config.data.drive_base:
            raise ConfigError(
                "training.save_to_drive=true needs data.drive_base, which is empty. Give the "
                "drive's folder."
            )
        folder = Path(config.data.drive_base) / folder
    return folder


def initial_model(config: Config) -> DeepLeGAToPP:
    """Returns the network that training starts from: new, or with the weights of another.

    The layers of `model.init` that are also in the new network must have its shapes; those that
    are not there yet start as new ones do.

    Raises:
        ModelNotFoundError: If there is no such model.
        ConfigError: If no layer, or a layer of another shape, is found in both.
    """
    model = DeepLeGAToPP(config)
    if not config.model.init:
        return model
    source = DeepLeGAToPP.from_pretrained(config.model.init)
    own, other = model.state_dict(), source.state_dict()
    common = own.keys() & other.keys()
    report = mismatches({k: own[k] for k in common}, {k: other[k] for k in common})
    if report or not common:
        raise ConfigError(
            f"model.init={config.model.init} does not fit this network: "
            f"{report or 'no layer is found in both'}. Take over its model section."
        )
    if common != own.keys():
        logger.warning("model.init=%s: %s.", config.model.init, mismatches(own, other))
    model.load_state_dict({**own, **{k: other[k] for k in common}})
    return model


def _load_best(module: DeepLeGAToPPTrainer, path: Path) -> None:
    """Takes the weights that validated best, after early stopping."""
    if path.is_file():
        module.load_state_dict(read_checkpoint(path)["state_dict"])


def _card(
    config: Config, record: RunRecord, trainer: pl.Trainer, module: DeepLeGAToPPTrainer
) -> dict[str, object]:
    """Returns the record that is stored with the weights."""
    card: dict[str, object] = {
        "training": record.card(trainer, module),
        "training_ranges": config.data.conditions.ranges(),
    }
    if config.model.name:
        card["name"] = config.model.name
    return card


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
    if training.accumulation_steps < 1:
        raise ConfigError(
            f"training.accumulation_steps must be at least 1, got {training.accumulation_steps}."
        )
