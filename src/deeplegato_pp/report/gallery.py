"""Gallery of a catalogue as static files: a table of all galaxies and a page for each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp._version import __version__
from deeplegato_pp.errors import InputError
from deeplegato_pp.report.details import content_of, environment
from deeplegato_pp.report.panels import Pixels
from deeplegato_pp.report.png import brightness_palette, encode_png
from deeplegato_pp.report.rows import SHOWN, Rows

FILES = ("style.css", "gallery.js")
"""Files that are copied unchanged."""

FOLDERS = ("thumbnails", "galaxies")

CONTENT = {"index.html", "rows.js", "catalogue.fits", *FILES, *FOLDERS}
"""Contents of a gallery's folder."""

Advance = Callable[[int], None]


def make_report(
    table: Any,
    folder: Path,
    pixels: Pixels,
    title: str = "Catalogue",
    advance: Advance = lambda steps: None,
) -> int:
    """Writes the gallery of a catalogue into a folder.

    ``index.html`` can be opened from disk or from a web server, without external resources.
    ``thumbnails`` contains a PNG of each galaxy (image, model and residual side by side on one
    asinh scale), ``galaxies`` a page of each, ``catalogue.fits`` the table with a column
    ``thumbnail`` of paths, which TOPCAT's activation action displays.

    Args:
        table: ``QTable`` of results, one row per galaxy.
        folder: Output folder: new, empty, or an earlier gallery, whose files are replaced.
        pixels: Source of the images.
        title: Title of the pages.
        advance: Called for each finished galaxy.

    Returns:
        Number of galaxies with a picture.

    Raises:
        InputError: If the table is empty or has no results, or the folder contains other files.
    """
    rows = Rows(table)
    check_folder(folder)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    palette = brightness_palette()
    template = environment().get_template("galaxy.html")
    digits = max(4, len(str(len(rows) - 1)))
    pages = [f"{i:0{digits}d}" for i in range(len(rows))]
    pictures = []
    for i, page in enumerate(pages):
        content = content_of(rows, i, pixels, f"../thumbnails/{page}.png")
        pictures.append("strip" in content)
        if pictures[-1]:
            png = encode_png(content["strip"], palette)
            (folder / "thumbnails" / f"{page}.png").write_bytes(png)
        text = template.render(
            previous=pages[i - 1] if i else None,
            following=pages[i + 1] if i + 1 < len(rows) else None,
            **content,
        )
        (folder / "galaxies" / f"{page}.html").write_text(text, encoding="utf-8")
        advance(1)
    _write_index(rows, folder, title, pages, pictures)
    _write_table(table, folder, pages, pictures)
    return sum(pictures)


def check_folder(folder: Path) -> None:
    """Checks before any work that a folder can hold a gallery.

    Raises:
        InputError: If it is a file, its parent is missing, or it contains other files.
    """
    if folder.is_file():
        raise InputError(f"output {folder} is a file, expected a folder. Give another name.")
    if not folder.resolve().parent.is_dir():
        raise InputError(f"output {folder}: folder {folder.parent} does not exist. Make it first.")
    strangers = (
        [p.name for p in folder.iterdir() if p.name not in CONTENT] if folder.is_dir() else []
    )
    if strangers:
        raise InputError(
            f"output {folder} holds other files ({', '.join(strangers[:3])}), expected a new or "
            "empty folder, or an earlier gallery. Choose another name."
        )


def _write_index(
    rows: Rows, folder: Path, title: str, pages: list[str], pictures: list[bool]
) -> None:
    numeric = rows.numeric
    data = {
        "names": list(rows.columns["name"]),
        "quality": list(rows.columns["quality"]),
        "flags": list(rows.columns["flag_names"]),
        "flagNames": rows.flag_names,
        "scenes": rows.scenes,
        "scene": list(rows.columns["best_scene"]) if rows.scenes else [],
        "pages": pages,
        "pictures": pictures,
        "shown": [name for name in SHOWN if name in numeric],
        "columns": {
            name: {
                "unit": rows.units.get(name, ""),
                "description": rows.meanings.get(name, ""),
                "values": [_short(value) for value in rows.columns[name].tolist()],
            }
            for name in numeric
        },
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    (folder / "rows.js").write_text(f"window.GALLERY={text};\n", encoding="utf-8")
    page = environment().get_template("index.html")
    index = page.render(
        title=title,
        number=len(rows),
        measured=int(np.isfinite(rows.columns["magnitude"]).sum()),
        software=f"deeplegato-pp {__version__}",
    )
    (folder / "index.html").write_text(index, encoding="utf-8")
    here = resources.files("deeplegato_pp.report") / "templates"
    for name in FILES:
        (folder / name).write_text((here / name).read_text(encoding="utf-8"), encoding="utf-8")


def _short(value: Any) -> Any:
    """Returns a number with seven digits, of which five are shown; None if it is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _write_table(table: Any, folder: Path, pages: list[str], pictures: list[bool]) -> None:
    copy = table.copy()
    paths = [
        str((folder / "thumbnails" / f"{page}.png").resolve()) if there else ""
        for page, there in zip(pages, pictures, strict=True)
    ]
    copy["thumbnail"] = np.array(paths, dtype=str)
    copy["thumbnail"].info.description = "picture of image, model and residual"
    copy.write(folder / "catalogue.fits", format="fits", overwrite=True)
