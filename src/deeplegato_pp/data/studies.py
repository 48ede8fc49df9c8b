"""What may be wrong with an image beyond what the network was told: one knob each.

A study takes scenes of the simulator and spoils them. What comes out is what a user's image might
be; the true parameters stay what they were, so that coverage under the study says how far the
posteriors can be trusted there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.config.schema import ConditionsConfig
from deeplegato_pp.data.conditions import DrawnPSF, Neighbours, draw_neighbours
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.sersic_simulator import Scene
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    POSITION_ANGLE,
    RADIUS,
)
from deeplegato_pp.scene.psf_grid import convolve_separable, normalise
from deeplegato_pp.scene.render.wings import Galaxies
from deeplegato_pp.scene.stamps import PSF_GRID, REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT

LARGEST_CORRELATION = 0.7
"""Three pixels in a row share at most this much: sqrt(1/2), where the kernel stops existing."""


@dataclass
class StudyConfig:
    """What is wrong with the images; the default is nothing.

    Attributes:
        neighbours: Most neighbours, galaxies and stars, on top of every stamp, none of them
            masked: a detection that has missed them. At least one is there.
        psf_width: Width of the PSF that is given over that of the true one: 1.05 is 5 % too wide.
        noise_correlation: Correlation of the noise of adjacent pixels, 0 to 0.7, as drizzling
            makes it; each pixel's variance stays that of the noise map.
        gain_factor: The gain that is given over the true one. It says nothing about stamps with
            a total noise map: give `data.conditions.fixed_variance` 0 beside it.
        sky_slope: Rise of the sky from edge to edge of the stamp in a random direction.
            [background sigma]
        spiral: Contrast of two logarithmic spiral arms in the galaxy's plane, 0 to 1: the light is
            multiplied by 1 + contrast cos(2 phi + winding ln r), fading towards the centre.
        bar: Part of the galaxy's light that is in a bar: an ellipse of axis ratio 0.25, n = 0.5
            and half the galaxy's R_e, at any angle in the galaxy's plane. The total stays.
    """

    neighbours: int = 0
    psf_width: float = 1.0
    noise_correlation: float = 0.0
    gain_factor: float = 1.0
    sky_slope: float = 0.0
    spiral: float = 0.0
    bar: float = 0.0

    def check(self) -> None:
        """Refuses values without a meaning.

        Raises:
            ConfigError: With the key's dotted name.
        """
        ranges = {
            "neighbours": (0, 20),
            "psf_width": (0.5, 2.0),
            "noise_correlation": (0.0, LARGEST_CORRELATION),
            "gain_factor": (1e-3, 1e3),
            "sky_slope": (0.0, 100.0),
            "spiral": (0.0, 1.0),
            "bar": (0.0, 1.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"Configuration key study.{name} must lie in [{low:g}, {high:g}], got {value}."
                )

    def knobs(self) -> dict[str, float]:
        """Returns the knobs that are turned, by name."""
        default = StudyConfig()
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != getattr(default, f.name)
        }


def apply_study(scene: Scene, study: StudyConfig, generator: torch.Generator) -> Scene:
    """Returns a scene spoilt by a study.

    Light on top brings its own shot noise where the stamp has a gain; noise maps stay as they
    were. The network and the likelihood are given the spoilt PSF and gain, the image was made with
    the true ones.

    Args:
        scene: From :meth:`SersicSimulator.sample_scene`; left unchanged.
        study: What is wrong.
        generator: Source of randomness, on the scene's device.

    Returns:
        The scene; `params`, `model`, `snr` and `nearest` are the true ones.
    """
    draw = Draw(len(scene.params), generator, scene.model.dtype)
    image = scene.stamps.image
    if study.noise_correlation > 0:
        image = scene.model + correlated(image - scene.model, study.noise_correlation, scene)
    light, nearest = torch.zeros_like(image), scene.nearest
    if study.neighbours > 0:
        crowd = _neighbours(draw, scene, study.neighbours)
        light, nearest = light + crowd.light, torch.minimum(nearest, crowd.nearest)
    if study.spiral > 0:
        light = light + spiral_arms(draw, scene, study.spiral)
    if study.bar > 0:
        light = light + bar_light(draw, scene, study.bar)
    shot = (light.clamp_min(0.0) / scene.stamps.gain[:, None, None]).sqrt()
    image = image + light + shot * draw.normal(*image.shape[1:])
    if study.sky_slope > 0:
        image = image + _slope(draw, image.shape[-1], study.sky_slope)
    psf = scene.psf if study.psf_width == 1.0 else widened(scene.psf, study.psf_width)
    edge = (psf.fine.shape[-1] - PSF_GRID) // 2
    stamps = replace(
        scene.stamps,
        image=torch.where(scene.stamps.mask, 0.0, image),
        gain=scene.stamps.gain * study.gain_factor,
        psf=psf.fine[:, edge : edge + PSF_GRID, edge : edge + PSF_GRID].contiguous(),
    )
    return replace(scene, stamps=stamps, psf=psf, nearest=nearest)


def correlated(
    residual: Float[Tensor, "b n n"], correlation: float, scene: Scene
) -> Float[Tensor, "b n n"]:
    """Returns residuals whose noise is shared among adjacent pixels, per-pixel variance kept.

    The kernel is (a, 1, a) along both axes, with a chosen for the correlation. A constant sky
    keeps its height; light of neighbours that is in the residual is smoothed along.

    Args:
        residual: Image minus model, with shape (B, N, N).
        correlation: Of adjacent pixels along an axis, in (0, 0.7].
        scene: Where masks are.

    References:
        | WFPC2 observations of the Hubble Deep Field South (Casertano et al., 2000)
        | https://arxiv.org/abs/astro-ph/0010245
    """
    a = (1.0 - math.sqrt(1.0 - 2.0 * correlation**2)) / (2.0 * correlation)
    norm = math.sqrt(1.0 + 2.0 * a**2)
    open_ = torch.where(scene.stamps.mask, torch.nan, residual)
    sky = open_.flatten(1).nanmedian(1).values[:, None, None]
    noise = torch.where(scene.stamps.mask, 0.0, residual - sky)
    return sky + convolve_separable(noise, [a / norm, 1.0 / norm, a / norm])


def widened(psf: DrawnPSF, factor: float) -> DrawnPSF:
    """Returns PSFs stretched about their centres, sum 1, by band-limited interpolation."""
    grid = torch.arange(psf.fine.shape[-1]).to(psf.fine) - psf.fine.shape[-1] // 2
    stretch = torch.sinc(grid[:, None] / factor - grid)
    return DrawnPSF(normalise(stretch @ psf.fine @ stretch.T), psf.fwhm * factor)


def spiral_arms(draw: Draw, scene: Scene, contrast: float) -> Float[Tensor, "b n n"]:
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


def _galaxy_plane(draw: Draw, scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
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


def bar_light(draw: Draw, scene: Scene, fraction: float) -> Float[Tensor, "b n n"]:
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


def _neighbours(draw: Draw, scene: Scene, most: int) -> Neighbours:
    crowd = ConditionsConfig(neighbours=1.0, max_neighbours=most, neighbours_masked=0.0)
    return draw_neighbours(draw, scene.psf, scene.model.shape[-1], crowd)


def _slope(draw: Draw, size: int, rise: float) -> Tensor:
    direction = draw.uniform(0.0, 2.0 * math.pi)[:, None, None]
    axis = torch.linspace(-0.5, 0.5, size).to(direction)
    return rise * (direction.cos() * axis[None, None, :] + direction.sin() * axis[None, :, None])
