"""Writing of catalogues from part files: Parquet, a folder of Parquet files, FITS or ECSV."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.catalog.columns import (
    DRAWS,
    descriptions,
    for_astropy,
    to_qtable,
)
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.files import check_output, written_whole

SUFFIXES = (".parquet", ".fits", ".ecsv")
"""Suffixes of single files; a name without suffix is a folder."""

ROWS_PER_GROUP = 16_384
"""Number of rows per Parquet row group, and in memory while parts are joined."""

ROWS_PER_FILE = 262_144
"""Number of rows per file of a folder."""

FITS_BLOCK = 2880


def is_folder(path: Path) -> bool:
    """Returns whether an output is a folder of Parquet files."""
    return not path.suffix or path.is_dir()


def check_catalogue_output(path: str | os.PathLike[str], draws: int) -> Path:
    """Checks that an output can be written, before any work.

    Raises:
        InputError: If the suffix is unknown, the folder above is missing or may not be written
            to, or the format cannot hold draws.
    """
    path = Path(path)
    if is_folder(path):
        if not path.resolve().parent.is_dir():
            raise InputError(f"output {path}: folder {path.parent} does not exist. Make it first.")
        strangers = [p.name for p in path.glob("[!._]*") if not p.name.startswith("part-")]
        if path.is_dir() and strangers:
            raise InputError(
                f"output {path} is a folder with other files in it ({', '.join(strangers[:3])}), "
                "expected a new one or that of a catalogue. Choose another name."
            )
        return path
    check_output(path, SUFFIXES, "catalogue")
    if draws and path.suffix.lower() != ".parquet":
        raise InputError(
            f"draws are kept in Parquet only, got {path.suffix}. Give -o FILE.parquet, or leave "
            "--draws out."
        )
    return path


def work_folder(path: Path) -> Path:
    """Returns the work folder for the parts of an output."""
    return path / "_work" if is_folder(path) else path.with_name(f".{path.name}.work")


def write_catalogue(parts: Iterable[Path], path: Path, schema: Any, suffix: str = "") -> list[Path]:
    """Joins parts, in their order, into the catalogue; returns its files.

    Args:
        parts: Part files.
        path: The output.
        schema: Schema of the catalogue, with its metadata.
        suffix: Suffix of a shard's files in a folder.
    """
    parts = list(parts)
    if is_folder(path):
        return _write_folder(parts, path, schema, suffix)
    writer = {".parquet": _write_parquet, ".fits": _write_fits, ".ecsv": _write_ecsv}
    with written_whole(path) as temporary:
        writer[path.suffix.lower()](parts, temporary, schema)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    return [path]


def tables(parts: Iterable[Path], schema: Any, rows: int = ROWS_PER_GROUP) -> Iterator[Any]:
    """Yields the parts' rows, combined into tables of about `rows` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    held: list[Any] = []
    number = 0
    for part in parts:
        table = pq.read_table(part, partitioning=None).select(schema.names)
        held.append(table.replace_schema_metadata(schema.metadata))
        number += len(table)
        if number >= rows:
            yield pa.concat_tables(held)
            held, number = [], 0
    if held:
        yield pa.concat_tables(held)


def _write_parquet(parts: list[Path], path: Path, schema: Any) -> None:
    import pyarrow.parquet as pq

    widths, _ = _text_widths(parts, schema)
    schema = for_astropy(schema, widths)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for table in tables(parts, schema):
            writer.write_table(table.cast(schema))


def _write_folder(parts: list[Path], folder: Path, schema: Any, suffix: str) -> list[Path]:
    """Writes files of about ``ROWS_PER_FILE`` rows, replacing earlier ones of the same shard."""
    import pyarrow.parquet as pq

    written: list[Path] = []
    start, rows = 0, 0
    for stop, part in enumerate(parts, 1):
        rows += pq.read_metadata(part).num_rows
        if rows >= ROWS_PER_FILE or stop == len(parts):
            target = folder / f"part{suffix}-{len(written):05d}.parquet"
            with written_whole(target) as temporary:
                _write_parquet(parts[start:stop], temporary, schema)
            written.append(target)
            start, rows = stop, 0
    for old in folder.glob(f"part{suffix}-?????.parquet"):
        if old not in written:
            old.unlink()
    return written


def _header_cards(schema: Any) -> dict[str, str]:
    """Returns the table's metadata for FITS and ECSV: upper case, at most eight letters."""
    names = {
        "software": "SOFTWARE",
        "model": "MODEL",
        "command": "COMMAND",
        "configuration": "CONFIG",
    }
    found = {k.decode(): v.decode() for k, v in (schema.metadata or {}).items()}
    return {card: found[name] for name, card in names.items() if name in found}


def _write_ecsv(parts: list[Path], path: Path, schema: Any) -> None:
    """Writes the header once, and then the rows table by table."""
    import io

    with path.open("w", encoding="utf-8") as file:
        for i, table in enumerate(tables(parts, schema)):
            chunk = to_qtable(table)
            chunk.meta.update(_header_cards(schema))
            text = io.StringIO()
            chunk.write(text, format="ascii.ecsv")
            lines = text.getvalue().splitlines(keepends=True)
            rows = [line for line in lines if not line.startswith("#")]
            file.writelines(lines if i == 0 else rows[1:])


def _write_fits(parts: list[Path], path: Path, schema: Any) -> None:
    """Writes a binary table part by part, with text widths found in a first pass."""
    from astropy.io import fits
    from astropy.table import QTable

    widths, rows = _text_widths(parts, schema)
    dtypes: list[tuple[str, str]] = []
    first = True
    with path.open("wb") as file:
        for table in tables(parts, schema):
            chunk: QTable = to_qtable(table)
            for name, width in widths.items():
                chunk[name] = np.array(chunk[name], dtype=f"U{width}")
                about = table.schema.field(name).metadata or {}
                chunk[name].info.description = about.get(b"description", b"").decode()
            if first:
                hdu = fits.table_to_hdu(chunk[:0], character_as_bytes=True)
                _complete(hdu.header, chunk, rows, schema)
                fits.PrimaryHDU().writeto(file)
                file.write(hdu.header.tostring(padding=True).encode("ascii"))
                dtypes = [(n, _fits_type(chunk[n], widths.get(n))) for n in chunk.colnames]
                first = False
            file.write(_records(chunk, dtypes).tobytes())
        file.write(b"\0" * (-file.tell() % FITS_BLOCK))


def _complete(header: Any, table: Any, rows: int, schema: Any) -> None:
    """Adds the number of rows, descriptions and provenance to the header."""
    header["NAXIS2"] = rows
    header["EXTNAME"] = "CATALOG"
    for i, name in enumerate(table.colnames, 1):
        text = str(table[name].info.description or "")
        ascii_text = text.encode("ascii", "replace").decode()
        header[f"TCOMM{i}"] = ascii_text
    for card, value in _header_cards(schema).items():
        header[card] = value.encode("ascii", "replace").decode().replace("\n", " ")


def _text_widths(parts: list[Path], schema: Any) -> tuple[dict[str, int], int]:
    import pyarrow.compute as pc

    texts = [f.name for f in schema if str(f.type) == "string"]
    widths, rows = dict.fromkeys(texts, 1), 0
    for table in tables(parts, schema):
        rows += len(table)
        for name in texts:
            longest = pc.max(pc.binary_length(table.column(name))).as_py()
            widths[name] = max(widths[name], longest or 1)
    return widths, rows


def _fits_type(column: Any, width: int | None) -> str:
    if width is not None:
        return f"S{width}"
    return ">i8" if np.asarray(column).dtype.kind == "i" else ">f8"


def _records(table: Any, dtypes: list[tuple[str, str]]) -> Any:
    records = np.zeros(len(table), dtype=dtypes)
    for name, kind in dtypes:
        values = np.asarray(getattr(table[name], "value", table[name]))
        records[name] = np.char.encode(values, "utf-8") if kind[0] == "S" else values
    return records


def read_catalogue(path: str | os.PathLike[str]) -> Any:
    """Reads a catalogue of any format as an ``astropy.table.QTable`` without draws.

    Raises:
        InputError: If it does not exist or has an unknown format.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"catalogue {path}: no such file or folder. Check the path.")
    if path.is_dir() or path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        return to_qtable(_without_draws(pq.read_table(path)))
    from astropy.table import QTable

    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"catalogue {path}: unknown suffix {path.suffix}, expected {', '.join(SUFFIXES)}."
        )
    if path.suffix.lower() == ".fits":
        table = QTable.read(path, format="fits", mask_invalid=False)
        for name, text in descriptions(covariances=True).items():
            if name in table.colnames:
                table[name].info.description = text
        return table
    return QTable.read(path, format="ascii.ecsv")


def _without_draws(table: Any) -> Any:
    return table.drop_columns([DRAWS]) if DRAWS in table.column_names else table
