"""Groups of overlapping listed sources, which are fitted together.

The group of a source is built from it: of the sources whose ellipses touch a member's, the closest
one is added, until there are five members or no more sources. A group of up to five is therefore
the same for each of its members; a larger one is cut at its weakest links, for each source
separately. Groups depend on the list and the network's results only, not on the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.inference.posterior.neighbours import CLOSEST, MOST
from deeplegato_pp.scene.render.sersic_profile import compute_bn

REACH = 64.0
"""Maximum distance of sources that are fitted together: half of the usual stamp. [px]"""

FAINTEST = 0.5
"""Surface brightness at the edge of a source's ellipse. [background sigma per pixel]"""

EXTENT = (1.0, 4.0)
"""Minimum and maximum size of an ellipse. [R_e]"""


@dataclass(frozen=True)
class Ellipse:
    """Listed position of a source, with the ellipse found by the network.

    Attributes:
        image: Number of the image.
        x: Listed column. [px of the image]
        y: Listed row. [px of the image]
        values: Mean parameters in the user's units, in the table's order.
        radius: Effective radius. [px of the image]
        extent: Size of the ellipse, see :func:`isophote`. [R_e]
        fwhm: FWHM of the PSF. [px of the image]
    """

    image: int
    x: float
    y: float
    values: tuple[float, ...]
    radius: float
    extent: float
    fwhm: float

    def towards(self, dx: float, dy: float) -> float:
        """Returns the extent of the ellipse, broadened by the PSF, in a direction. [px]"""
        q, angle = self.values[3], np.deg2rad(self.values[4] + 90.0)
        azimuth = np.arctan2(dy, dx) - angle
        radius = self.extent * self.radius * q / np.hypot(q * np.cos(azimuth), np.sin(azimuth))
        return float(np.hypot(radius, 0.5 * self.fwhm))


@dataclass(frozen=True)
class Grown:
    """The group of one source.

    Attributes:
        others: Other members of the group, the closest first.
        cut: Sources that touch the source itself but are left out.
    """

    others: tuple[int, ...]
    cut: int = 0


def distance_between(a: Ellipse, b: Ellipse) -> float:
    """Returns the distance of two sources relative to that at which their ellipses touch.

    Infinite for different images and for the same position, which no fit can separate.

    Example:
        >>> one = Ellipse(0, 10.0, 10.0, (22.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0), 3.0, 2.0, 0.0)
        >>> two = Ellipse(0, 16.0, 10.0, (22.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0), 3.0, 2.0, 0.0)
        >>> distance_between(one, two)
        0.5
    """
    dx, dy = b.x - a.x, b.y - a.y
    apart = float(np.hypot(dx, dy))
    if a.image != b.image or apart < CLOSEST:
        return np.inf
    return apart / (a.towards(dx, dy) + b.towards(dx, dy))


def isophote(flux: float, radius: float, index: float, axis_ratio: float) -> float:
    """Returns the radius at which the surface brightness falls to half a sigma per pixel. [R_e]

    It is limited to 1 to 4: ellipses of fainter galaxies end at their effective radius, and those
    of bright galaxies of high index do not extend arbitrarily far.

    Args:
        flux: Total flux. [background sigma]
        radius: Effective radius. [px]
        index: Sérsic index.
        axis_ratio: b/a.

    Example:
        >>> round(isophote(1000.0, 3.0, 1.0, 0.8), 1)
        2.9
    """
    bn = float(compute_bn(torch.tensor(index, dtype=torch.float64)))
    log_area = math.log(2.0 * math.pi * index * axis_ratio * radius**2)
    log_light = log_area + bn - 2.0 * index * math.log(bn) + math.lgamma(2.0 * index)
    above = math.log(max(flux, 1e-9)) - log_light - math.log(FAINTEST)
    shortest, longest = EXTENT
    return min(max((max(1.0 + above / bn, 0.0)) ** index, shortest), longest)


def grow(own: Ellipse, candidates: Sequence[Ellipse]) -> Grown:
    """Returns the group of a source.

    Args:
        own: The source.
        candidates: Nearby sources, in an order that depends on them alone.
    """
    everyone = [own, *candidates]
    number = len(everyone)
    links = np.array([[distance_between(a, b) for b in everyone] for a in everyone])
    same = np.array([[_at_one_place(a, b) for b in everyone] for a in everyone])
    members = [0]
    while len(members) <= MOST:
        # A source at the same position as a member is a duplicate of it.
        free = [k for k in range(number) if not same[k, members].any()]
        if not free:
            break
        strongest = links[np.ix_(members, free)].min(0)
        best = int(strongest.argmin())
        if strongest[best] >= 1.0:
            break
        members.append(free[best])
    left = [k for k in range(number) if links[0, k] < 1.0 and not same[k, members].any()]
    return Grown(tuple(m - 1 for m in members[1:]), len(left))


def _at_one_place(a: Ellipse, b: Ellipse) -> bool:
    return a.image == b.image and float(np.hypot(a.x - b.x, a.y - b.y)) < CLOSEST


@dataclass(frozen=True, eq=False)
class Crowd:
    """A whole list with the neighbour relations of its sources.

    Attributes:
        sources: The list.
        pixel_scale: Largest pixel scale of the images, 0 if unknown. [arcsec/px]
        reach: Maximum distance of neighbours. [px]
    """

    sources: SourceList
    pixel_scale: float
    reach: float = REACH
    _trees: dict[str, cKDTree] = field(default_factory=dict)

    def around(self, chosen: Int[Array, " c"]) -> SourceList | None:
        """Returns sources near the given ones, without these; None if there are none."""
        found: set[int] = set()
        for points, known, reach in (self._pixels, self._sky):
            inside = np.flatnonzero(known)
            own = chosen[known[chosen]]
            if len(own) == 0 or len(inside) < 2:
                continue
            tree = self._tree(points[inside], str(points.shape[1]))
            for near in tree.query_ball_point(points[own], reach):
                found.update(inside[near].tolist())
        others = sorted(found - set(chosen.tolist()))
        return self.sources[others] if others else None

    def _tree(self, points: Float[Array, "n d"], name: str) -> cKDTree:
        if name not in self._trees:
            self._trees[name] = cKDTree(points)
        return self._trees[name]

    @cached_property
    def _pixels(self) -> tuple[Array, Array, float]:
        points = np.stack([self.sources.x, self.sources.y], 1)
        return points, np.isfinite(points).all(1), self.reach

    @cached_property
    def _sky(self) -> tuple[Array, Array, float]:
        ra, dec = np.deg2rad(self.sources.ra), np.deg2rad(self.sources.dec)
        points = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], 1)
        reach = np.deg2rad(self.reach * self.pixel_scale / 3600.0)
        return points, np.isfinite(points).all(1), float(reach)
