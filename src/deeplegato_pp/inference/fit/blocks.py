"""Polar blocks of pixels about a galaxy: the pieces of sky whose residuals count as one datum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

RING_WIDTH = 0.7
"""Width of a ring in the logarithm of the elliptical radius."""

SECTORS = 8
"""Sectors of a ring; an even number, so that opposite ones can be joined."""


@dataclass(frozen=True)
class Ellipses:
    """Where galaxies are on their stamps, and their shape.

    Attributes:
        center_x: Column of the centre, from the stamp's, with shape (B,). [px]
        center_y: Row of the centre, from the stamp's, with shape (B,). [px]
        axis_ratio: q, with shape (B,), in (0, 1].
        position_angle: Of the major axis, counter-clockwise from +y, with shape (B,). [deg]
    """

    center_x: Float[Tensor, " b"]
    center_y: Float[Tensor, " b"]
    axis_ratio: Float[Tensor, " b"]
    position_angle: Float[Tensor, " b"]


def polar_coordinates(
    ellipses: Ellipses, size: int
) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b n n"]]:
    """Returns each pixel's elliptical radius and azimuth in the galaxy's plane.

    The radius is that of the circle with the ellipse's area, so a ring's width is its width on the
    sky on average; the azimuth is counted from the major axis in the plane in which the ellipse is
    a circle.

    Args:
        ellipses: Of the galaxies.
        size: Side of the stamps N. [px]

    Returns:
        Radii (B, N, N) in pixels, and azimuths (B, N, N) in radians, from 0 to 2 pi.
    """
    grid = torch.arange(size).to(ellipses.center_x) - (size - 1) / 2
    return elliptical(ellipses, grid[None, None, :], grid[None, :, None])


def elliptical(
    ellipses: Ellipses, x: Float[Tensor, "#b #n #n"], y: Float[Tensor, "#b #n #n"]
) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b n n"]]:
    """Returns elliptical radii and azimuths of points; see :func:`polar_coordinates`.

    Args:
        ellipses: Of the galaxies.
        x: Columns of the points, from where the ellipses' centres are counted. [px]
        y: Rows.
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
    """Returns the block to which each pixel belongs.

    Rings are `ring_width` wide in ln(radius), and `scale` where that is more; each but the
    innermost is divided into equal sectors. So no block is narrower than what PSF and noise
    correlate, as far as a stamp has room.

    Args:
        ellipses: Of the galaxies.
        size: Side of the stamps N. [px]
        scale: Least size of a block: the larger of the PSF's FWHM and the noise's correlation
            length, with shape (B,). [px]
        ring_width: Width of a ring in ln(radius), > 0.
        sectors: Sectors of a ring, at most 9.

    Returns:
        Numbers of blocks, with shape (B, N, N): ring times `sectors` plus sector. Some are unused.

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
    """Returns the block to which points of known radius and azimuth belong.

    Args:
        radius: See :func:`polar_coordinates`.
        azimuth: The same.
        scale: See :func:`polar_blocks`, as what follows.
        ring_width: Width of a ring in ln(radius).
        sectors: Sectors of a ring.
    """
    least = scale[:, None, None]
    even = 1.0 / ring_width  # rings of even width, up to where that is `ring_width` of the radius
    beyond = even * (1.0 + torch.log((ring_width * radius / least).clamp_min(1.0)))
    ring = torch.where(radius * ring_width < least, radius / least, beyond).floor()
    # The middle of the second ring is 1.5 scales from the centre: 9 fit around it, 1 in the first.
    number = torch.where(ring == 0, 1.0, float(sectors))
    sector = torch.minimum((azimuth / (2.0 * math.pi) * number).floor(), number - 1.0)
    return (ring * sectors + sector).long()


def blocks_among(
    galaxies: Sequence[Ellipses], radii: Sequence[float], size: int, scale: Float[Tensor, " b"]
) -> Int[Tensor, "b n n"]:
    """Returns the block to which each pixel belongs where several galaxies share a stamp.

    A pixel belongs to the galaxy in whose effective radii it lies nearest to the centre.

    Args:
        galaxies: The galaxies of each stamp.
        radii: Their effective radii along the major axis. [px]
        size: Side of the stamps N. [px]
        scale: Least size of a block, see :func:`polar_blocks`. [px]
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
