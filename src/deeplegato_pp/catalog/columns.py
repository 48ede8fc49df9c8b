"""Columns of a catalogue: those of every table of results, and the sources' positions."""

from __future__ import annotations

from typing import Any

from deeplegato_pp.inference.posterior import band_record, covariance, scene_record, summary
from deeplegato_pp.inference.refine.scenes import hypotheses_of
from deeplegato_pp.observation.bands import Bands
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS

PLACE: dict[str, tuple[str, str]] = {
    "id": ("", "identifier in the list of sources"),
    "ra": ("deg", "right ascension: of the list, else of the listed pixel by the image's WCS"),
    "dec": ("deg", "declination: of the list, else of the listed pixel by the image's WCS"),
    "x_source": ("pix", "listed column of the source, 0-based, in the mosaic"),
    "y_source": ("pix", "listed row of the source, 0-based, in the mosaic"),
    "image": ("", "file on which the source was measured"),
    "refined": ("", "1 if the draws were refined with the likelihood, 0 if they are the network's"),
    "group_size": ("", "number of sources fitted together, including this one; 1 if alone"),
}
"""Columns that a catalogue adds to a row of results."""

AFTER = ("refined", "group_size")
"""Columns of these that follow the results; the others precede them."""

DRAWS = "draws"
"""Column of posterior draws: a struct of lists, one list per parameter."""


def units(
    scene: str = "sersic", bands: Bands | None = None, covariances: bool = False
) -> dict[str, str]:
    """Returns the unit of every column, in the order of the catalogue.

    Args:
        scene: Scene fitted to the sources, see :meth:`Predictor.refine`.
        bands: Bands fitted together; None for one band.
        covariances: Whether to include the covariances of all pairs of parameters.
    """
    before = {n: unit for n, (unit, _) in PLACE.items() if n not in AFTER}
    compared = hypotheses_of(scene)
    parts = scene_record.units(compared) if len(compared) > 1 else {}
    if bands is not None:
        parts |= band_record.units([bands.names], bands.structure)
    if covariances:
        parts |= covariance.units()
    return before | summary.units() | parts | {n: PLACE[n][0] for n in AFTER}


def descriptions(
    scene: str = "sersic", bands: Bands | None = None, covariances: bool = False
) -> dict[str, str]:
    """Returns a one-line description of each column."""
    more = {} if bands is None else band_record.descriptions([bands.names])
    lines = summary.every_description() | more | {n: text for n, (_, text) in PLACE.items()}
    lines["x"] = "column of the measured centre, 0-based, in the mosaic"
    lines["y"] = "row of the measured centre, 0-based, in the mosaic"
    return {name: lines[name] for name in units(scene, bands, covariances)}


def schema(
    text_ids: bool,
    draws: bool,
    metadata: dict[str, str] | None = None,
    scene: str = "sersic",
    bands: Bands | None = None,
    covariances: bool = False,
) -> Any:
    """Returns the catalogue's ``pyarrow.Schema``, with units and descriptions.

    Args:
        text_ids: Whether ids are texts rather than integers.
        draws: Whether there is a column of draws.
        metadata: Metadata of the table.
        scene: Scene fitted to the sources.
        bands: Bands fitted together; None for one band.
        covariances: Whether to include the covariances of all pairs of parameters.
    """
    import pyarrow as pa

    described = descriptions(scene, bands, covariances)
    fields = [
        pa.field(name, _type(name, text_ids), metadata=_about(unit, described[name]))
        for name, unit in units(scene, bands, covariances).items()
    ]
    if draws:
        lists = [
            pa.field(p.name, pa.list_(pa.float32()), metadata=_about(p.unit, p.meaning))
            for p in PARAMETERS
        ]
        about = _about("", "equally weighted draws from the posterior")
        fields.append(pa.field(DRAWS, pa.struct(lists), metadata=about))
    return pa.schema(fields, metadata=metadata)


def _about(unit: str, description: str) -> dict[str, str]:
    return {"unit": unit, "description": description}


def _type(name: str, text_ids: bool) -> Any:
    import pyarrow as pa

    if name == "id":
        return pa.string() if text_ids else pa.int64()
    if name in (*summary.INTEGERS, *AFTER):
        return pa.int64()
    if name in (*summary.TEXTS, "image") or name.startswith("flag_names"):
        return pa.string()
    return pa.float64()


def to_arrow(rows: list[dict[str, Any]], schema: Any) -> Any:
    """Converts rows to a ``pyarrow.Table`` with a given schema.

    Missing values are null, but missing texts empty: astropy cannot read null texts.
    """
    import pyarrow as pa

    arrays = []
    for field in schema:
        if field.name == DRAWS:
            values = [row.get(DRAWS) for row in rows]
        elif pa.types.is_string(field.type):
            values = [row.get(field.name) or "" for row in rows]
        else:
            values = [row.get(field.name) for row in rows]
        arrays.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def for_astropy(schema: Any, widths: dict[str, int]) -> Any:
    """Returns a schema with metadata for astropy: units, descriptions and lengths of texts.

    Args:
        schema: Schema of a catalogue.
        widths: Length of the longest text in each text column.
    """
    from astropy.table import meta, serialize

    empty = to_qtable(schema.empty_table())
    lines = meta.get_yaml_from_table(serialize.represent_mixins_as_columns(empty))
    about = {f"table::len::{name}": str(width) for name, width in widths.items()}
    about["table_meta_yaml"] = "\n".join(lines)
    return schema.with_metadata({**(schema.metadata or {}), **about})


def draws_of(samples: Any) -> dict[str, Any]:
    """Returns draws (S, 7) as the struct of lists that tables hold."""
    return {name: samples[:, i].tolist() for i, name in enumerate(NAMES)}


def to_qtable(table: Any) -> Any:
    """Converts an Arrow table of a catalogue to an ``astropy.table.QTable`` without draws.

    Null numbers become NaN, null texts empty, and null counts 0.
    """
    import numpy as np
    from astropy import units as u
    from astropy.table import QTable

    result = QTable()
    for field in table.schema:
        if field.name == DRAWS:
            continue
        column = table.column(field.name)
        about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
        kind = str(field.type)
        if kind == "string":
            values: Any = np.array([v or "" for v in column.to_pylist()], dtype=str)
        elif kind == "int64":
            values = column.fill_null(0).to_numpy().astype(np.int64)
        else:
            values = column.cast("float64").fill_null(np.nan).to_numpy()
            if about.get("unit"):
                values = u.Quantity(values, about["unit"])
        result[field.name] = values
        result[field.name].info.description = about.get("description", "")
    return result
