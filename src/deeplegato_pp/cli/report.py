"""Gallery of a catalogue as static pages, for ``deeplegato report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deeplegato_pp.cli import options, pictures


def report(
    catalogue: pictures.Catalogue,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the pages.")
    ],
    images: pictures.Images = None,
    extension: options.Extension = None,
    psf: pictures.PSF = None,
    psf_oversampling: options.PSFOversampling = None,
    psf_includes_pixel: options.PSFIncludesPixel = None,
    title: pictures.Title = None,
) -> int:
    """Make a gallery with thumbnails, a table to sort and filter, and a page per galaxy.

    Open DIR/index.html in a browser; no server and no network are needed.
    """
    from deeplegato_pp.catalog.output import read_catalogue
    from deeplegato_pp.cli.display import progress
    from deeplegato_pp.report.gallery import check_folder, make_report

    check_folder(output)
    table = read_catalogue(catalogue)
    pixels = pictures.pixels_for(
        catalogue, images, extension, psf, psf_oversampling, psf_includes_pixel
    )
    with progress("drawing", len(table)) as advance:
        drawn = make_report(table, output, pixels, title or catalogue.stem, advance)
    print(f"{len(table)} galaxies, {drawn} with a picture, in {output / 'index.html'}")
    return 0
