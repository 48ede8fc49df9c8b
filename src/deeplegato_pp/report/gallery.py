"""A gallery of a catalogue: a table of all galaxies and a page of each, as static files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp._version import __version__
from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.columns import descriptions, units
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.report.panels import Panels, Pixels, Row
from deeplegato_pp.report.png import brightness_palette, to_indices, write_png
from deeplegato_pp.report.profile import interval_svg, profile_svg
from deeplegato_pp.scene.parameters import PARAMETERS

SHOWN = (
    "magnitude",
    "effective_radius",
    "sersic_index",
    "axis_ratio",
    "position_angle",
    "snr",
    "chi2",
)
"""Columns of the table at first; others can be added on the page."""

FILES = ("style.css", "gallery.js")
"""Files that are copied as they are."""

FOLDERS = ("thumbnails", "galaxies")

CONTENT = {"index.html", "rows.js", "catalogue.fits", *FILES, *FOLDERS}
"""What a gallery's folder holds."""

LOWEST = -3.0
"""Lower end of the pictures' scale. [sigma]"""

SOFTENING = 2.0
"""Where the pictures' scale goes from linear to logarithmic. [sigma]"""

_HIDDEN = ("_q025", "_q16", "_q50", "_q84", "_q975")
"""Endings of the columns that the galaxies' pages show and the table does not."""

Advance = Callable[[int], None]


def make_report(
    table: Any,
    folder: Path,
    pixels: Pixels,
    title: str = "Catalogue",
    advance: Advance = lambda steps: None,
) -> int:
    """Writes the gallery of a catalogue into a folder.

    ``index.html`` opens from the disk or from a web server: nothing is fetched from elsewhere.
    ``thumbnails`` holds a PNG of each galaxy (image, model and residual side by side on one asinh
    scale), ``galaxies`` a page of each, ``catalogue.fits`` the table with a column ``thumbnail`` of
    paths, which TOPCAT's activation action shows.

    Args:
        table: ``QTable`` of results, a row per galaxy.
        folder: New or empty, or an earlier gallery, which is replaced file by file.
        pixels: Where the images are.
        title: Of the pages.
        advance: Told of each galaxy done.

    Returns:
        How many galaxies have a picture.

    Raises:
        InputError: If the table is empty or no table of results, or the folder holds other files.
    """
    rows = _rows(table)
    check_folder(folder)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    palette = brightness_palette()
    template = _environment().get_template("galaxy.html")
    digits = max(4, len(str(len(rows) - 1)))
    pages = [f"{i:0{digits}d}" for i in range(len(rows))]
    pictures = []
    with _gentle():
        for i, row in enumerate(rows):
            found = pixels.panels(row)
            content: dict[str, Any] = {"reason": found}
            if isinstance(found, Panels):
                strip, peak = picture(found)
                write_png(strip, folder / "thumbnails" / f"{pages[i]}.png", palette)
                content = _about_picture(row, found, peak)
            pictures.append(isinstance(found, Panels))
            text = template.render(
                row=row,
                page=pages[i],
                previous=pages[i - 1] if i else None,
                following=pages[i + 1] if i + 1 < len(rows) else None,
                parameters=_parameters(row),
                flags=_flags(row),
                others=_others(row),
                **content,
            )
            (folder / "galaxies" / f"{pages[i]}.html").write_text(text, encoding="utf-8")
            advance(1)
    _write_index(rows, folder, title, pages, pictures)
    _write_table(table, folder, pages, pictures)
    return sum(pictures)


def check_folder(folder: Path) -> None:
    """Refuses a folder that cannot take a gallery; call it before the work.

    Raises:
        InputError: If it is a file, its parent is missing, or it holds other files.
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


def picture(panels: Panels) -> tuple[Array, float]:
    """Returns image, model and residual side by side as palette indices, and the peak in sigmas."""
    shown = [panels.image, panels.model, panels.residual]
    known = panels.image[np.isfinite(panels.image) & ~panels.mask]
    highest = float(np.percentile(known, 99.8)) if known.size else 0.0
    if panels.model is not None:
        highest = max(highest, float(panels.model.max()))
    peak = max(highest / panels.sigma, 5.0)
    low, high = (math.asinh(v / SOFTENING) for v in (LOWEST, peak))
    nothing = np.zeros(panels.mask.shape, dtype=bool)
    parts = []
    for k, pixels in enumerate(shown):
        if pixels is None:
            parts.append(to_indices(np.full(nothing.shape, np.nan), low, high, nothing))
            continue
        mask = nothing if k == 1 else panels.mask
        stretched = np.arcsinh(pixels / panels.sigma / SOFTENING)
        parts.append(to_indices(stretched, low, high, mask))
    return np.hstack(parts), peak


@contextmanager
def _gentle() -> Iterator[None]:
    """Renders without gradients."""
    import torch

    with torch.no_grad():
        yield


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("deeplegato_pp.report", "templates")
    return Environment(loader=loader, autoescape=True, undefined=_lenient(StrictUndefined))


def _lenient(strict: Any) -> Any:
    """What a page may leave out is tested by ``if``: only printing an unknown name is an error."""

    class Lenient(strict):  # type: ignore[misc]
        def __bool__(self) -> bool:
            return False

    return Lenient


def _rows(table: Any) -> list[Row]:
    """Returns the table's rows as plain dictionaries, unknown numbers as None."""
    needed = ("magnitude", "quality")
    missing = [name for name in needed if name not in table.colnames]
    if missing or not len(table):
        raise InputError(
            f"a gallery is made of a table of results with at least one row, got {len(table)} rows "
            f"and no column {', '.join(missing) or 'missing'}. Give what deeplegato predict or "
            "deeplegato catalog wrote."
        )
    plain = {name: _plain(table[name]) for name in table.colnames}
    rows = [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]
    for i, row in enumerate(rows):
        name = row.get("id", row.get("name"))
        row["name"] = str(i if name is None or name == "" else name)
        row.setdefault("flag_names", "")
        row.setdefault("reason", "")
    return rows


def _plain(column: Any) -> list[Any]:
    values = np.asarray(getattr(column, "value", column))
    if values.dtype.kind == "f":
        return [float(v) if math.isfinite(v) else None for v in values]
    if values.dtype.kind in "iu":
        return [int(v) for v in values]
    return [str(v) for v in column]  # a column from FITS decodes its bytes, its array does not


def _about_picture(row: Row, panels: Panels, peak: float) -> dict[str, Any]:
    side = panels.image.shape[0]
    drawing = ""
    if panels.model is not None:
        drawing = profile_svg(panels, row["axis_ratio"], row["position_angle"])
    return {
        "picture": True,
        "side": side,
        "arcsec": f"{side * panels.pixel_scale:.3g}",
        "peak": f"{peak:.3g}",
        "profile": drawing,
    }


def _parameters(row: Row) -> list[dict[str, str]]:
    """What a page says of the seven parameters; nothing if they were not measured."""
    found = []
    for p in PARAMETERS:
        if row.get(p.name) is None:
            return []
        error = row.get(f"{p.name}_std") or 0.0
        digits = max(0, min(6, 1 - math.floor(math.log10(error)))) if error > 0 else 4
        middle = row.get(f"{p.name}_q50")
        found.append(
            {
                "name": p.name,
                "value": f"{row[p.name]:.{digits}f}",
                "error": f"{error:.{digits}f}",
                "median": "" if middle is None else f"{middle:.{digits}f}",
                "drawing": interval_svg(row, p.name),
                "unit": p.unit,
                "meaning": p.meaning,
            }
        )
    return found


def _flags(row: Row) -> list[dict[str, str]]:
    return [
        {"name": f.name.lower(), "level": f.level, "meaning": f.meaning}
        for f in Flag
        if f.name and int(row.get("flags") or 0) & f
    ]


def _others(row: Row) -> list[tuple[str, str, str]]:
    """Columns that a page has not shown already: name, value with error and unit, meaning."""
    known, meanings = units(), descriptions()
    skip = {p.name for p in PARAMETERS} | {"name", "quality", "flags", "flag_names", "reason"}
    found = []
    for name, value in row.items():
        hidden = name.endswith(("_std", *_HIDDEN)) or name.startswith("prior_")
        if name in skip or hidden or value is None or value == "":
            continue
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        error = row.get(f"{name}_std")
        if isinstance(error, float):
            text += f" ± {error:.2g}"
        found.append((name, f"{text} {known.get(name, '')}".strip(), meanings.get(name, "")))
    return found


def _write_index(
    rows: list[Row], folder: Path, title: str, pages: list[str], pictures: list[bool]
) -> None:
    known, meanings = units(), descriptions()
    numeric = [
        name
        for name in rows[0]
        if name != "flags"
        and not name.endswith(_HIDDEN)
        and any(isinstance(row[name], int | float) for row in rows)
    ]
    data = {
        "names": [row["name"] for row in rows],
        "quality": [row["quality"] for row in rows],
        "flags": [row["flag_names"] for row in rows],
        "flagNames": sorted({f for row in rows for f in row["flag_names"].split(",") if f}),
        "pages": pages,
        "pictures": pictures,
        "shown": [name for name in SHOWN if name in numeric],
        "columns": {
            name: {
                "unit": known.get(name, ""),
                "description": meanings.get(name, ""),
                "values": [_short(row[name]) for row in rows],
            }
            for name in numeric
        },
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    (folder / "rows.js").write_text(f"window.GALLERY={text};\n", encoding="utf-8")
    page = _environment().get_template("index.html")
    index = page.render(
        title=title,
        number=len(rows),
        measured=sum(row["magnitude"] is not None for row in rows),
        software=f"deeplegato-pp {__version__}",
    )
    (folder / "index.html").write_text(index, encoding="utf-8")
    here = resources.files("deeplegato_pp.report") / "templates"
    for name in FILES:
        (folder / name).write_text((here / name).read_text(encoding="utf-8"), encoding="utf-8")


def _short(value: Any) -> Any:
    """A number with seven digits: what is shown has five."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def _write_table(table: Any, folder: Path, pages: list[str], pictures: list[bool]) -> None:
    copy = table.copy()
    paths = [
        str((folder / "thumbnails" / f"{page}.png").resolve()) if there else ""
        for page, there in zip(pages, pictures, strict=True)
    ]
    copy["thumbnail"] = np.array(paths, dtype=str)
    copy["thumbnail"].info.description = "picture of image, model and residual"
    copy.write(folder / "catalogue.fits", format="fits", overwrite=True)
