"""Polar blocks of pixels about a galaxy, whose summed scores are treated as independent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

RING_WIDTH = 0.7
"""Width of a ring in ln(elliptical radius)."""

SECTORS = 8
"""Number of sectors of a ring; even, so that opposite ones can be joined."""


@dataclass(frozen=True)
class Ellipses:
    """Positions and shapes of galaxies on their stamps.

    Attributes:
        center_x: Column of the centre relative to the stamp's, with shape (B,). [px]
        center_y: Row of the centre relative to the stamp's, with shape (B,). [px]
        axis_ratio: Axis ratio q, with shape (B,), in (0, 1].
        position_angle: Position angle, counter-clockwise from +y, with shape (B,). [deg]
    """

    center_x: Float[Tensor, " b"]
    center_y: Float[Tensor, " b"]
    axis_ratio: Float[Tensor, " b"]
    position_angle: Float[Tensor, " b"]


def polar_coordinates(
    ellipses: Ellipses, size: int
) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b n n"]]:
    """Computes each pixel's elliptical radius and azimuth in the galaxy's plane.

    The radius is that of the circle with the ellipse's area, so that a ring has its nominal width
    on average. The azimuth is measured from the major axis, in the plane in which the ellipse is a
    circle.

    Args:
        ellipses: Ellipses of the galaxies.
        size: Side of the stamps N. [px]

    Returns:
        Radii (B, N, N) in pixels, and azimuths (B, N, N) in radians, from 0 to 2 pi.
    """
    grid = torch.arange(size).to(ellipses.center_x) - (size - 1) / 2
    return elliptical(ellipses, grid[None, None, :], grid[None, :, None])


def elliptical(
    ellipses: Ellipses, x: Float[Tensor, "#b #n #n"], y: Float[Tensor, "#b #n #n"]
) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b n n"]]:
    """Computes elliptical radii and azimuths of points; see :func:`polar_coordinates`.

    Args:
        ellipses: Ellipses of the galaxies.
        x: Columns of the points, in the coordinates of the ellipses' centres. [px]
        y: Rows of the points. [px]
    """
    dx = x - ellipses.center_x[:, None, None]
    dy = y - ellipses.center_y[:, None, None]
    t = torch.deg2rad(ellipses.position_angle + 90.0)[:, None, None]
    root_q = ellipses.axis_ratio.sqrt()[:, None, None]
    along = (dx * t.cos() + dy * t.sin()) * root_q
    across = (dy * t.cos() - dx * t.sin()) / root_q
    azimuth = torch.remainder(torch.atan2(across, along), 2.0 * math.pi)
    return torch.hypot(along, across), azimuth


def polar_blocks(
    ellipses: Ellipses,
    size: int,
    scale: Float[Tensor, " b"],
    *,
    ring_width: float = RING_WIDTH,
    sectors: int = SECTORS,
) -> Int[Tensor, "b n n"]:
    """Assigns each pixel to a block.

    Rings have a width of `ring_width` in ln(radius), but at least `scale`; each except the
    innermost is divided into equal sectors. Blocks are therefore not narrower than the correlation
    lengths of PSF and noise, where the stamp is large enough.

    Args:
        ellipses: Ellipses of the galaxies.
        size: Side of the stamps N. [px]
        scale: Minimum size of a block: the larger of the PSF's FWHM and the noise's correlation
            length, with shape (B,). [px]
        ring_width: Width of a ring in ln(radius), > 0.
        sectors: Number of sectors per ring, at most 9.

    Returns:
        Block numbers, with shape (B, N, N): ring times `sectors` plus sector. Some are unused.

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> blocks = polar_blocks(Ellipses(0 * one, 0 * one, one, 0 * one), 64, 3 * one)
        >>> len(blocks.unique())
        33
    """
    return ring_sectors(
        *polar_coordinates(ellipses, size), scale, ring_width=ring_width, sectors=sectors
    )


def ring_sectors(
    radius: Float[Tensor, "b n n"],
    azimuth: Float[Tensor, "b n n"],
    scale: Float[Tensor, " b"],
    *,
    ring_width: float = RING_WIDTH,
    sectors: int = SECTORS,
) -> Int[Tensor, "b n n"]:
    """Assigns points of known radius and azimuth to blocks.

    Args:
        radius: Radii, see :func:`polar_coordinates`.
        azimuth: Azimuths, see :func:`polar_coordinates`.
        scale: Minimum size of a block, see :func:`polar_blocks`.
        ring_width: Width of a ring in ln(radius).
        sectors: Number of sectors per ring.
    """
    least = scale[:, None, None]
    even = 1.0 / ring_width  # inner rings have equal width, outer ones equal width in ln(radius)
    beyond = even * (1.0 + torch.log((ring_width * radius / least).clamp_min(1.0)))
    ring = torch.where(radius * ring_width < least, radius / least, beyond).floor()
    # The second ring has its middle at 1.5 scales: 9 blocks fit around it, one in the first ring.
    number = torch.where(ring == 0, 1.0, float(sectors))
    sector = torch.minimum((azimuth / (2.0 * math.pi) * number).floor(), number - 1.0)
    return (ring * sectors + sector).long()


def blocks_among(
    galaxies: Sequence[Ellipses], radii: Sequence[float], size: int, scale: Float[Tensor, " b"]
) -> Int[Tensor, "b n n"]:
    """Assigns each pixel to a block where several galaxies share a stamp.

    A pixel belongs to the galaxy to whose centre it is nearest in units of effective radii.

    Args:
        galaxies: Galaxies of each stamp.
        radii: Effective radii along the major axis. [px]
        size: Side of the stamps N. [px]
        scale: Minimum size of a block, see :func:`polar_blocks`. [px]
    """
    nearest: Tensor | None = None
    first = 0
    for ellipses, radius in zip(galaxies, radii, strict=True):
        blocks = polar_blocks(ellipses, size, scale) + first
        distance, _ = polar_coordinates(ellipses, size)
        distance = distance / (radius * ellipses.axis_ratio.sqrt()[:, None, None])
        first = SECTORS * (int(blocks.max()) // SECTORS + 1)
        if nearest is None:
            nearest, found = distance, blocks
            continue
        found = torch.where(distance < nearest, blocks, found)
        nearest = torch.minimum(distance, nearest)
    return found
