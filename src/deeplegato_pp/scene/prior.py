r"""The prior: a box of physical values, and one bijection to the standard normal.

:class:`PriorBox` maps physical values to coordinates :math:`w \in R^7` under which the prior is
exactly :math:`N(0, I)`, and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    NAMES,
    NUM_PARAMETERS,
    PARAMETERS,
    POSITION_ANGLE,
    RADIUS,
    SERSIC_INDEX,
)
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT

W_MAX = 8.0
"""Largest |w| that the bijection serves: Phi(-8) = 6e-16 is where float64 still resolves a tail."""

_BOXED = (MAGNITUDE, RADIUS, SERSIC_INDEX, CENTER_X, CENTER_Y)


@dataclass(frozen=True)
class PriorBox:
    r"""Bounds of the seven parameters, and the bijection under which the prior is :math:`N(0, I)`.

    Boxed parameters go through :math:`w = \Phi^{-1}(\mathrm{CDF}(p))`. Axis ratio and position
    angle go together through Box and Muller's transform, so that there is no seam at 0/180
    degrees: with :math:`e = (1-q)/(1-q_\mathrm{min})` and
    :math:`\rho = \sqrt{-2 \ln(1-e)}`, :math:`(w_4, w_5) = \rho (\cos 2\theta, \sin 2\theta)`.
    All arithmetic is float64, whatever comes in.

    Args:
        magnitude: Bounds. [mag]
        effective_radius: Bounds. [arcsec, > 0]
        sersic_index: Bounds. [> 0]
        axis_ratio: Bounds; the upper one is 1.
        position_angle: Always (0, 180). [deg]
        center_x: Bounds. [px]
        center_y: Bounds. [px]

    Raises:
        RangeError: If a bound is not finite or not ordered, a logarithmic one not positive, or
            the shape's fixed bounds are changed.

    References:
        | A note on the generation of random normal deviates (Box & Muller, 1958)
        | https://doi.org/10.1214/aoms/1177706645

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

    @classmethod
    def from_mapping(cls, bounds: Mapping[str, Iterable[float]]) -> PriorBox:
        """Builds a box from ``{name: (lower, upper)}``; names left out keep their default.

        Raises:
            RangeError: If a name is unknown or a pair is not a pair.
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
        """Builds an instrument's box, moved rigidly to the reference instrument.

        Args:
            bounds: As `from_mapping` takes them, at the instrument.
            pixel_scale: Of the instrument. [arcsec/px]
            zero_point: Magnitude of one background sigma per pixel there.
        """
        return cls.from_mapping(bounds).shifted(
            magnitude=REFERENCE_ZERO_POINT - zero_point,
            radius_factor=REFERENCE_PIXEL_SCALE / pixel_scale,
        )

    def to_dict(self) -> dict[str, list[float]]:
        """Returns ``{name: [lower, upper]}``, as written to files."""
        return {name: list(getattr(self, name)) for name in NAMES}

    def shifted(self, *, magnitude: float = 0.0, radius_factor: float = 1.0) -> PriorBox:
        """Returns the box moved rigidly to another instrument.

        Args:
            magnitude: Added to both magnitude bounds. [mag]
            radius_factor: Multiplies both radius bounds, the ratio of pixel scales.
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
            generator: Source of randomness (its device is used), or None for torch's global one.

        Returns:
            Physical parameters, with shape (batch, 7), float64.
        """
        device = None if generator is None else generator.device
        w = torch.randn(
            batch, NUM_PARAMETERS, generator=generator, dtype=torch.float64, device=device
        )
        return self.to_physical(w.clamp(-W_MAX, W_MAX))

    def contains(self, params: Float[Tensor, "*b 7"]) -> Tensor:
        """Returns a boolean per row: whether all seven values lie inside the box."""
        lower, upper = self._edges(params.device)
        inside = (params.double() >= lower) & (params.double() <= upper)
        inside[..., POSITION_ANGLE] = torch.isfinite(params[..., POSITION_ANGLE])
        return inside.all(-1)

    def to_normal(self, params: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b 7"]:
        """Maps physical parameters to standard-normal coordinates.

        Args:
            params: Physical parameters, with shape (*, 7), in the table's units. The position
                angle may be any number of degrees; it is taken modulo 180.

        Returns:
            Coordinates w, with shape (*, 7), float64, |w| <= 8.

        Raises:
            RangeError: If a value lies outside the box; the message names row and value.
        """
        p = params.double()
        self._check_inside(p)
        w = torch.empty_like(p)
        for i in _BOXED:
            lower, upper = self._scaled_bounds(i)
            x = p[..., i].log() if PARAMETERS[i].scale == "log" else p[..., i]
            w[..., i] = _interval_to_normal(
                (x - lower) / (upper - lower), (upper - x) / (upper - lower)
            )
        q_min = self.axis_ratio[0]
        survival = (p[..., AXIS_RATIO] - q_min) / (1.0 - q_min)  # 1 - e
        rho = (-2.0 * survival.clamp_min(_TINY).log()).clamp_min(0.0).sqrt()
        phase = torch.deg2rad(2.0 * p[..., POSITION_ANGLE])
        w[..., AXIS_RATIO] = rho * phase.cos()
        w[..., POSITION_ANGLE] = rho * phase.sin()
        return w

    def to_physical(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b 7"]:
        """Maps standard-normal coordinates to physical parameters; the inverse of `to_normal`.

        Args:
            w: Coordinates, with shape (*, 7). No finite value leaves the box.

        Returns:
            Physical parameters, with shape (*, 7), float64. Differentiable, except for the
            position angle at q = 1, where it has no meaning.
        """
        w = w.double()
        columns: list[Tensor] = [w[..., i] for i in range(NUM_PARAMETERS)]
        for i in _BOXED:
            lower, upper = self._scaled_bounds(i)
            below = _normal_cdf(columns[i])
            above = _normal_cdf(-columns[i])
            # Each half measures its distance from the nearer edge, so neither tail is rounded away.
            x = torch.where(
                columns[i] < 0, lower + below * (upper - lower), upper - above * (upper - lower)
            )
            columns[i] = x.exp() if PARAMETERS[i].scale == "log" else x
            columns[i] = columns[i].clamp(*getattr(self, NAMES[i]))
        wx, wy = w[..., AXIS_RATIO], w[..., POSITION_ANGLE]
        q_min = self.axis_ratio[0]
        columns[AXIS_RATIO] = q_min + (1.0 - q_min) * (-0.5 * (wx**2 + wy**2)).exp()
        angle = torch.rad2deg(0.5 * torch.atan2(wy, wx))
        angle = torch.remainder(angle, 180.0)  # which rounds up to 180 from just below 0
        columns[POSITION_ANGLE] = torch.where(angle < 180.0, angle, angle - 180.0)
        return torch.stack(columns, -1)

    def log_jacobian(
        self, w: Float[Tensor, "*b 7"], physical: Float[Tensor, "*b 7"] | None = None
    ) -> Float[Tensor, "*b"]:
        r"""Returns :math:`\ln |\det \partial w / \partial p|`, the density's change of units.

        A density in w becomes one in physical units (per mag, arcsec, degree, ...) by
        ``log q(p) = log q(w) + log_jacobian(w)``.

        Args:
            w: Coordinates, with shape (*, 7).
            physical: What `to_physical` makes of them, if it is known already.

        Returns:
            The logarithm of the determinant, with shape (*,), float64.
        """
        w = w.double()
        physical = self.to_physical(w) if physical is None else physical
        total = torch.zeros_like(w[..., 0])
        for i in _BOXED:
            lower, upper = self._scaled_bounds(i)
            total = (
                total - math.log(upper - lower) + 0.5 * w[..., i] ** 2 + 0.5 * math.log(2 * math.pi)
            )
            if PARAMETERS[i].scale == "log":
                total = total - physical[..., i].log()
        rho2 = w[..., AXIS_RATIO] ** 2 + w[..., POSITION_ANGLE] ** 2
        # N(0, I) on the plane is uniform in (q, angle): density 1/((1 - q_min) 180) per degree.
        return (
            total
            - math.log((1.0 - self.axis_ratio[0]) * 180.0)
            + 0.5 * rho2
            + math.log(2 * math.pi)
        )

    def log_prior(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b"]:
        """Returns the prior's log-density at w, in the coordinates w, with shape (*,)."""
        w = w.double()
        return -0.5 * (w**2).sum(-1) - 0.5 * NUM_PARAMETERS * math.log(2 * math.pi)

    def _scaled_bounds(self, index: int) -> tuple[float, float]:
        lower, upper = getattr(self, NAMES[index])
        if PARAMETERS[index].scale == "log":
            return math.log(lower), math.log(upper)
        return lower, upper

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


_TINY = math.exp(-0.5 * 2 * W_MAX**2)


def _normal_cdf(w: Tensor) -> Tensor:
    """Returns Phi(w), exact in the lower tail, where torch's own `ndtr` is 0.5 (1 + erf)."""
    return 0.5 * torch.special.erfc(-w / math.sqrt(2.0))


def _interval_to_normal(below: Tensor, above: Tensor) -> Tensor:
    """Returns Phi^-1 of a fraction, given its distances from both ends of [0, 1]."""
    edge = 0.5 * math.erfc(W_MAX / math.sqrt(2.0))
    lower_half = torch.special.ndtri(below.clamp(edge, 0.5))
    upper_half = -torch.special.ndtri(above.clamp(edge, 0.5))
    return torch.where(below < above, lower_half, upper_half)
