"""Studies of defects in images that are unknown to the network, one setting each.

A study modifies scenes of the simulator. The results are possible images of a user with the same
true parameters, so that coverage under the study measures how reliable the posteriors are for such
images. Studies of galaxies that are not Sérsic profiles use `data.structure`, with the best-fitting
profile as truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.config.schema import ConditionsConfig
from deeplegato_pp.data.conditions import Neighbours, draw_neighbours
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.sersic_simulator import SimulatedScene
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.psf_grid import convolve_separable
from deeplegato_pp.scene.stamps import PSF_GRID

LARGEST_CORRELATION = 0.7
"""Maximum correlation of adjacent pixels: sqrt(1/2), above which the kernel does not exist."""


@dataclass
class StudyConfig:
    """Defects of the images; none by default.

    Attributes:
        neighbours: Maximum number of neighbours, galaxies and stars, added to every stamp without
            mask, as if a detection had missed them. There is at least one.
        psf_width: Width of the stated PSF relative to the true one: 1.05 is 5 % too wide.
        noise_correlation: Correlation of the noise of adjacent pixels, 0 to 0.7, as by drizzling;
            each pixel's variance remains that of the noise map.
        gain_factor: Stated gain relative to the true one. It has no effect on stamps with a total
            noise map: set `data.conditions.fixed_variance` to 0 with it.
        sky_slope: Increase of the sky from edge to edge of the stamp in a random direction.
            [background sigma]
    """

    neighbours: int = 0
    psf_width: float = 1.0
    noise_correlation: float = 0.0
    gain_factor: float = 1.0
    sky_slope: float = 0.0

    def check(self) -> None:
        """Checks the ranges of the settings.

        Raises:
            ConfigError: If a value is out of range, with the key's dotted name.
        """
        ranges = {
            "neighbours": (0, 20),
            "psf_width": (0.5, 2.0),
            "noise_correlation": (0.0, LARGEST_CORRELATION),
            "gain_factor": (1e-3, 1e3),
            "sky_slope": (0.0, 100.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"Configuration key study.{name} must lie in [{low:g}, {high:g}], got {value}."
                )

    def knobs(self) -> dict[str, float]:
        """Returns the active settings, by name."""
        default = StudyConfig()
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != getattr(default, f.name)
        }


def apply_study(
    scene: SimulatedScene, study: StudyConfig, generator: torch.Generator
) -> SimulatedScene:
    """Returns a scene modified by a study.

    Added light has its own shot noise if the stamp has a gain; noise maps are unchanged. The
    network and the likelihood get the wrong PSF and gain; the image is made with the true ones.

    Args:
        scene: Result of :meth:`SersicSimulator.sample_scene`, which is not modified.
        study: Defects.
        generator: Source of randomness, on the scene's device.

    Returns:
        Modified scene; `params`, `model`, `snr` and `nearest` are the true ones.
    """
    draw = Draw(len(scene.params), generator, scene.model.dtype)
    image = scene.stamps.image
    if study.noise_correlation > 0:
        image = scene.model + correlated(image - scene.model, study.noise_correlation, scene)
    light, nearest = torch.zeros_like(image), scene.nearest
    if study.neighbours > 0:
        crowd = _neighbours(draw, scene, study.neighbours)
        light, nearest = light + crowd.light, torch.minimum(nearest, crowd.nearest)
    shot = (light.clamp_min(0.0) / scene.stamps.gain[:, None, None]).sqrt()
    image = image + light + shot * draw.normal(*image.shape[1:])
    if study.sky_slope > 0:
        image = image + _slope(draw, image.shape[-1], study.sky_slope)
    psf = scene.psf if study.psf_width == 1.0 else scene.psf.widened(study.psf_width)
    edge = (psf.fine.shape[-1] - PSF_GRID) // 2
    stamps = replace(
        scene.stamps,
        image=torch.where(scene.stamps.mask, 0.0, image),
        gain=scene.stamps.gain * study.gain_factor,
        psf=psf.fine[:, edge : edge + PSF_GRID, edge : edge + PSF_GRID].contiguous(),
    )
    return replace(scene, stamps=stamps, psf=psf, nearest=nearest)


def correlated(
    residual: Float[Tensor, "b n n"], correlation: float, scene: SimulatedScene
) -> Float[Tensor, "b n n"]:
    """Returns residuals with noise correlated between adjacent pixels, and the same variance.

    The kernel is (a, 1, a) along both axes, with a chosen for the correlation. A constant sky is
    unchanged; light of neighbours in the residual is smoothed too.

    Args:
        residual: Image minus model, with shape (B, N, N).
        correlation: Correlation of adjacent pixels along an axis, in (0, 0.7].
        scene: Simulated scene with the masks.

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


def _neighbours(draw: Draw, scene: SimulatedScene, most: int) -> Neighbours:
    crowd = ConditionsConfig(neighbours=1.0, max_neighbours=most, neighbours_masked=0.0)
    return draw_neighbours(draw, scene.psf, scene.model.shape[-1], crowd)


def _slope(draw: Draw, size: int, rise: float) -> Tensor:
    direction = draw.uniform(0.0, 2.0 * math.pi)[:, None, None]
    axis = torch.linspace(-0.5, 0.5, size).to(direction)
    return rise * (direction.cos() * axis[None, None, :] + direction.sin() * axis[None, :, None])
