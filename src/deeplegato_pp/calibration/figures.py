"""Figures of a calibration, drawn from its JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.calibration.galaxies import shown_unit
from deeplegato_pp.io.files import written_whole
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Content = Mapping[str, Any]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
"""Colour-blind safe colours of Okabe and Ito, one per parameter."""

BAND = "#d9d9d9"
INK = "#222222"

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
}

BY = {
    "snr": "S/N",
    "radius_over_psf": r"$R_e$ / FWHM",
    "sersic_index": r"$n$",
    "axis_ratio": r"$q$",
}
"""Headings of the reliability maps."""


def draw_figures(content: Content, folder: Path) -> list[str]:
    """Draws all figures into a folder.

    Args:
        content: Contents of ``calibration.json``.
        folder: Output folder; existing figures are replaced.

    Returns:
        Names of the files.
    """
    import matplotlib.pyplot as plt

    makers: dict[str, Callable[[Content], Figure]] = {
        "ranks.png": draw_ranks,
        "coverage.png": draw_coverage,
        "reliability.png": draw_reliability,
        "pulls.png": draw_pulls,
        "errors.png": draw_errors,
        "tarp.png": draw_tarp,
    }
    for name, make in makers.items():
        with _style():
            figure = make(content)
            with written_whole(folder / name) as temporary:
                figure.savefig(temporary)
            plt.close(figure)
    return list(makers)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def _subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> Any:
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=size, **options)


def _title(content: Content, what: str) -> str:
    number = content["overall"]["galaxies"]
    simulator = content["simulator"]["name"]
    source = "" if simulator == "own" else f", simulator: {simulator.replace('_', ' ')}"
    return f"{what} ({number:,} simulated galaxies{source})"


def _grid(content: Content, what: str, **options: Any) -> tuple[Figure, list[Axes], Axes]:
    """Makes a panel per parameter, and an eighth one for the legend."""
    figure, axes = _subplots(2, 4, (11.0, 5.4), **options)
    figure.suptitle(_title(content, what), fontsize=11)
    for axis, p in zip(axes.flat, PARAMETERS, strict=False):
        axis.set_title(_spelt(p.name))
    last = axes.flat[7]
    last.axis("off")
    return figure, list(axes.flat[:7]), last


def _label(axes: list[Axes], x: str, y: str) -> None:
    """Labels the axes at the lower and left edges of the grid."""
    for axis in axes[3:]:
        axis.set_xlabel(x)
        axis.tick_params(labelbottom=True)
    for axis in (axes[0], axes[4]):
        axis.set_ylabel(y)


def _spelt(name: str) -> str:
    return name.replace("_", " ").replace("sersic", "Sérsic")


def draw_ranks(content: Content) -> Figure:
    """Draws rank ECDFs minus the diagonal, with the simultaneous band."""
    ranks = content["ranks"]
    points = np.array(ranks["points"])
    figure, axes, key = _grid(content, "Rank statistics", sharex=True, sharey=True)
    for i, (axis, name) in enumerate(zip(axes, NAMES, strict=True)):
        _band(axis, points, ranks["band"], points)
        axis.axhline(0.0, color=INK, linewidth=0.7)
        axis.plot(points, np.array(ranks["ecdf"][name]) - points, color=COLOURS[i])
        if ranks["leaves_band"][name]:
            axis.set_title(f"{_spelt(name)}: leaves the band")
        axis.set_xlim(0, 1)
    _label(axes, "rank of the truth", "ECDF − uniform")
    _key(key, [
        ("posterior", {"color": COLOURS[0]}),
        ("right posterior, 95 %", {"color": BAND, "linewidth": 8}),
        "A hump, then a dip: posteriors\nthat are too narrow. A dip, then\n"
        "a hump: too wide. One hump:\nestimates too high; one dip: too low.",
    ])  # fmt: skip
    return figure


def draw_coverage(content: Content) -> Figure:
    """Draws coverage minus nominal against the nominal level, with goal and band."""
    coverage = content["coverage"]
    levels = np.array(coverage["levels"])
    figure, axes, key = _grid(content, "Coverage of central intervals", sharex=True, sharey=True)
    goal = 100.0 * content["goals"]["overall"]
    for i, (axis, name) in enumerate(zip(axes, NAMES, strict=True)):
        _band(axis, levels, coverage["band"], levels, 100.0)
        for edge in (-goal, goal):
            axis.axhline(edge, color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
        axis.axhline(0.0, color=INK, linewidth=0.7)
        curve = np.array(coverage["curves"][name]) - levels
        axis.plot(100.0 * levels, 100.0 * curve, color=COLOURS[i])
        axis.set_xlim(0, 100)
    _label(axes, "nominal level [%]", "coverage − nominal [%]")
    _key(key, [
        ("posterior", {"color": COLOURS[0]}),
        ("right posterior, 95 %", {"color": BAND, "linewidth": 8}),
        (f"goal: within {goal:g} %", {"color": INK, "linewidth": 0.7, "linestyle": (0, (4, 3))}),
        "Above zero: intervals too wide.\nBelow: too narrow.",
    ])  # fmt: skip
    return figure


def draw_tarp(content: Content) -> Figure:
    """Draws the coverage of joint regions: TARP and highest density."""
    coverage = content["coverage"]
    levels = np.array(coverage["levels"])
    figure, axis = _subplots(1, 1, (5.6, 4.2))
    axis.set_title(_title(content, "Joint coverage"), fontsize=10)
    _band(axis, levels, coverage["band"], levels, 100.0)
    axis.axhline(0.0, color=INK, linewidth=0.7)
    for name, label, colour, line in (
        ("tarp", "TARP, distances from one draw", COLOURS[0], "-"),
        ("joint", "highest-density region of all seven", COLOURS[1], (0, (5, 1.5))),
    ):
        curve = np.array(coverage["curves"][name]) - levels
        axis.plot(100.0 * levels, 100.0 * curve, color=colour, linestyle=line, label=label)
    axis.set_xlim(0, 100)
    axis.set_xlabel("nominal level [%]")
    axis.set_ylabel("coverage − nominal [%]")
    axis.legend(loc="best")
    return figure


def draw_reliability(content: Content) -> Figure:
    """Draws coverage minus nominal in every decile, as a map per quantity and level."""
    from matplotlib.colors import BoundaryNorm

    reliability = content["reliability"]
    levels = ("0.68", "0.95")
    figure, axes = _subplots(len(levels), len(BY), (12.5, 5.6), sharex="col", sharey=True)
    reach = 100.0 * max(abs(edge - 0.68) for edge in reliability["band"]["0.68"])
    figure.suptitle(
        _title(content, "Coverage − nominal, by decile of the estimate")
        + f"\nchance alone reaches ±{reach:.1f} % in the worst cell of the 68 % intervals; "
        "dots: beyond what goal and chance allow",
        fontsize=10,
    )
    norm = BoundaryNorm((-15, -10, -6, -3, 3, 6, 10, 15), 256, extend="both")
    drawn = None
    for column, by in enumerate(BY):
        cells = [cell for cell in reliability["cells"] if cell["by"] == by]
        for axis, level in zip(axes[:, column], levels, strict=True):
            values = np.array([list(cell["coverage"][level].values()) for cell in cells]).T
            drawn = axis.imshow(
                100.0 * (values - float(level)), cmap="PuOr", norm=norm, aspect="auto"
            )
            _mark_cells(axis, values, reliability, level)
            axis.spines[:].set_visible(False)
            axis.tick_params(length=0)
        edges = [f"{float(format(cell['low'], '.2g')):g}" for cell in cells]
        axes[0, column].set_title(f"by {BY[by]}")
        axes[1, column].set_xlabel(f"{BY[by]} from")
        axes[1, column].set_xticks(range(len(cells)), edges, rotation=55, ha="right", fontsize=7,
                                   rotation_mode="anchor")  # fmt: skip
    for axis, level in zip(axes[:, 0], levels, strict=True):
        axis.set_yticks(range(8), [*(p.symbol for p in PARAMETERS), "joint"])
        axis.set_ylabel(f"{float(level):.0%} interval of")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.7, pad=0.015, aspect=30)
    bar.set_label("coverage − nominal [%]\norange: too narrow, purple: too wide")
    bar.outline.set_visible(False)
    return figure


def _mark_cells(axis: Axes, values: np.ndarray, reliability: Content, level: str) -> None:
    """Marks cells outside both the band and the goal with dots."""
    lower, upper = reliability["band"][level]
    goal = reliability["goal"]
    rows, columns = np.nonzero((values < lower - goal) | (values > upper + goal))
    axis.plot(columns, rows, ".", color=INK, markersize=4)


def draw_pulls(content: Content) -> Figure:
    """Draws distributions of error divided by width, with the standard normal."""
    pulls = content["pulls"]
    edges = np.array(pulls["edges"])
    x = np.linspace(edges[0], edges[-1], 300)
    normal = np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi)
    what = "Pulls: (mean − truth) / posterior standard deviation"
    figure, axes, key = _grid(content, what, sharex=True, sharey=True)
    for i, (axis, name) in enumerate(zip(axes, NAMES, strict=True)):
        density = pulls["density"][name]
        axis.stairs(density, edges, fill=True, color=COLOURS[i], alpha=0.35)
        axis.stairs(density, edges, color=COLOURS[i])
        axis.plot(x, normal, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.text(0.03, 0.96, f"width {pulls['std'][name]:.2f}\n|pull| > 3: "
                  f"{100 * pulls['beyond_3'][name]:.2g} %", transform=axis.transAxes, va="top",
                  fontsize=7.5)  # fmt: skip
        axis.set_xlim(edges[0], edges[-1])
    _label(axes, "pull", "density")
    _key(key, [
        ("simulations", {"color": COLOURS[0], "alpha": 0.5, "linewidth": 8}),
        ("standard normal", {"color": INK, "linewidth": 0.9, "linestyle": (0, (4, 3))}),
        "Right posteriors that are not\nGaussian deviate from it too:\njudge by coverage.",
    ])  # fmt: skip
    return figure


def draw_errors(content: Content) -> Figure:
    """Draws error of the posterior mean, posterior width and bound against S/N."""
    bins = content["errors"]["bins"]
    what = "Error against S/N, beside the Cramér–Rao bound"
    figure, axes, key = _grid(content, what, sharex=True)
    snr = [row["snr"] for row in bins]
    bounded = [row for row in bins if row["bound"]]
    for i, (axis, name) in enumerate(zip(axes, NAMES, strict=True)):
        axis.plot([row["snr"] for row in bounded], [row["bound"][name] for row in bounded],
                  color=INK, linewidth=1.0, linestyle=(0, (4, 3)))  # fmt: skip
        axis.plot(snr, [row["width"][name] for row in bins], color=COLOURS[i], alpha=0.6)
        axis.plot(snr, [row["error"][name] for row in bins], "o", markersize=4, color=COLOURS[i])
        axis.set_xscale("log")
        axis.set_yscale("log")
        symbol, unit = shown_unit(i)
        axis.set_ylabel(f"error of {symbol}" + (f" [{unit}]" if unit else ""))
    for axis in axes[3:]:
        axis.set_xlabel("S/N")
        axis.tick_params(labelbottom=True)
    _key(key, [
        ("error of the mean (robust)", {"color": COLOURS[0], "marker": "o", "linewidth": 0}),
        ("posterior width, median", {"color": COLOURS[0], "alpha": 0.6}),
        ("Cramér–Rao bound, with prior", {"color": INK, "linestyle": (0, (4, 3))}),
        "Bound: from the image's Fisher\ninformation plus the prior's;\nmedian over the bin.",
    ])  # fmt: skip
    return figure


def _band(axis: Axes, x: np.ndarray, band: Content, middle: np.ndarray, scale: float = 1.0) -> None:
    lower, upper = (scale * (np.array(band[edge]) - middle) for edge in ("lower", "upper"))
    axis.fill_between(scale * x, lower, upper, color=BAND, linewidth=0)


def _key(axis: Axes, entries: list[Any]) -> None:
    """Fills the eighth panel with the legend and an explanation."""
    from matplotlib.lines import Line2D

    lines = [entry for entry in entries if not isinstance(entry, str)]
    handles = [Line2D([], [], **style) for _, style in lines]
    axis.legend(handles, [label for label, _ in lines], loc="upper left", borderaxespad=0.0,
                handlelength=1.6)  # fmt: skip
    for text in (entry for entry in entries if isinstance(entry, str)):
        axis.text(0.0, 0.5, text, va="top", fontsize=8, color="#555555", transform=axis.transAxes)
