"""Half-light radius of a sum of concentric profiles, measured along a given ellipse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.render.sersic_profile import compute_bn

_ANGLES = 64
"""Number of directions over which the light inside an ellipse is averaged."""

_HALVINGS = 40
"""Number of bisection steps in ln radius, for a relative precision of 1e-11."""


def half_light_radius(
    profiles: Sequence[Float[Tensor, "s 7"]],
    axis_ratio: Float[Tensor, "*s"],
    position_angle: Float[Tensor, "*s"],
    points: Sequence[Float[Tensor, "s 3"]] = (),
) -> Float[Tensor, " s"]:
    """Computes the semi-major axis of the ellipse that encloses half of the total light.

    The enclosed light of each profile is exact except for an average over 64 directions. All
    centres are assumed to coincide.

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
    flux = [10.0 ** (-0.4 * p[:, 0].double()) for p in (*profiles, *points)]
    total = torch.stack(flux).sum(0)
    inside_always = sum(flux[len(profiles) :], torch.zeros_like(total))
    stretched = [_boundary(p.double(), axis_ratio, position_angle) for p in profiles]
    radii = torch.stack([p[:, 1].double() for p in profiles])
    low, high = (1e-4 * radii.amin(0)).log(), (1e4 * radii.amax(0)).log()
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        light = inside_always + sum(
            f * _fraction(p.double(), middle.exp()[:, None] * s)
            for f, p, s in zip(flux, profiles, stretched, strict=False)
        )
        less = light < 0.5 * total
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    return torch.where(inside_always >= 0.5 * total, 0.0, (0.5 * (low + high)).exp())


def _boundary(profile: Tensor, axis_ratio: Tensor, position_angle: Tensor) -> Tensor:
    """Returns the unit ellipse's radii in the frame in which a profile is round, (S, 64).

    The radii are at uniform angles of that frame, in which light per angle is uniform.
    """
    phi = (torch.arange(_ANGLES, dtype=torch.float64) + 0.5) * (2.0 * math.pi / _ANGLES)
    q, turn = profile[:, 3:4], torch.deg2rad(profile[:, 4] - position_angle)[:, None]
    # Directions of the round frame, rotated to the profile's frame, then to the ellipse's.
    along, across = phi.cos(), q * phi.sin()
    u = along * turn.cos() - across * turn.sin()
    v = along * turn.sin() + across * turn.cos()
    ratio = torch.as_tensor(axis_ratio, dtype=torch.float64).reshape(-1, 1)
    return (u**2 + (v / ratio) ** 2).rsqrt()


def _fraction(profile: Tensor, radius: Tensor) -> Tensor:
    """Returns the fraction of a profile's light inside a boundary, with shape (S,)."""
    n = profile[:, 2:3]
    x = compute_bn(n) * (radius / profile[:, 1:2]) ** (1.0 / n)
    return torch.special.gammainc(2.0 * n.expand_as(x), x).mean(-1)
