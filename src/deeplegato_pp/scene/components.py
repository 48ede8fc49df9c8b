"""Coordinates of hypotheses and components of scenes, with standard-normal priors.

A hypothesis (a Sérsic galaxy, one with some parameters fixed, a point source) has coordinates u
whose prior is N(0, I) in `dim` dimensions. It converts u to the columns that the renderer takes, in
detector units.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.blocks import Block
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    INDEX,
    MAGNITUDE,
    NAMES,
    NUM_PARAMETERS,
    POSITION_ANGLE,
    RADIUS,
)
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT
from deeplegato_pp.scene.table import POINT, SERSIC, Table

POINT_RADIUS = 1e-6
"""Radius of the Sérsic profile that represents a point: its transform is 1 to 1e-10. [px]"""


class Coordinates(ABC):
    """Coordinates u of one hypothesis, with a standard-normal prior.

    Attributes:
        dim: Number of free coordinates F.
        box: Prior box at the reference instrument.
    """

    dim: int
    box: PriorBox

    @abstractmethod
    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns this hypothesis' coordinates for a galaxy's seven coordinates w."""

    @abstractmethod
    def in_box(self, box: PriorBox) -> Self:
        """Returns the same hypothesis with another prior box; fixed parameters stay fixed."""

    @abstractmethod
    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns in detector units, with shape (C, 7, S).

        These are flux, radius, n, q, angle, x and y of the C profiles whose sum is the image.
        """

    def galaxies(self, u: Float[Tensor, "s f"]) -> list[Float[Tensor, "c 7 s"]]:
        """Returns the profiles of each galaxy; the measured galaxy comes first."""
        return [self.profiles(u)]

    def normal_prior(self) -> tuple[Float[Tensor, " f"], Float[Tensor, " f"]]:
        """Returns means and standard deviations of the prior in u: 0 and 1 by default."""
        zero = torch.zeros(self.dim, dtype=torch.float64)
        return zero, zero + 1.0

    def log_prior(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns the normalised prior density in u, with shape (*,)."""
        return -0.5 * (u.double() ** 2).sum(-1) - 0.5 * self.dim * math.log(2.0 * math.pi)


class SersicCoordinates(Coordinates):
    """Coordinates of a Sérsic galaxy, of which some parameters may be fixed.

    With fixed parameters, the prior is that of the free ones.

    Args:
        box: Prior box at the reference instrument.
        fixed: Values of fixed parameters by name, in the box's units. Axis ratio and position angle
            share two coordinates and must be fixed together, unless the axis ratio is 1.

    Raises:
        RangeError: If a name is unknown, a value lies outside the box, or only one of axis ratio
            and position angle is fixed, or all seven are.

    Example:
        >>> SersicCoordinates(PriorBox(), {"sersic_index": 4.0}).dim
        6
    """

    def __init__(self, box: PriorBox, fixed: Mapping[str, float] | None = None) -> None:
        self.box = box
        fixed = {} if fixed is None else dict(fixed)
        unknown = set(fixed) - set(NAMES)
        if unknown:
            raise RangeError(f"Unknown parameters {sorted(unknown)}; the seven are {NAMES}.")
        if "axis_ratio" in fixed and float(fixed["axis_ratio"]) == 1.0:
            fixed.setdefault("position_angle", 0.0)
        if ("axis_ratio" in fixed) != ("position_angle" in fixed):
            raise RangeError(
                "axis_ratio and position_angle share two coordinates: fix both or neither, got "
                f"{sorted(fixed)}. An axis_ratio of 1 may be fixed alone."
            )
        centre = box.to_physical(torch.zeros(1, NUM_PARAMETERS, dtype=torch.float64))
        for name, value in fixed.items():
            centre[0, INDEX[name]] = float(value)
        self.fixed = fixed
        self._template = box.to_normal(centre)[0]
        self._free = [i for i, name in enumerate(NAMES) if name not in fixed]
        if not self._free:
            raise RangeError("All seven parameters are fixed: nothing is left to infer.")
        self.dim = len(self._free)

    def embed(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b 7"]:
        """Returns all seven coordinates w, with fixed values inserted."""
        if self.dim == NUM_PARAMETERS:
            return u
        w = self._template.to(u.device).expand(*u.shape[:-1], NUM_PARAMETERS).clone()
        w[..., self._free] = u
        return w

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the free coordinates among the seven."""
        return w if self.dim == NUM_PARAMETERS else w[..., self._free]

    def in_box(self, box: PriorBox) -> Self:
        """Returns the same galaxy with another prior box."""
        return type(self)(box, self.fixed)

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "1 7 s"]:
        """Returns the seven columns of the renderer, in detector units."""
        return Sersic(self.box).columns(self.box.to_physical(self.embed(u)))


class PointSourceCoordinates(Coordinates):
    """Coordinates of a point source, with the galaxy's prior in magnitude and centre.

    Args:
        box: Prior box at the reference instrument; only magnitude and centre are used.
    """

    dim = 3

    def __init__(self, box: PriorBox) -> None:
        self.box = box

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b 3"]:
        """Returns the coordinates of magnitude and centre among a galaxy's seven."""
        return w[..., [MAGNITUDE, CENTER_X, CENTER_Y]]

    def in_box(self, box: PriorBox) -> Self:
        """Returns a point source with another prior box."""
        return type(self)(box)

    def profiles(self, u: Float[Tensor, "s 3"]) -> Float[Tensor, "1 7 s"]:
        """Returns the renderer's columns of a profile much smaller than a pixel."""
        w = u.new_zeros(*u.shape[:-1], NUM_PARAMETERS)
        w[..., [MAGNITUDE, CENTER_X, CENTER_Y]] = u
        p = self.box.to_physical(w)
        return PointSource(self.box).columns(p[..., [MAGNITUDE, CENTER_X, CENTER_Y]])


def flux_of(magnitude: Tensor) -> Tensor:
    """Converts magnitudes at the reference instrument to fluxes in background sigmas."""
    return 10.0 ** (0.4 * (REFERENCE_ZERO_POINT - magnitude))


def magnitude_of(flux: Tensor) -> Tensor:
    """Converts fluxes in background sigmas to magnitudes at the reference instrument."""
    return REFERENCE_ZERO_POINT - 2.5 * flux.log10()


def radius_and_shape(box: PriorBox, w: Float[Tensor, "*b 7"]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the radius [px], axis ratio and position angle [deg] at w."""
    p = box.to_physical(w)
    return p[..., RADIUS] / REFERENCE_PIXEL_SCALE, p[..., AXIS_RATIO], p[..., POSITION_ANGLE]


class Component(ABC):
    """One source of light: its parameters, their priors, and its columns for the renderer.

    Attributes:
        table: Parameters.
        blocks: Bijections with the columns of each, in the table's order.
    """

    table: Table
    blocks: tuple[tuple[Block, tuple[int, ...]], ...]

    @abstractmethod
    def columns(self, values: Float[Tensor, "s p"]) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns in detector units, with shape (C, 7, S).

        These are flux, radius, n, q, angle, x and y of each profile of the component.

        Args:
            values: Parameters at the reference instrument, with shape (S, P).
        """


class Sersic(Component):
    """A Sérsic profile as a component of a scene.

    Args:
        box: Prior box at the reference instrument.

    Example:
        >>> Sersic(PriorBox()).columns(PriorBox().sample(5)).shape
        torch.Size([1, 7, 5])
    """

    table = SERSIC

    def __init__(self, box: PriorBox) -> None:
        self.box, self.blocks = box, box.blocks

    def columns(self, values: Float[Tensor, "s 7"]) -> Float[Tensor, "1 7 s"]:
        """Returns the renderer's columns of the profile."""
        magnitude, radius, *rest = values.unbind(-1)
        return torch.stack([flux_of(magnitude), radius / REFERENCE_PIXEL_SCALE, *rest])[None]


class PointSource(Component):
    """A point source as a component of a scene, with a galaxy's prior in magnitude and centre.

    Args:
        box: Prior box at the reference instrument; only magnitude and centre are used.
    """

    table = POINT

    def __init__(self, box: PriorBox) -> None:
        magnitude, *_, x, y = box.blocks
        self.blocks = tuple((block[0], (i,)) for i, block in enumerate((magnitude, x, y)))

    def columns(self, values: Float[Tensor, "s 3"]) -> Float[Tensor, "1 7 s"]:
        """Returns the renderer's columns of a profile much smaller than a pixel."""
        magnitude, x, y = values.unbind(-1)
        one = torch.ones_like(x)
        point = POINT_RADIUS * one
        return torch.stack([flux_of(magnitude), point, one, one, 0.0 * one, x, y])[None]
