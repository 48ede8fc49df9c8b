"""Interactive view of a catalogue in a browser, for ``deeplegato view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deeplegato_pp.cli import options, pictures


def view(
    catalogue: pictures.Catalogue,
    images: pictures.Images = None,
    extension: options.Extension = None,
    psf: pictures.PSF = None,
    psf_oversampling: options.PSFOversampling = None,
    psf_includes_pixel: options.PSFIncludesPixel = None,
    marks: Annotated[
        Path | None,
        typer.Option(
            "--marks",
            metavar="FILE",
            help="Table of your marks: .ecsv.",
            show_default="CATALOGUE's name with .marks.ecsv",
        ),
    ] = None,
    title: pictures.Title = None,
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="N", min=0, max=65535, help="Port of the server; 0 for any free port."
        ),
    ] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> int:
    """View a catalogue in a browser, and mark galaxies by keys.

    The view has a table linked to a scatter plot of any two columns, and the galaxy under the
    cursor. Marks are saved in a separate table. Requires the extra "view".
    """
    from deeplegato_pp.catalog.output import read_catalogue
    from deeplegato_pp.report.rows import Rows
    from deeplegato_pp.view.app import Viewer, require_panel, serve
    from deeplegato_pp.view.marks import Marks, sidecar

    require_panel()
    table = read_catalogue(catalogue)
    given = Marks(marks or sidecar(catalogue), list(Rows(table).columns["name"]))
    pixels = pictures.pixels_for(
        catalogue, images, extension, psf, psf_oversampling, psf_includes_pixel
    )
    name = title or catalogue.stem
    serve(lambda: Viewer(table, pixels, given, name), name, port, browser)
    return 0
