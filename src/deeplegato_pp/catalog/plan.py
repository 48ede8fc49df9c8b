"""Plan of a run: chunks of the list, and the manifest that describes their inputs."""

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
from deeplegato_pp.catalog.cutouts import OpenedImages
from deeplegato_pp.catalog.groups import Crowd
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.errors import ConfigError, InputError

CHUNK = 128
"""Sources per chunk: a few seconds of work without refinement."""

REFINED_CHUNK = 32
"""Sources per chunk if each is refined."""

SAMPLED_BYTES = 1 << 16
"""Number of bytes at either end of a file that enter its fingerprint, with its size."""


@dataclass(frozen=True)
class Shard:
    """Part of the chunks: every `number`-th, starting from the `index`-th, counted from 1."""

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
            InputError: If it has another form.
        """
        if text is None:
            return cls()
        parts = text.split("/")
        if len(parts) != 2 or not all(p.strip().isdigit() for p in parts):
            raise InputError(f"shard must be I/N, as in 1/4, got {text!r}.")
        return cls(int(parts[0]), int(parts[1]))

    @property
    def suffix(self) -> str:
        """Suffix that distinguishes its files from those of other shards."""
        return "" if self.number == 1 else f"-{self.index}-of-{self.number}"


@dataclass(frozen=True, eq=False)
class Plan:
    """Division of a list of sources into chunks and shards.

    Attributes:
        sources: All sources.
        size: Sources per chunk.
        shard: Part processed by this run.
        configuration: All settings that affect the results, for the manifest.
        crowd: Neighbour relations of the list, if sources are fitted together; else None.
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
        """Returns the number of sources in a chunk."""
        return min(self.size, len(self.sources) - number * self.size)

    @property
    def total(self) -> int:
        """Number of sources in this shard."""
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
    """Returns all settings that affect the results of a catalogue, as plain values.

    Files are identified by name, size, modification time and a sample of their bytes, so that moved
    files are recognised and changed files are detected.

    Args:
        inputs: The images.
        options: Settings of the measurement.
        sources: List of sources.
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
    """Returns an identification of a file: name, size, modification time, hash of its ends.

    Args:
        source: A path; a number is returned unchanged.
        timed: Whether to include the modification time, which copying may change.
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
    """Returns an identification of a network: its name and its files."""
    if folder is None or not Path(folder).is_dir():
        return name
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".json", ".safetensors"))
    return f"{name}: {'; '.join(str(file_mark(p, timed=False)) for p in files)}"


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns one remark per entry that differs between two configurations."""
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
    return [f"{k} was {_short(old.get(k))}, is {_short(new.get(k))}" for k in keys]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


def check_same(old: dict[str, Any], new: dict[str, Any], where: Path) -> None:
    """Raises an error if a run is resumed with another configuration.

    Raises:
        ConfigError: If they differ; the message lists the differences.
    """
    remarks = difference(old, json.loads(json.dumps(new, default=str)))
    if remarks:
        raise ConfigError(
            f"{where} holds parts made with another configuration ({'; '.join(remarks)}): one "
            "catalogue cannot mix two. Give the same options, or another output, or --overwrite."
        )


def command_line() -> str:
    """Returns the command line of this process."""
    import shlex

    return shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])


def crowd_of(scene: OpenedImages, options: Options, sources: SourceList) -> Crowd | None:
    """Returns the neighbour relations, if sources are fitted together; else None.

    Args:
        scene: The images.
        options: Settings of the measurement.
        sources: The list.
    """
    if not options.fits_neighbours or sources.file is not None:
        return None
    scales = [m.pixel_scale for m in scene.mosaics if m.pixel_scale is not None]
    return Crowd(sources, max(scales, default=0.0))


def pieces(items: range, size: int) -> Iterator[range]:
    """Yields ranges of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
