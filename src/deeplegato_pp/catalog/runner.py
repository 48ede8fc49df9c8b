"""Execution of a run: chunks are measured, stored and joined."""

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
from deeplegato_pp.catalog.options import Options
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

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

Rows = list[dict[str, Any]]
Backend = Callable[[Iterable[Chunk]], Iterator[tuple[Chunk, Rows]]]
"""Measures chunks and yields each with its rows, in any order."""


@dataclass(frozen=True)
class Report:
    """Summary of a run.

    Attributes:
        rows: Number of rows in the catalogue.
        measured: Number of measured rows.
        resumed: Number of rows from an earlier run.
        files: Files that were written.
        seconds: Time spent, by task; ``wall`` is the total.
        already: Whether the catalogue was already complete.
        qualities: Number of rows by quality.
        flagged: Number of rows by flag.
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
        plan: Plan of the run.
        output: Output path.
        model: Name and version of the network, for the catalogue's metadata.
        options: Settings of the measurement, which determine the columns.
        resume: Continue with the parts of an earlier run.
        overwrite: Delete the parts of an earlier run.
        advance: Called with the number of finished rows, and whether they are new.
        seconds: Time spent, by task.
    """

    plan: Plan
    output: Path
    model: str
    options: Options = field(default_factory=Options)
    resume: bool = False
    overwrite: bool = False
    advance: Callable[[int, bool], None] = field(default=lambda rows, new: None)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __call__(self, backend: Callable[[], Backend]) -> Report:
        """Processes the remaining chunks, and joins the parts.

        Args:
            backend: Function that creates the backend; called only if chunks remain.

        Raises:
            ConfigError: If parts of another configuration exist.
            DiskFullError: If the disk is full; finished parts are kept.
            InputError: If the output cannot be written.
        """
        started = time.perf_counter()
        check_catalogue_output(self.output, self.options.draws)
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
        how = self.options
        return schema(
            self._text_ids, bool(how.draws), metadata, how.scene, how.bands, how.covariance
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
    """Returns a backend of this process, which makes cutouts and rows in threads."""

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
    """Reads at most one chunk ahead and finishes one behind, to bound the memory."""
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
    """Measures a chunk, and returns the function that makes its rows; None after an error."""
    try:
        cutouts = cutting.result()
        posterior = measurer.infer(chunk, cutouts)
    except Exception as error:
        raise_if_of_the_machine(error)
        return None
    return partial(measurer.finish, chunk, cutouts, posterior)


def _rows(measurer: Measurer, chunk: Chunk, finishing: Future[Rows] | None) -> Rows:
    """Returns a chunk's rows; after an error, each source is measured alone."""
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
