"""Figures of posteriors, with matplotlib and corner."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.band_plots import draw_bands
from deeplegato_pp.inference.posterior.measurement import Measured
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
from deeplegato_pp.inference.posterior.scene_plots import draw_scene
from deeplegato_pp.inference.posterior.scene_record import SceneRecord, parameter_columns
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.io.files import check_output, written_whole
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS
from deeplegato_pp.stats import weighted as statistics
from deeplegato_pp.stats.circular import unwrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from deeplegato_pp.inference.posterior.base import PosteriorBase

CENTRE = ("center_x", "center_y")

_UNITS = {"arcsec": "arcsec", "pix": "px"}


MOST_COLUMNS = 8
"""Number of columns in a corner plot of a galaxy of several components, by default."""


def plot_posterior(
    posterior: PosteriorBase,
    save_path: str | Path | None = None,
    close: bool = False,
    columns: Sequence[str] | None = None,
) -> Figure | None:
    """Plots one galaxy: image, model and residual on top, the corner plot below.

    Image and model share an asinh scale, linear at the noise; the residual is in units of each
    pixel's sigma, with the best constant sky subtracted. The model is that of the best draw if the
    galaxy was refined, else of the mean. Masked pixels are grey; in the residual this includes
    pixels masked as neighbours by refinement. The corner plot shows the seven parameters with
    medians and central 68 % intervals; the position angle is unwrapped about its circular mean.
    For a galaxy in several bands, image, model and residual of each band are shown in columns, with
    magnitudes and colours below. If the best scene has several components, each is shown, and a
    radial profile of the surface brightness shows them with 68 % intervals.

    Args:
        posterior: Posterior of a single galaxy.
        save_path: Output file; its suffix selects the format.
        close: Whether to close the figure at the end and return None.
        columns: Columns of the corner plot; by default the seven parameters, or, for a galaxy of
            several components, the first eight that vary.

    Returns:
        The figure.

    Raises:
        InputError: If there are several galaxies, the galaxy was not measured, a column does not
            exist, or the figure cannot be written.
    """
    import matplotlib.pyplot as plt

    path = None if save_path is None else check_output(save_path, _suffixes(), "plot")
    if len(posterior) != 1:
        raise InputError(f"one galaxy a figure, got {len(posterior)}. Plot posterior[i].")
    measurement = posterior.measurements[0]
    if not isinstance(measurement, Measured):
        raise InputError(f"a galaxy that was not measured cannot be drawn: {measurement.reason}")
    with style():
        if measurement.bands is not None:
            figure = plt.figure(figsize=(max(6.5, 2.0 * len(measurement.bands.names)), 9.0))
            draw_bands(figure, measurement)
        elif measurement.scene is not None and measurement.scene.draws:
            shown = _scene_draws(measurement.scene, columns)
            height = min(max(1.4 * shown[0].shape[1], 4.0), 9.6)
            figure = plt.figure(figsize=(10.5, 6.4 + height))
            parts: Any = figure.subfigures(2, 1, height_ratios=[6.4, height])
            draw_scene(parts[0], posterior, measurement)
            _draw_corner(parts[1], *shown)
        else:
            shown = _unwrapped(posterior, columns)
            figure = plt.figure(figsize=(9.5, 12.6))
            parts = figure.subfigures(2, 1, height_ratios=[3.1, 9.5])
            _draw_images(parts[0], posterior, measurement)
            _draw_corner(parts[1], *shown)
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


def _draw_images(figure: Any, posterior: PosteriorBase, measurement: Measured) -> None:
    """Draws image, model and residual side by side."""
    from matplotlib.colors import AsinhNorm

    prepared = measurement.prepared
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


def _draw_corner(
    figure: Any, samples: np.ndarray, weights: Any, symbols: list[str], labels: list[str]
) -> None:
    """Draws the corner plot of some columns (S, K)."""
    corner = _import_corner()
    number = samples.shape[1]
    figure.subplots(number, number)
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
    axes = np.array(figure.axes).reshape(number, number)
    figure.subplots_adjust(left=0.09, right=0.97, bottom=0.085, top=0.965, wspace=0.06, hspace=0.06)
    for i, symbol in enumerate(symbols):
        _finish_diagonal(axes[i, i], symbol, samples[:, i], weights)
    for axis in axes.flat:
        axis.tick_params(labelsize=6.5, pad=2)


def _finish_diagonal(axis: Axes, symbol: str, draws: np.ndarray, weights: Any) -> None:
    lower, middle, upper = statistics.quantiles(draws, (0.16, 0.5, 0.84), weights)
    axis.set_title(_interval_title(symbol, lower, middle, upper), fontsize=7.5, pad=4)
    for value, line in ((lower, ":"), (middle, "-"), (upper, ":")):
        axis.axvline(value, color="black", linestyle=line, linewidth=0.8)


def _unwrapped(
    posterior: PosteriorBase, columns: Sequence[str] | None
) -> tuple[np.ndarray, Any, list[str], list[str]]:
    """Returns draws with circular parameters unwrapped, weights, symbols and axis labels."""
    weights = posterior.weights()
    samples = posterior.batch_samples[0].numpy().copy()
    symbols, labels = [], []
    for i, (p, s) in enumerate(zip(PARAMETERS, parameter_summaries(posterior), strict=True)):
        if p.period is not None:
            samples[:, i] = unwrap(samples[:, i], s.value, p.period)
        symbols.append(p.symbol)
        labels.append(f"{p.symbol}{_in_brackets(p.unit)}")
    chosen = [NAMES.index(name) for name in _chosen(NAMES, columns)]
    return samples[:, chosen], weights, [symbols[i] for i in chosen], [labels[i] for i in chosen]


def _scene_draws(
    record: SceneRecord, columns: Sequence[str] | None
) -> tuple[np.ndarray, Any, list[str], list[str]]:
    """Returns the same for a galaxy of several components: columns of the sum and the parts."""
    assert record.weights is not None  # noqa: S101  # several parts have draws
    known = parameter_columns([record.best]) | {
        p.name: (p.unit, p.meaning, p.period) for p in PARAMETERS
    }
    names = _chosen(list(record.draws), columns)
    if columns is None:
        varying = [n for n in names if np.ptp(record.draws[n]) > 0 and n not in CENTRE]
        # The sum comes first, then each part; magnitudes of parts follow from the flux fraction.
        shares = [n for n in varying if n.endswith("_to_total")]
        rest = [n for n in varying if n not in shares and not n.endswith("_magnitude")]
        names = [*rest[:1], *shares, *rest[1:]][:MOST_COLUMNS]
    samples, symbols, labels = [], [], []
    for name in names:
        unit, _, period = known[name]
        draws = record.draws[name]
        if period is not None:
            middle = statistics.summarise(draws, record.weights, period).value
            draws = unwrap(draws, middle, period)
        samples.append(draws)
        symbols.append(symbol_of(name))
        labels.append(f"{symbols[-1]}{_in_brackets(unit)}")
    return np.stack(samples, 1), record.weights, symbols, labels


def symbol_of(name: str) -> str:
    r"""Returns the symbol of a column of a component.

    Example:
        >>> symbol_of("bulge_effective_radius"), symbol_of("bulge_to_total")
        ('$R_{e,\\mathrm{bulge}}$', '$f_\\mathrm{bulge}$')
    """
    if name.endswith("_to_total"):
        return rf"$f_\mathrm{{{name.removesuffix('_to_total')}}}$"
    parameter = next(p for p in PARAMETERS if name.endswith(p.name))
    symbol = parameter.symbol.strip("$")
    part = name.removesuffix(parameter.name).strip("_")
    if not part:
        return f"${symbol}$"
    base, _, index = symbol.partition("_")
    return f"${base}_{{{index + ',' if index else ''}\\mathrm{{{part}}}}}$"


def _chosen(known: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """Returns the requested columns, or all of them by default."""
    unknown = sorted(set(columns or ()) - set(known))
    if unknown:
        raise InputError(
            f"no column {unknown[0]} to plot, expected some of {', '.join(known)}. The columns of "
            "components are there where the best scene has them."
        )
    return list(known if columns is None else dict.fromkeys(columns))


def _in_brackets(unit: str) -> str:
    return f" [{_UNITS.get(unit, unit)}]" if unit else ""


def _interval_title(symbol: str, lower: float, middle: float, upper: float) -> str:
    """Formats median and distances to the 16 and 84 % quantiles, to two significant digits."""
    smallest = min(middle - lower, upper - middle)
    digits = 2 if smallest <= 0 else max(0, min(6, 1 - math.floor(math.log10(smallest))))
    low, high = f"{middle - lower:.{digits}f}", f"{upper - middle:.{digits}f}"
    return f"{symbol.strip('$').join('$$')} $= {middle:.{digits}f}_{{-{low}}}^{{+{high}}}$"


def _ranges(samples: np.ndarray, weights: Any) -> list[tuple[float, float]]:
    """Returns axis limits: the central 99.4 %, widened by a tenth, never of zero width."""
    limits = []
    for column in samples.T:
        low, high = statistics.quantiles(column, (0.003, 0.997), weights)
        margin = 0.1 * (high - low) or max(1e-6, 1e-6 * abs(low))
        limits.append((low - margin, high + margin))
    return limits


def _import_corner() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # corner imports arviz if installed, which warns
        import corner
    return corner
