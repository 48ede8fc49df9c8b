"""A run: chunks measured one after another or on many machines, stored, and joined."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplegato_pp._version import __version__
from deeplegato_pp.catalog.checkpoints import WorkFolder
from deeplegato_pp.catalog.chunks import Chunk
from deeplegato_pp.catalog.columns import schema, to_arrow
from deeplegato_pp.catalog.measure import Measurer
from deeplegato_pp.catalog.output import (
    check_catalogue_output,
    is_folder,
    work_folder,
    write_catalogue,
)
from deeplegato_pp.catalog.plan import Plan, command_line
from deeplegato_pp.flags import Flag
from deeplegato_pp.io.files import disk_full_named
from deeplegato_pp.isolation import raise_if_of_the_machine
from deeplegato_pp.observation.bands import Bands

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
Backend = Callable[[Iterable[Chunk]], Iterator[tuple[Chunk, Rows]]]
"""Measures chunks and yields each with its rows, in any order."""


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        rows: Rows of the catalogue.
        measured: Of them, those that were measured.
        resumed: Rows that were there already.
        files: What was written.
        seconds: What was spent on what; ``wall`` is the whole.
        already: Whether the catalogue was complete before.
        qualities: Rows by verdict.
        flagged: Rows by flag.
    """

    rows: int
    measured: int
    resumed: int
    files: list[Path]
    seconds: Mapping[str, float]
    already: bool = False
    qualities: Mapping[str, int] = field(default_factory=dict)
    flagged: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Run:
    """Writes one catalogue.

    Attributes:
        plan: What is to be done.
        output: Where to.
        model: Name and version of the network, for the catalogue's metadata.
        draws: Whether rows hold draws.
        scene: What sources are fitted with.
        bands: Bands that are fitted together; None of one.
        covariances: Whether rows hold those of all pairs of parameters.
        resume: Go on with what an earlier run has finished.
        overwrite: Throw it away.
        advance: Told of finished rows: their number, and whether they are new.
        seconds: What is spent on what.
    """

    plan: Plan
    output: Path
    model: str
    draws: int = 0
    scene: str = "sersic"
    bands: Bands | None = None
    covariances: bool = False
    resume: bool = False
    overwrite: bool = False
    advance: Callable[[int, bool], None] = field(default=lambda rows, new: None)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __call__(self, backend: Callable[[], Backend]) -> Report:
        """Does what is left to do, and joins the parts.

        Args:
            backend: Makes what measures; called only if something is left to measure.

        Raises:
            ConfigError: If parts of another configuration are there.
            DiskFullError: If the disk is full; what was finished is safe.
            InputError: If the output cannot be written.
        """
        started = time.perf_counter()
        check_catalogue_output(self.output, self.draws)
        if is_folder(self.output):
            self.output.mkdir(exist_ok=True)
        work = WorkFolder(work_folder(self.output), self.plan.shard.suffix)
        with work.locked():
            done = work.begin(self.plan, self.resume, self.overwrite)
            noted = work.finished(self.plan)
            if noted is not None and all(Path(f).exists() for f in noted["files"]):
                work.clear(self.plan)
                self.advance(noted["rows"], False)
                files = [Path(f) for f in noted["files"]]
                return Report(noted["rows"], noted["measured"], noted["rows"], files, {}, True)
            resumed = sum(self.plan.length(n) for n in done)
            self.advance(resumed, False)
            self._measure(work, [n for n in self.plan.numbers if n not in done], backend)
            return self._join(work, resumed, started)

    def _measure(
        self, work: WorkFolder, numbers: list[int], backend: Callable[[], Backend]
    ) -> None:
        if not numbers:
            return
        table = self._schema(None)
        for chunk, rows in backend()(self.plan.chunk(n) for n in numbers):
            started = time.perf_counter()
            work.store(self.plan, chunk.number, to_arrow(rows, table))
            self.seconds["write"] += time.perf_counter() - started
            self.advance(len(rows), True)

    def _join(self, work: WorkFolder, resumed: int, started: float) -> Report:
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        joining = time.perf_counter()
        parts = [work.part(n) for n in self.plan.numbers]
        metadata = self.metadata()
        joined = self._schema(metadata)
        with disk_full_named(self.output):
            files = write_catalogue(parts, self.output, joined, self.plan.shard.suffix)
        rows = measured = 0
        qualities: Counter[str] = Counter()
        flagged: Counter[str] = Counter()
        for part in parts:
            verdicts = pq.read_table(part, columns=["flags", "quality"], partitioning=None)
            flags = verdicts.column("flags")
            qualities.update(verdicts.column("quality").to_pylist())
            for value, number in Counter(flags.to_pylist()).items():
                flagged.update(dict.fromkeys(Flag.names(value), number))
            rows += len(flags)
            failed = pc.not_equal(pc.bit_wise_and(flags, int(Flag.FAILED)), 0)
            measured += len(flags) - (pc.sum(failed).as_py() or 0)
        about = {"configuration_hash": self.plan.hash, "rows": rows, "measured": measured}
        work.finish(self.plan, {**about, "files": [str(f) for f in files]})
        self.seconds["join"] += time.perf_counter() - joining
        seconds = {**self.seconds, "wall": time.perf_counter() - started}
        return Report(rows, measured, resumed, files, seconds, qualities=qualities, flagged=flagged)

    def _schema(self, metadata: dict[str, str] | None) -> Any:
        return schema(
            self._text_ids, bool(self.draws), metadata, self.scene, self.bands, self.covariances
        )

    @property
    def _text_ids(self) -> bool:
        return bool(self.plan.sources.ids.dtype.kind == "O")

    def metadata(self) -> dict[str, str]:
        """Returns the catalogue's provenance."""
        import json

        return {
            "software": f"deeplegato-pp {__version__}",
            "model": self.model,
            "command": command_line(),
            "configuration": json.dumps(self.plan.configuration, default=str),
            "configuration_hash": self.plan.hash,
        }


def one_process(measurer: Measurer) -> Backend:
    """Returns a backend in this process: cutouts are read, and rows made, beside the network."""

    def measure(chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, Rows]]:
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "rows") as finisher:
            yield from _pipeline(measurer, iter(chunks), reader, finisher)

    return measure


def _pipeline(
    measurer: Measurer,
    chunks: Iterator[Chunk],
    reader: ThreadPoolExecutor,
    finisher: ThreadPoolExecutor,
) -> Iterator[tuple[Chunk, Rows]]:
    """At most one chunk ahead is read and one behind made into rows, which bounds the memory."""
    ahead = _read_next(measurer, chunks, reader)
    behind: tuple[Chunk, Future[Rows] | None] | None = None
    while ahead is not None:
        chunk, cutting = ahead
        ahead = _read_next(measurer, chunks, reader)
        finish = _inferred(measurer, chunk, cutting)
        if behind is not None:
            yield behind[0], _rows(measurer, *behind)
        behind = chunk, None if finish is None else finisher.submit(finish)
        del finish
    if behind is not None:
        yield behind[0], _rows(measurer, *behind)


def _inferred(measurer: Measurer, chunk: Chunk, cutting: Future[Any]) -> Callable[[], Rows] | None:
    """Measures a chunk, and returns what makes its rows; None where something broke."""
    try:
        cutouts = cutting.result()
        posterior = measurer.infer(chunk, cutouts)
    except Exception as error:
        raise_if_of_the_machine(error)
        return None
    return partial(measurer.finish, chunk, cutouts, posterior)


def _rows(measurer: Measurer, chunk: Chunk, finishing: Future[Rows] | None) -> Rows:
    """Returns a chunk's rows; where something broke, it is measured again, source by source."""
    if finishing is not None:
        try:
            return finishing.result()
        except Exception as error:
            raise_if_of_the_machine(error)
    return measurer.rows(chunk)


def _read_next(
    measurer: Measurer, chunks: Iterator[Chunk], reader: ThreadPoolExecutor
) -> tuple[Chunk, Future[Any]] | None:
    chunk = next(chunks, None)
    return None if chunk is None else (chunk, reader.submit(measurer.cut, chunk))
