"""Simulated galaxies with known parameters, for ``deeplegato simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deeplegato_pp.cli import options


def simulate(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR|FILE",
            help="Folder for FITS stamps and truth.ecsv (or chunks), or one .npz file.",
        ),
    ],
    number: Annotated[
        int, typer.Option("-n", "--number", metavar="N", min=1, help="Number of galaxies.")
    ] = 10,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="CONFIG",
            help="Configuration: YAML file, or name of a packaged one, whose data section is used.",
            show_default="the default box at the reference instrument",
        ),
    ] = None,
    isolated: Annotated[
        bool | None,
        typer.Option(
            "--isolated/--conditions",
            help="Conditions: isolated, unmasked galaxies, or masks, neighbours, partial stamps "
            "and uneven noise as in training.",
            show_default="isolated, except in chunks",
        ),
    ] = None,
    seed: options.Seed = 0,
    chunks: Annotated[
        bool,
        typer.Option(
            "--chunks",
            help="Chunks for training (data.train_data_path) instead of FITS files, with the full "
            "range of conditions unless --isolated is given; an interrupted call is continued.",
        ),
    ] = False,
    chunk_size: Annotated[
        int, typer.Option("--chunk-size", metavar="N", min=1, help="Number of galaxies per chunk.")
    ] = 1024,
) -> None:
    """Simulate galaxies drawn from the prior, in files that `deeplegato predict` reads."""
    from deeplegato_pp.io.overwriting import check_outputs_apart

    written = [output] if output.suffix else [output / "truth.ecsv", output / "index.json"]
    check_outputs_apart({"--output": written}, {"configuration": config})
    if chunks:
        _write_chunks(output, number, config, seed, chunk_size, clean=isolated is True)
        return
    from deeplegato_pp.data.simulated_files import check_simulation_output

    check_simulation_output(output)
    from deeplegato_pp.calibration.truth import best_profiles
    from deeplegato_pp.cli.display import progress
    from deeplegato_pp.config.schema import load_config
    from deeplegato_pp.data.simulated_files import file_simulator, write_simulation

    simulator = file_simulator(
        load_config(config).data, clean=isolated is not False, truth=best_profiles
    )
    with progress("simulating", number) as advance:
        write_simulation(simulator, number, seed, output, advance)
    typer.echo(f"{number} galaxies in {output}")


def _write_chunks(
    output: Path, number: int, config: str | None, seed: int, chunk_size: int, *, clean: bool
) -> None:
    from deeplegato_pp.calibration.truth import best_profiles
    from deeplegato_pp.cli.display import progress
    from deeplegato_pp.config.schema import load_config
    from deeplegato_pp.data.chunks import write_chunks
    from deeplegato_pp.errors import InputError

    if output.suffix:
        raise InputError(f"chunks go into a folder, got {output}. Give a name without a suffix.")
    data = load_config(config).data
    with progress("simulating", number) as advance:
        write_chunks(
            data,
            output,
            number,
            seed,
            chunk_size=chunk_size,
            clean=clean,
            advance=advance,
            truth=best_profiles,
        )
    typer.echo(f"{number} galaxies in {output}")
