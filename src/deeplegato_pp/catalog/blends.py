"""Detection of listed sources within the fits of other sources."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from deeplegato_pp.arrays import Array

WITHIN = 1.5
"""Distance in half-light radii within which another source is part of the fit."""

_RESOLVED = 1e-3
"""Distance below which two entries have the same position. [px or arcsec]"""


def nearest_distances(
    x: Float[Array, " n"], y: Float[Array, " n"], ra: Float[Array, " n"], dec: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Computes the distance of the nearest other source in a list.

    Args:
        x: Columns; NaN where not given. [px]
        y: Rows. [px]
        ra: Right ascensions; NaN where not given. [deg]
        dec: Declinations. [deg]

    Returns:
        Distances among sources with pixels [px], and among those with sky positions [arcsec], each
        with shape (N,); infinite if there is no other source. Entries at the same position count as
        one source.

    Example:
        >>> nan = np.full(3, np.nan)
        >>> nearest_distances(np.array([0.0, 3.0, 9.0]), np.zeros(3), nan, nan)[0].tolist()
        [3.0, 3.0, 6.0]
    """
    longitude, latitude = np.deg2rad(ra), np.deg2rad(dec)
    sphere = np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        1,
    )
    arcsec = 3600.0 * np.rad2deg(1.0)  # chords, which equal arcs at small separations
    return _nearest(np.stack([x, y], 1)), _nearest(sphere * arcsec)


def _nearest(points: Float[Array, "n d"]) -> Float[Array, " n"]:
    found = np.full(len(points), np.inf)
    known = np.isfinite(points).all(1)
    distinct, inverse = np.unique(
        np.round(points[known] / _RESOLVED).astype(np.int64), axis=0, return_inverse=True
    )
    if len(distinct) > 1:
        places = distinct * _RESOLVED
        found[known] = cKDTree(places).query(places, k=2)[0][inverse.ravel(), 1]
    return found


def holds_another(distance: float, radius: float, fwhm: float) -> bool:
    """Returns whether the fit of a source includes another listed source.

    Args:
        distance: Distance to the nearest other listed source. [px]
        radius: Fitted half-light radius. [px]
        fwhm: FWHM of the PSF. [px]
    """
    return distance < max(WITHIN * radius, fwhm)
