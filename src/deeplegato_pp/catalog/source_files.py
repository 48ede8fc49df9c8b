"""Readers of source lists in FITS, ECSV, VOTable, CSV, Parquet and text files."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.catalog.source_columns import ALIASES, FK4, FROM_ONE, GALACTIC, has_positions
from deeplegato_pp.errors import FormatError, InputError

SUFFIXES = (
    ".fits", ".fit", ".ldac", ".ecsv", ".csv", ".parquet", ".vot", ".xml", ".votable", ".cat",
    ".txt", ".dat", ".tsv",
)  # fmt: skip
"""Suffixes of files that can be read as lists of sources."""


def columns_of_file(path: Path, suffix: str) -> dict[str, Any]:
    """Reads the columns of a list of sources.

    Args:
        path: The file.
        suffix: Its suffix in lower case, one of :data:`SUFFIXES`, which gives the format.

    Raises:
        FormatError: If a FITS file has no table.
        InputError: If a CSV file has no header line.
    """
    if suffix == ".parquet":
        return _parquet_columns(path)
    if suffix in (".csv", ".tsv"):
        return _csv_columns(path)
    if suffix in (".cat", ".txt", ".dat"):
        if _is_fits(path):
            return _fits_columns(path)
        return _text_columns(path)
    if suffix in (".fits", ".fit", ".ldac"):
        return _fits_columns(path)
    return _astropy_columns(path)


def _is_fits(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9) == b"SIMPLE  ="


def _astropy_columns(path: Path) -> dict[str, Any]:
    """Reads an ECSV file or a VOTable."""
    from astropy.table import Table

    kind = "ascii.ecsv" if path.suffix.lower() == ".ecsv" else "votable"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about units and VOTables that violate the standard
        table = Table.read(path, format=kind)
    return {name: table[name] for name in table.colnames}


def _fits_columns(path: Path) -> dict[str, Any]:
    """Reads the first table with positions in a FITS file, such as the second one of an LDAC."""
    from astropy.io import fits
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False) as hdus:
            places = [i for i, hdu in enumerate(hdus) if getattr(hdu, "columns", None) is not None]
            if not places:
                raise FormatError(f"{path}: no table in the file, expected one with positions.")
            good = [i for i in places if has_positions(hdus[i].columns.names)]
            table = Table.read(hdus, hdu=(good or places)[0], format="fits")
    return {name: table[name] for name in table.colnames}


def _text_columns(path: Path) -> dict[str, Any]:
    """Reads SExtractor's ASCII_HEAD, or columns below a header line."""
    from astropy.io import ascii as tables

    text = _text(path)
    kind = "sextractor" if re.match(r"#\s*1\s+\S+", text) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = tables.read(text, format=kind) if kind else tables.read(text)
    return {name: table[name] for name in table.colnames}


def _text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without byte order mark, or in Latin-1."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _csv_columns(path: Path) -> dict[str, Any]:
    """Reads a CSV file separated by commas, semicolons, tabs or bars, with comments and blanks."""
    import io

    import pyarrow.csv

    lines = _text(path).splitlines(keepends=True)
    while lines and (lines[0].lstrip().startswith("#") or not lines[0].strip()):
        lines.pop(0)
    if not lines:
        raise InputError(
            f"sources {path}: the file has no line of names, expected x, y or ra, dec."
        )
    delimiter = max(",;\t|", key=lines[0].count)
    comma = delimiter != "," and any(re.search(r"\d,\d", line) for line in lines[1:100])
    names = [name.strip().strip("\"'") for name in lines[0].rstrip("\r\n").split(delimiter)]
    texts = [n for n in names if n.lower() in (*ALIASES["id"], *ALIASES["file"])]
    table = pyarrow.csv.read_csv(
        io.BytesIO("".join(lines[1:]).encode()) if len(lines) > 1 else io.BytesIO(b""),
        read_options=pyarrow.csv.ReadOptions(column_names=names),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(texts, pyarrow.string()),  # 64-bit ids keep all digits
            strings_can_be_null=False,
            decimal_point="," if comma else ".",
        ),
    )  # fmt: skip
    return {name: _plain_column(table.column(name), name) for name in dict.fromkeys(names)}


def _parquet_columns(path: Path) -> dict[str, Any]:
    """Reads the recognised columns of a Parquet file."""
    import pyarrow.parquet as pq

    groups = (*ALIASES.values(), *FROM_ONE.values(), *GALACTIC, *FK4)
    wanted = {alias for aliases in groups for alias in aliases}
    everything = pq.read_schema(path).names
    names = [n for n in everything if n.lower() in wanted]
    if not names:
        return dict.fromkeys(everything, np.zeros(0))
    table = pq.read_table(path, columns=names)
    return {name: _plain_column(table.column(name), name) for name in table.column_names}


def _plain_column(column: Any, name: str) -> Any:
    """Converts a column to an array; missing numbers become NaN, ids are not rounded."""
    import pyarrow as pa

    if name.lower() in ALIASES["id"] and column.null_count and pa.types.is_integer(column.type):
        return np.array([None if v is None else str(v) for v in column.to_pylist()], dtype=object)
    values = column.to_numpy()
    if column.null_count and values.dtype.kind == "f" and name.lower() in ALIASES["id"]:
        return np.ma.array(values, mask=np.isnan(values))
    if values.dtype.kind == "O" and name.lower() not in ALIASES["id"]:
        return np.array([v.strip() if isinstance(v, str) else v for v in values], dtype=object)
    return values
