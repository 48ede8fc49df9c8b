"""Conversion between pixels and ICRS for any celestial WCS."""

import math
import warnings
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array


def pixel_to_icrs(wcs: Any, x: Any, y: Any) -> tuple[Array, Array]:
    """Returns ICRS right ascension and declination of pixels. [deg]

    Args:
        wcs: Celestial ``astropy.wcs.WCS``, of any frame, or a view of one with ``all_pix2world``.
        x: Columns, 0-based, with shape (N,).
        y: Rows.
    """
    base, left, bottom = _base(wcs)
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    world = np.asarray(base.all_pix2world(np.stack([x + left, y + bottom], 1), 0))
    longitude, latitude = world[:, base.wcs.lng], world[:, base.wcs.lat]
    frame = _frame(base)
    if frame is None:
        return longitude, latitude
    from astropy.coordinates import SkyCoord

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about predicted Earth orientations
        sky = SkyCoord(longitude, latitude, unit="deg", frame=frame).icrs
    return np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)


def icrs_to_pixel(wcs: Any, ra: Any, dec: Any) -> tuple[Array, Array]:
    """Returns 0-based pixels of ICRS positions; NaN where the projection is undefined.

    Args:
        wcs: As for :func:`pixel_to_icrs`.
        ra: Right ascension, with shape (N,). [deg]
        dec: Declination. [deg]
    """
    base, left, bottom = _base(wcs)
    longitude, latitude = (
        np.atleast_1d(np.asarray(ra, float)),
        np.atleast_1d(np.asarray(dec, float)),
    )
    frame = _frame(base)
    if frame is not None:
        from astropy.coordinates import SkyCoord

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sky = SkyCoord(longitude, latitude, unit="deg", frame="icrs").transform_to(frame)
        longitude, latitude = sky.spherical.lon.deg % 360, sky.spherical.lat.deg
    world = np.empty((len(longitude), 2))
    world[:, base.wcs.lng], world[:, base.wcs.lat] = longitude, latitude
    try:
        pixels = np.asarray(base.all_world2pix(world, 0))
    except Exception:  # the inverse of a distortion may not converge far outside
        pixels = np.asarray(base.wcs_world2pix(world, 0))
    return pixels[:, 0] - left, pixels[:, 1] - bottom


def sky_directions(wcs: Any, x: float, y: float) -> Array:
    """Returns the displacements to north and east, in degrees, of steps along +x and +y.

    Bearings are computed on the sphere, so that they are correct at the poles and in any frame.

    Args:
        wcs: See :func:`pixel_to_icrs`.
        x: Column about which it is taken, 0-based. [px]
        y: Row.

    Returns:
        Array of shape (2, 2): rows for x and y, columns for north and east. [deg per half px]
    """
    ra, dec = (np.deg2rad(v) for v in pixel_to_icrs(wcs, [x, x + 0.5, x], [y, y, y + 0.5]))
    turn = ra[1:] - ra[0]
    north = np.sin(dec[1:]) * math.cos(dec[0]) - np.cos(dec[1:]) * math.sin(dec[0]) * np.cos(turn)
    east = np.cos(dec[1:]) * np.sin(turn)
    return np.rad2deg(np.stack([north, east], 1))


def _base(wcs: Any) -> tuple[Any, int, int]:
    """Returns the astropy WCS behind a cutout's view of it, and the cutout's corner."""
    if hasattr(wcs, "left"):
        return wcs.wcs, wcs.left, wcs.bottom
    return wcs.celestial, 0, 0


def _frame(base: Any) -> Any:
    """Returns the WCS's frame; None for ICRS or a frame unknown to astropy."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    try:
        frame = wcs_to_celestial_frame(base)
    except ValueError:  # no known frame: use its own longitude and latitude
        return None
    return None if frame.name == "icrs" else frame
