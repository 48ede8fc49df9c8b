"""Command ``deeplegato`` with its subcommands; errors are printed in one line.

No heavy library is imported here: each command imports what it needs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from deeplegato_pp._version import __version__
from deeplegato_pp.cli.calibrate import calibrate
from deeplegato_pp.cli.catalog import catalog
from deeplegato_pp.cli.demo import demo
from deeplegato_pp.cli.help import GroupedCommand
from deeplegato_pp.cli.info import info
from deeplegato_pp.cli.predict import predict
from deeplegato_pp.cli.regions import regions
from deeplegato_pp.cli.report import report
from deeplegato_pp.cli.signals import stoppable
from deeplegato_pp.cli.simulate import simulate
from deeplegato_pp.cli.train import train
from deeplegato_pp.cli.view import view
from deeplegato_pp.errors import DeepLegatoError

CallError: type[Exception] = typer.BadParameter.__mro__[2]
"""Base class of usage errors: TyperException, or ClickException for versions built on click."""

WRONG_CALL = 2
"""Exit status if nothing was measured or the call is wrong."""

app = typer.Typer(
    name="deeplegato",
    help="Calibrated posteriors of galaxies' Sérsic parameters, from images.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help, in which names of options are not truncated
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deeplegato {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Calibrated posteriors of galaxies' Sérsic parameters, from images."""


EXAMPLES: dict[Callable[..., Any], str] = {
    demo: "deeplegato demo",
    predict: "deeplegato predict galaxy.fits -o table.ecsv --plot galaxy.png",
    simulate: "deeplegato simulate -n 20 -o stamps --seed 1",
    train: "deeplegato train default training.max_steps=2000",
    catalog: "deeplegato catalog mosaic.fits --sources list.csv --psf psf.fits -o out.fits",
    calibrate: "deeplegato calibrate -n 500 --simulator studies/neighbours -o calibration",
    report: "deeplegato report catalogue.parquet -o gallery",
    view: "deeplegato view catalogue.parquet",
    regions: "deeplegato regions catalogue.parquet -o catalogue.reg",
    info: "deeplegato info --model default",
}
"""Commands, each with an example shown at the end of its help."""

for _command, _example in EXAMPLES.items():
    app.command(cls=GroupedCommand, epilog=f"Example: {_example}")(stoppable(_command))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Command-line arguments; None for those of this process.

    Returns:
        The exit status: 0 for success, 2 if the call is wrong or no object was measured, 130 if
        interrupted, 143 if terminated.
    """
    logging.getLogger("deeplegato_pp").addHandler(logging.NullHandler())
    try:
        status = app(args=arguments, prog_name="deeplegato", standalone_mode=False)
    except CallError as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return fail(f"{message} Try: deeplegato --help") if message else WRONG_CALL
    except DeepLegatoError as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"{error.strerror or error}: {error.filename or 'a file'}")
    return status if isinstance(status, int) else 0


def fail(message: str) -> int:
    """Writes one line to standard error, and returns the status of a wrong call."""
    sys.stderr.write(f"deeplegato: {' '.join(message.split())}\n")
    return WRONG_CALL
