r"""Galaxies that share a stamp: all of them free, or one of them with the others following it.

The posterior of one member is that of the whole group with the others integrated out. Where these
are nearly Gaussian given the member, that is the group's posterior at the others' best values, over
the root of the determinant of their precision (Laplace's approximation: Tierney & Kadane 1986,
https://doi.org/10.1080/01621459.1986.10478240). The best values follow the member along the
regression of the group's Gaussian, and all images are rendered as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.components import (
    Coordinates,
    SersicCoordinates,
    flux_of,
    magnitude_of,
)
from deeplegato_pp.scene.parameters import MAGNITUDE
from deeplegato_pp.scene.prior import W_MAX, PriorBox

_CELL_EDGE = 0.1
"""Width of the edge between two members' cells. [px]"""

_X, _Y = 5, 6
"""Rows of the renderer's columns that hold a centre."""


class Group(Coordinates):
    """Several galaxies of one stamp, all of them free.

    Args:
        members: The coordinates of each; their boxes may differ in the centre.

    Raises:
        RangeError: If there is none.

    Example:
        >>> Group([SersicCoordinates(PriorBox())] * 2).dim
        14
    """

    def __init__(self, members: Sequence[Coordinates]) -> None:
        if not members:
            raise RangeError("a group has at least one member, got none.")
        self.members = tuple(members)
        self.box = self.members[0].box
        self.dim = sum(m.dim for m in self.members)

    def split(self, u: Float[Tensor, "*b f"]) -> tuple[Tensor, ...]:
        """Returns the coordinates of each member."""
        return u.split([m.dim for m in self.members], -1)

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the coordinates of members that are all alike."""
        return torch.cat([m.project(w) for m in self.members], -1)

    def in_box(self, box: PriorBox) -> Group:
        """Returns the group with its first member under another prior box."""
        return Group([self.members[0].in_box(box), *self.members[1:]])

    def galaxies(self, u: Float[Tensor, "s f"]) -> list[Float[Tensor, "c 7 s"]]:
        """Returns what `render_sersic` draws of each member."""
        return [m.profiles(part) for m, part in zip(self.members, self.split(u), strict=True)]

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "c 7 s"]:
        """Returns what `render_sersic` draws of all members."""
        return torch.cat(self.galaxies(u))


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The others of a group, as they follow one member.

    Attributes:
        others: Their coordinates, jointly.
        at: Of the member, at the group's best values, with shape (F,).
        others_at: Of the others there, with shape (G,).
        slope: Regression of the others on the member, with shape (G, F).
        log_volume: Half the log-determinant of the others' precision, given the member.
        place: Where the member is listed, from the stamp's centre. [px]
        places: Where the others are, with shape (K, 2).
    """

    others: Group
    at: Float[Tensor, " f"]
    others_at: Float[Tensor, " g"]
    slope: Float[Tensor, "g f"]
    log_volume: float
    place: Float[Tensor, "2"]
    places: Float[Tensor, "k 2"]

    @classmethod
    def of(
        cls,
        own: Coordinates,
        others: Group,
        u: Float[Tensor, " f+g"],
        covariance: Float[Tensor, "f+g f+g"],
        place: Float[Tensor, "2"],
        places: Float[Tensor, "k 2"],
    ) -> Surroundings:
        """Returns the others of a group at its optimum.

        Args:
            own: Coordinates of the member that is measured.
            others: Those of the others.
            u: The optimum, the member's coordinates first.
            covariance: Of the group's posterior there.
            place: Where the member is listed. [px]
            places: Where the others are, with shape (K, 2). [px]
        """
        f = own.dim
        cross = covariance[f:, :f]
        slope = torch.linalg.solve(covariance[:f, :f], cross.mT).mT
        left = covariance[f:, f:] - slope @ cross.mT
        log_volume = -0.5 * float(torch.linalg.slogdet(left).logabsdet)
        return cls(others, u[:f], u[f:], slope, log_volume, place, places)


class Member(Coordinates):
    """One galaxy of a group, free; the others follow it.

    Fluxes follow fluxes, in which images are linear; all else follows coordinates. The centre is
    nearer to the galaxy's own listed position than to any other's: two members do not change
    places.

    Args:
        own: Coordinates of the galaxy.
        around: The others, as they were found beside it.
        found: Coordinates of the galaxy in which they were found; `own` if None.
    """

    def __init__(
        self, own: Coordinates, around: Surroundings, found: Coordinates | None = None
    ) -> None:
        self.own, self.around = own, around
        self.found = own if found is None else found
        self.box, self.dim = own.box, own.dim
        self._flux, self._flux_slope = self._fluxes(self.found, around.at[None])
        self._others = [
            self._fluxes(m, part)
            for m, part in zip(
                around.others.members, around.others.split(around.others_at[None]), strict=True
            )
        ]

    @staticmethod
    def _fluxes(coordinates: Coordinates, u: Float[Tensor, "1 f"]) -> tuple[float, float]:
        """The flux of a galaxy, and its derivative with the first coordinate."""
        step = torch.zeros_like(u)
        step[0, 0] = 1e-4
        both = torch.cat([u, u + step, u - step])
        at, up, down = coordinates.profiles(both)[:, 0].sum(0).tolist()
        return at, (up - down) / 2e-4

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the galaxy's own coordinates out of seven."""
        return self.own.project(w)

    def embed(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b 7"]:
        """Returns the galaxy's seven coordinates w, fixed ones filled in."""
        return self._sersic().embed(u)

    def _sersic(self) -> SersicCoordinates:
        assert isinstance(self.own, SersicCoordinates)  # noqa: S101  # asked of galaxies only
        return self.own

    def in_box(self, box: PriorBox) -> Member:
        """Returns the galaxy under another prior box; the others are as they were found."""
        return Member(self.own.in_box(box), self.around, self.found)

    def follow(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "s g"]:
        """Returns the others' coordinates, with shape (S, G)."""
        a = self.around
        if self.box != self.found.box:
            physical = self.box.to_physical(self.embed(u))
            u = self.found.project(_to_normal(self.found.box, physical))
        delta = u.double() - a.at
        if abs(self._flux_slope) > 0:
            flux = self.found.profiles(u)[:, 0].sum(0)
            delta = torch.cat([((flux - self._flux) / self._flux_slope)[:, None], delta[:, 1:]], 1)
        change = delta @ a.slope.mT
        moved = []
        parts = a.others.split(a.others_at)
        for member, at, part, (flux_at, slope) in zip(
            a.others.members, parts, a.others.split(change), self._others, strict=True
        ):
            values = at + part
            values[:, 0] = _magnitude_coordinate(member.box, flux_at + slope * part[:, 0])
            moved.append(values)
        return torch.cat(moved, 1).clamp(-W_MAX, W_MAX)

    def galaxies(self, u: Float[Tensor, "s f"]) -> list[Float[Tensor, "c 7 s"]]:
        """Returns what `render_sersic` draws of the galaxy, and of each of the others."""
        return [self.own.profiles(u), *self.around.others.galaxies(self.follow(u))]

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "c 7 s"]:
        """Returns what `render_sersic` draws of the galaxy and the others."""
        return torch.cat(self.galaxies(u))

    def log_prior(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns the galaxy's prior times that of the others and their volume, with shape (*,).

        With the likelihood it integrates to the evidence of the whole group.
        """
        flat = u.reshape(-1, u.shape[-1])
        others = -0.5 * (self.follow(flat) ** 2).sum(-1) - self.around.log_volume
        penalty = self._beyond_cell(flat)
        return self.own.log_prior(u) + (others - penalty).reshape(u.shape[:-1])

    def _beyond_cell(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """What a centre nearer to another listed position takes off the prior."""
        profiles = self.own.profiles(u)
        centre = torch.stack([profiles[0, _X], profiles[0, _Y]], -1) - self.around.place
        apart = self.around.places - self.around.place
        length = apart.norm(dim=-1)
        depth = (centre @ (apart / length[:, None]).mT - 0.5 * length).clamp_min(0.0)
        return 0.5 * ((depth / _CELL_EDGE) ** 2).sum(-1)


def about(box: PriorBox, x: float, y: float) -> PriorBox:
    """Returns a prior box whose centre's bounds lie about another position. [px]"""
    bounds = [(0.5 * (high - low)) for low, high in (box.center_x, box.center_y)]
    return replace(
        box, center_x=(x - bounds[0], x + bounds[0]), center_y=(y - bounds[1], y + bounds[1])
    )


def _to_normal(box: PriorBox, physical: Float[Tensor, "s 7"]) -> Float[Tensor, "s 7"]:
    """Coordinates of values that may lie outside the box: those at its edge then."""
    w = torch.empty_like(physical)
    for block, columns in box.blocks:
        w[..., columns] = block.to_normal(physical[..., columns])
    return w


def _magnitude_coordinate(box: PriorBox, flux: Float[Tensor, " s"]) -> Float[Tensor, " s"]:
    """The magnitude's coordinate of fluxes; the prior's faint edge of those that are none."""
    bright, faint = flux_of(torch.tensor(box.magnitude, dtype=torch.float64)).tolist()
    magnitude = magnitude_of(flux.clamp(faint, bright)).clamp(*box.magnitude)
    block, _ = box.blocks[MAGNITUDE]
    return block.to_normal(magnitude[:, None])[:, 0]
