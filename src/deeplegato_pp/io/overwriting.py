"""Protection of inputs: outputs are compared with inputs, and with each other, by file."""

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
    """Raises an error if an output is the same file as an input or another output.

    Paths, links and spellings are resolved. A folder among the outputs includes the files in it.

    Args:
        outputs: Output paths by the user's name for them, e.g. ``"--plot"``: a path, a list of
            paths, or None.
        inputs: Input paths in the same form; numbers, arrays and None are ignored.

    Raises:
        InputError: If two paths are the same file.
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
    """Yields the paths among the arguments."""
    if isinstance(given, str | os.PathLike):
        return [Path(given)]
    if isinstance(given, list | tuple):
        return [Path(g) for g in given if isinstance(g, str | os.PathLike)]
    return []


def _file(path: Path) -> tuple[int, int] | None:
    """Returns the identity of a file on this machine; None if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # missing, or an invalid file name
        return None
    return status.st_dev, status.st_ino


def _name_on_disk(path: Path) -> str:
    """Returns a canonical path, with links resolved, in lower case if case is insignificant."""
    real = os.path.normcase(os.path.realpath(path))
    return real.casefold() if sys.platform == "darwin" else real
