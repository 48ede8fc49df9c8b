"""Writing of tables and draws: checked before any work, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp._version import __version__
from deeplegato_pp.inference.posterior import summary
from deeplegato_pp.io.files import check_output, written_whole
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.base import PosteriorBase

Rows = Sequence[dict[str, Any]]

TABLE_SUFFIXES = (".ecsv", ".fits", ".parquet", ".json")
SAMPLE_SUFFIXES = (".npz", ".parquet")


def write_table(rows: Rows, path: str | os.PathLike[str]) -> None:
    """Writes a table; the suffix selects the format.

    ``.ecsv`` and ``.fits`` keep units and descriptions and hold NaN for unknown values,
    ``.parquet`` keeps them in the fields' metadata and holds nulls, ``.json`` is a strict list of
    objects with nulls, each with its columns' units under ``units``.

    Args:
        rows: Rows from :meth:`Posterior.rows`; additional columns are kept.
        path: Output file. An existing file is replaced.

    Raises:
        InputError: If the file cannot be written.
    """
    path = check_output(path, TABLE_SUFFIXES, "table")
    writers: dict[str, Callable[[Rows, Path], None]] = {
        ".ecsv": _write_ecsv,
        ".fits": _write_fits,
        ".parquet": _write_parquet,
        ".json": _write_json,
    }
    with written_whole(path) as temporary:
        writers[path.suffix.lower()](rows, temporary)


def write_samples(posterior: PosteriorBase, path: str | os.PathLike[str]) -> None:
    """Writes the draws of all galaxies; the suffix selects the format.

    ``.npz`` holds ``name`` (B,), ``parameter`` and ``unit`` (7,), ``samples`` (B, S, 7),
    ``log_prob`` (B, S) and, if the draws are weighted, ``log_weights`` (B, S). ``.parquet`` holds
    one line per draw: ``object`` (row in the table), ``name``, ``draw``, the seven parameters,
    ``log_prob`` and ``log_weight`` (0 for unweighted draws). Galaxies that could not be measured
    are NaN in the former and omitted from the latter, as is padding.

    Args:
        posterior: Posterior of one galaxy or many.
        path: Output file. An existing file is replaced.

    Raises:
        InputError: If the file cannot be written.
    """
    path = check_output(path, SAMPLE_SUFFIXES, "samples")
    with written_whole(path) as temporary:
        if path.suffix.lower() == ".npz":
            _write_npz(posterior, temporary)
        else:
            _write_draws(posterior, temporary)


def _write_json(rows: Rows, path: Path) -> None:
    units = {name: unit for name, unit in summary.every_unit(rows).items() if unit}
    content = [row | {"units": {k: u for k, u in units.items() if k in row}} for row in rows]
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _qtable(rows: Rows) -> Any:
    table = summary.to_qtable(list(rows))
    table.meta["SOFTWARE"] = f"deeplegato-pp {__version__}"
    return table


def _write_ecsv(rows: Rows, path: Path) -> None:
    _qtable(rows).write(path, format="ascii.ecsv", overwrite=True)


def _write_fits(rows: Rows, path: Path) -> None:
    table = _qtable(rows)
    for name in table.colnames:
        if table[name].dtype.kind == "U":  # encode non-ASCII names so that astropy can read them
            about = table[name].info.description
            table[name] = np.char.encode(np.asarray(table[name]), "utf-8")
            table[name].info.description = about
    table.write(path, format="fits", overwrite=True)


def _write_parquet(rows: Rows, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    units, described = summary.every_unit(rows), summary.every_description(rows)
    names = list(rows[0]) if rows else list(summary.units())
    arrays, fields = [], []
    for name in names:
        array = pa.array([row[name] for row in rows], type=_arrow_type(name, rows))
        metadata = {"unit": units.get(name, ""), "description": described.get(name, "")}
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=metadata))
    schema = pa.schema(
        fields,
        metadata={
            "software": f"deeplegato-pp {__version__}",
            "widths": summary.kinds_of_widths(list(rows)),
            "psferror": summary.psf_errors(list(rows)),
        },
    )
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)


def _arrow_type(name: str, rows: Rows) -> Any:
    import pyarrow as pa

    if name in summary.INTEGERS:
        return pa.int64()
    if name in summary.TEXTS or any(isinstance(row[name], str) for row in rows):
        return pa.string()
    return pa.float64()


def _write_npz(posterior: PosteriorBase, path: Path) -> None:
    arrays: dict[str, Any] = {
        "name": np.array([m.name for m in posterior.measurements], dtype=str),
        "parameter": np.array(NAMES),
        "unit": np.array([p.unit for p in PARAMETERS]),
        "samples": posterior.batch_samples.numpy(),
        "log_prob": posterior.batch_log_prob.numpy(),
    }
    if posterior.batch_log_weights is not None:
        arrays["log_weights"] = posterior.batch_log_weights.numpy()
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _write_draws(posterior: PosteriorBase, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("object", pa.int64()), ("name", pa.string()), ("draw", pa.int64())]
    fields += [(name, pa.float64()) for name in (*NAMES, "log_prob", "log_weight")]
    metadata = {p.name: p.unit for p in PARAMETERS}
    schema = pa.schema(fields, metadata=metadata)
    with pq.ParquetWriter(path, schema) as writer:
        for index, measurement in enumerate(posterior.measurements):
            if measurement.measured:
                columns = _draw_columns(posterior, index)
                length = len(columns["draw"])
                columns["object"] = np.full(length, index)
                columns["name"] = [measurement.name] * length
                writer.write_table(pa.table(columns, schema=schema))


def _draw_columns(posterior: PosteriorBase, index: int) -> dict[str, Any]:
    samples = posterior.batch_samples[index].numpy()
    log_weight = np.zeros(len(samples))
    if posterior.batch_log_weights is not None:
        log_weight = posterior.batch_log_weights[index].numpy()
    used = np.flatnonzero(log_weight > -np.inf)
    columns: dict[str, Any] = {"draw": used}
    columns |= {name: samples[used, i] for i, name in enumerate(NAMES)}
    columns["log_prob"] = posterior.batch_log_prob[index].numpy()[used]
    columns["log_weight"] = log_weight[used]
    return columns
