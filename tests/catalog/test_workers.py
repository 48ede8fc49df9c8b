from __future__ import annotations

import numpy as np
import pytest

distributed = pytest.importorskip("distributed")

from deeplegato_pp.catalog import workers  # noqa: E402
from deeplegato_pp.catalog.inputs import Inputs  # noqa: E402
from deeplegato_pp.catalog.measure import open_measurer  # noqa: E402
from deeplegato_pp.catalog.options import Options  # noqa: E402
from deeplegato_pp.catalog.plan import Plan, Shard  # noqa: E402
from deeplegato_pp.catalog.sources import read_sources  # noqa: E402
from deeplegato_pp.catalog.workers import Job, cluster, on_workers  # noqa: E402
from deeplegato_pp.errors import InputError  # noqa: E402
from deeplegato_pp.flags import Flag  # noqa: E402
from small_sky import load_fake, make_sky, same_values, write_sky  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # dask and tornado warn of their own affairs


@pytest.fixture
def job(tmp_path):
    write_sky(tmp_path, make_sky())
    inputs = Inputs(images=(str(tmp_path / "mosaic.fits"),), psf=(str(tmp_path / "psf.fits"),))
    return Job("key", load_fake, inputs, Options(samples=20))


def chunks_of(tmp_path, size=2):
    plan = Plan(read_sources(tmp_path / "list.csv"), size, Shard(), {})
    return [plan.chunk(n) for n in plan.numbers]


def same(rows, others):
    for row, other in zip(rows, others, strict=True):
        same_values(row, other)


def test_workers_give_the_rows_of_one_process(job, tmp_path):
    chunks = chunks_of(tmp_path)
    measurer = open_measurer(lambda: load_fake(), job.inputs, job.options)
    expected = [row for chunk in chunks for row in measurer.rows(chunk)]
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(processes=False, set_as_default=False, **options) as client:
        found = {c.number: rows for c, rows in on_workers(client, job, "fake 1")(chunks)}
    assert sorted(found) == [0, 1, 2]
    same(expected, [row for number in sorted(found) for row in found[number]])


class FakeClient:
    """A cluster whose workers die whenever they meet one source."""

    def __init__(self, deadly: int) -> None:
        self.deadly = deadly

    def submit(self, function, job, chunk, pure):
        client = self

        class Future:
            def result(self):
                if client.deadly in chunk.sources.ids:
                    raise distributed.KilledWorker("task", None, 3)
                return [{"id": int(i), "flags": 0} for i in chunk.sources.ids]

        return Future()


def test_a_source_that_kills_workers_costs_its_own_row_only(job, tmp_path):
    chunk = chunks_of(tmp_path, size=6)[0]
    rows = workers._one_by_one(FakeClient(deadly=102), job, chunk, "fake 1")
    assert [row["id"] for row in rows] == [100, 101, 102, 103, 104, 105]
    failed = np.array([bool(row["flags"] & Flag.FAILED) for row in rows])
    assert failed.tolist() == [False, False, True, False, False, False]
    assert "died" in rows[2]["reason"]


def test_a_scheduler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    call = cluster(None, "tcp://127.0.0.1:9")
    with pytest.raises(InputError, match=r"no scheduler answers at tcp://127.0.0.1:9"), call:
        pass


def test_workers_or_a_scheduler_but_not_both():
    with pytest.raises(InputError, match="either --workers"), cluster(2, "tcp://host:1"):
        pass


@pytest.mark.slow
def test_a_killed_worker_costs_only_time(job, tmp_path):
    import os
    import signal

    chunks = chunks_of(tmp_path, size=1)
    measurer = open_measurer(lambda: load_fake(), job.inputs, job.options)
    expected = [row for chunk in chunks for row in measurer.rows(chunk)]
    found = {}
    with cluster(2, None) as client:
        for chunk, rows in on_workers(client, job, "fake 1")(chunks):
            if not found:
                victim = next(iter(client.run(os.getpid).values()))
                os.kill(victim, signal.SIGKILL)
            found[chunk.number] = rows
    same(expected, [row for number in sorted(found) for row in found[number]])
