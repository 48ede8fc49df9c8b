"""Parallel measurement on many processes and machines with ``dask.distributed``.

A task contains the sources of a chunk: coordinates, not pixels. Workers open the images by their
paths, load the network once, and return rows, which the parent writes. Tasks of a worker that died
are given to another one; if a chunk kills three workers, its sources are measured one by one, and
the source responsible becomes a failed row.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deeplegato_pp.catalog.chunks import Chunk
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.measure import Measurer, as_failed, open_measurer
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.errors import ConfigError, InputError

if TYPE_CHECKING:
    from deeplegato_pp.catalog.runner import Backend, Rows
    from deeplegato_pp.inference.posterior.estimator import Estimator

logger = logging.getLogger(__name__)

AHEAD = 2
"""Number of chunks per worker that wait or run: enough to keep it busy, at little memory."""

PATIENCE = 10.0
"""Timeout of a scheduler's answer. [s]"""

_measurers: dict[str, Measurer] = {}
"""Objects opened in a worker, by the run's fingerprint."""


@dataclass(frozen=True)
class Job:
    """Information that a worker needs to measure chunks of a run.

    Attributes:
        key: Fingerprint of the run.
        load: Function that loads the network, given a device or None; sent to the workers.
        inputs: The images, by paths that the workers can read.
        options: Settings of the measurement.
    """

    key: str
    load: Callable[[str | None], Estimator]
    inputs: Inputs
    options: Options


def measure_chunk(job: Job, chunk: Chunk) -> Rows:
    """Measures a chunk in a worker and returns its rows."""
    if job.key not in _measurers:
        _measurers.clear()
        _measurers[job.key] = open_measurer(lambda: job.load(_device()), job.inputs, job.options)
    return _measurers[job.key].rows(chunk)


def _device() -> str | None:
    """Returns the worker's GPU: visible GPUs are assigned to numbered workers in turn."""
    import torch
    from distributed import get_worker

    name, visible = str(get_worker().name), torch.cuda.device_count()
    return f"cuda:{int(name) % visible}" if visible > 1 and name.isdigit() else None


@contextmanager
def cluster(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Connects to a scheduler, or starts workers on this machine.

    Args:
        workers: Processes on this machine.
        scheduler: Address of a running scheduler, e.g. ``tcp://host:8786``.

    Yields:
        The ``distributed.Client``.

    Raises:
        ConfigError: If dask is not installed.
        InputError: If both or neither are given, or the scheduler does not answer.
    """
    if (workers is None) == (scheduler is None):
        raise InputError("give either --workers N or --scheduler ADDRESS.")
    try:
        import distributed
    except ImportError as error:
        raise ConfigError(
            "many processes need dask.distributed, which is not installed. Install "
            "deeplegato-pp[survey], or leave --workers and --scheduler out."
        ) from error
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no scheduler answers at {scheduler} ({error or 'timed out'}). Start one with "
                "dask scheduler, and give the address it prints."
            ) from error
        with client:
            yield client
        return
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        ) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        client.run(_share_cores, workers)
        client.register_plugin(_share_cores_plugin(int(workers or 1)))
        yield client


def _share_cores(workers: int) -> None:
    """Limits a worker to its share of the machine's cores."""
    import os

    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, (cores or 1) // workers))


def _share_cores_plugin(workers: int) -> Any:
    """Returns a plugin that does the same in workers that replace dead ones."""
    from distributed import WorkerPlugin

    class ShareCores(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            _share_cores(workers)

    return ShareCores()


def on_workers(client: Any, job: Job, model: str) -> Backend:
    """Returns a backend that measures on a cluster.

    Args:
        client: A ``distributed.Client``.
        job: Information for the workers.
        model: Name of the network, for rows that no worker could measure.
    """

    def measure(chunks: Iterable[Chunk]) -> Iterator[tuple[Chunk, Rows]]:
        from distributed import KilledWorker, as_completed

        waiting = iter(chunks)
        running: dict[Any, Chunk] = {}
        pool = as_completed(loop=client.loop)

        def refill() -> None:
            slots = AHEAD * max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
            while len(running) < slots and (chunk := next(waiting, None)) is not None:
                future = client.submit(measure_chunk, job, chunk, pure=False)
                running[future.key] = chunk
                pool.add(future)

        refill()
        while running:
            future = next(pool)
            chunk = running.pop(future.key)
            try:
                rows = future.result()
            except KilledWorker:
                logger.warning("chunk %d kills workers: its sources are tried alone", chunk.number)
                rows = _one_by_one(client, job, chunk, model)
            future.release()
            refill()
            yield chunk, rows

    return measure


def _one_by_one(client: Any, job: Job, chunk: Chunk, model: str) -> Rows:
    """Measures the sources of a chunk one by one; one that kills its workers is a failed row."""
    from distributed import KilledWorker

    rows: Rows = []
    left = deque(chunk.part([i]) for i in range(len(chunk.sources)))
    while left:
        single = left.popleft()
        future = client.submit(measure_chunk, job, single, pure=False)
        try:
            rows += future.result()
        except KilledWorker:
            rows += as_failed(single, "the processes that measured it died.", model)
    return rows
