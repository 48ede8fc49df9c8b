"""``deeplegato demo``: a first fit, of the galaxy that the package ships."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from deeplegato_pp.cli.predict import predict

GALAXY = "hst_galaxy.fits"


def demo(
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Existing folder of demo.ecsv and demo.png."
        ),
    ] = Path(),
) -> int:
    """Measure the example galaxy, seen by HST: demo.ecsv (table) and demo.png (figure).

    This is deeplegato predict on a file that comes with the package, image, noise, mask and PSF in
    one.
    """
    table, figure = output / "demo.ecsv", output / "demo.png"
    with as_file(files("deeplegato_pp") / "examples" / GALAXY) as image:
        status = predict([str(image)], output=table, plot=figure)
    typer.echo(
        f"\nWritten: {table} and {figure}. The same for a file of yours:\n"
        "deeplegato predict galaxy.fits -o table.ecsv --plot galaxy.png"
    )
    return status
