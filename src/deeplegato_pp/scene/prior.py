r"""The prior: a box of physical values, and its bijection to the standard normal.

:class:`PriorBox` maps physical values to coordinates :math:`w \in R^7` under which the prior is
exactly :math:`N(0, I)`, and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.scene.blocks import W_MAX as W_MAX
from deeplegato_pp.scene.blocks import Block, Interval, ShapePlane
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    NAMES,
    NUM_PARAMETERS,
    PARAMETERS,
    POSITION_ANGLE,
)
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT


@dataclass(frozen=True)
class PriorBox:
    r"""Bounds of the seven parameters, with a bijection under which the prior is :math:`N(0, I)`.

    The bijection consists of the blocks of `scene.blocks`: intervals, and the plane of axis ratio
    and position angle. All arithmetic is in float64, for any input dtype.

    Args:
        magnitude: Bounds. [mag]
        effective_radius: Bounds. [arcsec, > 0]
        sersic_index: Bounds. [> 0]
        axis_ratio: Bounds; the upper one is 1.
        position_angle: Always (0, 180). [deg]
        center_x: Bounds. [px]
        center_y: Bounds. [px]

    Raises:
        RangeError: If a bound is not finite, not ordered, not positive for a logarithmic prior, or
            if a fixed bound of the shape is changed.

    Example:
        >>> box = PriorBox()
        >>> w = torch.zeros(1, 7, dtype=torch.float64)
        >>> box.to_physical(w)[0, :2]
        tensor([21.5000,  1.0000], dtype=torch.float64)
    """

    magnitude: tuple[float, float] = PARAMETERS[0].bounds
    effective_radius: tuple[float, float] = PARAMETERS[1].bounds
    sersic_index: tuple[float, float] = PARAMETERS[2].bounds
    axis_ratio: tuple[float, float] = PARAMETERS[3].bounds
    position_angle: tuple[float, float] = PARAMETERS[4].bounds
    center_x: tuple[float, float] = PARAMETERS[5].bounds
    center_y: tuple[float, float] = PARAMETERS[6].bounds

    def __post_init__(self) -> None:
        for p in PARAMETERS:
            lower, upper = (float(x) for x in getattr(self, p.name))
            object.__setattr__(self, p.name, (lower, upper))
            if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
                raise RangeError(
                    f"The bounds of {p.name} must be finite with lower < upper, "
                    f"got ({lower}, {upper})."
                )
            if p.scale == "log" and lower <= 0:
                raise RangeError(f"{p.name} has a logarithmic prior: lower > 0, got {lower}.")
        if self.position_angle != (0.0, 180.0) or self.axis_ratio[1] != 1.0:
            raise RangeError(
                "position_angle spans (0, 180) and axis_ratio ends at 1 in every prior box, "
                f"got {self.position_angle} and {self.axis_ratio}. "
                "Reweight the draws for a narrower prior in shape."
            )
        if self.axis_ratio[0] <= 0:
            raise RangeError(f"axis_ratio must have a lower bound > 0, got {self.axis_ratio[0]}.")

    @cached_property
    def blocks(self) -> tuple[tuple[Block, tuple[int, ...]], ...]:
        """Bijections, each with its columns, in the table's order."""
        blocks: list[tuple[Block, tuple[int, ...]]] = []
        for i, p in enumerate(PARAMETERS):
            if i == AXIS_RATIO:
                blocks.append((ShapePlane(self.axis_ratio[0]), (AXIS_RATIO, POSITION_ANGLE)))
            elif i != POSITION_ANGLE:
                lower, upper = getattr(self, p.name)
                blocks.append((Interval(lower, upper, p.scale == "log"), (i,)))
        return tuple(blocks)

    @classmethod
    def from_mapping(cls, bounds: Mapping[str, Iterable[float]]) -> PriorBox:
        """Builds a box from ``{name: (lower, upper)}``; missing names keep their defaults.

        Raises:
            RangeError: If a name is unknown or a value is not a pair of numbers.
        """
        unknown = set(bounds) - set(NAMES)
        if unknown:
            raise RangeError(f"Unknown parameters {sorted(unknown)}; the seven are {NAMES}.")
        pairs: dict[str, tuple[float, float]] = {}
        for name, bound in bounds.items():
            try:
                lower, upper = (float(value) for value in bound)
            except (TypeError, ValueError):
                raise RangeError(
                    f"{name} takes two numbers (lower, upper), got {bound!r}."
                ) from None
            pairs[name] = (lower, upper)
        return cls(**pairs)

    @classmethod
    def at_reference(
        cls, bounds: Mapping[str, Iterable[float]], pixel_scale: float, zero_point: float
    ) -> PriorBox:
        """Builds a box from an instrument's bounds, shifted to the reference instrument.

        Args:
            bounds: Bounds as for `from_mapping`, at the instrument.
            pixel_scale: Pixel scale of the instrument. [arcsec/px]
            zero_point: Magnitude of one background sigma per pixel at the instrument.
        """
        return cls.from_mapping(bounds).shifted(
            magnitude=REFERENCE_ZERO_POINT - zero_point,
            radius_factor=REFERENCE_PIXEL_SCALE / pixel_scale,
        )

    def to_dict(self) -> dict[str, list[float]]:
        """Returns ``{name: [lower, upper]}``, as written to files."""
        return {name: list(getattr(self, name)) for name in NAMES}

    def shifted(self, *, magnitude: float = 0.0, radius_factor: float = 1.0) -> PriorBox:
        """Returns the box shifted to another instrument.

        Args:
            magnitude: Added to both magnitude bounds. [mag]
            radius_factor: Factor for both radius bounds, the ratio of pixel scales.
        """
        m, r = self.magnitude, self.effective_radius
        return replace(
            self,
            magnitude=(m[0] + magnitude, m[1] + magnitude),
            effective_radius=(r[0] * radius_factor, r[1] * radius_factor),
        )

    def sample(self, batch: int, generator: torch.Generator | None = None) -> Float[Tensor, "b 7"]:
        """Draws parameters from the prior.

        Args:
            batch: Number of draws.
            generator: Random generator, whose device is used; None for torch's global one.

        Returns:
            Physical parameters, with shape (batch, 7), float64.
        """
        device = None if generator is None else generator.device
        w = torch.randn(
            batch, NUM_PARAMETERS, generator=generator, dtype=torch.float64, device=device
        )
        return self.to_physical(w.clamp(-W_MAX, W_MAX))

    def contains(self, params: Float[Tensor, "*b 7"]) -> Tensor:
        """Returns whether all seven values of each row lie inside the box, with shape (*,)."""
        lower, upper = self._edges(params.device)
        inside = (params.double() >= lower) & (params.double() <= upper)
        inside[..., POSITION_ANGLE] = torch.isfinite(params[..., POSITION_ANGLE])
        return inside.all(-1)

    def to_normal(self, params: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b 7"]:
        """Maps physical parameters to standard-normal coordinates.

        Args:
            params: Physical parameters, with shape (*, 7), in the table's units. The position
                angle may have any value; it is taken modulo 180.

        Returns:
            Coordinates w, with shape (*, 7), float64, |w| <= 8.

        Raises:
            RangeError: If a value lies outside the box; the message names row and value.
        """
        p = params.double()
        self._check_inside(p)
        w = torch.empty_like(p)
        for block, columns in self.blocks:
            w[..., columns] = block.to_normal(p[..., columns])
        return w

    def to_physical(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b 7"]:
        """Maps standard-normal coordinates to physical parameters; inverse of `to_normal`.

        Args:
            w: Coordinates, with shape (*, 7). Every finite value maps into the box.

        Returns:
            Physical parameters, with shape (*, 7), float64. Differentiable, except for the
            position angle at q = 1, where it is undefined.
        """
        parts = [block.to_physical(w[..., columns]) for block, columns in self.blocks]
        return torch.cat(parts, -1)

    def log_jacobian(
        self, w: Float[Tensor, "*b 7"], physical: Float[Tensor, "*b 7"] | None = None
    ) -> Float[Tensor, "*b"]:
        r"""Returns :math:`\ln |\det \partial w / \partial p|`, the change of the density's units.

        A density in w is converted to physical units (per mag, arcsec, degree, ...) by
        ``log q(p) = log q(w) + log_jacobian(w)``.

        Args:
            w: Coordinates, with shape (*, 7).
            physical: The result of `to_physical` for w, if already known.

        Returns:
            ln |det|, with shape (*,), float64.
        """
        physical = self.to_physical(w) if physical is None else physical
        return torch.stack(
            [
                block.log_jacobian(w[..., columns], physical[..., columns])
                for block, columns in self.blocks
            ]
        ).sum(0)

    def log_prior(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b"]:
        """Returns the prior's log-density in the coordinates w, with shape (*,)."""
        w = w.double()
        return -0.5 * (w**2).sum(-1) - 0.5 * NUM_PARAMETERS * math.log(2 * math.pi)

    def _edges(self, device: torch.device) -> tuple[Tensor, Tensor]:
        pairs = torch.tensor([getattr(self, name) for name in NAMES], dtype=torch.float64)
        return pairs[:, 0].to(device), pairs[:, 1].to(device)

    def _check_inside(self, params: Tensor) -> None:
        if params.shape[-1:] != (NUM_PARAMETERS,):
            raise ShapeError(
                f"Parameters have shape (*, 7) in the order {NAMES}, got {tuple(params.shape)}."
            )
        inside = self.contains(params)
        if bool(inside.all()):
            return
        flat = params.reshape(-1, NUM_PARAMETERS)
        row = int((~inside.reshape(-1)).nonzero()[0, 0])
        for p, value in zip(PARAMETERS, flat[row].tolist(), strict=True):
            lower, upper = getattr(self, p.name)
            if (p.period is None and not lower <= value <= upper) or not math.isfinite(value):
                raise RangeError(
                    f"{p.name} must lie in [{lower}, {upper}] {p.unit}, got {value} in row {row}. "
                    "Widen the prior box or rescale the stamp."
                )
