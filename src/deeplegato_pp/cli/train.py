"""``deeplegato train``: a network from a configuration."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="YAML file, or the name of a packaged one.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that win over the file's."),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start anew, even if the folder holds a checkpoint."),
    ] = False,
    fast_dev_run: Annotated[
        bool,
        typer.Option(
            "--fast-dev-run", help="One step of training and validation, no files: a trial."
        ),
    ] = False,
    trust_checkpoint: Annotated[
        bool,
        typer.Option(
            "--trust-checkpoint",
            help="Go on from a checkpoint that holds Python objects: reading it can run any code "
            "that its author wants.",
        ),
    ] = False,
) -> None:
    """Train a network on simulations made on the fly; a run that was killed goes on."""
    from deeplegato_pp.config.schema import load_config

    settings = load_config(config, overrides or [])
    from deeplegato_pp.calibration.truth import best_profiles
    from deeplegato_pp.training import train as run

    run(
        settings,
        resume=False if restart else None,
        fast_dev_run=fast_dev_run,
        trust_checkpoint=trust_checkpoint,
        truth=best_profiles,
    )
