"""Training of a network from a configuration, for ``deeplegato train``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deeplegato_pp.config.schema import Config


def train(
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="Configuration: YAML file, or name of a packaged one."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that override the file's."),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Restart: ignore checkpoints in the folder."),
    ] = False,
    fast_dev_run: Annotated[
        bool,
        typer.Option(
            "--fast-dev-run", help="Trial: one step of training and validation, without files."
        ),
    ] = False,
    trust_checkpoint: Annotated[
        bool,
        typer.Option(
            "--trust-checkpoint",
            help="Trust a checkpoint with Python objects, which can run arbitrary code when it is "
            "read.",
        ),
    ] = False,
) -> None:
    """Train a network on simulations; a run that was stopped is continued."""
    from deeplegato_pp.config.schema import load_config

    settings = load_config(config, overrides or [])
    from deeplegato_pp.calibration.truth import best_profiles
    from deeplegato_pp.cli.signals import noted_when_stopped
    from deeplegato_pp.training import train as run

    with noted_when_stopped(lambda: "" if fast_dev_run else _how_to_go_on(settings, restart)):
        run(
            settings,
            resume=False if restart else None,
            fast_dev_run=fast_dev_run,
            trust_checkpoint=trust_checkpoint,
            truth=best_profiles,
        )


def _how_to_go_on(settings: Config, restart: bool) -> str:
    """What a run that was stopped has left, and what goes on from it."""
    from deeplegato_pp.training.train import CHECKPOINT, run_folder

    checkpoint = run_folder(settings) / CHECKPOINT
    if not checkpoint.is_file():
        return "No epoch had ended: the same command starts anew."
    again = "the same command"
    if restart:
        again += " without --restart"
    if not settings.training.resume_from_latest:
        again += " with training.resume_from_latest=true"
    return f"The epochs that had ended are safe in {checkpoint}: go on with {again}."
