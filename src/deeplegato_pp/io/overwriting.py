"""Inputs are never written over: outputs are compared with inputs, and with each other, by file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deeplegato_pp.errors import InputError


def check_outputs_apart(
    outputs: Mapping[str, Any], inputs: Mapping[str, Any] | None = None
) -> None:
    """Refuses outputs that are an input, or each other, by whatever path, link or spelling.

    Call it before any work. A folder among the outputs stands for all files right in it.

    Args:
        outputs: Paths to be written by what the user calls them, e.g. ``"--plot"``: a path, a
            list of them, or None.
        inputs: Paths that are read, likewise; numbers, arrays and None are passed over.

    Raises:
        InputError: If two are the same file.
    """
    named: dict[Any, str] = {}
    existing: dict[tuple[int, int], str] = {}
    for name, paths in outputs.items():
        for path in _paths(paths):
            file = _file(path)
            spelling = _name_on_disk(path)
            for key in (spelling, file):
                if key is not None and key in named:
                    raise InputError(
                        f"{named[key]} and {name} are the same file, {path}: one would be lost. "
                        "Give each a name of its own."
                    )
            named[spelling] = name
            if file is not None:
                named[file] = name
                existing[file] = f"{name} {path}"
    for what, paths in (inputs or {}).items() if existing else ():
        for source in _paths(paths):
            for file in (_file(source), _file(source.parent)):
                if file is not None and file in existing:
                    raise InputError(
                        f"{existing[file]} would write over an input, the {what} {source}. Give "
                        "another name."
                    )


def _paths(given: Any) -> Iterable[Path]:
    """The paths among what was given."""
    if isinstance(given, str | os.PathLike):
        return [Path(given)]
    if isinstance(given, list | tuple):
        return [Path(g) for g in given if isinstance(g, str | os.PathLike)]
    return []


def _file(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others on this machine; None if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # not there, or no name that a file can have
        return None
    return status.st_dev, status.st_ino


def _name_on_disk(path: Path) -> str:
    """One spelling of a path, links followed; of any case where the system knows none."""
    real = os.path.normcase(os.path.realpath(path))
    return real.casefold() if sys.platform == "darwin" else real
