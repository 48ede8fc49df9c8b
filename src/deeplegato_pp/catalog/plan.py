"""The plan of a run: chunks of the list, and the manifest that says what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp._version import __version__
from deeplegato_pp.catalog.chunks import Chunk
from deeplegato_pp.catalog.cutouts import Scene
from deeplegato_pp.catalog.groups import Crowd
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.catalog.sources import SourceList
from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.errors import ConfigError, InputError

CHUNK = 128
"""Sources per chunk: a few seconds of work for the bare network."""

REFINED_CHUNK = 32
"""The same where each is refined."""

SAMPLED_BYTES = 1 << 16
"""Bytes at the start and the end of a file that go into its fingerprint, with its size."""


@dataclass(frozen=True)
class Shard:
    """A part of the chunks: every `number`-th, from the `index`-th on, counted from 1."""

    index: int = 1
    number: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.number:
            raise InputError(
                f"shard must be I/N with 1 <= I <= N, got {self.index}/{self.number}. The first "
                "of four is 1/4, the last 4/4."
            )

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Reads ``I/N``.

        Raises:
            InputError: If it is not of that form.
        """
        if text is None:
            return cls()
        parts = text.split("/")
        if len(parts) != 2 or not all(p.strip().isdigit() for p in parts):
            raise InputError(f"shard must be I/N, as in 1/4, got {text!r}.")
        return cls(int(parts[0]), int(parts[1]))

    @property
    def suffix(self) -> str:
        """What tells its files from those of other shards."""
        return "" if self.number == 1 else f"-{self.index}-of-{self.number}"


@dataclass(frozen=True, eq=False)
class Plan:
    """Which sources are measured, in which chunks, by which shard.

    Attributes:
        sources: All of them.
        size: Sources per chunk.
        shard: The part that this run does.
        configuration: All that the numbers depend on, for the manifest.
        crowd: Who lies near whom in the list, where sources are fitted together; else None.
    """

    sources: SourceList
    size: int
    shard: Shard
    configuration: dict[str, Any]
    crowd: Crowd | None = None

    def __post_init__(self) -> None:
        check_positive_integer(self.size, "chunk")

    @property
    def numbers(self) -> range:
        """The numbers of this shard's chunks."""
        total = -(-len(self.sources) // self.size)
        return range(self.shard.index - 1, total, self.shard.number)

    def chunk(self, number: int) -> Chunk:
        """Returns one chunk."""
        rows = np.arange(len(self.sources))[number * self.size : (number + 1) * self.size]
        around = None if self.crowd is None else self.crowd.around(rows)
        return Chunk(number, self.sources[rows], around)

    def length(self, number: int) -> int:
        """Returns how many sources a chunk has."""
        return min(self.size, len(self.sources) - number * self.size)

    @property
    def total(self) -> int:
        """Sources of this shard."""
        return sum(self.length(n) for n in self.numbers)

    @property
    def hash(self) -> str:
        """Returns the configuration's fingerprint."""
        return fingerprint(self.configuration)


def fingerprint(configuration: dict[str, Any]) -> str:
    """Returns a short hash of plain values, the same on every machine."""
    text = json.dumps(configuration, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def describe(
    inputs: Inputs, options: Options, sources: SourceList, size: int, model: str
) -> dict[str, Any]:
    """Returns all that the numbers of a catalogue depend on, as plain values.

    Files go in by name, size, time of change and a sample of their bytes: moved files are the same
    files, and one that was changed anywhere is not.

    Args:
        inputs: The images.
        options: How sources are measured.
        sources: The list.
        size: Sources per chunk.
        model: Fingerprint of the network.
    """
    found: dict[str, Any] = {"version": __version__, "model": model, "chunk": size}
    found |= asdict(options)
    for f in fields(inputs):
        value = getattr(inputs, f.name)
        if isinstance(value, tuple):
            value = [file_mark(v) for v in value]
        elif value is not None and not isinstance(value, str | int | float | bool):
            value = str(value)
        found[f.name] = value
    found["sources"] = {"number": len(sources), "digest": sources.digest()}
    return found


def file_mark(source: Any, timed: bool = True) -> Any:
    """Returns what tells a file from another: name, size, time of change, a hash of its ends.

    Args:
        source: A path; a number stands for itself.
        timed: Whether the time of change counts, which a copy or an installation may alter.
    """
    if isinstance(source, int | float):
        return source
    if not isinstance(source, str | Path):
        return type(source).__name__
    path = Path(source)
    if not path.is_file():
        return path.name
    status = path.stat()
    size = status.st_size
    digest = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        digest.update(file.read(SAMPLED_BYTES))
        file.seek(max(0, size - SAMPLED_BYTES))
        digest.update(file.read(SAMPLED_BYTES))
    changed = f" of {datetime.fromtimestamp(status.st_mtime, UTC).isoformat()}" if timed else ""
    return f"{path.name} ({size} bytes{changed}, {digest.hexdigest()})"


def model_mark(folder: Path | None, name: str) -> str:
    """Returns what tells a network from another: its name and its files."""
    if folder is None or not Path(folder).is_dir():
        return name
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".json", ".safetensors"))
    return f"{name}: {'; '.join(str(file_mark(p, timed=False)) for p in files)}"


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns one remark per entry in which two configurations differ."""
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    return [f"{k} was {_short(old.get(k))}, is {_short(new.get(k))}" for k in keys]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


def check_same(old: dict[str, Any], new: dict[str, Any], where: Path) -> None:
    """Refuses to go on with another configuration than a run began with.

    Raises:
        ConfigError: If they differ; it says in what.
    """
    remarks = difference(old, json.loads(json.dumps(new, default=str)))
    if remarks:
        raise ConfigError(
            f"{where} holds parts made with another configuration ({'; '.join(remarks)}): one "
            "catalogue cannot mix two. Give the same options, or another output, or --overwrite."
        )


def command_line() -> str:
    """Returns how this process was called."""
    import shlex

    return shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])


def crowd_of(scene: Scene, options: Options, sources: SourceList) -> Crowd | None:
    """Returns who lies near whom, where sources are fitted together; else None.

    Args:
        scene: The images.
        options: How sources are measured.
        sources: The list.
    """
    if not options.fits_neighbours or sources.file is not None:
        return None
    scales = [m.pixel_scale for m in scene.mosaics if m.pixel_scale is not None]
    return Crowd(sources, max(scales, default=0.0))


def pieces(items: range, size: int) -> Iterator[range]:
    """Yields runs of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
