"""Derived quantities, computed for every draw of the seven parameters so that they have errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.observation.sky_frames import sky_directions
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    POSITION_ANGLE,
    RADIUS,
    SERSIC_INDEX,
    signal_to_noise,
)
from deeplegato_pp.scene.render.hankel_tables import load_tables

if TYPE_CHECKING:
    from deeplegato_pp.observation.observation import Observation
    from deeplegato_pp.observation.preparation import PreparedStamp


AB_ZERO_FLUX = 3631e9
"""Flux density of magnitude 0 in the AB system. [nJy]"""


@dataclass(frozen=True)
class Derived:
    """One derived quantity: its column, unit, meaning and period."""

    name: str
    unit: str
    meaning: str
    period: float | None = None


DERIVED: tuple[Derived, ...] = (
    Derived("x", "pix", "column of the centre, 0-based, in the image as given"),
    Derived("y", "pix", "row of the centre, 0-based, in the image as given"),
    Derived("effective_radius_pix", "pix", "half-light radius along the major axis"),
    Derived("effective_radius_circ", "arcsec", "circularised half-light radius, R_e sqrt(q)"),
    Derived("surface_brightness", "mag / arcsec2", "mean inside the half-light ellipse"),
    Derived("flux", "nJy", "total flux density, the magnitude being AB"),
    Derived("e1", "", "(1-q)/(1+q) cos 2 phi, phi from +x towards +y"),
    Derived("e2", "", "(1-q)/(1+q) sin 2 phi, phi from +x towards +y"),
    Derived("light_fraction", "", "part of the light on the pixels used, masks and PSF left aside"),
    Derived("radius_over_fwhm", "", "half-light radius over the PSF's FWHM"),
    Derived("snr", "", "signal-to-noise ratio in the half-light ellipse broadened by the PSF"),
    Derived("position_angle_sky", "deg", "angle of the major axis, north through east", 180.0),
)
"""The derived columns, in the order of the tables; each has a companion ``<name>_std``."""


def derive(
    samples: Float[Array, "s 7"],
    observation: Observation,
    prepared: PreparedStamp,
    psf_fwhm: float,
) -> dict[str, Float[Array, " s"]]:
    """Computes the derived quantities of every draw.

    Args:
        samples: Draws in the user's physical units, with shape (S, 7).
        observation: The observation.
        prepared: Stamp on which the galaxy was measured.
        psf_fwhm: FWHM of the effective PSF. [px of the stamp]

    Returns:
        One array (S,) per entry of :data:`DERIVED`; NaN for a sky angle without WCS.
    """
    height, width = observation.shape
    radius, q = samples[:, RADIUS], samples[:, AXIS_RATIO]
    magnitude, angle = samples[:, MAGNITUDE], samples[:, POSITION_ANGLE]
    x = samples[:, CENTER_X] + (width - 1) / 2
    y = samples[:, CENTER_Y] + (height - 1) / 2
    radius_pix = radius / observation.pixel_scale
    ellipticity = (1.0 - q) / (1.0 + q)
    phase = np.deg2rad(2.0 * (angle + 90.0))
    stamp_radius = radius_pix / prepared.bin
    flux_d = 10.0 ** (-0.4 * (magnitude - observation.zero_point)) / prepared.scale
    snr = signal_to_noise(
        torch.from_numpy(flux_d),
        torch.from_numpy(stamp_radius),
        torch.from_numpy(q),
        torch.tensor(psf_fwhm, dtype=torch.float64),
    )
    return {
        "x": x,
        "y": y,
        "effective_radius_pix": radius_pix,
        "effective_radius_circ": radius * np.sqrt(q),
        "surface_brightness": magnitude + 2.5 * np.log10(2.0 * math.pi * q * radius**2),
        "flux": AB_ZERO_FLUX * 10.0 ** (-0.4 * magnitude),
        "e1": ellipticity * np.cos(phase),
        "e2": ellipticity * np.sin(phase),
        "light_fraction": light_fraction(
            x,
            y,
            radius_pix,
            samples[:, SERSIC_INDEX],
            q,
            angle,
            used_rectangle(observation, prepared),
        ),
        "radius_over_fwhm": stamp_radius / psf_fwhm,
        "snr": snr.numpy(),
        "position_angle_sky": position_angle_sky(angle, observation.wcs, x, y),
    }


def used_rectangle(
    observation: Observation, prepared: PreparedStamp
) -> tuple[float, float, float, float]:
    """Returns the edges (left, right, bottom, top) of the part of the image that was used.

    The overlap of the user's image with the stamp, in 0-based pixels of the user's image.
    """
    height, width = observation.shape
    half = prepared.image.shape[0] * prepared.bin / 2
    middle_x = (width - 1) / 2 + prepared.offset_x
    middle_y = (height - 1) / 2 + prepared.offset_y
    return (
        max(-0.5, middle_x - half),
        min(width - 0.5, middle_x + half),
        max(-0.5, middle_y - half),
        min(height - 0.5, middle_y + half),
    )


def light_fraction(
    x: Float[Array, " s"],
    y: Float[Array, " s"],
    radius: Float[Array, " s"],
    sersic_index: Float[Array, " s"],
    axis_ratio: Float[Array, " s"],
    position_angle: Float[Array, " s"],
    rectangle: tuple[float, float, float, float],
    angles: int = 48,
) -> Float[Array, " s"]:
    """Computes the fraction of each profile's light inside a rectangle, before the PSF.

    In elliptical polar coordinates light is distributed uniformly over azimuth; along each ray, the
    tabulated curve of growth gives the fraction inside the rectangle, which is averaged over rays.

    Args:
        x: Column of the centre, with shape (S,). [px]
        y: Row of the centre.
        radius: Major-axis half-light radius. [px]
        sersic_index: n.
        axis_ratio: b/a.
        position_angle: Counter-clockwise from +y. [deg]
        rectangle: Left, right, bottom and top edges. [px]
        angles: Number of rays. 48 give 1e-3 down to q = 0.1, and 1e-6 for round galaxies.

    Returns:
        Fractions, with shape (S,); 0 for a centre outside the rectangle.
    """
    left, right, bottom, top = rectangle
    phi = (np.arange(angles) + 0.5) * (2.0 * math.pi / angles)
    t = np.deg2rad(position_angle + 90.0)[:, None]
    along, across = np.cos(phi), axis_ratio[:, None] * np.sin(phi)
    step_x = along * np.cos(t) - across * np.sin(t)
    step_y = along * np.sin(t) + across * np.cos(t)
    tiny = 1e-12
    room_x = np.where(step_x > 0, right - x[:, None], x[:, None] - left)
    room_y = np.where(step_y > 0, top - y[:, None], y[:, None] - bottom)
    reach = np.minimum(
        room_x / np.maximum(np.abs(step_x), tiny), room_y / np.maximum(np.abs(step_y), tiny)
    )
    log_reach = np.log(np.maximum(reach / radius[:, None], tiny))
    outside = _light_outside(np.ascontiguousarray(sersic_index), log_reach).mean(1)
    inside = (x > left) & (x < right) & (y > bottom) & (y < top)
    return np.where(inside, np.clip(1.0 - outside, 0.0, 1.0), 0.0)


def _light_outside(
    sersic_index: Float[Array, " s"], log_reach: Float[Array, "s a"]
) -> Float[Array, "s a"]:
    """Computes the fraction of light beyond radii, in R_e, to 1e-4.

    Uses bilinear interpolation on a fine grid: the table's cubics, made for one index at a time,
    are ten times slower if every draw has its own.
    """
    grid, n_axis, reach_axis = _outside_grid()
    row = (np.log(sersic_index) - n_axis[0]) / (n_axis[1] - n_axis[0])
    column = (log_reach - reach_axis[0]) / (reach_axis[1] - reach_axis[0])
    rows, columns = grid.shape
    row = np.clip(row, 0.0, rows - 1.001)[:, None]
    column = np.clip(column, 0.0, columns - 1.001)
    i, j = row.astype(np.int32), column.astype(np.int32)
    u, v = row - i, column - j
    corner = i * columns + j
    flat = grid.ravel()
    near = flat[corner] * (1.0 - v) + flat[corner + 1] * v
    far = flat[corner + columns] * (1.0 - v) + flat[corner + columns + 1] * v
    fraction: Array = near * (1.0 - u) + far * u
    return fraction


@cache
def _outside_grid() -> tuple[Array, Array, Array]:
    """Returns the light beyond radii on a grid of ln n and ln radius, with its two axes."""
    tables = load_tables()
    table = tables.outside
    n_axis = np.linspace(math.log(tables.n_min), math.log(tables.n_max), 256)
    intervals = table.coefficients.shape[1]
    reach_axis = np.linspace(table.start, table.start + table.step * intervals, 1024)
    rows = table.rows(torch.from_numpy(np.exp(n_axis)))
    reach = torch.from_numpy(reach_axis).expand(len(n_axis), -1)
    return table.evaluate(rows, reach).numpy(), n_axis, reach_axis


def position_angle_sky(
    position_angle: Float[Array, " s"], wcs: Any, x: Float[Array, " s"], y: Float[Array, " s"]
) -> Float[Array, " s"]:
    """Returns angles on the sky, from north (ICRS) through east, in [0, 180).

    Args:
        position_angle: Counter-clockwise from +y, with shape (S,). [deg]
        wcs: Celestial ``astropy.wcs.WCS`` of the image, of any frame, or None: NaN.
        x: Column of the centre, 0-based, with shape (S,). The WCS is linearised at the mean.
        y: Row of the centre.
    """
    if wcs is None:
        return np.full(len(position_angle), math.nan)
    column, row = float(np.mean(x)), float(np.mean(y))
    north, east = sky_directions(wcs, column, row).T
    radians = np.deg2rad(position_angle)
    dx, dy = -np.sin(radians), np.cos(radians)
    angle = np.rad2deg(np.arctan2(dx * east[0] + dy * east[1], dx * north[0] + dy * north[1]))
    return angle % 180.0
