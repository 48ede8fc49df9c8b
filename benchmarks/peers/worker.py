"""Runs one program over galaxies, in the program's own environment; a line of JSON for each.

Started by the runner, never by hand: it knows nothing but numpy and the adapter. An adapter that
has `fit_many` is given batches where the method is called ``batch``.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from galaxy import Galaxy


def say(line: dict[str, Any], stream: Any) -> None:
    """Writes a line at once."""
    stream.write(json.dumps(line) + "\n")
    stream.flush()


def batches(paths: list[str], size: int) -> Iterator[list[Path]]:
    """Yields paths in groups of galaxies whose images and PSFs have one shape."""
    loaded = {p: Galaxy.load(Path(p)) for p in paths}
    shapes = {p: (g.image.shape, g.psf.shape) for p, g in loaded.items()}
    for _, group in itertools.groupby(paths, key=lambda p: shapes[p]):
        members = [Path(p) for p in group]
        for i in range(0, len(members), size):
            yield members[i : i + size]


def peak_memory() -> float:
    """Returns the largest memory that this process held. [MB]

    `ru_maxrss` starts from what the parent held when it started the process, so the kernel's own
    count is read where there is one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = [float(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (held[0] if held else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def measure(adapter: Any, method: str, paths: list[Path]) -> list[dict[str, Any]]:
    """Returns each galaxy's answer with its share of the time."""
    galaxies = [Galaxy.load(p) for p in paths]
    wall, cpu = time.perf_counter(), time.process_time()
    answers: list[dict[str, Any]]
    try:
        if method == "batch":
            fits = adapter.fit_many(galaxies, method)
        else:
            fits = [adapter.fit(galaxies[0], method)]
        answers = [{"fit": f.check().row()} for f in fits]
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        answers = [{"failed": text} for _ in galaxies]
    cost = {
        "seconds": (time.perf_counter() - wall) / len(paths),
        "cpu_seconds": (time.process_time() - cpu) / len(paths),
        "peak_mb": peak_memory(),
    }
    return [{"id": p.stem} | cost | a for p, a in zip(paths, answers, strict=True)]


def main() -> None:
    adapter_name, method, packages, *paths = sys.argv[1:]
    stream = os.fdopen(os.dup(1), "w")  # the programs print to the terminal as they please
    os.dup2(2, 1)
    versions = {}
    for package in packages.split(","):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    try:
        adapter = importlib.import_module(f"adapters.{adapter_name}")
    except Exception as error:
        say({"missing": f"{type(error).__name__}: {error}", "versions": versions}, stream)
        return
    say({"versions": versions}, stream)
    size = adapter.BATCH if method == "batch" else 1
    for number, group in enumerate(batches(paths, size)):
        for line in measure(adapter, method, group):
            say(line | {"first": number == 0}, stream)


if __name__ == "__main__":
    main()
