"""DS9 region file of a catalogue, for ``deeplegato regions``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class System(str, Enum):  # noqa: UP042
    """Coordinate system of the regions."""

    image = "image"
    icrs = "icrs"


def regions(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Table of predict or catalog.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Region file: .reg.")
    ],
    system: Annotated[
        System, typer.Option("--system", help="Coordinates: pixels of the image, or sky (ra, dec).")
    ] = System.image,
) -> int:
    """Write the half-light ellipses of a catalogue as DS9 regions, coloured by quality."""
    from deeplegato_pp.catalog.output import read_catalogue
    from deeplegato_pp.catalog.regions import write_regions

    number = write_regions(read_catalogue(table), output, system.value)
    print(f"{number} ellipses in {output}")
    return 0
