"""``deeplegato report``: a catalogue as static pages to look through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deeplegato_pp.cli import options


def report(
    catalogue: Annotated[
        Path, typer.Argument(metavar="CATALOGUE", help="A table of predict or catalog.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the pages.")
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="FOLDER",
            help="Where the images are that the table names, if neither in the working directory "
            "nor beside the table.",
        ),
    ] = None,
    extension: Annotated[
        str | None,
        typer.Option("--extension", metavar="NAME|N", help="Of the images in their files."),
    ] = None,
    psf: Annotated[
        str | None,
        typer.Option(
            "--psf",
            metavar="FILE",
            help="PSF of the models shown, as for catalog.",
            show_default="of the image's file, else a Moffat of the row's psf_fwhm",
        ),
    ] = None,
    psf_oversampling: options.PSFOversampling = 1,
    psf_includes_pixel: options.PSFIncludesPixel = True,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="Of the pages.")
    ] = None,
) -> int:
    """Make a gallery: thumbnails, a table to sort and filter, and a page per galaxy.

    Open DIR/index.html in a browser; no server and no network are needed.
    """
    from deeplegato_pp.catalog.inputs import Inputs
    from deeplegato_pp.catalog.output import read_catalogue
    from deeplegato_pp.cli.display import progress
    from deeplegato_pp.report.gallery import check_folder, make_report
    from deeplegato_pp.report.panels import Pixels

    check_folder(output)
    table = read_catalogue(catalogue)
    given: dict[str, Any] = {
        "extension": int(extension) if extension and extension.isdigit() else extension,
        "psf": () if psf is None else (psf,),
        "psf_oversampling": psf_oversampling,
        "psf_includes_pixel": psf_includes_pixel,
        "psf_even": "shift",
    }
    folders = (Path(), catalogue.resolve().parent, *(() if images is None else (images,)))
    pixels = Pixels(folders, lambda path: Inputs((path,), **given))
    with progress("drawing", len(table)) as advance:
        drawn = make_report(table, output, pixels, title or catalogue.stem, advance)
    print(f"{len(table)} galaxies, {drawn} with a picture, in {output / 'index.html'}")
    return 0
