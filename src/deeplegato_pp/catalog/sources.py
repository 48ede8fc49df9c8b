"""Lists of sources: read from any table, every row kept, wrong ones with a reason."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import FormatError, InputError

ALIASES = {
    "id": ("id", "label", "source_id", "object_id", "objid", "objectid", "number", "name"),
    "x": ("x", "xcentroid", "x_centroid"),
    "y": ("y", "ycentroid", "y_centroid"),
    "ra": ("ra", "ra_deg", "alpha_j2000", "raj2000", "ra_icrs"),
    "dec": ("dec", "dec_deg", "delta_j2000", "dej2000", "decj2000", "de_icrs"),
    "psf": ("psf",),
    "file": ("file", "cutout", "filename"),
}
"""What columns may be called, best first, in any case."""

NUMBERS = ("x", "y", "ra", "dec")
SUFFIXES = (".fits", ".fit", ".ecsv", ".csv", ".parquet", ".vot", ".xml", ".votable")

SAME_PLACE = 0.1
"""Sources closer than this are one source given twice. [px; arcsec where only RA, Dec are known]"""


@dataclass(frozen=True, eq=False)
class SourceList:
    """Sources, one entry each, in the order of the list.

    Attributes:
        ids: Whole numbers or texts, with shape (N,).
        x: Column, 0-based, with shape (N,); NaN where not given. [px]
        y: Row. [px]
        ra: ICRS right ascension; NaN where not given. [deg]
        dec: Declination. [deg]
        psf: PSF file of each source, "" for none; None: the list has no such column.
        file: Ready-made cutout of each; None: they lie in mosaics.
        duplicate: Whether the list holds the source more than once.
    """

    ids: Array
    x: Array
    y: Array
    ra: Array
    dec: Array
    psf: Array | None = None
    file: Array | None = None
    duplicate: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | Array | list[int]) -> SourceList:
        """Returns some of the sources."""
        chosen = {k: v[index] for k, v in vars(self).items() if v is not None}
        return SourceList(**chosen)

    def label(self, i: int) -> str:
        """What to call a source in messages."""
        return str(self.ids[i])

    def key(self, i: int) -> str:
        """What makes a source's random numbers its own: its id and position as given."""
        numbers = ",".join(float(getattr(self, name)[i]).hex() for name in NUMBERS)
        file = "" if self.file is None else Path(str(self.file[i])).name
        return f"{self.ids[i]}|{numbers}|{file}"

    def seed(self, i: int, seed: int) -> int:
        """Returns the seed of one source, non-negative, for its draws alone."""
        digest = hashlib.blake2b(f"{seed}|{self.key(i)}".encode(), digest_size=8)
        return int.from_bytes(digest.digest(), "little") >> 1

    def digest(self) -> str:
        """Returns a fingerprint of the whole list."""
        digest = hashlib.blake2b(digest_size=16)
        for name, values in vars(self).items():
            if values is not None:
                digest.update(name.encode())
                plain = values.astype(str) if values.dtype.kind == "O" else values
                digest.update(str(plain.dtype).encode() + np.ascontiguousarray(plain).tobytes())
        return digest.hexdigest()


def read_sources(path: str | os.PathLike[str]) -> SourceList:
    """Reads a list of sources; its suffix says what it is.

    Columns: ``id`` (else the rows are numbered from 0), and ``x``, ``y`` (0-based pixels), or
    ``ra``, ``dec`` (degrees), or ``file`` (ready-made cutouts); optionally ``psf`` (a file each).

    Args:
        path: FITS, ECSV, CSV, Parquet or VOTable.

    Raises:
        FormatError: If it cannot be read.
        InputError: If a column is missing or holds no numbers, or there are no rows.
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
        columns = _arrow_columns(path) if suffix in (".csv", ".parquet") else _columns(path)
    except InputError:
        raise
    except Exception as error:  # parsers of five formats raise what they like
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise FormatError(
            f"sources {path}: cannot be read as {suffix[1:]} ({reason}). Is it complete?"
        ) from error
    return from_columns(columns, str(path), path.parent)


def as_sources(table: Any) -> SourceList:
    """Returns sources of a path, an astropy or pandas table, photutils' catalogue, or a mapping.

    Raises:
        InputError: If the columns are not there.
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
        columns: By name; of each alias the first one found serves.
        where: Where they come from, for messages.
        folder: To which relative file names in them refer.

    Raises:
        InputError: If there are no positions or no rows, or a position is no number.
    """
    found = {name: _first(columns, aliases) for name, aliases in ALIASES.items()}
    found = {name: values for name, values in found.items() if values is not None}
    found |= _sky_centroid(columns, found)
    if not {"x", "y"} <= set(found) and not {"ra", "dec"} <= set(found) and "file" not in found:
        remedy = "Rename them, or give --detect."
        if any(str(name).lower() == "x_image" for name in columns):
            remedy = "SExtractor counts from 1: give x = X_IMAGE - 1, y = Y_IMAGE - 1."
        raise InputError(
            f"{where}: expected columns x, y (0-based pixels), or ra, dec (degrees), or file, got "
            f"{', '.join(map(str, columns)) or 'none'}. {remedy}"
        )
    length = len(next(iter(found.values())))
    if length == 0:
        raise InputError(f"{where}: the list has no rows, expected one per source.")
    numbers = {
        name: _numbers(found[name], name, where) if name in found else np.full(length, np.nan)
        for name in NUMBERS
    }
    ids = _ids(found["id"]) if "id" in found else np.arange(length)
    files = {k: _paths(found[k], folder) for k in ("psf", "file") if k in found}
    return mark_duplicates(SourceList(ids=ids, **numbers, **files))


def mark_duplicates(sources: SourceList) -> SourceList:
    """Returns the list with those marked that it holds more than once."""
    _, inverse, counts = np.unique(sources.ids, return_inverse=True, return_counts=True)
    duplicate = counts[inverse] > 1
    if sources.file is None:
        sky = np.isnan(sources.x) | np.isnan(sources.y)
        scale = np.where(sky, 3600.0 / SAME_PLACE, 1.0 / SAME_PLACE)
        first = np.where(sky, sources.ra, sources.x) * scale
        second = np.where(sky, sources.dec, sources.y) * scale
        known = np.flatnonzero(np.isfinite(first) & np.isfinite(second))
        places = np.round(np.stack([first[known], second[known], sky[known]], 1))
        if len(known):
            _, inverse, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
            duplicate[known] |= counts[inverse.ravel()] > 1
    return SourceList(**{**vars(sources), "duplicate": duplicate})


def from_files(paths: list[Path]) -> SourceList:
    """Returns ready-made cutouts as a list of sources, called by their files' names.

    Raises:
        InputError: If there are none.
    """
    if not paths:
        raise InputError("there are no FITS files among the images, expected at least one cutout.")
    nothing = np.full(len(paths), np.nan)
    names = [p.name.removesuffix(".gz").removesuffix(".fz").removesuffix(".fits") for p in paths]
    files = np.array([str(p) for p in paths], dtype=object)
    ids = np.array(names, dtype=object)
    return mark_duplicates(SourceList(ids, nothing, nothing, nothing, nothing, file=files))


def _first(columns: Mapping[str, Any], aliases: tuple[str, ...]) -> Any:
    lower = {str(name).lower(): name for name in reversed(list(columns))}
    for alias in aliases:
        if alias in lower:
            return columns[lower[alias]]
    return None


def _sky_centroid(columns: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """RA and Dec of a column of sky coordinates, where there are no others."""
    if "ra" in found or "dec" in found:
        return {}
    for name in columns:
        if str(name).lower() in ("sky_centroid", "skycoord", "coord"):
            coordinates = columns[name]
            if hasattr(coordinates, "icrs"):
                return {"ra": coordinates.icrs.ra.deg, "dec": coordinates.icrs.dec.deg}
    return {}


def _numbers(values: Any, name: str, where: str) -> Array:
    """Float64, NaN where a value is missing; angles in degrees."""
    unit = getattr(values, "unit", None)
    plain = np.asarray(np.ma.getdata(getattr(values, "value", values)))
    if plain.dtype.kind not in "iufb":
        try:
            plain = plain.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError(
                f"{where}: column {name} must hold numbers, got {str(plain[0])!r} in its first "
                "row. Give pixels from 0, or degrees."
            ) from None
    numbers = np.array(plain, dtype=np.float64)
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else None
    if mask is None:
        mask = getattr(values, "mask", None)
    if mask is not None and not callable(mask):
        numbers[np.asarray(mask, dtype=bool)] = np.nan
    if unit is not None and name in ("ra", "dec"):
        from astropy import units as u

        if u.Unit(unit).is_equivalent(u.deg):
            numbers = numbers * u.Unit(unit).to(u.deg)
    return numbers


def _ids(values: Any) -> Array:
    """Whole numbers where all are, else texts; a missing one is "row N"."""
    plain = np.asarray(np.ma.getdata(getattr(values, "value", values)))
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else np.zeros(len(plain), bool)
    if plain.dtype.kind in "iu" and not mask.any():
        return plain.astype(np.int64)
    if plain.dtype.kind == "f":
        mask = mask | ~np.isfinite(plain)
        if not mask.any() and bool((plain == np.rint(plain)).all()):
            return plain.astype(np.int64)
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in plain.tolist()]
    missing = [
        m or t in ("", "None", "nan", "NaT", "<NA>") for m, t in zip(mask, texts, strict=True)
    ]
    named = [
        f"row {i}" if lost else t.strip()
        for i, (t, lost) in enumerate(zip(texts, missing, strict=True))
    ]
    return np.array(named, dtype=object)


def _paths(values: Any, folder: Path) -> Array:
    """File names as texts, relative ones from the list's folder; "" where there is none."""
    plain = np.asarray(np.ma.getdata(values)).tolist()
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else [False] * len(plain)
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in plain]
    lost = [bool(m) or t.strip() in ("", "None", "nan") for m, t in zip(mask, texts, strict=True)]
    full = ["" if no else str(folder / t.strip()) for t, no in zip(texts, lost, strict=True)]
    return np.array(full, dtype=object)


def _columns(path: Path) -> dict[str, Any]:
    from astropy.table import Table

    suffix = path.suffix.lower()
    kind = {".fits": "fits", ".fit": "fits", ".ecsv": "ascii.ecsv"}.get(suffix, "votable")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units and of VOTables that bend the standard
        table = Table.read(path, format=kind)
    return {name: table[name] for name in table.colnames}


def _arrow_columns(path: Path) -> dict[str, Any]:
    """The columns that matter of a CSV or Parquet file; missing numbers become NaN."""
    import pyarrow.csv
    import pyarrow.parquet as pq

    wanted = {alias for aliases in ALIASES.values() for alias in aliases}
    if path.suffix.lower() == ".csv":
        table = pyarrow.csv.read_csv(path)
    else:
        names = [n for n in pq.read_schema(path).names if n.lower() in wanted]
        everything = pq.read_schema(path).names
        table = pq.read_table(path, columns=names or everything[:1])
        if not names:
            return dict.fromkeys(everything, np.zeros(0))
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        values = column.to_numpy()
        if column.null_count and values.dtype.kind == "f" and name.lower() in ALIASES["id"]:
            values = np.ma.array(values, mask=np.isnan(values))
        columns[name] = values
    return columns
