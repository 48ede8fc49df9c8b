"""Interactive scatter plot of two columns with error bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.report.rows import Rows

COLOURS = {"good": "#2e7d4f", "caution": "#b7791f", "bad": "#b03a2e"}
"""Colours of points by quality, as on the pages of a gallery."""

MOST_POINTS = 20_000
"""Maximum number of drawn points; of more rows, evenly spaced ones are drawn."""

MOST_BARS = 2_000
"""Maximum number of points with error bars, which otherwise hide each other."""

_POINTED = """
const found = cb_data.index.indices;
const row = found.length ? source.data["row"][found[0]] : -1;
if (cursor.data["row"][0] !== row) { cursor.data = {row: [row]}; }
"""
"""Sends the index of the point under the cursor to Python, -1 if there is none."""


LOG_TICKS = """
const low = Math.min(cb_data.start, cb_data.end), high = Math.max(cb_data.start, cb_data.end);
if (!(low > 0 && high < Infinity)) { return []; }
const digits = high > 1e4 * low ? [1] : [1, 2, 5], ticks = [];
if (high > 8 * low) {
  for (let k = Math.floor(Math.log10(low)); k <= Math.log10(high); k++) {
    for (const digit of digits) { ticks.push(Number(`${digit}e${k}`)); }
  }
} else {
  const least = (high - low) / 6, power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= least);
  for (let k = Math.ceil(low / step); k * step <= high; k++) { ticks.push(k * step); }
}
return ticks.filter((tick) => low <= tick && tick <= high);
"""
"""Ticks of a logarithmic axis: 1, 2 and 5 times the powers of ten; evenly spaced if it is short."""


class Scatter:
    """Bokeh figure of two columns of a catalogue.

    Args:
        rows: Rows of the catalogue.
        on_click: Called with the number of the row whose point was clicked.
        on_cursor: Called with the number of the row under the cursor, or None.
    """

    def __init__(
        self,
        rows: Rows,
        on_click: Callable[[int], None],
        on_cursor: Callable[[int | None], None],
    ) -> None:
        from bokeh.models import ColumnDataSource

        self.rows = rows
        self.on_click = on_click
        self.on_cursor = on_cursor
        self.source = ColumnDataSource({k: [] for k in ("row", "x", "y", "name", "colour")})
        self.bars = ColumnDataSource({k: [] for k in ("x", "y", "x0", "x1", "y0", "y1", "colour")})
        self.ring = ColumnDataSource({"x": [], "y": []})
        self.cursor = ColumnDataSource({"row": [-1]})
        self.source.selected.on_change("indices", self._clicked)
        self.cursor.on_change("data", self._pointed)
        self.columns = ("", "")

    def figure(self, x: str, y: str, log_x: bool, log_y: bool) -> Any:
        """Returns a new figure of two columns; :meth:`show` fills it."""
        from bokeh.models import BasicTickFormatter, CustomJS, CustomJSTicker, HoverTool, TapTool
        from bokeh.plotting import figure

        self.columns = (x, y)
        known = self.rows.units
        labels = [f"{name} [{known[name]}]" if known.get(name) else name for name in (x, y)]
        made = figure(
            height=360,
            sizing_mode="stretch_width",
            x_axis_label=labels[0],
            y_axis_label=labels[1],
            x_axis_type="log" if log_x else "linear",
            y_axis_type="log" if log_y else "linear",
            tools="pan,wheel_zoom,box_zoom,reset,save",
            active_scroll="wheel_zoom",
        )
        made.toolbar.logo = None
        for axis, log in ((made.xaxis, log_x), (made.yaxis, log_y)):
            if log:  # Bokeh's own ticks are evenly spaced over two decades: none at the lower end
                axis.ticker = CustomJSTicker(major_code=LOG_TICKS)
                axis.formatter = BasicTickFormatter()
        bars: dict[str, Any] = {"source": self.bars, "color": "colour", "alpha": 0.35}
        made.segment("x0", "y", "x1", "y", **bars)
        made.segment("x", "y0", "x", "y1", **bars)
        points = made.scatter(
            "x", "y", source=self.source, size=6, color="colour", alpha=0.75, name="points",
            nonselection_alpha=0.75,
        )  # fmt: skip
        # Error bars that reach zero would stretch a logarithmic axis.
        for shown in (made.x_range, made.y_range):
            shown.update(renderers=[points])
        made.scatter("x", "y", source=self.ring, size=15, fill_color=None, line_color="#1c2530",
                     line_width=2)  # fmt: skip
        told = CustomJS(args={"source": self.source, "cursor": self.cursor}, code=_POINTED)
        made.add_tools(
            HoverTool(renderers=[points], tooltips="@name", callback=told),
            TapTool(renderers=[points]),  # a bar that is tapped would fade all others
        )
        return made

    def show(self, chosen: Array, current: int | None) -> int:
        """Draws rows, with a ring around the current one.

        Args:
            chosen: Indices of the rows, with shape (K,).
            current: Index of the current row.

        Returns:
            Number of drawn points: rows with both values, at most :data:`MOST_POINTS`.
        """
        x, y = (np.asarray(self.rows.columns[name], dtype=float) for name in self.columns)
        drawn = chosen[np.isfinite(x[chosen]) & np.isfinite(y[chosen])]
        if len(drawn) > MOST_POINTS:
            drawn = drawn[np.linspace(0, len(drawn) - 1, MOST_POINTS).astype(int)]
        colours = [COLOURS.get(q, "#66727f") for q in self.rows.columns["quality"][drawn]]
        place: dict[str, Any] = {"x": x[drawn], "y": y[drawn], "colour": colours}
        few = len(drawn) <= MOST_BARS
        ends: dict[str, Array] = {}
        for axis, name in zip("xy", self.columns, strict=True):
            error = np.nan_to_num(self._error(name)[drawn])
            ends |= {f"{axis}0": place[axis] - error, f"{axis}1": place[axis] + error}
        bars = place | ends
        names = list(self.rows.columns["name"][drawn])

        def draw() -> None:
            self.source.selected.indices = []
            self.source.data = {"row": drawn, "name": names, **place}
            self.bars.data = bars if few else {k: [] for k in bars}

        self._change(draw)
        self.mark(current)
        return len(drawn)

    def mark(self, current: int | None) -> None:
        """Draws a ring around a row's point."""
        place = []
        if current is not None:
            place = [float(self.rows.columns[name][current]) for name in self.columns]
        known = bool(place) and bool(np.isfinite(place).all())
        ring = {"x": place[:1], "y": place[1:]} if known else {"x": [], "y": []}
        self._change(lambda: setattr(self.ring, "data", ring))

    def _change(self, change: Callable[[], None]) -> None:
        """Changes the figure in its document's event loop, if a browser shows it."""
        document = self.source.document
        if document is None or document.session_context is None:
            change()
        else:
            document.add_next_tick_callback(change)

    def _error(self, name: str) -> Array:
        found = self.rows.columns.get(f"{name}_std")
        return np.zeros(len(self.rows)) if found is None else np.asarray(found, dtype=float)

    def _clicked(self, attribute: str, old: list[int], new: list[int]) -> None:
        if new:
            self.on_click(int(self.source.data["row"][new[0]]))

    def _pointed(self, attribute: str, old: Any, new: Any) -> None:
        row = int(new["row"][0])
        self.on_cursor(None if row < 0 else row)
