"""Structure that multiplies a galaxy's light: maps over ln(radius) and azimuth.

Arms, rings, lanes, breaks, lopsidedness, isophotes that are no ellipses and random modulation are
all drawn as the logarithm of a factor on one grid in the polar coordinates of the galaxy's plane,
whose cells are alike on the sky wherever they are. That grid has fewer points than an image, and
one interpolation carries their sum to the pixels.
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
"""Points of the grid in azimuth."""

RINGS = 128
"""Points of the grid in ln(radius)."""

INNER, OUTER = 0.02, 20.0
"""Radii where the grid begins and ends; what lies beyond has the value of the edge. [R_e]"""

CORE = 0.15
"""Radius inside which arms, rings and modulation fade away. [R_e]"""

FAINTEST, BRIGHTEST = -8.0, 2.5
"""Limits of the logarithm of the factor: a break may leave nothing, and nothing adds tenfold."""

HIGHEST_ORDER = 8
"""Highest order in azimuth of the random modulation."""


@dataclass(frozen=True)
class PolarGrid:
    """Coordinates of the grid's points.

    Attributes:
        log_radius: ln(r/R_e), with shape (1, RINGS).
        azimuth: From the major axis, in the galaxy's plane, with shape (SECTORS, 1). [rad]
    """

    log_radius: Float[Tensor, "1 k"]
    azimuth: Float[Tensor, "m 1"]

    @classmethod
    def like(cls, numbers: Tensor) -> PolarGrid:
        """Returns the grid on the device and in the dtype of some numbers."""
        u = torch.linspace(math.log(INNER), math.log(OUTER), RINGS).to(numbers)
        phi = (torch.arange(SECTORS) * (2.0 * math.pi / SECTORS)).to(numbers)
        return cls(u[None], phi[:, None])

    @property
    def radius(self) -> Float[Tensor, "1 k"]:
        """r/R_e."""
        return self.log_radius.exp()

    @property
    def fade(self) -> Float[Tensor, "1 k"]:
        """Factor that takes structure out of the galaxy's middle."""
        r2 = self.radius**2
        return r2 / (r2 + CORE**2)


class PlanePixels(NamedTuple):
    """Pixels in the polar coordinates of each galaxy's plane, the minor axis stretched by 1/q.

    Attributes:
        along: Along the major axis, with shape (B, N, N). [R_e]
        across: Across it, in the plane. [R_e]
        radius: The root of the sum of squares, softened by half a pixel.
    """

    along: Float[Tensor, "b n n"]
    across: Float[Tensor, "b n n"]
    radius: Float[Tensor, "b n n"]

    @classmethod
    def of(cls, galaxies: Galaxies, size: int) -> PlanePixels:
        """Returns the pixels of square stamps.

        Args:
            galaxies: Whose planes; centres from the stamp's.
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
        draw: Random numbers, a row for each galaxy.
        galaxies: The smooth galaxies.
        has: By kind, which of the galaxies have it.
        config: How strong.
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
            # All galaxies' numbers are drawn, so that one kind's share leaves the others' alone.
            drawn = make(draw, grid, galaxies, config)
            total = total + torch.where(has[kind][:, None, None], drawn, 0.0)
    if config.twisted or config.boxy:
        total = total + _isophotes(draw, grid, galaxies, has, config)
    return total.clamp(FAINTEST, BRIGHTEST)


def at_pixels(maps: Float[Tensor, "b m k"], pixels: PlanePixels) -> Float[Tensor, "b n n"]:
    """Returns maps on the polar grid at pixels, interpolated linearly."""
    wrapped = torch.cat([maps, maps[:, :1]], 1)[:, None]
    span = math.log(OUTER / INNER)
    u = 2.0 * (pixels.radius.log() - math.log(INNER)) / span - 1.0
    turn = torch.atan2(pixels.across, pixels.along) / math.pi
    places = torch.stack([u, torch.remainder(turn, 2.0) - 1.0], -1)
    found = grid_sample(wrapped, places, padding_mode="border", align_corners=True)
    return found[:, 0]


def _arms(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    """Arms whose crests are logarithmic spirals; two of them in three galaxies of five."""
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
    """A change of the slope per R_e at the break, by -1 to -4 or by 0.2 to 0.8, softly."""
    radius = _column(draw.uniform(*config.break_radius))
    steeper = _column(draw.uniform(0.0, 1.0)) < 2.0 / 3.0
    down, up = _column(draw.uniform(1.0, 4.0)), _column(draw.uniform(0.2, 0.8))
    slope = torch.where(steeper, -down, up)
    softness = 0.1 * radius
    wave = slope * softness * softplus((grid.radius - radius) / softness)
    return wave.expand(-1, SECTORS, -1)


def _lane(draw: Draw, grid: PolarGrid, galaxies: Galaxies, config: StructureConfig) -> Tensor:
    """A straight lane beside the middle, an R_e or so long."""
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
    """A Gaussian random field, its spectrum falling with m^2 + k^2, root mean square 1 times it."""
    rms = _column(draw.log_uniform(config.modulation))
    m = torch.arange(HIGHEST_ORDER + 1).to(rms)[:, None]
    k = torch.fft.fftfreq(RINGS, math.log(OUTER / INNER) / RINGS).to(rms)[None] * 2.0 * math.pi
    power = (1.0 + m**2 + k**2) ** (-config.modulation_slope)
    twice = torch.where(m > 0, 2.0, 1.0)  # the orders -m
    power = power / (twice * power).sum()
    real, imaginary = draw.normal(*power.shape), draw.normal(*power.shape)
    spectrum = torch.complex(real, imaginary) * (0.5 * power).sqrt()
    # A field that is real: the order 0 is its own mirror image, and counts with its real part.
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
    """What it does to a Sérsic profile if its isophotes turn, change in shape, and are no ellipses.

    A point's brightness is that of the plain profile at the radius of the isophote through it.
    """
    q = _column(galaxies.axis_ratio)
    reach = torch.tanh(grid.log_radius)  # from one R_e inwards and outwards, then no further
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
