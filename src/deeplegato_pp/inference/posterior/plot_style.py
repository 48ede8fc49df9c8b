"""Shared elements of posterior figures: style, titles, stamp windows and colours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.flags import Flag

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.measurement import Measurement

COLOUR = "#20639b"
RESIDUAL_LIMIT = 5.0
"""Range of residuals shown, in sigmas."""

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


@contextmanager
def style() -> Iterator[None]:
    """Context manager that applies the package's matplotlib style."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def write_title(figure: Any, measurement: Measurement) -> None:
    """Writes name, method, diagnostics and flags above a figure."""
    names = Flag.names(measurement.flags)
    line = f"{measurement.method}, reduced $\\chi^2$ {measurement.chi2:.3g}"
    if math.isfinite(measurement.p_value):
        line += f", p {measurement.p_value:.2g}"
    if measurement.hypotheses is not None:
        line += f", P(star) {measurement.hypotheses.star_probability:.2g}"
    if math.isfinite(measurement.ess):
        line += f", ESS {measurement.ess:.0f}"
    name = (measurement.name or "galaxy").replace("$", r"\$")
    figure.suptitle(name, fontsize=12, y=0.99)
    figure.text(0.5, 0.88, line, ha="center", fontsize=8.5)
    if names:
        text = ", ".join(n.replace("_", " ") for n in names)
        figure.text(0.5, 0.83, text, ha="center", fontsize=7.5, color="#b03a2e")


def visible_part(mask: np.ndarray) -> tuple[slice, slice]:
    """Returns the rows and columns that contain unmasked pixels, to hide padding."""
    rows, columns = (np.flatnonzero((~mask).any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def extent(window: tuple[slice, slice], size: int, scale: float) -> tuple[float, ...]:
    """Returns the edges of the shown pixels from the stamp's centre: left, right, bottom, top."""
    rows, columns = window
    edges = (columns.start, columns.stop, rows.start, rows.stop)
    return tuple((edge - size / 2) * scale for edge in edges)


def asinh_ticks(peak: float) -> list[float]:
    """Returns the tick positions of an asinh colour bar."""
    powers = [10.0**k for k in range(1, 7) if 10.0**k <= peak]
    return [0.0, *(powers if len(powers) <= 4 else powers[::2])]


def colours(name: str) -> Any:
    """Returns a colour map in which masked pixels are grey."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad="0.6")
