"""``deeplegato simulate``: galaxies with known parameters, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR|FILE",
            help="Folder for FITS stamps and truth.ecsv, or one .npz file.",
        ),
    ],
    number: Annotated[
        int, typer.Option("-n", "--number", metavar="N", min=1, help="Galaxies.")
    ] = 10,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="CONFIG",
            help="YAML file, or the name of a packaged one, whose data section says what is drawn.",
            show_default="the default box at the reference instrument",
        ),
    ] = None,
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated/--conditions",
            help="Isolated, unmasked galaxies, or masks, neighbours, partial stamps and uneven "
            "noise as in training.",
        ),
    ] = True,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")] = 0,
) -> None:
    """Simulate galaxies drawn from the prior, in files that `deeplegato predict` reads."""
    from deeplegato_pp.inference.simulations import check_simulation_output

    check_simulation_output(output)
    from deeplegato_pp.cli.display import progress
    from deeplegato_pp.config import load_config
    from deeplegato_pp.inference.simulations import file_simulator, write_simulation

    simulator = file_simulator(load_config(config).data, clean=isolated)
    with progress("simulating", number) as advance:
        write_simulation(simulator, number, seed, output, advance)
    typer.echo(f"{number} galaxies in {output}")
