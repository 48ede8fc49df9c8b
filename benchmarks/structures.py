"""Galaxies that are no Sérsic profiles: arms, bars, rings, bulges in discs, lopsided discs, clumps.

Simulations for benchmarks, kept apart from `deeplegato_pp.data.structure`, so that they are a test
of what was trained or chosen with that. Each kind takes scenes of the simulator, whose galaxies are
the smooth ones that structure is added to, and returns them with another noiseless image and a
fresh drawing of the noise. No Sérsic parameters are true of such a galaxy: the truth is the profile
that fits its noiseless image best, under the weights of the likelihood (`best_profile`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.sersic_simulator import SimulatedScene
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import draw_noise
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    POSITION_ANGLE,
    RADIUS,
)
from deeplegato_pp.scene.render.wings import Galaxies
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT


def structured(
    scene: SimulatedScene, kind: str, strength: float, generator: torch.Generator
) -> SimulatedScene:
    """Returns scenes whose galaxies have structure, observed anew.

    Args:
        scene: From :meth:`SersicSimulator.sample_scene` without neighbours.
        kind: A name of :data:`KINDS`, or ``smooth``.
        strength: 1 for a typical galaxy, proportional for others.
        generator: Source of randomness.
    """
    draw = Draw(len(scene.params), generator, scene.model.dtype)
    light = torch.zeros_like(scene.model)
    if kind != "smooth":
        light = KINDS[kind](draw, scene, strength)
    model = scene.model + light
    s = scene.stamps
    sky = s.sky_sigma[:, None, None] * draw.normal(1, 1)
    image = sky + draw_noise(model, s.sigma, s.gain, read_fraction=0.5, generator=generator)
    return replace(scene, model=model, stamps=replace(s, image=torch.where(s.mask, 0.0, image)))


def best_profile(problem: Likelihood, scene: SimulatedScene, start: Tensor) -> Fit:
    """Returns the profiles that fit the noiseless images best, by the likelihood's own weights.

    Args:
        problem: Of the noisy images.
        scene: The scenes.
        start: Where the searches start, with shape (B, 7).
    """
    clean = problem.select(list(range(len(problem))))
    clean.stamps.image.copy_(torch.where(clean.stamps.mask, 0.0, scene.model.double()))
    return fit(clean, torch.arange(len(problem)), start)


def _arms(draw: Draw, scene: SimulatedScene, strength: float) -> Tensor:
    return spiral_arms(draw, scene, 0.25 * strength)


def _bar(draw: Draw, scene: SimulatedScene, strength: float) -> Tensor:
    return bar_light(draw, scene, 0.1 * strength)


def spiral_arms(draw: Draw, scene: SimulatedScene, contrast: float) -> Float[Tensor, "b n n"]:
    """Returns what two spiral arms add to (and take from) the galaxies' light.

    Winding and phase are drawn. The contrast fades as r^2/(r^2 + w^2), w being half of the PSF's
    FWHM or an eighth of R_e, whichever is larger: nothing finer than the PSF is drawn.
    """
    x, y, radius = _galaxy_plane(draw, scene)
    r2 = x**2 + y**2
    core = torch.maximum(0.5 * scene.psf.fwhm, 0.125 * radius)[:, None, None]
    winding = draw.uniform(2.0, 5.0) * torch.where(draw.chance(0.5), 1.0, -1.0)
    phase = draw.uniform(0.0, 2.0 * math.pi)
    angle = 2.0 * torch.atan2(y, x) + phase[:, None, None]
    wave = torch.cos(angle + winding[:, None, None] * 0.5 * torch.log(r2 + core**2))
    light: Tensor = scene.model * contrast * wave * (r2 / (r2 + core**2))
    return light


def _galaxy_plane(draw: Draw, scene: SimulatedScene) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates along the major and minor axis, the minor one stretched by 1/q, and R_e. [px]"""
    params = scene.params.to(draw.options["dtype"])
    size = scene.model.shape[-1]
    axis = torch.arange(size).to(params) - (size - 1) / 2
    dx = axis[None, None, :] - params[:, CENTER_X, None, None]
    dy = axis[None, :, None] - params[:, CENTER_Y, None, None]
    t = torch.deg2rad(params[:, POSITION_ANGLE] + 90.0)[:, None, None]
    along = dx * t.cos() + dy * t.sin()
    across = (dy * t.cos() - dx * t.sin()) / params[:, AXIS_RATIO, None, None]
    return along, across, params[:, RADIUS] / REFERENCE_PIXEL_SCALE


def bar_light(draw: Draw, scene: SimulatedScene, fraction: float) -> Float[Tensor, "b n n"]:
    """Returns what moving a part of the light into a bar adds and takes away."""
    params = scene.params.to(draw.options["dtype"])
    flux = 10.0 ** (0.4 * (REFERENCE_ZERO_POINT - params[:, MAGNITUDE]))
    radius = 0.5 * params[:, RADIUS] / REFERENCE_PIXEL_SCALE
    stretch, ratio, turn = _projected(draw.uniform(0.0, 180.0), 0.25, params[:, AXIS_RATIO])
    bars = Galaxies(
        fraction * flux,
        radius * stretch,
        torch.full_like(flux, 0.5),
        ratio.clamp_min(0.1),
        params[:, POSITION_ANGLE] + turn,
        params[:, CENTER_X],
        params[:, CENTER_Y],
    )
    owner = torch.arange(len(flux), device=flux.device)
    bar = scene.psf.render(bars, scene.model.shape[-1], owner).clamp_min(0.0)
    return bar - fraction * scene.model


def _projected(
    angle: Float[Tensor, " b"], ratio: float, inclined: Float[Tensor, " b"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Ellipses in planes that are seen at an angle.

    Args:
        angle: Of the ellipse's major axis from the line of nodes, in its plane. [deg]
        ratio: Its axis ratio there.
        inclined: Axis ratio that a circle in the plane shows.

    Returns:
        Factor of the major axis, axis ratio, and angle from the line of nodes as seen. [deg]
    """
    t = torch.deg2rad(angle)
    along, across = torch.stack([t.cos(), t.sin()], 1), torch.stack([-t.sin(), t.cos()], 1)
    axes = torch.stack([along, ratio * across], 2)
    axes = axes * torch.stack([torch.ones_like(inclined), inclined], 1)[:, :, None]
    values, vectors = torch.linalg.eigh(axes @ axes.mT)
    major = vectors[:, :, 1]
    turn = torch.rad2deg(torch.atan2(major[:, 1], major[:, 0]))
    return values[:, 1].sqrt(), (values[:, 0].clamp_min(0.0) / values[:, 1]).sqrt(), turn


def _plane(scene: SimulatedScene) -> tuple[Tensor, Tensor, Tensor]:
    """Radius and azimuth in the galaxies' planes, and R_e. [px]"""
    p = scene.params.to(scene.model.dtype)
    size = scene.model.shape[-1]
    axis = torch.arange(size).to(p) - (size - 1) / 2
    dx = axis[None, None, :] - p[:, CENTER_X, None, None]
    dy = axis[None, :, None] - p[:, CENTER_Y, None, None]
    t = torch.deg2rad(p[:, POSITION_ANGLE] + 90.0)[:, None, None]
    along = dx * t.cos() + dy * t.sin()
    across = (dy * t.cos() - dx * t.sin()) / p[:, AXIS_RATIO, None, None]
    radius = (p[:, RADIUS] / REFERENCE_PIXEL_SCALE)[:, None, None]
    return torch.hypot(along, across), torch.atan2(across, along), radius


def _core(scene: SimulatedScene) -> Tensor:
    """Radius within which nothing finer than the PSF is drawn. [px]"""
    half = 0.5 * scene.psf.fwhm / scene.params[:, AXIS_RATIO].to(scene.psf.fwhm)
    return half[:, None, None]


def _ring(draw: Draw, scene: SimulatedScene, strength: float) -> Tensor:
    """A bright ring at 0.7 to 1.8 R_e, and a gap inside it."""
    r, _, radius = _plane(scene)
    middle = draw.uniform(0.7, 1.8)[:, None, None] * radius
    width = torch.maximum(0.2 * middle, _core(scene))
    x = (r - middle) / width
    wave = torch.exp(-0.5 * x**2) - 0.5 * torch.exp(-0.5 * (x + 2.0) ** 2)
    return 0.35 * strength * scene.model * wave


def _lopsided(draw: Draw, scene: SimulatedScene, strength: float) -> Tensor:
    """One side of the disc brighter than the other, the more the farther out."""
    r, azimuth, radius = _plane(scene)
    phase = draw.uniform(0.0, 2.0 * math.pi)[:, None, None]
    x = r / (1.5 * radius)
    return 0.25 * strength * scene.model * torch.cos(azimuth + phase) * x**2 / (1.0 + x**2)


def _clumps(draw: Draw, scene: SimulatedScene, strength: float) -> Tensor:
    """Five knots within 2 R_e, with 1 % of the light each on average, taken off the smooth part."""
    p = scene.params.to(scene.model.dtype)
    flux = 10.0 ** (0.4 * (REFERENCE_ZERO_POINT - p[:, MAGNITUDE]))
    radius = p[:, RADIUS] / REFERENCE_PIXEL_SCALE
    t = torch.deg2rad(p[:, POSITION_ANGLE] + 90.0)
    owner = torch.arange(len(flux), device=flux.device)
    light = torch.zeros_like(scene.model)
    for _ in range(5):
        share = -0.01 * strength * draw.uniform(1e-3, 1.0).log()
        distance, angle = radius * draw.uniform(0.4, 2.0), draw.uniform(0.0, 2.0 * math.pi)
        along, across = distance * angle.cos(), distance * angle.sin() * p[:, AXIS_RATIO]
        knot = Galaxies(
            share * flux,
            (0.08 * radius).clamp_min(0.5),
            torch.ones_like(flux),
            torch.ones_like(flux),
            torch.zeros_like(flux),
            p[:, CENTER_X] + along * t.cos() - across * t.sin(),
            p[:, CENTER_Y] + along * t.sin() + across * t.cos(),
        )
        knots = scene.psf.render(knot, scene.model.shape[-1], owner).clamp_min(0.0)
        light = light + knots - share[:, None, None] * scene.model
    return light


def _bulge(draw: Draw, scene: SimulatedScene, strength: float) -> Tensor:
    """A rounder bulge of n = 3 with 10 to 40 % of the light, in a disc of n = 1."""
    p = scene.params.to(scene.model.dtype)
    flux = 10.0 ** (0.4 * (REFERENCE_ZERO_POINT - p[:, MAGNITUDE]))
    radius, q = p[:, RADIUS] / REFERENCE_PIXEL_SCALE, p[:, AXIS_RATIO]
    share = strength * draw.uniform(0.1, 0.4)
    turn = draw.uniform(-20.0, 20.0)
    place = (p[:, CENTER_X], p[:, CENTER_Y])
    one = torch.ones_like(flux)
    disc = Galaxies((1.0 - share) * flux, 1.15 * radius, one, q, p[:, POSITION_ANGLE], *place)
    bulge = Galaxies(
        share * flux,
        (draw.uniform(0.15, 0.4) * radius).clamp_min(0.5),
        3.0 * one,
        q.sqrt(),
        p[:, POSITION_ANGLE] + turn,
        *place,
    )
    owner, size = torch.arange(len(flux), device=flux.device), scene.model.shape[-1]
    parts = [scene.psf.render(g, size, owner) for g in (disc, bulge)]
    return parts[0] + parts[1] - scene.model


KINDS = {
    "arms": _arms,
    "bar": _bar,
    "ring": _ring,
    "lopsided": _lopsided,
    "clumps": _clumps,
    "bulge": _bulge,
}
"""Kinds of structure, by name."""
