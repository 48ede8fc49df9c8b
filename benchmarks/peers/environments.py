"""An environment of its own for each peer, made by uv, and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from programs import Program

EXTRA = {
    "petrofit": ("astropy==5.3.4", "numpy==1.26.4", "photutils==1.12.0", "matplotlib==3.9.4"),
    "galight": (
        "numpy==1.26.4",
        "astropy==6.1.7",
        "photutils==1.12.0",
        "matplotlib==3.9.4",
        "regions==0.9",
        "corner==2.2.3",
        "tqdm==4.66.5",
        "shapely==2.0.6",
        "statmorph==0.5.7",
    ),
}
"""What a release needs and does not ask for, or asks for in a version that no longer works."""


def interpreter(program: Program, folder: Path) -> str:
    """Returns the interpreter that has a program, its environment made if it is not there.

    Args:
        program: The program.
        folder: Holds the environments, one folder each.

    Raises:
        RuntimeError: If the environment cannot be made, with the reason in one line.
    """
    if not program.packages:
        return sys.executable
    home = folder.resolve() / program.environment
    python = home / "bin" / "python"
    done = home / "installed.txt"
    wanted = "\n".join([*program.packages, *EXTRA.get(program.environment, ())])
    if done.exists() and done.read_text() == wanted:
        return str(python)
    if program.python and not _has(program.python):
        raise RuntimeError(f"its newest release needs Python {program.python}, not found here")
    shutil.rmtree(home, ignore_errors=True)
    version = program.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    _run([*UV, "venv", "--quiet", "--python", version, str(home)])
    _run([*UV, "pip", "install", "--quiet", "--python", str(python), *wanted.split()])
    done.write_text(wanted)
    return str(python)


UV = (sys.executable, "-m", "uv")


def _has(version: str) -> bool:
    command = [*UV, "python", "find", version]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [x.strip() for x in done.stderr.splitlines() if x.strip()]
        reasons = [x for x in lines if x.lower().startswith(("error", "cause", "x ", "╰"))]
        raise RuntimeError((reasons or lines or ["no message"])[-1][:200])
