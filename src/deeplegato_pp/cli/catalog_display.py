"""Terminal output of ``deeplegato catalog``: progress and summary."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from deeplegato_pp.flags import Flag

if TYPE_CHECKING:
    from deeplegato_pp.catalog.compare import Comparison
    from deeplegato_pp.catalog.runner import Report

EVERY = 60.0
"""Time between lines of progress without a terminal. [s]"""


class ProgressLines:
    """Progress of a run: a bar on a terminal, otherwise occasional lines."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._done = self._new = 0
        self._started = self._reported = time.monotonic()

    def __enter__(self) -> ProgressLines:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("measuring"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, total: int, rows: int, new: bool) -> None:
        """Counts finished rows; only new ones contribute to the rate."""
        now = time.monotonic()
        if not new:
            self._started = self._reported = now
        self._done += rows
        self._new += rows if new else 0
        rate = self._new / max(now - self._started, 1e-3)
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task("", total=total, rate="")
            self._bar.update(self._task, completed=self._done, rate=f"{rate:.1f}/s")
        elif now - self._reported > EVERY:
            self._reported = now
            sys.stderr.write(progress_line(self._done, total, rate))
            sys.stderr.flush()


def progress_line(done: int, total: int, rate: float) -> str:
    r"""Returns one line of progress.

    Example:
        >>> progress_line(500, 2000, 25.0)
        '500 of 2000 sources, 25.0/s, 0:01:00 left\n'
    """
    left = int((total - done) / rate) if rate > 0 else 0
    clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
    return f"{done} of {total} sources, {rate:.1f}/s, {clock} left\n"


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Writes the catalogue's warnings to standard error, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("deeplegato: %(message)s"))
    logger = logging.getLogger("deeplegato_pp.catalog")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def print_report(report: Report) -> None:
    """Prints the results of a run, and the time of each task."""
    files = ", ".join(str(f) for f in report.files[:3]) + (", ..." if len(report.files) > 3 else "")
    if report.already:
        print(f"{report.rows} rows: the catalogue was complete already, in {files}")
        return
    failed = report.rows - report.measured
    resumed = f", {report.resumed} of them by an earlier run" if report.resumed else ""
    print(f"{report.rows} rows{resumed}; {failed} not measured, each with its reason; in {files}")
    print(tally(report.qualities, report.flagged))
    wall = report.seconds.get("wall", 0.0)
    new = report.rows - report.resumed
    parts = ", ".join(f"{k} {v:.1f}" for k, v in report.seconds.items() if k != "wall")
    print(f"{wall:.1f} s, {new / max(wall, 1e-3):.1f} sources/s ({parts or 'on workers'} s)")


def tally(qualities: Mapping[str, int], flagged: Mapping[str, int]) -> str:
    """Returns the number of rows per quality, and the flags of rows that are not good.

    Example:
        >>> tally({"good": 7, "caution": 2}, {"padded": 9, "no_psf": 2})
        'quality: 7 good, 2 caution, 0 bad (no_psf 2)'
    """
    levels = ", ".join(f"{qualities.get(level, 0)} {level}" for level in ("good", "caution", "bad"))
    serious = [name for name in flagged if Flag[name.upper()].level != "good"]
    serious.sort(key=lambda name: (Flag[name.upper()].level != "bad", -flagged[name]))
    why = ", ".join(f"{name} {flagged[name]}" for name in serious)
    return f"quality: {levels}" + (f" ({why})" if why else "")


def print_comparison(comparison: Comparison) -> None:
    """Prints the differences of two catalogues, one line per parameter."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{len(comparison.matched)} ids in both, {comparison.only_old} only in the old, "
        f"{comparison.only_new} only in the new; measured in both "
        f"{int(comparison.both_measured.sum())}, no longer {comparison.lost}, newly "
        f"{comparison.gained}"
    )
    table = Table(box=None, pad_edge=False)
    headings = ("parameter", "median", "median/σ", "spread/σ", "beyond 3 σ", "σ new/old")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "parameter" else "right")
    for difference in comparison.differences:
        f = difference.figures()
        table.add_row(
            difference.parameter.name,
            f"{f['median']:+.3g} {difference.parameter.unit}".strip(),
            f"{f['median_sigma']:+.3f}",
            f"{f['spread_sigma']:.3f}",
            f"{100 * f['beyond_3_sigma']:.2f} %",
            f"{f['width_ratio']:.3f}",
        )
    console.print(table)
