"""Lists of sources."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.blends import nearest_distances

NUMBERS = ("x", "y", "ra", "dec")
"""Numeric columns of a list of sources."""

SAME_PLACE = 0.1
"""Distance below which two sources are duplicates. [px; arcsec if only RA, Dec are known]"""


@dataclass(frozen=True, eq=False)
class SourceList:
    """List of sources.

    Attributes:
        ids: Integers or strings, with shape (N,).
        x: Column, 0-based, with shape (N,); NaN if not given. [px]
        y: Row, 0-based, with shape (N,); NaN if not given. [px]
        ra: ICRS right ascension, with shape (N,); NaN if not given. [deg]
        dec: ICRS declination, with shape (N,); NaN if not given. [deg]
        psf: PSF file of each source, empty for none; None without such a column.
        file: Cutout file of each source; None for sources in mosaics.
        duplicate: Whether the list contains the source more than once.
        nearest_px: Distance to the nearest other source with pixels; infinite without one. [px]
        nearest_arcsec: Distance to the nearest other source on the sky. [arcsec]
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
        """Returns a subset of the sources."""
        chosen = {k: v[index] for k, v in vars(self).items() if v is not None}
        return SourceList(**chosen)

    def joined(self, other: SourceList) -> SourceList:
        """Returns this list followed by another one with the same columns."""
        pairs = {k: (v, getattr(other, k)) for k, v in vars(self).items() if v is not None}
        return SourceList(**{k: np.concatenate(both) for k, both in pairs.items()})

    def label(self, i: int) -> str:
        """Returns the name of a source in messages."""
        return str(self.ids[i])

    def key(self, i: int) -> str:
        """Returns the id and position of a source as one string, which seeds its random numbers."""
        numbers = ",".join(float(getattr(self, name)[i]).hex() for name in NUMBERS)
        file = "" if self.file is None else Path(str(self.file[i])).name
        return f"{self.ids[i]}|{numbers}|{file}"

    def seed(self, i: int, seed: int) -> int:
        """Returns the non-negative seed of the draws of one source."""
        digest = hashlib.blake2b(f"{seed}|{self.key(i)}".encode(), digest_size=8)
        return int.from_bytes(digest.digest(), "little") >> 1

    def digest(self) -> str:
        """Returns a hash of the list."""
        digest = hashlib.blake2b(digest_size=16)
        for name, values in vars(self).items():
            if values is not None:
                digest.update(name.encode())
                plain = values.astype(str) if values.dtype.kind == "O" else values
                digest.update(str(plain.dtype).encode() + np.ascontiguousarray(plain).tobytes())
        return digest.hexdigest()


def mark_duplicates(sources: SourceList) -> SourceList:
    """Returns the list with duplicates marked and distances to the nearest sources."""
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
