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
) -> None:
    """Train a network on simulations made on the fly; a run that was killed goes on."""
    from deeplegato_pp.config import load_config

    settings = load_config(config, overrides or [])
    from deeplegato_pp.training import train as run

    run(settings)
