"""Images of a catalogue, for ``report`` and ``view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deeplegato_pp.cli.options import extension_from

Catalogue = Annotated[
    Path, typer.Argument(metavar="CATALOGUE", help="Table of predict or catalog.")
]

Images = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Folder of the images that the table names, if they are neither in the working "
        "directory nor beside the table.",
    ),
]

PSF = Annotated[
    str | None,
    typer.Option(
        "--psf",
        metavar="FILE",
        help="PSF of the models shown, as for catalog.",
        show_default="of the image's file, else a Moffat of the row's psf_fwhm",
    ),
]

Title = Annotated[str | None, typer.Option("--title", metavar="TEXT", help="Title of the pages.")]


def pixels_for(
    catalogue: Path,
    images: Path | None,
    extension: str | None,
    psf: str | None,
    psf_oversampling: int | None,
    psf_includes_pixel: bool | None,
) -> Any:
    """Returns the :class:`~deeplegato_pp.report.panels.Pixels` of a catalogue."""
    from deeplegato_pp.catalog.inputs import Inputs
    from deeplegato_pp.report.panels import Pixels

    given: dict[str, Any] = {
        "extension": extension_from(extension),
        "psf": () if psf is None else (psf,),
        "psf_oversampling": 1 if psf_oversampling is None else psf_oversampling,
        "psf_includes_pixel": psf_includes_pixel is not False,
        "psf_even": "shift",
    }
    folders = (Path(), catalogue.resolve().parent, *(() if images is None else (images,)))
    return Pixels(folders, lambda path: Inputs((path,), **given))
