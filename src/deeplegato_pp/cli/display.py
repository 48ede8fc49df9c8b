"""Terminal output: progress, and tables of results."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WIDTH = 160
"""Width of tables that are not printed to a terminal. [characters]"""

SHORT = {
    "magnitude": "mag",
    "effective_radius": "R_e [arcsec]",
    "sersic_index": "n",
    "axis_ratio": "q",
    "position_angle": "PA [deg]",
    "snr": "S/N",
}
"""Columns of the table of several galaxies."""


EVERY = 60.0
"""Time between lines of progress without a terminal. [s]"""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows rate and remaining time on standard error: a bar on a terminal, else lines."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressLines(what, total).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, rate="")

        def advance(steps: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=steps, rate="" if speed is None else f"{speed:.1f}/s")

        yield advance


def provenance_line(name: str, provenance: str, flags: int) -> str:
    """Returns the values taken from a file with their origin, and its contradictions.

    Args:
        name: Name of the file.
        provenance: Provenance of its observation or mosaic.
        flags: Sum of its ``Flag`` bits.

    Example:
        >>> provenance_line("g.fits", "zero point 8.90 (unit Jy)", 1 << 36)
        'g.fits: zero point 8.90 (unit Jy); zero_point_conflict'
    """
    from deeplegato_pp.flags import STATEMENTS, Flag

    names = Flag.names(flags & STATEMENTS)
    return f"{name}: {provenance}" + (f"; {', '.join(names)}" if names else "")


class ProgressLines:
    """Progress as lines of text.

    Args:
        what: Name of the task.
        total: Total number of items.
    """

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total, self.done = what, total, 0
        self.start = self.reported = time.monotonic()

    def advance(self, steps: int) -> None:
        """Counts finished items, and prints a line if a minute has passed."""
        self.done += steps
        now = time.monotonic()
        if now - self.reported < EVERY or self.done >= self.total:
            return
        self.reported = now
        rate = self.done / (now - self.start)
        left = (self.total - self.done) / rate / 60.0
        sys.stderr.write(
            f"deeplegato: {self.what}: {self.done} of {self.total} galaxies, {rate:.1f}/s, "
            f"{left:.0f} min left\n"
        )
        sys.stderr.flush()


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Prints results: all parameters of one galaxy, or one line per galaxy."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    if len(rows) == 1:
        _print_one(console, rows[0])
    else:
        _print_many(console, rows)


def value_and_error(value: float | None, error: float | None) -> str:
    """Returns a number with its error, both rounded to the error's second significant digit.

    Example:
        >>> value_and_error(20.12345, 0.0123), value_and_error(4321.0, 150.0)
        ('20.123 ± 0.012', '4321 ± 150')
        >>> value_and_error(None, None)
        '-'
    """
    import math

    if value is None or error is None:
        return "-"
    if error <= 0:
        return f"{value:.6g} ± {error:.2g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _print_one(console: Any, row: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from deeplegato_pp.inference.posterior.derived import DERIVED
    from deeplegato_pp.scene.parameters import PARAMETERS

    if row["method"] is None:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("", "mean", "68 % interval", "95 % interval", "unit"):
        table.add_column(heading, no_wrap=True)
    for p in PARAMETERS:
        mean = value_and_error(row[p.name], row[f"{p.name}_std"])
        inner, outer = (_interval(row, p.name, *q) for q in (("q16", "q84"), ("q025", "q975")))
        table.add_row(p.name, mean, inner, outer, p.unit)
    for d in DERIVED:
        if row[d.name] is not None:
            table.add_row(
                d.name, value_and_error(row[d.name], row[f"{d.name}_std"]), "", "", d.unit
            )
    for name, unit in (_scene_columns(row) | _band_columns(row)).items():
        mean = value_and_error(row[name], row[f"{name}_std"])
        table.add_row(name, mean, _interval(row, name, "q16", "q84"), "", unit)
    console.print(Text(row["file"], style="bold"))
    console.print(table)
    console.print(Text(_footnote(row)))
    _print_flags(console, [row])


def _scene_columns(row: dict[str, Any]) -> dict[str, str]:
    """Returns the columns of the best scene's components, with their units."""
    from deeplegato_pp.inference.posterior.scene_record import parameter_columns

    best = row.get("best_scene")
    found = parameter_columns([] if best is None else [best])
    return {name: unit for name, (unit, _, _) in found.items() if row[name] is not None}


def _band_columns(row: dict[str, Any]) -> dict[str, str]:
    """Returns the columns of the bands, with their units."""
    from deeplegato_pp.inference.posterior.band_record import quantities

    found = quantities(row["bands"].split(",") if row.get("bands") else [])
    return {name: unit for name, (unit, _, _) in found.items() if row.get(name) is not None}


def _interval(row: dict[str, Any], name: str, lower: str, upper: str) -> str:
    std = row[f"{name}_std"]
    bounds = (value_and_error(row[f"{name}_{q}"], std).split(" ±")[0] for q in (lower, upper))
    return " to ".join(bounds)


def _footnote(row: dict[str, Any]) -> str:
    parts = [f"quality {row['quality']}", f"method {row['method']}", f"model {row['model']}"]
    if row.get("best_scene") is not None:
        parts.append(f"scene {row['best_scene']} (odds {row['scene_odds']:.3g})")
    for name in ("ess", "khat", "log_evidence", "chi2", "chi2_p", "ood_p", "p_value"):
        if row[name] is not None:
            parts.append(f"{name} {row[name]:.4g}")
    if row["star_probability"] is not None:
        parts.append(f"star_probability {row['star_probability']:.3g}")
    if row["flux_limit"] is not None:
        parts.append(
            f"not detected: flux < {row['flux_limit']:.4g} nJy, magnitude > "
            f"{row['magnitude_limit']:.2f} (95 %)"
        )
    return ", ".join(parts)


def _print_many(console: Any, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    for heading in SHORT.values():
        table.add_column(_escaped(heading), justify="right", no_wrap=True)
    table.add_column("chi2", justify="right", no_wrap=True)
    table.add_column("quality", no_wrap=True)
    table.add_column("flags", no_wrap=True)
    for row in rows:
        cells = [value_and_error(row[name], row[f"{name}_std"]) for name in SHORT]
        chi2 = "-" if row["chi2"] is None else f"{row['chi2']:.3g}"
        verdict = (row["quality"], _escaped(_flags_in_brief(row)))
        table.add_row(_escaped(row["name"]), *cells, chi2, *verdict)
    console.print(table)
    _print_flags(console, rows)


def print_flags(rows: list[dict[str, Any]]) -> None:
    """Prints the meaning and remedy of each flag that occurs, worst first."""
    from rich.console import Console

    _print_flags(Console(highlight=False), rows)


def _print_flags(console: Any, rows: list[dict[str, Any]]) -> None:
    """Prints the meaning of each flag that occurs."""
    from rich.text import Text

    from deeplegato_pp.flags import LEVELS, Flag

    found: dict[Flag, str] = {}
    for row in rows:
        for flag, level in Flag.levels_of_row(row).items():
            found[flag] = min(found.get(flag, level), level, key=LEVELS.index)
    for flag, level in sorted(found.items(), key=lambda item: LEVELS.index(item[1])):
        line = f"{str(flag.name).lower()} ({level}): {flag.meaning}"
        if flag.remedy:
            line += f". {flag.remedy}"
        console.print(Text(line, style="red" if level == "bad" else "yellow"), soft_wrap=True)


SHOWN = 3
"""Number of flags shown per row in the table of several galaxies."""


def _flags_in_brief(row: dict[str, Any]) -> str:
    """Returns a row's worst flags; flags of level good are only counted.

    Example:
        >>> _flags_in_brief({"flags": (1 << 36) | (1 << 6) | (1 << 13)})
        'zero_point_conflict +2'
    """
    from deeplegato_pp.flags import Flag

    found = Flag.levels_of_row(row)
    serious = [str(flag.name).lower() for flag, level in found.items() if level != "good"][:SHOWN]
    rest = len(found) - len(serious)
    return ",".join(serious) + (f" +{rest}" if serious and rest else f"+{rest}" if rest else "")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
