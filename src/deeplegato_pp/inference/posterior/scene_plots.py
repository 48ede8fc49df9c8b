"""Figure of a galaxy of several components: images, radial profile and corner plot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.arrays import Array
from deeplegato_pp.inference.posterior.measurement import Measured
from deeplegato_pp.inference.posterior.plot_style import (
    RESIDUAL_LIMIT,
    asinh_ticks,
    colours,
    extent,
    visible_part,
    write_title,
)
from deeplegato_pp.inference.posterior.scene_record import PARTS, SceneRecord
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.scene import units
from deeplegato_pp.scene.components import POINT_RADIUS
from deeplegato_pp.scene.parameters import AXIS_RATIO, NAMES, POSITION_ANGLE
from deeplegato_pp.scene.render.renderer import render_sersic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from deeplegato_pp.inference.posterior.base import PosteriorBase
    from deeplegato_pp.observation.preparation import PreparedStamp


DRAWS = 40
"""Number of draws of each component that are rendered."""

_RINGS = 20
_BAND = (0.16, 0.5, 0.84)
_PART_COLOURS = ("#c0392b", "#2e86c1")
_SCALES = ("background $\\sigma$", r"$\sigma$")
_DARK = 1e-9
"""Surface brightness used in place of zero. [background sigma per pixel]"""

_FEWEST_SIGMAS = 1.0
"""Significance above the sky, in standard errors, from which a ring is plotted as a point."""


def draw_scene(figure: Any, posterior: PosteriorBase, measurement: Measured) -> None:
    """Draws image, components, model and residual, with the radial profile below.

    Components and model are means over draws; the profile shows medians and central 68 %
    intervals. Rings follow the ellipse of the single profile.

    Args:
        figure: Empty figure.
        posterior: Posterior of one galaxy.
        measurement: Its record, whose best scene has several components.
    """
    record, prepared = measurement.scene, measurement.prepared
    assert record is not None  # noqa: S101  # checked by the caller
    images = component_images(record, prepared)
    total = torch.stack(list(images.values())).sum(0)
    likelihood = measurement.likelihood()
    left = likelihood.residual(0, total.mean(0)[None])
    mask, sky = likelihood.stamps.mask[0].numpy(), float(left.sky)
    upper, lower = figure.subfigures(2, 1, height_ratios=[3.4, 3.0])
    data = np.where(prepared.mask, np.nan, prepared.image)
    pictures = {"image": data}
    pictures |= {name: part.mean(0).numpy() for name, part in images.items()}
    pictures["model"] = total.mean(0).numpy() + sky
    residual = np.where(mask, np.nan, left.in_sigma[0].numpy())
    _draw_pictures(upper, pictures, residual, prepared)
    write_title(upper, measurement)
    _draw_profile(lower, posterior, record, prepared, images, np.where(mask, np.nan, data - sky))


def component_images(
    record: SceneRecord, prepared: PreparedStamp, number: int = DRAWS
) -> dict[str, Float[Tensor, "s n n"]]:
    """Renders each component at equally weighted draws, in background sigmas.

    Args:
        record: Record of a scene of several components.
        prepared: Stamp.
        number: Number of draws S.
    """
    assert record.weights is not None  # noqa: S101  # several parts have draws
    steps = (np.arange(number) + 0.5) / number
    chosen = np.searchsorted(record.weights.cumsum(), steps).clip(max=len(record.weights) - 1)
    drawn = {name: torch.from_numpy(values[chosen].copy()) for name, values in record.draws.items()}
    images = {}
    for part in PARTS[record.best]:
        place = [drawn["center_x"], drawn["center_y"]]
        magnitude = drawn[f"{part}_magnitude"]
        one = torch.ones_like(magnitude)
        shape = [drawn.get(f"{part}_{name}", one) for name in NAMES[1:5]]
        columns = units.renderer_columns(torch.stack([magnitude, *shape, *place], -1), prepared)
        if f"{part}_effective_radius" not in drawn:
            columns[1] = POINT_RADIUS * one
        flux, radius, n, q, angle, x, y = columns
        images[part] = render_sersic(
            flux,
            radius,
            n,
            q,
            angle,
            x,
            y,
            torch.from_numpy(np.array(prepared.psf, dtype=np.float64)),
            len(prepared.image),
            oversampling=prepared.psf_oversampling,
            psf_includes_pixel=prepared.psf_includes_pixel,
        )
    return images


def ring_means(
    images: Float[Array, "s n n"],
    used: Bool[Array, "n n"],
    center: tuple[float, float],
    axis_ratio: float,
    angle: float,
) -> tuple[Float[Array, " r"], Float[Array, " r"], Float[Array, "s r"]]:
    """Returns radii of elliptical rings, their pixels, and the means of images over them.

    Args:
        images: Images, with shape (S, N, N).
        used: True for pixels to use.
        center: Centre of the rings, from the middle of the images. [px]
        axis_ratio: Axis ratio of the rings.
        angle: Position angle of the rings, counter-clockwise from +y. [deg]
    """
    size = images.shape[-1]
    axis = np.arange(size) - (size - 1) / 2
    dx, dy = axis[None, :] - center[0], axis[:, None] - center[1]
    t = math.radians(angle + 90.0)
    along = dx * math.cos(t) + dy * math.sin(t)
    across = dy * math.cos(t) - dx * math.sin(t)
    radius = np.hypot(along, across / max(axis_ratio, 0.05))
    edges = np.concatenate([[0.0], np.geomspace(1.0, size / 2, _RINGS)])
    ring = np.where(used, np.digitize(radius, edges) - 1, -1)
    kept = [k for k in range(_RINGS) if (ring == k).any()]
    radii = np.array([radius[ring == k].mean() for k in kept])
    counts = np.array([float((ring == k).sum()) for k in kept])
    means = np.stack([images[:, ring == k].mean(1) for k in kept], 1)
    return radii, counts, means


def _draw_pictures(
    figure: Any, pictures: dict[str, Array], residual: Array, prepared: PreparedStamp
) -> None:
    from matplotlib.colors import AsinhNorm

    part = visible_part(prepared.mask)
    bright = float(np.nanpercentile(pictures["image"], 99.8))
    peak = max(bright, float(pictures["model"].max()), 5.0)
    norm = AsinhNorm(linear_width=2.0, vmin=-3.0, vmax=peak)
    # Images of one scale with their colour bar, a gap for its label, the residual with its own.
    ratios = [*[1.0] * len(pictures), 0.05, 0.3, 1.0, 0.05]
    grid = figure.add_gridspec(
        1, len(ratios), width_ratios=ratios, left=0.045, right=0.95, bottom=0.1, top=0.74,
        wspace=0.08,
    )  # fmt: skip
    axes = [figure.add_subplot(grid[k]) for k in (*range(len(pictures)), len(pictures) + 2)]
    bars = [figure.add_subplot(grid[k]) for k in (len(pictures), len(pictures) + 3)]
    edges = extent(part, prepared.mask.shape[0], prepared.pixel_scale)
    shown: dict[str, Any] = {"origin": "lower", "extent": edges, "interpolation": "nearest"}
    limits = {"vmin": -RESIDUAL_LIMIT, "vmax": RESIDUAL_LIMIT, "cmap": colours("RdBu_r")}
    for axis, (name, picture) in zip(axes, pictures.items(), strict=False):
        drawn = axis.imshow(picture[part], norm=norm, cmap=colours("magma"), **shown)
        axis.set_title(name, fontsize=10)
    left = axes[-1].imshow(residual[part], **limits, **shown)
    axes[-1].set_title("residual", fontsize=10)
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.set_xlabel("arcsec", fontsize=8, labelpad=1)
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    for axis, mappable, label in zip(bars, (drawn, left), _SCALES, strict=True):
        bar = figure.colorbar(mappable, cax=axis)
        bar.set_label(label, fontsize=8, labelpad=1)
        axis.tick_params(labelsize=7)
        axis.set_box_aspect(20)
    bars[0].set_yticks(asinh_ticks(peak))


def _draw_profile(
    figure: Any,
    posterior: PosteriorBase,
    record: SceneRecord,
    prepared: PreparedStamp,
    images: dict[str, Tensor],
    data: Array,
) -> None:
    """Draws surface brightness against radius: data with errors, components and sum with bands."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    found = parameter_summaries(posterior)
    q, angle = found[AXIS_RATIO].value, found[POSITION_ANGLE].value
    x, y = (float(record.weights @ record.draws[c]) for c in ("center_x", "center_y"))
    center = prepared.center_from_user(x, y)
    used = np.isfinite(data)
    unit = prepared.scale / prepared.pixel_scale**2

    def brightness(values: Array) -> Array:
        return prepared.zero_point - 2.5 * np.log10(np.maximum(values, _DARK) * unit)

    axis: Axes = figure.subplots()
    figure.subplots_adjust(left=0.08, right=0.97, bottom=0.16, top=0.97)
    radii, counts, measured = ring_means(np.where(used, data, 0.0)[None], used, center, q, angle)
    sum_of_parts = torch.stack(list(images.values())).sum(0)
    noise = np.sqrt(np.asarray(prepared.noise) ** 2
                    + np.maximum(sum_of_parts.mean(0).numpy(), 0.0) / prepared.gain)  # fmt: skip
    _, _, variance = ring_means(np.where(used, noise, 0.0)[None] ** 2, used, center, q, angle)
    error = np.sqrt(variance[0] / counts)
    radii = radii * prepared.pixel_scale
    seen = measured[0] > _FEWEST_SIGMAS * error
    value, sigma = measured[0][seen], error[seen]
    up, down = brightness(value + sigma), brightness(np.maximum(value - sigma, 0.05 * value))
    bars = np.stack([brightness(value) - up, down - brightness(value)])
    axis.errorbar(
        radii[seen], brightness(value), bars, fmt="o", color="black", markersize=3.5,
        linewidth=0.8, label="image", zorder=3,
    )  # fmt: skip
    lines = [(name, part, colour, "--") for (name, part), colour in
             zip(images.items(), _PART_COLOURS, strict=False)]  # fmt: skip
    for name, part, colour, line in [*lines, ("sum", sum_of_parts, "0.35", "-")]:
        _, _, means = ring_means(part.numpy(), used, center, q, angle)
        faint, middle, bright = np.quantile(means, _BAND, axis=0)
        axis.plot(radii, brightness(middle), line, color=colour, linewidth=1.3, label=name)
        axis.fill_between(radii, brightness(faint), brightness(bright), color=colour, alpha=0.25)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    limits = brightness(np.array([2.0 * measured[0].max(), 0.3 * max(error.min(), 1e-6)]))
    axis.set_ylim(limits[1], limits[0])
    axis.set_xlabel("radius along the major axis [arcsec]", fontsize=9)
    axis.set_ylabel(r"$\mu$ [mag arcsec$^{-2}$]", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
