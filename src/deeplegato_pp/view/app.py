"""Application with a table, a scatter plot and the current galaxy, linked."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import DeepLegatoError, InputError
from deeplegato_pp.report.details import content_of, environment
from deeplegato_pp.report.panels import Pixels
from deeplegato_pp.report.rows import SHOWN, Rows
from deeplegato_pp.view.keys import KEYS, STEPS, keyboard
from deeplegato_pp.view.marks import MARKS, Marks
from deeplegato_pp.view.plot import Scatter
from deeplegato_pp.view.samp import Samp
from deeplegato_pp.view.selection import select

PAGE = 10
"""Number of rows of the table that are sent to the browser at a time."""

TEXTS = ("name", "quality", "mark", "flag_names")
"""Text columns in the table."""

HELP = (
    "Keys: <b>g</b> good, <b>c</b> caution, <b>b</b> bad, <b>u</b> unmarked, <b>←</b> and <b>→</b> "
    "the galaxy before and after."
)


class MissingPanelError(DeepLegatoError, ImportError):
    """Panel is not installed."""


def require_panel() -> Any:
    """Returns the module ``panel``.

    Raises:
        MissingPanelError: If it is not installed; the message has the installation command.
    """
    try:
        import panel
    except ImportError as error:
        raise MissingPanelError(
            "deeplegato view needs Panel, which is not installed. Run pip install "
            "'deeplegato-pp[view]'."
        ) from error
    return panel


def five_digits(values: Array) -> Array:
    """Rounds numbers to five significant digits.

    Example:
        >>> five_digits(np.array([1.2345678, 123456.0])).tolist()
        [1.2346, 123460.0]
    """
    if values.dtype.kind != "f":
        return values
    size = np.floor(np.log10(np.abs(np.where(values == 0, 1.0, values))))
    step = 10.0 ** (4 - np.where(np.isfinite(size), size, 0.0))
    return np.asarray(np.round(values * step) / step)


class Viewer:
    """View of a catalogue for one user.

    Args:
        table: ``QTable`` of results, one row per galaxy.
        pixels: Source of the images.
        marks: Marks of the rows, shared by all users.
        title: Title of the page.
    """

    def __init__(self, table: Any, pixels: Pixels, marks: Marks, title: str) -> None:
        self.panel = require_panel()
        self.rows = Rows(table)
        self.pixels = pixels
        self.marks = marks
        self.title = title
        self.current: int | None = None
        self.chosen = np.arange(len(self.rows))
        self.samp = Samp(table, title, self._later)
        self._document: Any = None
        self._details = lru_cache(maxsize=256)(self._render)
        self.scatter = Scatter(self.rows, self.look_at, self._look_under_cursor)
        self._make_widgets()
        self._filter()
        self.look_at(int(self.chosen[0]) if len(self.chosen) else None)

    def page(self) -> Any:
        """Returns the page, for ``panel.serve``."""
        pn = self.panel
        self._document = pn.state.curdoc
        pn.state.on_session_destroyed(lambda context: self.samp.close())
        w = self.widgets
        filters = pn.FlexBox(*(w[k] for k in self.filters), align_items="flex-end")
        columns = pn.Card(w["columns"], title="columns of the table", collapsed=True, margin=5)
        axes = pn.FlexBox(
            *(w[k] for k in ("x", "log_x", "y", "log_y", "samp")), align_items="flex-end"
        )
        buttons = pn.Row(*(w[mark] for mark in (*MARKS, "unmark")))
        head = pn.pane.HTML(f"<h2 style='margin:0'>{html.escape(self.title)}</h2>")
        left = pn.Column(
            pn.Row(head, self.status), filters, columns, self.table, axes, self.plot, min_width=560
        )
        right = pn.Column(self.heading, buttons, self.galaxy, width=660)
        return pn.Row(left, right, self.keyboard, sizing_mode="stretch_width")

    def look_at(self, row: int | None) -> None:
        """Selects the current row in the table, the plot, the picture and other programs."""
        if row is None or row == self.current:
            return
        self.current = row
        self.scatter.mark(row)
        self._show_galaxy(row)
        self._select_in_table()
        self.samp.highlight(row)

    def step(self, by: int) -> None:
        """Moves by a number of rows in the sorted table."""
        order = [int(i) for i in self.table.current_view.index]
        if not order:
            return
        here = self.current
        place = order.index(here) + by if here is not None and here in order else 0
        self.look_at(order[min(max(place, 0), len(order) - 1)])

    def mark(self, mark: str) -> None:
        """Marks the current row, saves the mark, and moves to the next row."""
        if self.current is None:
            return
        self.marks.give(self.current, mark)
        if self.current in self.table.value.index:
            self.table.patch({"mark": [(self.current, mark)]})
        row = self.current
        if mark:
            self.step(1)
        if row == self.current:
            self._show_heading(row)
        self._say()

    # --- parts of the page ----------------------------------------------------------------------

    def _make_widgets(self) -> None:
        pn = self.panel
        numeric = self.rows.numeric
        shown = [name for name in SHOWN if name in numeric]
        first = {"x": "effective_radius", "y": "sersic_index"}
        axes = {k: v if v in numeric else numeric[0] for k, v in first.items()}
        present = [q for q in MARKS if (self.rows.columns["quality"] == q).any()]
        select_, text, choice = pn.widgets.Select, pn.widgets.TextInput, pn.widgets.MultiChoice
        self.widgets: dict[str, Any] = {
            "qualities": pn.widgets.CheckBoxGroup(
                label="quality", options=present, value=present, inline=True
            ),
            "flag": select_(label="flag", options=["", *self.rows.flag_names], width=150),
            "where": text(label="where", placeholder="snr > 30, sersic_index < 2", width=220),
            "name": text(label="name", width=110),
            "columns": choice(label="columns", options=numeric, value=shown, width=700),
            "x": select_(label="x", options=numeric, value=axes["x"], width=170),
            "y": select_(label="y", options=numeric, value=axes["y"], width=170),
            "log_x": pn.widgets.Checkbox(label="log x", value=axes["x"] == first["x"]),
            "log_y": pn.widgets.Checkbox(label="log y"),
            "samp": pn.widgets.Button(label="Connect to SAMP (TOPCAT, Aladin)"),
        }
        for mark, colour in zip(MARKS, ("success", "warning", "danger"), strict=True):
            self._button(mark, mark, colour)
        self._button("unmark", "", "default")
        self.filters = ["qualities", "flag", "where", "name"]
        if self.rows.scenes:
            scene = select_(label="scene", options=["", *self.rows.scenes], width=130)
            self.widgets["scene"] = scene
            self.filters.insert(2, "scene")
        for name in self.filters:
            self.widgets[name].param.watch(lambda event: self._filter(), "value")
        for name in ("x", "y", "log_x", "log_y"):
            self.widgets[name].param.watch(lambda event: self._plot_anew(), "value")
        self.widgets["columns"].param.watch(lambda event: self._fill_table(), "value")
        self.widgets["samp"].on_click(lambda event: self._connect())
        style = (resources.files("deeplegato_pp.report") / "templates" / "style.css").read_text()
        self.status = pn.pane.HTML("", styles={"color": "#66727f"})
        self.heading = pn.pane.HTML("", stylesheets=[style])
        self.galaxy = pn.pane.HTML("", stylesheets=[style], width=640)
        self.table = pn.widgets.Tabulator(
            self._frame(), pagination="remote", page_size=PAGE, selectable=1, disabled=True,
            show_index=False, sizing_mode="stretch_width", layout="fit_data",
        )  # fmt: skip
        self.table.param.watch(self._selected, "selection")
        self.plot = pn.pane.Bokeh(self._figure(), sizing_mode="stretch_width")
        self.keyboard = keyboard()
        self.keyboard.on_msg(lambda event: self._pressed(event.data))

    def _button(self, name: str, mark: str, colour: str) -> None:
        made = self.panel.widgets.Button(label=name, color=colour, width=90)
        made.on_click(lambda event: self.mark(mark))
        self.widgets[name] = made

    def _frame(self) -> Any:
        """Returns the selected rows and columns as a data frame indexed by row number."""
        import pandas as pd

        chosen = self.widgets["columns"].value
        columns = {k: five_digits(self.rows.columns[k][self.chosen]) for k in chosen}
        scene = {"scene": "best_scene"} if self.rows.scenes else {}
        names = {k: k for k in TEXTS if k != "mark"} | scene
        texts = {k: self.rows.columns[name][self.chosen] for k, name in names.items()}
        marks = np.array([self.marks[int(i)] for i in self.chosen], dtype=object)
        texts["flag_names"] = np.array([t.replace(",", ", ") for t in texts["flag_names"]], object)
        flags = {"flags": texts.pop("flag_names")}
        frame = pd.DataFrame(texts | {"mark": marks} | columns | flags, index=self.chosen)
        return frame.astype(dict.fromkeys((*texts, "mark", "flags"), object))

    def _figure(self) -> Any:
        w = self.widgets
        return self.scatter.figure(w["x"].value, w["y"].value, w["log_x"].value, w["log_y"].value)

    def _plot_anew(self) -> None:
        self.plot.object = self._figure()
        self._draw()

    def _draw(self) -> None:
        self.points = self.scatter.show(self.chosen, self.current)
        self._say()

    def _filter(self) -> None:
        given = {name: self.widgets[name].value for name in self.filters}
        try:
            self.chosen = select(self.rows, **given)
        except InputError as error:
            self._say(str(error))
            return
        self._fill_table()
        self._draw()

    def _fill_table(self) -> None:
        self.table.value = self._frame()
        self.table.page = 1
        self._select_in_table()

    def _select_in_table(self) -> None:
        """Selects the current row in the table and shows its page."""
        index = self.table.value.index
        if self.current is None or self.current not in index:
            self.table.selection = []
            return
        order = [int(i) for i in self.table.current_view.index]
        self.table.page = order.index(self.current) // PAGE + 1
        self.table.selection = [int(index.get_loc(self.current))]

    def _say(self, message: str = "") -> None:
        text = f"{len(self.chosen)} of {len(self.rows)} galaxies, {self.points} points, "
        text += f"{len(self.marks)} marked"
        if message:
            text += f" · <span style='color:#b03a2e'>{html.escape(message)}</span>"
        self.status.object = f"<div id='status'>{text}</div><div>{HELP}</div>"

    def _show_galaxy(self, row: int) -> None:
        self._show_heading(row)
        self.galaxy.object = self._details(row)

    def _show_heading(self, row: int) -> None:
        name, quality = (html.escape(str(self.rows.columns[k][row])) for k in ("name", "quality"))
        mark = self.marks[row]
        marked = f" marked <span class='quality {mark}'>{mark}</span>" if mark else ""
        self.heading.object = (
            f"<h1>{name} <span class='quality {quality}'>{quality}</span>{marked}</h1>"
        )

    def _render(self, row: int) -> str:
        content = content_of(self.rows, row, self.pixels)
        thumbnail = Path(content["row"].get("thumbnail") or "")
        if "source" not in content and thumbnail.is_file():
            encoded = base64.b64encode(thumbnail.read_bytes()).decode()
            content["source"] = f"data:image/png;base64,{encoded}"
        return str(environment().get_template("measured.html").render(**content))

    # --- events of the browser and of other programs --------------------------------------------

    def _selected(self, event: Any) -> None:
        if event.new:
            self.look_at(int(self.table.value.index[event.new[-1]]))

    def _look_under_cursor(self, row: int | None) -> None:
        shown = self.current if row is None else row
        if shown is not None:
            self._show_galaxy(shown)

    def _pressed(self, key: str) -> None:
        if key in KEYS:
            self.mark(KEYS[key])
        elif key in STEPS:
            self.step(STEPS[key])

    def _connect(self) -> None:
        try:
            self.samp.connect()
        except InputError as error:
            self._say(str(error))
            return
        self.widgets["samp"].label = "Connected to SAMP"
        self.widgets["samp"].disabled = True
        if self.current is not None:
            self.samp.highlight(self.current)

    def _later(self, row: int) -> None:
        """Selects a row named by another program, in the thread of the page."""
        if self._document is None:
            self.look_at(row)
        else:
            self._document.add_next_tick_callback(lambda: self.look_at(row))


def serve(
    viewer: Callable[[], Viewer], title: str, port: int = 0, show: bool = True, block: bool = True
) -> Any:
    """Serves the application on this machine only, until it is interrupted.

    Args:
        viewer: Function that makes the view of one user.
        title: Title of the page in the browser.
        port: Port; 0 for any free one.
        show: Whether to open a browser.
        block: Whether to wait; otherwise a server in a thread is returned, with ``stop()``.
    """
    pn = require_panel()
    pn.extension("tabulator")
    return pn.serve(
        lambda: viewer().page(),
        title=title,
        port=port,
        address="localhost",
        show=show,
        threaded=not block,
    )
