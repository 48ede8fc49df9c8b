"""Light of a galaxy's periodic copies on its stamp.

An inverse FFT shows a galaxy repeated with the transform's period L. The copies add their outer
profiles to the stamp. These wings are smooth, so they are evaluated in real space at a few points,
interpolated, and subtracted by the renderer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.scene.render.hankel_tables import load_tables
from deeplegato_pp.scene.render.sersic_profile import (
    compute_bn,
    ellipse_form,
    log_central_brightness,
    power_of_square,
)


class Galaxies(NamedTuple):
    """The renderer's columns, in its order.

    Attributes:
        flux: Total flux, with shape (B,).
        radius: Major-axis half-light radius, with shape (B,). [px]
        sersic_index: n, with shape (B,).
        axis_ratio: b/a, with shape (B,).
        position_angle: Counter-clockwise from +y, with shape (B,). [deg]
        x: Column of the centre from the stamp's centre, with shape (B,). [px]
        y: Row of the centre from the stamp's centre, with shape (B,). [px]
    """

    flux: Float[Tensor, " b"]
    radius: Float[Tensor, " b"]
    sersic_index: Float[Tensor, " b"]
    axis_ratio: Float[Tensor, " b"]
    position_angle: Float[Tensor, " b"]
    x: Float[Tensor, " b"]
    y: Float[Tensor, " b"]

    def at(self, rows: Tensor | slice) -> Galaxies:
        """Returns the galaxies at a slice, an index or a boolean tensor."""
        return Galaxies(*(column[rows] for column in self))

    def float(self) -> Galaxies:
        """Returns the galaxies in float32."""
        return Galaxies(*(column.to(torch.float32) for column in self))


@dataclass(frozen=True)
class Plan:
    """Settings for rendering one class of galaxies.

    Attributes:
        period: Side L of the periodic square divided by the stamp's side.
        nodes: Number of Chebyshev nodes per axis at which the copies' wings are evaluated.
        rings: Rings of copies that are evaluated individually; the rest is approximated.
    """

    period: float
    nodes: int
    rings: int


def psf_moments(psf: Tensor, oversampling: int, pixel: bool) -> Float[Tensor, "*b 6"]:
    """Returns the moments of 1, x, y, x^2, y^2 and xy of a PSF about its centre. [px]"""
    y, x = (
        (torch.arange(n, dtype=psf.dtype, device=psf.device) - n // 2) / oversampling
        for n in psf.shape[-2:]
    )
    one_x, one_y = torch.ones_like(x), torch.ones_like(y)
    rows = psf @ torch.stack([one_x, x, x**2], -1)  # (..., Py, 3)
    m00, m10, m20 = (rows * one_y[:, None]).sum(-2).unbind(-1)
    m01, m11, _ = (rows * y[:, None]).sum(-2).unbind(-1)
    m02 = (rows[..., 0] * y**2).sum(-1)
    box = 0.0 if pixel else m00 / 12.0
    return torch.stack([m00, m10, m01, m20 + box, m02 + box, m11], -1)


NEGLIGIBLE = 1e-6
"""Light of all copies, relative to the peak pixel, below which it is not computed."""


def wings_matter(
    galaxies: Galaxies,
    psf_moments: Float[Tensor, "*b 6"],
    size: int,
    length: int,
    negligible: float | Float[Tensor, " b"] = 0.0,
) -> Bool[Tensor, " b"]:
    """Returns whether a galaxy's copies may shed more than 1e-6 of its peak pixel on the stamp.

    The light of the copies is bounded by 16 times that of the nearest copy at the nearest edge,
    along the major axis: 8 copies touch the stamp's sides and corners, and the profile falls
    at least as fast there. The peak is at least the mean within the half-light ellipse
    broadened by the PSF.

    Args:
        galaxies: B galaxies.
        psf_moments: Moments of one PSF or of one per galaxy, from `psf_moments`.
        size: Side of the stamp. [px]
        length: Period. [px]
        negligible: Light that is never subtracted, even if larger. [flux per pixel]
    """
    flux, radius, n, q, _, x, y = (column.detach() for column in galaxies)
    bn = compute_bn(n)
    nearest = length - 0.5 * size - torch.maximum(x.abs(), y.abs())
    root = power_of_square((nearest / radius) ** 2, n)
    light = log_central_brightness(n, radius, q, bn) - bn * root
    m00, _, _, m20, m02, _ = psf_moments.detach().unbind(-1)
    area = 2.0 * math.pi * (radius**2 * q + (m20 + m02) / m00)
    # The sum over copies beyond the first ring is an integral, so at least 8 R_e are required.
    steep = bn * root / n > 8.0
    enough = torch.maximum(NEGLIGIBLE / area, negligible / flux)
    return ~(steep & (light + math.log(16.0) < enough.log()))


def wings(
    galaxies: Galaxies,
    psf_moments: Float[Tensor, "*b 6"],
    size: int,
    length: int,
    plan: Plan,
) -> Float[Tensor, "b size size"]:
    """Computes the light of the galaxy's periodic copies on the stamp.

    The nearest rings of copies are evaluated at Chebyshev nodes and interpolated (the wings are
    smooth across the stamp, so this converges geometrically); all further copies together are
    approximated by a paraboloid (`_far_copies`). Since the wings vary slowly over the PSF's width,
    the convolution uses the PSF's moments up to second order.

    Args:
        galaxies: B galaxies.
        psf_moments: Moments of one PSF or of one per galaxy, from `psf_moments`.
        size: Side of the stamp. [px]
        length: Period. [px]
        plan: Number of nodes and rings.
    """
    flux, radius, sersic_index, axis_ratio, position_angle, x, y = galaxies
    bn = compute_bn(sersic_index)
    log_i0 = log_central_brightness(sersic_index, radius, axis_ratio, bn) + flux.log()
    nodes, upsample = _chebyshev(plan.nodes, size, radius.dtype, radius.device)
    m = plan.rings
    shifts = [(i, j) for i in range(-m, m + 1) for j in range(-m, m + 1) if (i, j) != (0, 0)]
    shifts.sort(key=lambda s: max(abs(s[0]), abs(s[1])))  # the nearest ring first
    shift = length * torch.tensor(shifts, dtype=radius.dtype, device=radius.device)
    dx = (nodes - (x[:, None, None] + shift[:, 0, None]))[:, :, None, :]  # (B, copies, 1, nodes)
    dy = (nodes - (y[:, None, None] + shift[:, 1, None]))[..., None]
    form = ellipse_form(radius, axis_ratio, position_angle)
    xx, xy, yy = (c[:, None, None, None] for c in form)
    r2 = xx * dx**2 + dy * (xy * dx + yy * dy)
    root = power_of_square(r2, sersic_index[:, None, None, None])
    light = (log_i0[:, None, None, None] - bn[:, None, None, None] * root).exp()
    m00, m10, m01, m20, m02, m11 = psf_moments[..., None, None, None].unbind(-4)
    beyond = light[:, 8:].sum(1)
    # Derivatives of I through r^2: I' = slope I and I'' = curve I; needed for the nearest ring.
    dx, dy, r2, root = (part[:, :8] for part in (dx, dy, r2, root))
    power = 0.5 / sersic_index[:, None, None, None]
    slope = -bn[:, None, None, None] * power * root / r2
    curve = slope * (slope + (power - 1.0) / r2)
    gx, gy = 2.0 * xx * dx + xy * dy, 2.0 * yy * dy + xy * dx
    blur = m00 + slope * (m20 * xx + m02 * yy + m11 * xy - m10 * gx - m01 * gy)
    blur = blur + curve * (0.5 * m20 * gx**2 + gy * (0.5 * m02 * gy + m11 * gx))
    near = (light[:, :8] * blur).sum(1)
    far = _far_copies(galaxies, nodes, log_i0, bn, length, (m + 0.5) * length)
    return upsample @ (near + m00[..., 0, :, :] * (beyond + far)) @ upsample.T


def _far_copies(
    galaxies: Galaxies, nodes: Tensor, log_i0: Tensor, bn: Tensor, length: int, half: float
) -> Float[Tensor, "b k k"]:
    """Returns the light of all copies outside the square of evaluated rings, at the nodes.

    Its average over one period is the light outside the square divided by the period's area. The
    averages of its second derivatives are integrals of the profile's derivatives outside the
    square, which by Gauss's theorem are integrals along its sides.
    """
    flux, radius, n, q, angle, x, y = galaxies
    mean = flux * _light_outside(radius, n, q, angle, half) / length**2
    xx, xy, yy = (c[:, None] for c in ellipse_form(radius, q, angle))
    side = (torch.arange(32, dtype=radius.dtype, device=radius.device) + 0.5) / 16 - 1
    side = half * torch.cat([side, side.new_ones(1)])  # the last one is the corner

    def light_and_slope(across: Tensor, shear: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """Returns I on the side at distance `half`, and its outward derivative."""
        r2 = across * half**2 + side * (shear * half + along * side)
        root = power_of_square(r2, n[:, None])
        light = (log_i0[:, None] - bn[:, None] * root).exp()
        outwards = 2.0 * across * half + shear * side
        return light, -light * bn[:, None] * root * outwards / (2.0 * n[:, None] * r2)

    light, slope_x = light_and_slope(xx, xy, yy)
    _, slope_y = light_and_slope(yy, xy, xx)
    other_corner = light_and_slope(xx, -xy, yy)[0][:, -1]
    step = half / 16
    curve_x = -2.0 * step * slope_x[:, :-1].sum(1) / length**2
    curve_y = -2.0 * step * slope_y[:, :-1].sum(1) / length**2
    twist = -2.0 * (light[:, -1] - other_corner) / length**2
    dx, dy = nodes - x[:, None], nodes - y[:, None]
    bowl_x = 0.5 * curve_x[:, None] * (dx**2 - length**2 / 12)
    bowl_y = 0.5 * curve_y[:, None] * (dy**2 - length**2 / 12)
    return (
        (mean[:, None] + bowl_y)[:, :, None]
        + bowl_x[:, None, :]
        + twist[:, None, None] * dy[:, :, None] * dx[:, None, :]
    )


def _light_outside(radius: Tensor, n: Tensor, q: Tensor, angle: Tensor, half: float) -> Tensor:
    """Returns the fraction of a galaxy's light outside a centred square of half-side `half` px."""
    phi = (torch.arange(64, dtype=radius.dtype, device=radius.device) + 0.5) * (math.pi / 64)
    t = torch.deg2rad(angle + 90.0)[:, None]
    u, v = phi.cos(), q[:, None] * phi.sin()
    reach = torch.maximum((u * t.cos() - v * t.sin()).abs(), (u * t.sin() + v * t.cos()).abs())
    outside = load_tables().outside
    return outside.evaluate(outside.rows(n), (half / (reach * radius[:, None])).log()).mean(1)


@lru_cache(maxsize=64)
def _chebyshev(
    nodes: int, size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns Chebyshev nodes over the stamp [px from its centre] and the matrix to its pixels."""
    k = torch.arange(nodes, dtype=torch.float64)
    t = torch.cos((2 * k + 1) * math.pi / (2 * nodes))
    half = (size - 1) / 2
    pixels = torch.arange(size, dtype=torch.float64) / half - 1 if half else torch.zeros(1).double()
    order = torch.arange(nodes, dtype=torch.float64)
    at_pixels = torch.cos(order * torch.arccos(pixels.clamp(-1, 1))[:, None])
    at_nodes = torch.cos(order * torch.arccos(t)[:, None])
    matrix = at_pixels @ torch.linalg.inv(at_nodes)
    return (half * t).to(device, dtype), matrix.to(device, dtype)
