"""Stops a command in the middle, as users, systems and schedulers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from deeplegato_pp.cli import app
from faults import slowly


def program() -> str:
    """The command line with the fake network and a pause after each row."""
    return slowly.__file__


def environment() -> dict[str, str]:
    """In which that program finds what it imports."""
    paths = [Path(program()).parents[1], Path(app.__file__).parents[2]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def stop(number: int, call: list[str], watched: str, lines: int = 0) -> tuple[int, str]:
    """Runs a command slowly and stops it once something is on the disk.

    Args:
        number: The signal.
        call: What follows the program's name.
        watched: File to wait for.
        lines: Lines that it must have.

    Returns:
        The exit status, and what stands on the standard error.
    """
    process = subprocess.Popen(
        [sys.executable, program(), "60", *call],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Processes started in the background by a shell ignore the signal otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if Path(watched).exists() and Path(watched).read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, message = process.communicate(timeout=240)
    return process.returncode, message
