r"""Coordinates of galaxies that overlap on one stamp.

Either all galaxies are free (:class:`Group`), or one member is free and the others follow it
(:class:`Member`). The posterior of one member is that of the group marginalised over the others.
Where the others are nearly Gaussian given the member, it is the group's posterior at the best
values of the others, divided by the square root of the determinant of their precision (Laplace's
approximation: Tierney & Kadane 1986, https://doi.org/10.1080/01621459.1986.10478240). The best
values of the others are linear functions of the member, given by the regression of the group's
Gaussian approximation; all images are rendered exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.components import (
    Coordinates,
    PointSourceCoordinates,
    SersicCoordinates,
    flux_of,
    magnitude_of,
)
from deeplegato_pp.scene.galaxy_scene import GalaxyScene
from deeplegato_pp.scene.parameters import MAGNITUDE, NAMES
from deeplegato_pp.scene.prior import W_MAX, PriorBox
from deeplegato_pp.scene.table import POINT

Free = TypeVar("Free", bound=Coordinates)
"""Number of coordinates of each member of a group."""

LISTED = 0.25
"""Prior standard deviation of a member's centre about its listed position, divided by the distance
of the nearest other member; listed positions identify the members."""

_STEP = 1e-4
"""Finite-difference step of a flux' derivative, in standard-normal coordinates."""


class Placed(SersicCoordinates):
    """A galaxy of a group, with a narrow prior of its centre about the listed position.

    Args:
        box: Prior box at the reference instrument.
        place: Listed position relative to the stamp's centre. [px]
        spread: Prior standard deviation of the centre about it, along either axis. [px]
        fixed: See :class:`~deeplegato_pp.scene.components.SersicCoordinates`.
    """

    def __init__(
        self,
        box: PriorBox,
        place: tuple[float, float],
        spread: float,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(box, fixed)
        self.place, self.spread = place, spread
        names = [name for name in NAMES if name not in self.fixed]
        self._mean, self._std = _near(box, names, place, spread)

    def normal_prior(self) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
        """Returns means and standard deviations of the prior in u, narrow in the centre."""
        return self._mean, self._std

    def log_prior(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns the normalised prior density in u, with shape (*,)."""
        return _normal_log_prob(u, self._mean, self._std)

    def in_box(self, box: PriorBox) -> Placed:
        """Returns the same galaxy with another prior box."""
        return Placed(box, self.place, self.spread, self.fixed)


class PlacedPoint(PointSourceCoordinates):
    """A point source that replaces a galaxy of a group, with the same prior of its centre.

    Args:
        galaxy: The galaxy that it replaces.
    """

    def __init__(self, galaxy: Placed) -> None:
        super().__init__(galaxy.box)
        self._mean, self._std = _near(galaxy.box, POINT.names, galaxy.place, galaxy.spread)

    def normal_prior(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
        """Returns means and standard deviations of the prior in u, narrow in the centre."""
        return self._mean, self._std

    def log_prior(self, u: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
        """Returns the normalised prior density in u, with shape (*,)."""
        return _normal_log_prob(u, self._mean, self._std)


class PlacedScene(GalaxyScene):
    """A galaxy of several components that replaces a galaxy of a group.

    Args:
        name: Name of the hypothesis.
        galaxy: The galaxy as a single profile.
    """

    def __init__(self, name: str, galaxy: Placed) -> None:
        super().__init__(name, galaxy.box)
        names = self.scene.free.names
        self._mean, self._std = _near(galaxy.box, names, galaxy.place, galaxy.spread)

    def normal_prior(self) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
        """Returns means and standard deviations of the prior in u, narrow in the centre."""
        return self._mean, self._std

    def log_prior(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns the normalised prior density in u, with shape (*,)."""
        return _normal_log_prob(u, self._mean, self._std)


class Group(Coordinates, Generic[Free]):
    """Coordinates of several galaxies of one stamp, all of them free.

    Args:
        members: Coordinates of each galaxy; their boxes may differ in the centre.

    Raises:
        RangeError: If there are no members.

    Example:
        >>> Group([SersicCoordinates(PriorBox())] * 2).dim
        14
    """

    def __init__(self, members: Sequence[Free]) -> None:
        if not members:
            raise RangeError("a group has at least one member, got none.")
        self.members = tuple(members)
        self.box = self.members[0].box
        self.dim = sum(m.dim for m in self.members)

    def split(self, u: Float[Tensor, "*b f"]) -> tuple[Tensor, ...]:
        """Returns the coordinates of each member."""
        return u.split([m.dim for m in self.members], -1)

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the coordinates of a group whose members all have the given coordinates."""
        return torch.cat([m.project(w) for m in self.members], -1)

    def in_box(self, box: PriorBox) -> Group[Free]:
        """Returns the group with another prior box for its first member."""
        return Group([self.members[0].in_box(box), *self.members[1:]])

    def normal_prior(self) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
        """Returns means and standard deviations of all members' priors."""
        mean, std = zip(*(m.normal_prior() for m in self.members), strict=True)
        return torch.cat(mean), torch.cat(std)

    def log_prior(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns the normalised prior density in u, with shape (*,)."""
        parts = zip(self.members, self.split(u), strict=True)
        return torch.stack([m.log_prior(part) for m, part in parts]).sum(0)

    def galaxies(self, u: Float[Tensor, "s f"]) -> list[Float[Tensor, "c 7 s"]]:
        """Returns the renderer's columns of each member."""
        return [m.profiles(part) for m, part in zip(self.members, self.split(u), strict=True)]

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns of all members, with shape (C, 7, S)."""
        return torch.cat(self.galaxies(u))


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The other members of a group, as functions of one member.

    Attributes:
        others: Joint coordinates of the other members.
        at: Coordinates of the member at the group's optimum, with shape (F,).
        others_at: Coordinates of the others at the optimum, with shape (G,).
        slope: Regression coefficients of the others on the member, with shape (G, F).
        log_volume: ln of the integral over the others of a Gaussian of unit height with their
            conditional covariance given the member.
    """

    others: Group[SersicCoordinates]
    at: Float[Tensor, " f"]
    others_at: Float[Tensor, " g"]
    slope: Float[Tensor, "g f"]
    log_volume: float

    @classmethod
    def of(
        cls,
        others: Group[SersicCoordinates],
        u: Float[Tensor, " n"],
        covariance: Float[Tensor, "n n"],
    ) -> Surroundings:
        """Builds the other members of a group from its optimum.

        Args:
            others: Joint coordinates of the other members.
            u: Optimum of the whole group; the member's coordinates come first.
            covariance: Covariance of the group's posterior at the optimum.
        """
        f = len(u) - others.dim
        cross = covariance[f:, :f]
        slope = torch.linalg.solve(covariance[:f, :f], cross.mT).mT
        left = covariance[f:, f:] - slope @ cross.mT
        log_volume = 0.5 * float(torch.linalg.slogdet(2.0 * math.pi * left).logabsdet)
        return cls(others, u[:f], u[f:], slope, log_volume)


class Member(Coordinates):
    """Coordinates of one galaxy of a group; the other members follow it.

    Fluxes of the others are linear in the member's flux; all other parameters are linear in the
    coordinates.

    Args:
        own: Coordinates of the galaxy.
        around: The other members, as functions of this one.
        found: Coordinates of the galaxy in which `around` is expressed; `own` if None.
    """

    def __init__(
        self,
        own: Coordinates,
        around: Surroundings,
        found: Coordinates | None = None,
    ) -> None:
        self.own, self.around = own, around
        self.found = own if found is None else found
        self.box, self.dim = own.box, own.dim
        others = around.others
        self._flux = _flux_and_slope(self.found, around.at)
        self._others = [
            _flux_and_slope(m, part)
            for m, part in zip(others.members, others.split(around.others_at), strict=True)
        ]

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the galaxy's own coordinates among the seven."""
        return self.own.project(w)

    def embed(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b 7"]:
        """Returns the galaxy's seven coordinates w, with fixed values inserted."""
        return self._profile(self.own).embed(u)

    @staticmethod
    def _profile(coordinates: Coordinates) -> SersicCoordinates:
        assert isinstance(coordinates, SersicCoordinates)  # noqa: S101  # asked of single profiles
        return coordinates

    def in_box(self, box: PriorBox) -> Member:
        """Returns the galaxy with another prior box; the other members stay the same."""
        return Member(self.own.in_box(box), self.around, self.found)

    def follow(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "s g"]:
        """Returns the coordinates of the other members, with shape (S, G)."""
        a = self.around
        if self.box != self.found.box:
            physical = self.box.to_physical(self.embed(u))
            u = self.found.project(_to_normal(self.found.box, physical))
        delta = u.double() - a.at
        at, slope = self._flux
        if slope:
            flux = self.found.profiles(u)[:, 0].sum(0)
            delta = torch.cat([((flux - at) / slope)[:, None], delta[:, 1:]], 1)
        change = a.others.split(delta @ a.slope.mT)
        moved = []
        for member, middle, part, (flux_at, flux_slope) in zip(
            a.others.members, a.others.split(a.others_at), change, self._others, strict=True
        ):
            bright = _magnitude_coordinate(member.box, flux_at + flux_slope * part[:, 0])
            moved += [bright[:, None], middle[1:] + part[:, 1:]]
        return torch.cat(moved, 1).clamp(-W_MAX, W_MAX)

    def galaxies(self, u: Float[Tensor, "s f"]) -> list[Float[Tensor, "c 7 s"]]:
        """Returns the renderer's columns of the galaxy and of each of the others."""
        return [self.own.profiles(u), *self.around.others.galaxies(self.follow(u))]

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns of the galaxy and all others, with shape (C, 7, S)."""
        return torch.cat(self.galaxies(u))

    def normal_prior(self) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
        """Returns means and standard deviations of the galaxy's own prior."""
        return self.own.normal_prior()

    def log_prior(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns the log-prior of the galaxy and the others plus their log-volume, (*,).

        Together with the likelihood it integrates to the evidence of the whole group.
        """
        others = self.around.others.log_prior(self.follow(u.reshape(-1, self.dim)))
        return self.own.log_prior(u) + others.reshape(u.shape[:-1]) + self.around.log_volume


def _near(
    box: PriorBox, names: Sequence[str], place: tuple[float, float], spread: float
) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
    """Returns prior means and standard deviations in u, with the centre near a given position."""
    mean = torch.zeros(len(names), dtype=torch.float64)
    std = torch.ones_like(mean)
    for name, value in zip(("center_x", "center_y"), place, strict=True):
        if name not in names:
            continue
        low, high = getattr(box, name)
        middle = min(max(value, low + 1e-3 * (high - low)), high - 1e-3 * (high - low))
        near = torch.tensor([[middle - 0.1], [middle], [middle + 0.1]], dtype=torch.float64)
        near = near.clamp(low, high)
        block = {columns[0]: b for b, columns in box.blocks}[NAMES.index(name)]
        below, at, above = block.to_normal(near)[:, 0].tolist()
        width = spread * (above - below) / float(near[2] - near[0])
        i = list(names).index(name)
        precision = 1.0 + width**-2
        mean[i], std[i] = at * width**-2 / precision, precision**-0.5
    return mean, std


def _normal_log_prob(
    u: Float[Tensor, "*b f"], mean: Float[Tensor, " f"], std: Float[Tensor, " f"]
) -> Float[Tensor, "*b"]:
    volume = float(std.log().sum()) + 0.5 * len(mean) * math.log(2.0 * math.pi)
    return -0.5 * (((u.double() - mean) / std) ** 2).sum(-1) - volume


def about(box: PriorBox, x: float, y: float) -> PriorBox:
    """Returns a prior box with the centre's bounds moved to another position. [px]"""
    half_x, half_y = (0.5 * (high - low) for low, high in (box.center_x, box.center_y))
    return replace(box, center_x=(x - half_x, x + half_x), center_y=(y - half_y, y + half_y))


def _flux_and_slope(coordinates: Coordinates, u: Float[Tensor, " f"]) -> tuple[float, float]:
    """Returns the flux of a galaxy and its derivative with respect to the first coordinate."""
    step = torch.zeros_like(u)
    step[0] = _STEP
    at, up, down = coordinates.profiles(torch.stack([u, u + step, u - step]))[:, 0].sum(0).tolist()
    return at, (up - down) / (2.0 * _STEP)


def _to_normal(box: PriorBox, physical: Float[Tensor, "s 7"]) -> Float[Tensor, "s 7"]:
    """Returns coordinates of physical values; values outside the box map to its edge."""
    w = torch.empty_like(physical)
    for block, columns in box.blocks:
        w[..., columns] = block.to_normal(physical[..., columns])
    return w


def _magnitude_coordinate(box: PriorBox, flux: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
    """Returns the magnitude's coordinate for fluxes; the faint edge where they are not positive."""
    bright, faint = flux_of(torch.tensor(box.magnitude, dtype=torch.float64)).tolist()
    magnitude = magnitude_of(flux.clamp(faint, bright)).clamp(*box.magnitude)
    block, _ = box.blocks[MAGNITUDE]
    return block.to_normal(magnitude[:, None])[:, 0]
