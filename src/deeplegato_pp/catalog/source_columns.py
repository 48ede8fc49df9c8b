"""Columns of source lists: recognised names, frames and units, values and missing ones."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError

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
"""Recognised names of columns, in order of preference, in upper or lower case."""

FROM_ONE = {
    "x": ("x_image", "xwin_image", "xpeak_image", "x_fits", "ximage"),
    "y": ("y_image", "ywin_image", "ypeak_image", "y_fits", "yimage"),
}
"""Columns of 1-based pixels, as in SExtractor and FITS, from which 1 is subtracted."""

GALACTIC = (("glon", "glat"), ("l_galactic", "b_galactic"), ("gal_lon", "gal_lat"))

FK4 = (("alpha_b1950", "delta_b1950"), ("alphawin_b1950", "deltawin_b1950"), ("rab1950", "deb1950"))
"""Pairs of columns with positions in other frames, which are converted to ICRS. [deg]"""

LARGEST_ID = 2**63 - 1
"""Largest integer id; larger ones are kept as strings."""


def has_positions(names: list[str]) -> bool:
    """Returns whether a table with these columns can be a list of sources."""
    lower = {name.lower() for name in names}
    pairs = [(ALIASES["x"], ALIASES["y"]), (ALIASES["ra"], ALIASES["dec"]), (ALIASES["file"],) * 2]
    pairs += [(FROM_ONE["x"], FROM_ONE["y"])]
    pairs += [((a,), (b,)) for a, b in (*GALACTIC, *FK4)]
    return any(lower & set(first) and lower & set(second) for first, second in pairs)


def check_lengths(columns: Mapping[str, Any], where: str) -> None:
    """Raises an error if columns do not all have the same number of values."""
    try:
        lengths = {str(name): len(values) for name, values in columns.items()}
    except TypeError:  # a single value has no length
        raise InputError(
            f"{where}: columns must have one value per row, got a single value."
        ) from None
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(
            f"{where}: columns must have one value per row, all the same number, got {given}."
        )


def recognised_columns(columns: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the columns with recognised names, positions converted to ICRS and 0-based pixels.

    Args:
        columns: Columns by name; the first of several aliases is used.
        where: Origin of the columns, for messages.

    Returns:
        Columns by the names in :data:`ALIASES`.
    """
    found = {name: _first(columns, aliases) for name, aliases in ALIASES.items()}
    found = {name: values for name, values in found.items() if values is not None}
    found |= _sky_centroid(columns, found)
    found |= _other_frames(columns, found, where)
    found |= _pixels_from_one(columns, found, where)
    return found


def _first(columns: Mapping[str, Any], aliases: tuple[str, ...]) -> Any:
    lower = {str(name).lower(): name for name in reversed(list(columns))}
    for alias in aliases:
        if alias in lower:
            return columns[lower[alias]]
    return None


def _sky_centroid(columns: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns RA and Dec of a column of sky coordinates, if there are no others."""
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
    """Returns 1-based pixels converted to 0-based ones, if there are no others."""
    if "x" in found or "y" in found:
        return {}
    x, y = (_first(columns, FROM_ONE[name]) for name in ("x", "y"))
    if x is None or y is None:
        return {}
    logger.warning("%s: pixels of the list count from 1 (X_IMAGE): 1 is subtracted.", where)
    return {"x": numbers_of(x, "x", where) - 1.0, "y": numbers_of(y, "y", where) - 1.0}


def _other_frames(
    columns: Mapping[str, Any], found: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Returns Galactic or B1950 columns converted to ICRS, if there are no others."""
    if "ra" in found or "dec" in found:
        return {}
    for frame, pairs in (("galactic", GALACTIC), ("fk4", FK4)):
        for pair in pairs:
            first, second = (_first(columns, (name,)) for name in pair)
            if first is None or second is None:
                continue
            from astropy.coordinates import SkyCoord

            longitude, latitude = numbers_of(first, "ra", where), numbers_of(second, "dec", where)
            latitude = np.where(np.abs(latitude) <= 90, latitude, np.nan)
            sky = SkyCoord(longitude, latitude, unit="deg", frame=frame).icrs
            logger.warning("%s: positions are %s, brought to ICRS.", where, frame.upper())
            return {"ra": np.asarray(sky.ra.deg), "dec": np.asarray(sky.dec.deg)}
    return {}


def check_degrees(ra: Array, dec: Array, column: Any, where: str) -> None:
    """Logs a warning if angles without a unit look like radians."""
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


def is_numeric(values: Any) -> bool:
    """Returns whether a column is numeric."""
    return _unmasked(values).dtype.kind in "iufb"


def numbers_of(values: Any, name: str, where: str) -> Array:
    """Converts a column to float64, with NaN for missing values and angles in degrees.

    Raises:
        InputError: If a value is not a number.
    """
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


def _sexagesimal(texts: Any, name: str) -> Array | None:
    """Converts strings such as 10:00:25.3 (hours for ra) to degrees; None for other strings."""
    if not all(re.fullmatch(r"\s*[+-]?\d+[:hd ]\s*\d+.*", str(text)) for text in texts):
        return None
    from astropy.coordinates import Angle

    unit = "hourangle" if name == "ra" else "deg"
    return np.asarray(Angle([str(t) for t in texts], unit=unit).deg, dtype=np.float64)


def ids_of(values: Any) -> Array:
    """Converts ids to integers if all are integers, else to strings; a missing one is "row N"."""
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


def paths_of(values: Any, folder: Path) -> Array:
    """Converts a column to paths, relative ones from the folder; empty if missing."""
    plain = _unmasked(values).tolist()
    mask = np.ma.getmaskarray(values) if np.ma.isMaskedArray(values) else [False] * len(plain)
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in plain]
    lost = [bool(m) or t.strip() in ("", "None", "nan") for m, t in zip(mask, texts, strict=True)]
    full = ["" if no else str(folder / t.strip()) for t, no in zip(texts, lost, strict=True)]
    return np.array(full, dtype=object)


def _unmasked(values: Any) -> Array:
    """Returns a column's values without mask and unit."""
    bare = getattr(values, "value", values)
    # getdata reads the attribute _data, which has another meaning in columns of older pandas.
    return np.asarray(np.ma.getdata(bare) if np.ma.isMaskedArray(bare) else bare)
