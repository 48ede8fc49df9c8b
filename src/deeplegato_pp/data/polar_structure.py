"""Multiplicative structure of galaxies: maps over ln(radius) and azimuth.

Arms, rings, lanes, breaks, lopsidedness, non-elliptical isophotes and random modulation are drawn
as the logarithm of a factor on one grid in polar coordinates of the galaxy's plane, whose cells
have constant shape. The grid has fewer points than an image, and its sum is interpolated once to
the pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample, softplus

from deeplegato_pp.config.structure import StructureConfig
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.scene.render.sersic_profile import compute_bn
from deeplegato_pp.scene.render.wings import Galaxies

SECTORS = 64
"""Number of grid points in azimuth."""

RINGS = 128
"""Number of grid points in ln(radius)."""

INNER, OUTER = 0.02, 20.0
"""Radii of the grid's ends; beyond them the values are constant. [R_e]"""

CORE = 0.15
"""Radius within which arms, rings and modulation fade. [R_e]"""

FAINTEST, BRIGHTEST = -8.0, 2.5
"""Limits of the factor's logarithm: breaks may remove all light; no factor exceeds e^2.5."""

HIGHEST_ORDER = 8
"""Maximum azimuthal order of the random modulation."""


@dataclass(frozen=True)
class PolarGrid:
    """Coordinates of the grid points.

    Attributes:
        log_radius: ln(r/R_e), with shape (1, RINGS).
        azimuth: Angle from the major axis, in the galaxy's plane, with shape (SECTORS, 1). [rad]
    """

    log_radius: Float[Tensor, "1 k"]
    azimuth: Float[Tensor, "m 1"]

    @classmethod
    def like(cls, numbers: Tensor) -> PolarGrid:
        """Returns the grid with device and dtype of a tensor."""
        u = torch.linspace(math.log(INNER), math.log(OUTER), RINGS).to(numbers)
        phi = (torch.arange(SECTORS) * (2.0 * math.pi / SECTORS)).to(numbers)
        return cls(u[None], phi[:, None])

    @property
    def radius(self) -> Float[Tensor, "1 k"]:
        """Radius r/R_e, with shape (1, RINGS)."""
        return self.log_radius.exp()

    @property
    def fade(self) -> Float[Tensor, "1 k"]:
        """Factor that suppresses structure at the galaxy's centre."""
        r2 = self.radius**2
        return r2 / (r2 + CORE**2)


class PlanePixels(NamedTuple):
    """Pixels in polar coordinates of each galaxy's plane, with the minor axis stretched by 1/q.

    Attributes:
        along: Coordinate along the major axis, with shape (B, N, N). [R_e]
        across: Coordinate across it, in the plane, with shape (B, N, N). [R_e]
        radius: Radius, softened by half a pixel, with shape (B, N, N). [R_e]
    """

    along: Float[Tensor, "b n n"]
    across: Float[Tensor, "b n n"]
    radius: Float[Tensor, "b n n"]

    @classmethod
    def of(cls, galaxies: Galaxies, size: int) -> PlanePixels:
        """Returns the pixels of square stamps.

        Args:
            galaxies: The galaxies; centres relative to the stamp's.
            size: Side of the stamps. [px]
        """
        axis = torch.arange(size).to(galaxies.flux) - (size - 1) / 2
        radius = galaxies.radius[:, None, None]
        dx = (axis[None, None, :] - galaxies.x[:, None, None]) / radius
        dy = (axis[None, :, None] - galaxies.y[:, None, None]) / radius
        t = torch.deg2rad(galaxies.position_angle + 90.0)[:, None, None]
        cos, sin = t.cos(), t.sin()
        along = dx * cos + dy * sin
        across = (dy * cos - dx * sin) / galaxies.axis_ratio[:, None, None]
        soft = (0.5 / galaxies.radius)[:, None, None] ** 2
        return cls(along, across, (along**2 + across**2 + soft).sqrt())


def log_factors(
    draw: Draw, galaxies: Galaxies, has: dict[str, Bool[Tensor, " b"]], config: StructureConfig
) -> Float[Tensor, "b m k"]:
    """Draws the logarithm of the factor on each galaxy's light, on the polar grid.

    Args:
        draw: Random numbers, with a row per galaxy.
        galaxies: The smooth galaxies.
        has: Galaxies with structure, by kind.
        config: Amplitudes.
    """
    grid = PolarGrid.like(galaxies.flux)
    total = galaxies.flux.new_zeros(len(galaxies.flux), SECTORS, RINGS)
    kinds = {
        "arms": _arms,
        "rings": _rings,
        "lopsided": _lopsided,
        "modulated": _modulation,
        "truncated": _break,
        "dust_lanes": _lane,
    }
    for kind, make in kinds.items():
        if getattr(config, kind):
            # Numbers are drawn for all galaxies, so that kinds are independent of each other's
            # fraction.
            drawn = make(draw, grid, galaxies, config)
            total = total + torch.where(has[kind][:, None, None], drawn, 0.0)
    if config.twisted or config.boxy:
        total = total + _isophotes(draw, grid, galaxies, has, config)
    return total.clamp(FAINTEST, BRIGHTEST)


def at_pixels(maps: Float[Tensor, "b m k"], pixels: PlanePixels) -> Float[Tensor, "b n n"]:
    """Returns maps on the polar grid at pixels, by linear interpolation."""
    wrapped = torch.cat([maps, maps[:, :1]], 1)[:, None]
    span = math.log(OUTER / INNER)
    u = 2.0 * (pixels.radius.log() - math.log(INNER)) / span - 1.0
    turn = torch.atan2(pixels.across, pixels.along) / math.pi
    places = torch.stack([u, torch.remainder(turn, 2.0) - 1.0], -1)
    found = grid_sample(wrapped, places, padding_mode="border", align_corners=True)
    return found[:, 0]


def _arms(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    """Draws arms with logarithmic spirals as crests; three of five galaxies have two."""
    choice = _column(draw.uniform(0.0, 1.0))
    orders = torch.where(choice < 0.6, 2.0, torch.where(choice < 0.75, 3.0, 4.0))
    orders = torch.where(choice > 0.9, 1.0, orders)
    contrast = _column(draw.log_uniform(config.arm_contrast))
    pitch = torch.deg2rad(_column(draw.uniform(*config.arm_pitch)))
    sense = torch.where(_column(draw.uniform(0.0, 1.0)) < 0.5, 1.0, -1.0)
    phase = _column(draw.uniform(0.0, 2.0 * math.pi))
    begin = _column(draw.uniform(0.2, 0.8))
    rise = 1.0 / (1.0 + (begin / grid.radius) ** 4)
    wave = torch.cos(orders * (grid.azimuth + sense * grid.log_radius / pitch.tan()) + phase)
    return contrast * rise * wave


def _rings(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    contrast = _column(draw.log_uniform(config.ring_contrast))
    middle = _column(draw.uniform(*config.ring_radius))
    width = middle * _column(draw.uniform(0.1, 0.25))
    x = (grid.radius - middle) / width
    wave = torch.exp(-0.5 * x**2) - 0.5 * torch.exp(-0.5 * (x + 2.2) ** 2)
    return (contrast * wave * grid.fade).expand(-1, SECTORS, -1)


def _lopsided(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    amplitude = _column(draw.log_uniform(config.lopsidedness))
    phase = _column(draw.uniform(0.0, 2.0 * math.pi))
    x2 = (grid.radius / 1.5) ** 2
    return amplitude * torch.cos(grid.azimuth + phase) * x2 / (1.0 + x2)


def _break(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    """Draws a smooth change of slope per R_e at the break, by -1 to -4 or by 0.2 to 0.8."""
    radius = _column(draw.uniform(*config.break_radius))
    steeper = _column(draw.uniform(0.0, 1.0)) < 2.0 / 3.0
    down, up = _column(draw.uniform(1.0, 4.0)), _column(draw.uniform(0.2, 0.8))
    slope = torch.where(steeper, -down, up)
    softness = 0.1 * radius
    wave = slope * softness * softplus((grid.radius - radius) / softness)
    return wave.expand(-1, SECTORS, -1)


def _lane(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    """Draws a straight lane beside the centre, about an R_e long."""
    depth = _column(draw.log_uniform(config.dust_depth))
    thickness = _column(draw.uniform(0.08, 0.3))
    offset = _column(draw.uniform(-1.0, 1.0)) * thickness
    length = _column(draw.uniform(0.5, 2.0))
    free = _column(galaxies.axis_ratio) > 0.5
    turn = _column(draw.uniform(0.0, math.pi)) * free
    x = grid.radius * torch.cos(grid.azimuth - turn)
    y = grid.radius * torch.sin(grid.azimuth - turn)
    return -depth * torch.exp(-0.5 * ((y - offset) / thickness) ** 2 - 0.5 * (x / length) ** 2)


def _modulation(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    """Draws a Gaussian random field whose spectrum decreases with m^2 + k^2, with unit rms."""
    rms = _column(draw.log_uniform(config.modulation))
    m = torch.arange(HIGHEST_ORDER + 1).to(rms)[:, None]
    k = torch.fft.fftfreq(RINGS, math.log(OUTER / INNER) / RINGS).to(rms)[None] * 2.0 * math.pi
    power = (1.0 + m**2 + k**2) ** (-config.modulation_slope)
    twice = torch.where(m > 0, 2.0, 1.0)  # includes the orders -m
    power = power / (twice * power).sum()
    real, imaginary = draw.normal(*power.shape), draw.normal(*power.shape)
    spectrum = torch.complex(real, imaginary) * (0.5 * power).sqrt()
    # For a real field, order 0 is its own mirror image, and contributes its real part.
    radial = torch.fft.ifft(spectrum, dim=2, norm="forward")
    radial = torch.cat([math.sqrt(2.0) * radial[:, :1].real + 0j, radial[:, 1:]], 1)
    field = torch.fft.irfft(radial, n=SECTORS, dim=1, norm="forward")
    return rms * field * grid.fade


def _isophotes(
    draw: Draw,
    grid: PolarGrid,
    galaxies: Galaxies,
    has: dict[str, Tensor],
    config: StructureConfig,
) -> Tensor:
    """Draws the change of a Sérsic profile by twisted, reshaped and non-elliptical isophotes.

    The brightness at a point is that of the plain profile at the radius of its isophote.
    """
    q = _column(galaxies.axis_ratio)
    reach = torch.tanh(grid.log_radius)  # saturates an e-fold from R_e
    turn = math.radians(config.twist) * _column(draw.uniform(-1.0, 1.0)) * reach
    stretch = torch.exp(_column(draw.uniform(-0.3, 0.3)) * reach)
    turn = torch.where(_column(has["twisted"]), turn, 0.0)
    stretch = torch.where(_column(has["twisted"]), stretch, 1.0)
    power = 2.0 + torch.where(_column(has["boxy"]), _column(draw.uniform(*config.boxiness)), 0.0)
    x, y = torch.cos(grid.azimuth), q * torch.sin(grid.azimuth)
    along = (x * turn.cos() + y * turn.sin()).abs()
    across = ((y * turn.cos() - x * turn.sin()) / (q * stretch)).abs()
    ratio = (along**power + across**power) ** (1.0 / power)
    n = _column(galaxies.sersic_index)
    bn = _column(compute_bn(galaxies.sersic_index))
    return -bn * (grid.radius ** (1.0 / n)) * (ratio ** (1.0 / n) - 1.0)


def _column(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]
