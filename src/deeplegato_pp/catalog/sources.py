"""Source lists from files, tables and mappings."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.catalog.source_columns import (
    check_degrees,
    check_lengths,
    ids_of,
    is_numeric,
    numbers_of,
    paths_of,
    recognised_columns,
)
from deeplegato_pp.catalog.source_files import SUFFIXES, columns_of_file
from deeplegato_pp.catalog.source_list import NUMBERS, SourceList, mark_duplicates
from deeplegato_pp.errors import FormatError, InputError

logger = logging.getLogger(__name__)


def read_sources(path: str | os.PathLike[str]) -> SourceList:
    """Reads a list of sources in the format of the file's suffix.

    Columns: ``id`` (rows are numbered from 0 without it), and ``x``, ``y`` (0-based pixels), or
    ``ra``, ``dec`` (degrees), or ``file`` (cutouts); optionally ``psf`` (one file per source).

    Args:
        path: FITS, ECSV, CSV, Parquet, VOTable or text file.

    Raises:
        FormatError: If the file cannot be read.
        InputError: If a column is missing or not numeric, or there are no rows.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"sources {path}: unknown suffix {suffix or '(none)'}, expected one of "
            f"{', '.join(SUFFIXES)}. The suffix says what the table is."
        )
    if not path.is_file():
        raise FormatError(f"sources {path}: no such file. Check the path.")
    try:
        columns = columns_of_file(path, suffix)
    except InputError:
        raise
    except Exception as error:  # the parsers of five formats raise errors of any type
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise FormatError(
            f"sources {path}: cannot be read as {suffix[1:]} ({reason}). Is it complete?"
        ) from error
    return from_columns(columns, str(path), path.parent)


def as_sources(table: Any) -> SourceList:
    """Makes a list of sources from a path, astropy or pandas table, photutils catalogue or mapping.

    Raises:
        InputError: If columns are missing.
    """
    if isinstance(table, SourceList):
        return table
    if isinstance(table, str | os.PathLike):
        return read_sources(table)
    if hasattr(table, "to_table"):  # photutils' SourceCatalog
        table = table.to_table()
    names = getattr(table, "colnames", None) or list(table)
    return from_columns({str(n): table[n] for n in names}, "the table of sources")


def from_columns(columns: Mapping[str, Any], where: str, folder: Path = Path()) -> SourceList:
    """Builds a list of sources from named columns.

    Args:
        columns: Columns by name; the first of several aliases is used.
        where: Origin of the columns, for messages.
        folder: Folder to which relative file names refer.

    Raises:
        InputError: If there are no positions or no rows, or a position is not a number.
    """
    check_lengths(columns, where)
    found = recognised_columns(columns, where)
    if not {"x", "y"} <= set(found) and not {"ra", "dec"} <= set(found) and "file" not in found:
        raise InputError(
            f"{where}: expected columns x, y (0-based pixels), or ra, dec (degrees), or file, got "
            f"{', '.join(map(str, columns)) or 'none'}. Rename them, or give --detect."
        )
    length = len(next(iter(found.values())))
    if length == 0:
        raise InputError(f"{where}: the list has no rows, expected one per source.")
    numbers = {
        name: numbers_of(found[name], name, where) if name in found else np.full(length, np.nan)
        for name in NUMBERS
    }
    check_degrees(numbers["ra"], numbers["dec"], found.get("ra"), where)
    ids = ids_of(found["id"]) if "id" in found else np.arange(length)
    if "psf" in found and is_numeric(found["psf"]):
        logger.warning("%s: column psf has numbers instead of file names: it is not used.", where)
        del found["psf"]
    files = {k: paths_of(found[k], folder) for k in ("psf", "file") if k in found}
    return mark_duplicates(SourceList(ids=ids, **numbers, **files))


def from_files(paths: list[Path]) -> SourceList:
    """Makes a list of sources from cutout files; their ids are the file names.

    Raises:
        InputError: If there are no files.
    """
    if not paths:
        raise InputError("there are no FITS files among the images, expected at least one cutout.")
    nothing = np.full(len(paths), np.nan)
    names = [p.name.removesuffix(".gz").removesuffix(".fz").removesuffix(".fits") for p in paths]
    files = np.array([str(p) for p in paths], dtype=object)
    ids = np.array(names, dtype=object)
    return mark_duplicates(SourceList(ids, nothing, nothing, nothing, nothing, file=files))
