"""Handling of signals that stop a command."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from deeplegato_pp.cli.memory import keep_freed_memory


class Terminated(KeyboardInterrupt):
    """Request to end the process (SIGTERM), handled like Ctrl-C with another exit status."""


@contextmanager
def termination_raised() -> Iterator[None]:
    """Makes SIGTERM raise `Terminated` in the block, so that open files are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def noted_when_stopped(note: str | Callable[[], str]) -> Iterator[None]:
    """Adds a note on saved results and how to continue to an interruption of the block.

    Args:
        note: The note, or a function that returns it when the block is interrupted.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as left:
        stopped = interruption(left)
        if stopped is not None:
            stopped.add_note(note if isinstance(note, str) else note())
        raise


def interruption(left: KeyboardInterrupt | SystemExit) -> KeyboardInterrupt | None:
    """Returns the interruption that ended a run, which Lightning replaces by SystemExit."""
    stopped = left.__context__ if isinstance(left, SystemExit) else left
    return stopped if isinstance(stopped, KeyboardInterrupt) else None


def stopped_status(stopped: BaseException | None) -> int:
    """Reports the interruption in one line, and returns 130 or, for SIGTERM, 143."""
    terminated = isinstance(stopped, Terminated)
    notes = " ".join(getattr(stopped, "__notes__", ()))
    what = "terminated." if terminated else "interrupted."
    sys.stderr.write(f"deeplegato: {what} {notes}".rstrip() + "\n")
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def stoppable(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a command so that a signal ends it with a message and an exit status."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            keep_freed_memory()
            with termination_raised():
                return command(*arguments, **options)
        except (KeyboardInterrupt, SystemExit) as left:
            stopped = interruption(left)
            if stopped is None:
                raise
            return stopped_status(stopped)

    return run
