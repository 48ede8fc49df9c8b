"""Half-light radius of a sum of concentric profiles, measured along a given ellipse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.render.sersic_profile import compute_bn

_ANGLES = 32
"""Number of directions over half a turn over which the light inside an ellipse is averaged."""

_STEPS = 60
"""Maximum number of steps in ln radius; Newton's method takes some eight."""

_PRECISION = 1e-10
"""Relative precision of the radius."""


def half_light_radius(
    profiles: Sequence[Float[Tensor, "s 7"]],
    axis_ratio: Float[Tensor, "*s"],
    position_angle: Float[Tensor, "*s"],
    points: Sequence[Float[Tensor, "s 3"]] = (),
) -> Float[Tensor, " s"]:
    """Computes the semi-major axis of the ellipse that encloses half of the total light.

    The enclosed light of each profile is exact except for an average over 64 directions (32, by
    symmetry). All centres are assumed to coincide.

    Args:
        profiles: Parameters of the Sérsic profiles, each with shape (S, 7).
        axis_ratio: Axis ratio b/a of the ellipse along which the radius is measured.
        position_angle: Position angle of the ellipse. [deg]
        points: Parameters of point sources, each with shape (S, 3); all their light is enclosed.

    Returns:
        The radius, with shape (S,), in the profiles' unit; 0 if points hold half of the light.

    Example:
        >>> disc = torch.tensor([[20.0, 1.5, 1.0, 0.6, 30.0, 0.0, 0.0]], dtype=torch.float64)
        >>> half_light_radius([disc, disc], disc[:, 3], disc[:, 4])
        tensor([1.5000], dtype=torch.float64)
    """
    flux = torch.stack([10.0 ** (-0.4 * p[:, 0].double()) for p in (*profiles, *points)])
    extended, half = flux[: len(profiles)], 0.5 * flux.sum(0)
    points_light = flux[len(profiles) :].sum(0)
    params = torch.stack([p.double() for p in profiles])
    stretched = torch.stack([_boundary(p, axis_ratio, position_angle) for p in params])
    radii = params[:, :, 1]
    low, high = (1e-4 * radii.amin(0)).log(), (1e4 * radii.amax(0)).log()
    # Newton's method in ln radius; a step that leaves the bracket is replaced by its middle.
    found = (extended * radii.log()).sum(0) / extended.sum(0).clamp_min(1e-300)
    active = (points_light < half).nonzero()[:, 0]
    for _ in range(_STEPS):
        if not len(active):
            break
        now = found[active]
        boundary = now.exp()[:, None] * stretched[:, active]
        fraction, change = _fraction(params[:, active], boundary)
        light = extended[:, active]
        missing = half[active] - points_light[active] - (light * fraction).sum(0)
        low[active] = torch.where(missing > 0, now, low[active])
        high[active] = torch.where(missing > 0, high[active], now)
        step = now + missing / (light * change).sum(0).clamp_min(1e-300)
        bracketed = (step > low[active]) & (step < high[active])
        found[active] = torch.where(bracketed, step, 0.5 * (low[active] + high[active]))
        active = active[(found[active] - now).abs() > _PRECISION]
    return torch.where(points_light < half, found.exp(), 0.0)


def _boundary(profile: Tensor, axis_ratio: Tensor, position_angle: Tensor) -> Tensor:
    """Returns the unit ellipse's radii in the frame in which a profile is round, (S, 32).

    The radii are at uniform angles of that frame, in which light per angle is uniform.
    """
    phi = (torch.arange(_ANGLES, dtype=torch.float64) + 0.5) * (math.pi / _ANGLES)
    q, turn = profile[:, 3:4], torch.deg2rad(profile[:, 4] - position_angle)[:, None]
    # Directions of the round frame, rotated to the profile's frame, then to the ellipse's.
    along, across = phi.cos(), q * phi.sin()
    u = along * turn.cos() - across * turn.sin()
    v = along * turn.sin() + across * turn.cos()
    ratio = torch.as_tensor(axis_ratio, dtype=torch.float64).reshape(-1, 1)
    return (u**2 + (v / ratio) ** 2).rsqrt()


def _fraction(profile: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the fraction of each profile's light inside a boundary, and its slope.

    The slope is the derivative with respect to ln radius.
    """
    n = profile[..., 2:3]
    x = compute_bn(n) * (radius / profile[..., 1:2]) ** (1.0 / n)
    fraction = torch.special.gammainc(2.0 * n.expand_as(x), x)
    density = (2.0 * n * x.log() - x - torch.lgamma(2.0 * n)).exp() / n
    return fraction.mean(-1), density.mean(-1)
