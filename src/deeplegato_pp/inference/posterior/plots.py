"""Figures of posteriors, with matplotlib and corner."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.band_plots import draw_bands
from deeplegato_pp.inference.posterior.plot_style import (
    COLOUR,
    RESIDUAL_LIMIT,
    asinh_ticks,
    colours,
    extent,
    style,
    visible_part,
    write_title,
)
from deeplegato_pp.inference.posterior.residuals import residual_image
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.io.files import check_output, written_whole
from deeplegato_pp.scene.parameters import PARAMETERS
from deeplegato_pp.stats import weighted as statistics
from deeplegato_pp.stats.circular import unwrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deeplegato_pp.inference.posterior.base import PosteriorBase
    from deeplegato_pp.inference.posterior.measurement import Measurement

_UNITS = {"arcsec": "arcsec", "pix": "px"}


def plot_posterior(
    posterior: PosteriorBase, save_path: str | Path | None = None, close: bool = False
) -> Figure | None:
    """Draws one galaxy: image, model and residual on top, the corner plot below.

    Image and model share an asinh scale, linear at the noise; the residual is in sigmas, each
    pixel's own, with the best constant sky taken off. The model is the best draw's if the galaxy
    was refined, else the mean's. Masked pixels are grey, and in the residual those that refining
    masked as neighbours too. The corner plot
    shows the seven parameters with medians and central 68 % intervals, the position angle
    unwrapped about its circular mean. Of a galaxy in several bands image, model and residual of
    each stand in columns, and its magnitudes and colours below.

    Args:
        posterior: Of a single galaxy.
        save_path: Where to write the figure; its suffix chooses the format.
        close: Close the figure in the end, and return None.

    Returns:
        The figure.

    Raises:
        InputError: If the posterior is of several galaxies, the galaxy was not measured, or the
            figure cannot be written there.
    """
    import matplotlib.pyplot as plt

    path = None if save_path is None else check_output(save_path, _suffixes(), "plot")
    if len(posterior) != 1:
        raise InputError(f"one galaxy a figure, got {len(posterior)}. Plot posterior[i].")
    measurement = posterior.measurements[0]
    if not measurement.measured or measurement.prepared is None:
        raise InputError(f"a galaxy that was not measured cannot be drawn: {measurement.reason}")
    with style():
        if measurement.bands is not None:
            figure = plt.figure(figsize=(max(6.5, 2.0 * len(measurement.bands.names)), 9.0))
            draw_bands(figure, measurement)
        else:
            figure = plt.figure(figsize=(9.5, 12.6))
            parts: Any = figure.subfigures(2, 1, height_ratios=[3.1, 9.5])
            _draw_images(parts[0], posterior, measurement)
            _draw_corner(parts[1], posterior)
        if path is not None:
            with written_whole(path) as temporary:
                figure.savefig(temporary)
        if close:
            plt.close(figure)
            return None
    return figure


def _suffixes() -> tuple[str, ...]:
    from matplotlib.backend_bases import FigureCanvasBase

    return tuple(f".{name}" for name in FigureCanvasBase.get_supported_filetypes())


def _draw_images(figure: Any, posterior: PosteriorBase, measurement: Measurement) -> None:
    """Image, model and residual, side by side."""
    from matplotlib.colors import AsinhNorm

    prepared = measurement.prepared
    assert prepared is not None  # noqa: S101  # checked by the caller
    images = residual_image(posterior)
    part = visible_part(prepared.mask)
    mask = images.mask[part]
    data = np.where(prepared.mask[part], np.nan, prepared.image[part])
    shown = images.model[part] / prepared.scale
    peak = max(float(np.nanpercentile(data, 99.8)), float(shown.max()), 5.0)
    norm = AsinhNorm(linear_width=2.0, vmin=-3.0, vmax=peak)
    shared = {"norm": norm, "cmap": colours("magma")}
    panels = (
        ("image", data, shared),
        ("model", shown, shared),
        ("residual", np.where(mask, np.nan, images.in_sigma[part]), {
            "vmin": -RESIDUAL_LIMIT, "vmax": RESIDUAL_LIMIT, "cmap": colours("RdBu_r"),
        }),
    )  # fmt: skip
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.05, right=0.95, bottom=0.06, top=0.76, wspace=0.28)
    edges = extent(part, prepared.mask.shape[0], prepared.pixel_scale)
    for axis, (heading, picture, options) in zip(axes, panels, strict=True):
        drawn = axis.imshow(
            picture, origin="lower", extent=edges, interpolation="nearest", **options
        )
        axis.set_title(heading, fontsize=10)
        axis.tick_params(labelsize=7)
        bar = figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=7)
        bar.set_label(r"$\sigma$" if heading == "residual" else "background $\\sigma$", fontsize=8)
        if heading != "residual":
            bar.set_ticks(asinh_ticks(peak))
    for axis in axes:
        axis.set_xlabel("arcsec", fontsize=8, labelpad=1)
    write_title(figure, measurement)


def _draw_corner(figure: Any, posterior: PosteriorBase) -> None:
    """The corner plot of the seven parameters."""
    corner = _import_corner()
    weights = posterior.weights()
    samples, labels, titles = _unwrapped(posterior)
    figure.subplots(len(PARAMETERS), len(PARAMETERS))
    enough = len(samples) if weights is None else statistics.effective_sample_size(weights)
    corner.corner(
        samples,
        weights=weights,
        fig=figure,
        bins=30,
        smooth=1.2,
        smooth1d=None,
        labels=labels,
        label_kwargs={"fontsize": 9},
        labelpad=0.12,
        color=COLOUR,
        levels=(0.393, 0.865),
        range=_ranges(samples, weights),
        plot_datapoints=enough >= 50,
        fill_contours=True,
        max_n_ticks=3,
        hist_kwargs={"linewidth": 1.0},
        quiet=True,
    )
    axes = np.array(figure.axes).reshape(len(PARAMETERS), len(PARAMETERS))
    figure.subplots_adjust(left=0.09, right=0.97, bottom=0.085, top=0.965, wspace=0.06, hspace=0.06)
    for i, heading in enumerate(titles):
        _finish_diagonal(axes[i, i], heading, samples[:, i], weights)
    for axis in axes.flat:
        axis.tick_params(labelsize=6.5, pad=2)


def _finish_diagonal(axis: Axes, heading: str, draws: np.ndarray, weights: Any) -> None:
    axis.set_title(heading, fontsize=7.5, pad=4)
    lower, middle, upper = statistics.quantiles(draws, (0.16, 0.5, 0.84), weights)
    for value, line in ((lower, ":"), (middle, "-"), (upper, ":")):
        axis.axvline(value, color="black", linestyle=line, linewidth=0.8)


def _unwrapped(posterior: PosteriorBase) -> tuple[np.ndarray, list[str], list[str]]:
    """Draws with circular parameters unwrapped, axis labels, and titles with intervals."""
    weights = posterior.weights()
    samples = posterior.batch_samples[0].numpy().copy()
    labels, titles = [], []
    for i, (p, s) in enumerate(zip(PARAMETERS, parameter_summaries(posterior), strict=True)):
        if p.period is not None:
            samples[:, i] = unwrap(samples[:, i], s.value, p.period)
        lower, middle, upper = statistics.quantiles(samples[:, i], (0.16, 0.5, 0.84), weights)
        unit = f" [{_UNITS.get(p.unit, p.unit)}]" if p.unit else ""
        labels.append(f"{p.symbol}{unit}")
        titles.append(_interval_title(p.symbol, lower, middle, upper))
    return samples, labels, titles


def _interval_title(symbol: str, lower: float, middle: float, upper: float) -> str:
    """Median and distances to the 16 and 84 % quantiles, to the second significant digit."""
    smallest = min(middle - lower, upper - middle)
    digits = 2 if smallest <= 0 else max(0, min(6, 1 - math.floor(math.log10(smallest))))
    low, high = f"{middle - lower:.{digits}f}", f"{upper - middle:.{digits}f}"
    return f"{symbol.strip('$').join('$$')} $= {middle:.{digits}f}_{{-{low}}}^{{+{high}}}$"


def _ranges(samples: np.ndarray, weights: Any) -> list[tuple[float, float]]:
    """Axis limits: the central 99.4 %, widened by a tenth, never of zero width."""
    limits = []
    for column in samples.T:
        low, high = statistics.quantiles(column, (0.003, 0.997), weights)
        margin = 0.1 * (high - low) or max(1e-6, 1e-6 * abs(low))
        limits.append((low - margin, high + margin))
    return limits


def _import_corner() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corner imports arviz where it can, which talks
        import corner
    return corner
