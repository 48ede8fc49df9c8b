"""Lists of sources: read from any table, every row kept, wrong ones with a reason."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.blends import nearest_distances
from deeplegato_pp.errors import FormatError, InputError

logger = logging.getLogger(__name__)

ALIASES = {
    "id": ("id", "label", "source_id", "object_id", "objid", "objectid", "number", "name"),
    "x": ("x", "xcentroid", "x_centroid"),
    "y": ("y", "ycentroid", "y_centroid"),
    "ra": (
        "ra", "ra_deg", "radeg", "alpha_j2000", "alphawin_j2000", "alphapeak_j2000", "alpha_sky",
        "alphawin_sky", "raj2000", "ra_icrs", "raicrs", "coord_ra",
    ),
    "dec": (
        "dec", "dec_deg", "dedeg", "decdeg", "delta_j2000", "deltawin_j2000", "deltapeak_j2000",
        "delta_sky", "deltawin_sky", "dej2000", "decj2000", "de_icrs", "deicrs", "coord_dec",
    ),
    "psf": ("psf",),
    "file": ("file", "cutout", "filename"),
}  # fmt: skip
"""What columns may be called, best first, in any case."""

FROM_ONE = {
    "x": ("x_image", "xwin_image", "xpeak_image", "x_fits", "ximage"),
    "y": ("y_image", "ywin_image", "ypeak_image", "y_fits", "yimage"),
}
"""Columns of pixels that count from 1, as SExtractor and FITS do: 1 is subtracted."""

GALACTIC = (("glon", "glat"), ("l_galactic", "b_galactic"), ("gal_lon", "gal_lat"))
FK4 = (("alpha_b1950", "delta_b1950"), ("alphawin_b1950", "deltawin_b1950"), ("rab1950", "deb1950"))
"""Columns of positions in other frames, which are brought to ICRS. [deg]"""

NUMBERS = ("x", "y", "ra", "dec")
SUFFIXES = (
    ".fits", ".fit", ".ldac", ".ecsv", ".csv", ".parquet", ".vot", ".xml", ".votable", ".cat",
    ".txt", ".dat", ".tsv",
)  # fmt: skip

LARGEST_ID = 2**63 - 1
"""Ids beyond 64 bits stay texts."""

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
        nearest_px: Distance to the nearest other source with pixels; infinite without. [px]
        nearest_arcsec: The same on the sky. [arcsec]
    """

    ids: Array
    x: Array
    y: Array
    ra: Array
    dec: Array
    psf: Array | None = None
    file: Array | None = None
    duplicate: Array | None = None
    nearest_px: Array | None = None
    nearest_arcsec: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | Array | list[int]) -> SourceList:
        """Returns some of the sources."""
        chosen = {k: v[index] for k, v in vars(self).items() if v is not None}
        return SourceList(**chosen)

    def joined(self, other: SourceList) -> SourceList:
        """Returns this list and another of the same columns, one after the other."""
        pairs = {k: (v, getattr(other, k)) for k, v in vars(self).items() if v is not None}
        return SourceList(**{k: np.concatenate(both) for k, both in pairs.items()})

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
        columns = _read(path, suffix)
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
    _check_lengths(columns, where)
    found = {name: _first(columns, aliases) for name, aliases in ALIASES.items()}
    found = {name: values for name, values in found.items() if values is not None}
    found |= _sky_centroid(columns, found)
    found |= _other_frames(columns, found, where)
    found |= _pixels_from_one(columns, found, where)
    if not {"x", "y"} <= set(found) and not {"ra", "dec"} <= set(found) and "file" not in found:
        raise InputError(
            f"{where}: expected columns x, y (0-based pixels), or ra, dec (degrees), or file, got "
            f"{', '.join(map(str, columns)) or 'none'}. Rename them, or give --detect."
        )
    length = len(next(iter(found.values())))
    if length == 0:
        raise InputError(f"{where}: the list has no rows, expected one per source.")
    numbers = {
        name: _numbers(found[name], name, where) if name in found else np.full(length, np.nan)
        for name in NUMBERS
    }
    _check_degrees(numbers["ra"], numbers["dec"], found.get("ra"), where)
    ids = _ids(found["id"]) if "id" in found else np.arange(length)
    if "psf" in found and _is_numeric(found["psf"]):
        logger.warning("%s: column psf holds numbers, no files: it is not used.", where)
        del found["psf"]
    files = {k: _paths(found[k], folder) for k in ("psf", "file") if k in found}
    return mark_duplicates(SourceList(ids=ids, **numbers, **files))


def _check_lengths(columns: Mapping[str, Any], where: str) -> None:
    """Refuses columns that do not all have one value per row."""
    try:
        lengths = {str(name): len(values) for name, values in columns.items()}
    except TypeError:  # of a single value
        raise InputError(
            f"{where}: columns must hold one value per row, got a single one."
        ) from None
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(
            f"{where}: columns must have one value per row, all the same number, got {told}."
        )


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
    pixels, sky = nearest_distances(sources.x, sources.y, sources.ra, sources.dec)
    found = {"duplicate": duplicate, "nearest_px": pixels, "nearest_arcsec": sky}
    return SourceList(**{**vars(sources), **found})


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


def _pixels_from_one(
    columns: Mapping[str, Any], found: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Pixels that count from 1, brought to 0, where there are no others."""
    if "x" in found or "y" in found:
        return {}
    x, y = (_first(columns, FROM_ONE[name]) for name in ("x", "y"))
    if x is None or y is None:
        return {}
    logger.warning("%s: pixels of the list count from 1 (X_IMAGE): 1 is subtracted.", where)
    return {"x": _numbers(x, "x", where) - 1.0, "y": _numbers(y, "y", where) - 1.0}


def _other_frames(
    columns: Mapping[str, Any], found: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """ICRS of Galactic or B1950 columns, where there are no others."""
    if "ra" in found or "dec" in found:
        return {}
    for frame, pairs in (("galactic", GALACTIC), ("fk4", FK4)):
        for pair in pairs:
            first, second = (_first(columns, (name,)) for name in pair)
            if first is None or second is None:
                continue
            from astropy.coordinates import SkyCoord

            longitude, latitude = _numbers(first, "ra", where), _numbers(second, "dec", where)
            latitude = np.where(np.abs(latitude) <= 90, latitude, np.nan)
            sky = SkyCoord(longitude, latitude, unit="deg", frame=frame).icrs
            logger.warning("%s: positions are %s, brought to ICRS.", where, frame.upper())
            return {"ra": np.asarray(sky.ra.deg), "dec": np.asarray(sky.dec.deg)}
    return {}


def _check_degrees(ra: Array, dec: Array, column: Any, where: str) -> None:
    """Says so if angles without a unit look like radians."""
    known = np.isfinite(ra) & np.isfinite(dec)
    if column is None or getattr(column, "unit", None) is not None or not known.any():
        return
    if (
        known.sum() > 1
        and np.abs(ra[known]).max() <= 2 * np.pi
        and np.abs(dec[known]).max() <= np.pi / 2
    ):
        logger.warning(
            "%s: ra and dec lie within (%.4g, %.4g) of 0: are they radians? They are taken as "
            "degrees.", where, np.abs(ra[known]).max(), np.abs(dec[known]).max(),
        )  # fmt: skip


def _is_numeric(values: Any) -> bool:
    return _unmasked(values).dtype.kind in "iufb"


def _sexagesimal(texts: Any, name: str) -> Array | None:
    """Degrees of texts such as 10:00:25.3 (hours for ra); None if they are none."""
    if not all(re.fullmatch(r"\s*[+-]?\d+[:hd ]\s*\d+.*", str(text)) for text in texts):
        return None
    from astropy.coordinates import Angle

    unit = "hourangle" if name == "ra" else "deg"
    return np.asarray(Angle([str(t) for t in texts], unit=unit).deg, dtype=np.float64)


def _unmasked(values: Any) -> Array:
    """A column's values without mask and unit."""
    bare = getattr(values, "value", values)
    # getdata takes the attribute _data, which older pandas' columns have for something else.
    return np.asarray(np.ma.getdata(bare) if np.ma.isMaskedArray(bare) else bare)


def _numbers(values: Any, name: str, where: str) -> Array:
    """Float64, NaN where a value is missing; angles in degrees."""
    unit = getattr(values, "unit", None)
    plain = _unmasked(values)
    if plain.dtype.kind not in "iufb":
        try:
            plain = plain.astype(np.float64)
        except (TypeError, ValueError):
            if name in ("ra", "dec") and (angles := _sexagesimal(plain.tolist(), name)) is not None:
                return angles
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
    plain = _unmasked(values)
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else np.zeros(len(plain), bool)
    if plain.dtype.kind in "iu" and not mask.any() and int(plain.max()) <= LARGEST_ID:
        return plain.astype(np.int64)
    if plain.dtype.kind == "f":
        mask = mask | ~np.isfinite(plain)
        if not mask.any() and bool((plain == np.rint(plain)).all()):
            return plain.astype(np.int64)
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in plain.tolist()]
    texts = [t.strip() for t in texts]
    missing = [
        m or t in ("", "None", "nan", "NaT", "<NA>") for m, t in zip(mask, texts, strict=True)
    ]
    if not any(missing) and all(re.fullmatch(r"[+-]?(0|[1-9]\d{0,18})", t) for t in texts):
        numbers = [int(t) for t in texts]
        if plain.dtype.kind in "OUS" and max(map(abs, numbers)) <= LARGEST_ID:
            return np.array(numbers, dtype=np.int64)
    named = [
        f"row {i}" if lost else t for i, (t, lost) in enumerate(zip(texts, missing, strict=True))
    ]
    return np.array(named, dtype=object)


def _paths(values: Any, folder: Path) -> Array:
    """File names as texts, relative ones from the list's folder; "" where there is none."""
    plain = _unmasked(values).tolist()
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else [False] * len(plain)
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in plain]
    lost = [bool(m) or t.strip() in ("", "None", "nan") for m, t in zip(mask, texts, strict=True)]
    full = ["" if no else str(folder / t.strip()) for t, no in zip(texts, lost, strict=True)]
    return np.array(full, dtype=object)


def _read(path: Path, suffix: str) -> dict[str, Any]:
    """The columns of a list, by its suffix."""
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
    return _columns(path)


def _is_fits(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9) == b"SIMPLE  ="


def _columns(path: Path) -> dict[str, Any]:
    """Of an ECSV or a VOTable."""
    from astropy.table import Table

    kind = "ascii.ecsv" if path.suffix.lower() == ".ecsv" else "votable"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units and of VOTables that bend the standard
        table = Table.read(path, format=kind)
    return {name: table[name] for name in table.colnames}


def _fits_columns(path: Path) -> dict[str, Any]:
    """Of the first table in a FITS file that has positions, as the second one of an LDAC."""
    from astropy.io import fits
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False) as hdus:
            places = [i for i, hdu in enumerate(hdus) if getattr(hdu, "columns", None) is not None]
            if not places:
                raise FormatError(f"{path}: no table in the file, expected one with positions.")
            good = [i for i in places if _has_positions(hdus[i].columns.names)]
            table = Table.read(hdus, hdu=(good or places)[0], format="fits")
    return {name: table[name] for name in table.colnames}


def _has_positions(names: list[str]) -> bool:
    lower = {name.lower() for name in names}
    pairs = [(ALIASES["x"], ALIASES["y"]), (ALIASES["ra"], ALIASES["dec"]), (ALIASES["file"],) * 2]
    pairs += [(FROM_ONE["x"], FROM_ONE["y"])]
    pairs += [((a,), (b,)) for a, b in (*GALACTIC, *FK4)]
    return any(lower & set(first) and lower & set(second) for first, second in pairs)


def _text_columns(path: Path) -> dict[str, Any]:
    """Of SExtractor's ASCII_HEAD, or of columns under a line of names."""
    from astropy.io import ascii as tables

    text = _text(path)
    kind = "sextractor" if re.match(r"#\s*1\s+\S+", text) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = tables.read(text, format=kind) if kind else tables.read(text)
    return {name: table[name] for name in table.colnames}


def _text(path: Path) -> str:
    """A file's text, in UTF-8 with or without its mark, or in Latin-1."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _csv_columns(path: Path) -> dict[str, Any]:
    """The columns of a CSV file: commas, semicolons, tabs or bars; comments; blanks around."""
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
            column_types=dict.fromkeys(texts, pyarrow.string()),  # 64-bit ids stay digit for digit
            strings_can_be_null=False,
            decimal_point="," if comma else ".",
        ),
    )  # fmt: skip
    return {name: _plain_column(table.column(name), name) for name in dict.fromkeys(names)}


def _parquet_columns(path: Path) -> dict[str, Any]:
    """The columns that matter of a Parquet file."""
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
    """A column as an array; missing numbers become NaN, missing ids stay so without rounding."""
    import pyarrow as pa

    if name.lower() in ALIASES["id"] and column.null_count and pa.types.is_integer(column.type):
        return np.array([None if v is None else str(v) for v in column.to_pylist()], dtype=object)
    values = column.to_numpy()
    if column.null_count and values.dtype.kind == "f" and name.lower() in ALIASES["id"]:
        return np.ma.array(values, mask=np.isnan(values))
    if values.dtype.kind == "O" and name.lower() not in ALIASES["id"]:
        return np.array([v.strip() if isinstance(v, str) else v for v in values], dtype=object)
    return values
