"""Figures; the one home of matplotlib and corner."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
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

COLOUR = "#20639b"
RESIDUAL_LIMIT = 5.0
"""Residuals are shown between minus and plus this many sigmas."""

_STYLE: dict[Any, Any] = {
    "font.family": "serif",
    "mathtext.fontset": "dejavuserif",
    "font.size": 9,
    "axes.linewidth": 0.7,
    "axes.formatter.useoffset": False,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "savefig.dpi": 160,
}

_UNITS = {"arcsec": "arcsec", "pix": "px"}


@contextmanager
def _style() -> Iterator[None]:
    """Our looks, for the while of one figure."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def plot_posterior(
    posterior: PosteriorBase, save_path: str | Path | None = None, close: bool = False
) -> Figure | None:
    """Draws one galaxy: image, model and residual on top, the corner plot below.

    Image and model share an asinh scale, linear at the noise; the residual is in sigmas, each
    pixel's own, with the best constant sky taken off. The model is the best draw's if the galaxy
    was refined, else the mean's. Masked pixels are grey, and in the residual those that refining
    masked as neighbours too. The corner plot
    shows the seven parameters with medians and central 68 % intervals, the position angle
    unwrapped about its circular mean.

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
    with _style():
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
    window = _window(prepared.mask)
    mask = images.mask[window]
    data = np.where(prepared.mask[window], np.nan, prepared.image[window])
    shown = images.model[window] / prepared.scale
    peak = max(float(np.nanpercentile(data, 99.8)), float(shown.max()), 5.0)
    norm = AsinhNorm(linear_width=2.0, vmin=-3.0, vmax=peak)
    shared = {"norm": norm, "cmap": _colours("magma")}
    panels = (
        ("image", data, shared),
        ("model", shown, shared),
        ("residual", np.where(mask, np.nan, images.in_sigma[window]), {
            "vmin": -RESIDUAL_LIMIT, "vmax": RESIDUAL_LIMIT, "cmap": _colours("RdBu_r"),
        }),
    )  # fmt: skip
    axes = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.05, right=0.95, bottom=0.06, top=0.76, wspace=0.28)
    extent = _extent(window, prepared.mask.shape[0], prepared.pixel_scale)
    for axis, (title, picture, options) in zip(axes, panels, strict=True):
        drawn = axis.imshow(
            picture, origin="lower", extent=extent, interpolation="nearest", **options
        )
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=7)
        bar = figure.colorbar(drawn, ax=axis, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=7)
        bar.set_label(r"$\sigma$" if title == "residual" else "background $\\sigma$", fontsize=8)
        if title != "residual":
            bar.set_ticks(_asinh_ticks(peak))
    for axis in axes:
        axis.set_xlabel("arcsec", fontsize=8, labelpad=1)
    _title(figure, measurement)


def _title(figure: Any, measurement: Measurement) -> None:
    names = Flag.names(measurement.flags)
    line = f"{measurement.method}, reduced $\\chi^2$ {measurement.chi2:.3g}"
    if math.isfinite(measurement.p_value):
        line += f", p {measurement.p_value:.2g}"
    if measurement.rivals is not None:
        line += f", P(star) {measurement.rivals.star_probability:.2g}"
    if math.isfinite(measurement.ess):
        line += f", ESS {measurement.ess:.0f}"
    name = (measurement.name or "galaxy").replace("$", r"\$")
    figure.suptitle(name, fontsize=12, y=0.99)
    figure.text(0.5, 0.88, line, ha="center", fontsize=8.5)
    if names:
        text = ", ".join(n.replace("_", " ") for n in names)
        figure.text(0.5, 0.83, text, ha="center", fontsize=7.5, color="#b03a2e")


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
    for i, title in enumerate(titles):
        _finish_diagonal(axes[i, i], title, samples[:, i], weights)
    for axis in axes.flat:
        axis.tick_params(labelsize=6.5, pad=2)


def _finish_diagonal(axis: Axes, title: str, draws: np.ndarray, weights: Any) -> None:
    axis.set_title(title, fontsize=7.5, pad=4)
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


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold unmasked pixels: padding is not shown."""
    rows, columns = (np.flatnonzero((~mask).any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _extent(window: tuple[slice, slice], size: int, scale: float) -> tuple[float, ...]:
    """Edges of the shown pixels from the stamp's centre: left, right, bottom, top. [arcsec]"""
    rows, columns = window
    edges = (columns.start, columns.stop, rows.start, rows.stop)
    return tuple((edge - size / 2) * scale for edge in edges)


def _asinh_ticks(peak: float) -> list[float]:
    powers = [10.0**k for k in range(1, 7) if 10.0**k <= peak]
    return [0.0, *(powers if len(powers) <= 4 else powers[::2])]


def _colours(name: str) -> Any:
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad="0.6")


def _import_corner() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corner imports arviz where it can, which talks
        import corner
    return corner
