from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import small_sky
from deeplegato_pp.catalog import checkpoints as parts
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.measure import Measurer
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.catalog.pipeline import Network, Request, make_catalogue
from deeplegato_pp.catalog.plan import Shard
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.io.files import DiskFullError, write_atomically
from small_sky import POSITIONS, load_fake, make_sky, same_values, write_sky

FAKE = Network(load_fake, "fake 1", "fake")
OPTIONS = Options(samples=20)


@pytest.fixture
def folder(tmp_path):
    write_sky(tmp_path, make_sky())
    return tmp_path


def request(folder: Path, output: str = "out.parquet", **options) -> Request:
    given = {"options": OPTIONS, "chunk": 2, "sources": folder / "list.csv"}
    inputs = Inputs(images=(str(folder / "mosaic.fits"),), psf=(str(folder / "psf.fits"),))
    return Request(inputs=inputs, output=folder / output, **(given | options))


def make(asked: Request, network: Network = FAKE):
    return make_catalogue(asked, network, lambda total, rows, new: None)


def same_rows(one: Path, other: Path) -> bool:
    """Whether two catalogues hold the same values to the last bit, whatever their metadata."""
    first, second = (pq.read_table(p).replace_schema_metadata(None) for p in (one, other))
    return first.equals(second)


def test_a_catalogue_has_a_row_per_source_in_the_lists_order(folder):
    report = make(request(folder))
    table = pq.read_table(folder / "out.parquet").to_pylist()
    assert [row["id"] for row in table] == [100, 101, 102, 103, 104, 105]
    assert (report.rows, report.measured, report.resumed) == (6, 6, 0)
    for row, (x, y) in zip(table, POSITIONS, strict=True):
        assert row["x"] == pytest.approx(x, abs=2.0)
        assert row["y"] == pytest.approx(y, abs=2.0)
        assert row["magnitude_q50"] == pytest.approx(21.0, abs=0.1)
        assert row["image"] == "mosaic.fits"
        assert row["refined"] == 0
    assert table[5]["flags"] & Flag.IMAGE_EDGE
    assert set(report.seconds) >= {"cut", "network", "rows", "write", "join", "wall"}


def test_covariances_come_when_asked_for(folder):
    make(request(folder))
    assert not any(n.startswith("cov_") for n in pq.read_schema(folder / "out.parquet").names)
    make(request(folder, "c.parquet", options=replace(OPTIONS, covariance=True)))
    field = pq.read_schema(folder / "c.parquet").field("cov_magnitude_effective_radius_noise")
    assert field.metadata[b"unit"] == b"mag arcsec"
    for row in pq.read_table(folder / "c.parquet").to_pylist():
        largest = row["magnitude_std"] * row["effective_radius_std"]
        assert 0 < abs(row["cov_magnitude_effective_radius"]) <= largest


def test_no_source_is_lost(folder):
    lines = ["id,x,y", "a,70,80", "b,,80", "c,-500,3", "a,70,80", "d,299.4,299.4"]
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    report = make(request(folder))
    rows = pq.read_table(folder / "out.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["a", "b", "c", "a", "d"]
    failed = [bool(row["flags"] & Flag.FAILED) for row in rows]
    assert failed == [False, True, True, False, False]
    assert "not finite" in rows[1]["reason"]
    assert "outside" in rows[2]["reason"]
    assert rows[0]["flags"] & rows[3]["flags"] & Flag.DUPLICATE
    same_values(rows[0], rows[3])
    assert report.measured == 3


@pytest.mark.parametrize("where", ["cut", "infer", "finish"])
def test_a_source_that_breaks_is_a_row_and_no_other_is_touched(folder, monkeypatch, where):
    make(request(folder, chunk=3))
    work = getattr(Measurer, where)

    def broken(self, chunk, *arguments):
        if 102 in chunk.sources.ids:
            raise np.linalg.LinAlgError("not positive definite")
        return work(self, chunk, *arguments)

    monkeypatch.setattr(Measurer, where, broken)
    assert make(request(folder, "broken.parquet", chunk=3)).measured == 5
    rows = pq.read_table(folder / "broken.parquet").to_pylist()
    for row, whole in zip(rows, pq.read_table(folder / "out.parquet").to_pylist(), strict=True):
        if row["id"] == 102:
            assert row["flags"] & Flag.FAILED
            assert row["reason"] == "unexpected LinAlgError: not positive definite"
        else:
            same_values(row, whole)


def test_a_machine_that_breaks_ends_the_run(folder, monkeypatch):
    class AcceleratorError(RuntimeError):
        pass

    def broken(self, *_):
        raise AcceleratorError("device-side assert")

    monkeypatch.setattr(Measurer, "infer", broken)
    with pytest.raises(AcceleratorError):
        make(request(folder))


def test_rows_know_nothing_of_order_and_chunks(folder):
    make(request(folder))
    lines = (folder / "list.csv").read_text().splitlines()
    (folder / "list.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    make(request(folder, "reversed.parquet", chunk=4))
    one = pq.read_table(folder / "out.parquet").sort_by("id").to_pylist()
    other = pq.read_table(folder / "reversed.parquet").sort_by("id").to_pylist()
    for row, again in zip(one, other, strict=True):
        same_values(row, again)


def interrupted(monkeypatch, after: int, error: BaseException) -> None:
    """Lets some parts be stored, and then raises."""
    stored = []
    store = parts.WorkFolder.store

    def broken(self, plan, number, table):
        if len(stored) == after:
            raise error
        stored.append(number)
        store(self, plan, number, table)

    monkeypatch.setattr(parts.WorkFolder, "store", broken)


def test_a_stopped_run_goes_on_and_ends_the_same(folder, monkeypatch):
    make(request(folder))
    with monkeypatch.context() as patch:
        interrupted(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            make(request(folder, "again.parquet"))
    assert not (folder / "again.parquet").exists()
    with pytest.raises(InputError, match="Add --resume"):
        make(request(folder, "again.parquet"))
    report = make(request(folder, "again.parquet", resume=True))
    assert (report.rows, report.resumed) == (6, 2)
    assert same_rows(folder / "out.parquet", folder / "again.parquet")
    assert not list((folder / ".again.parquet.work").glob("part-*"))


def test_a_damaged_part_is_made_again(folder, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            make(request(folder))
    part = folder / ".out.parquet.work" / "part-00000001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    report = make(request(folder, resume=True))
    assert (report.rows, report.resumed) == (6, 2)


def test_two_configurations_are_not_mixed(folder, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted(patch, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            make(request(folder))
    for change in ({"options": Options(samples=21)}, {"chunk": 3}):
        with pytest.raises(ConfigError, match=r"samples was 20, is 21|chunk was 2, is 3"):
            make(request(folder, resume=True, **change))
    (folder / "list.csv").write_text("id,x,y\n1,70,80\n")
    with pytest.raises(ConfigError, match="sources was"):
        make(request(folder, resume=True))
    assert make(request(folder, overwrite=True)).rows == 1


def test_resume_starts_afresh_and_ends_at_once(folder):
    assert make(request(folder, resume=True)).resumed == 0
    before = (folder / "out.parquet").stat().st_mtime_ns

    def never(device):
        raise AssertionError("there was nothing to measure")

    report = make(request(folder, resume=True), Network(never, "fake 1", "fake"))
    assert (report.already, report.rows, report.measured) == (True, 6, 6)
    assert (folder / "out.parquet").stat().st_mtime_ns == before
    assert make(request(folder)).already is False  # without --resume it is made again


def test_a_full_disk_is_said_plainly_and_survived(folder, monkeypatch):
    with monkeypatch.context() as patch:
        replace = Path.replace

        def full(self, target):
            if "part-00000002" in str(target):
                raise OSError(errno.ENOSPC, "No space left on device")
            return replace(self, target)

        patch.setattr(Path, "replace", full)
        with pytest.raises(DiskFullError, match=r"no space is left .* --resume"):
            make(request(folder))
    assert not list((folder / ".out.parquet.work").glob(".*.tmp"))
    assert make(request(folder, resume=True)).resumed == 4


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"first")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(OSError, match="broken"):
        write_atomically(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_shards_fill_one_folder(folder):
    make(request(folder))
    for i in (1, 2):
        make(request(folder, "parts", shard=Shard(i, 2)))
    table = pq.read_table(folder / "parts").sort_by("id")
    assert table.to_pylist() == pq.read_table(folder / "out.parquet").to_pylist()
    with pytest.raises(ConfigError, match="samples was 20"):
        make(request(folder, "parts", shard=Shard(1, 2), options=Options(samples=30)))
    with pytest.raises(InputError, match="Give -o FOLDER"):
        make(request(folder, shard=Shard(1, 2)))
    with pytest.raises(InputError, match="1 <= I <= N"):
        Shard.parse("3/2")


def test_two_runs_do_not_write_one_catalogue(folder):
    work = parts.WorkFolder(folder / ".out.parquet.work")
    with work.locked(), pytest.raises(InputError, match="another run"):
        make(request(folder))


KILLED = """
import sys, time
from pathlib import Path
import test_runner
import deeplegato_pp.catalog.checkpoints as parts
store = parts.WorkFolder.store
def slow(self, plan, number, table):
    store(self, plan, number, table)
    if number == 1:
        time.sleep(60)
parts.WorkFolder.store = slow
test_runner.make(test_runner.request(Path(sys.argv[1])))
"""


def test_kill_9_loses_nothing(folder):
    here = [str(Path(small_sky.__file__).parent), str(Path(__file__).parent)]
    source = str(Path(parts.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*here, source])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], env=environment)
    second = folder / ".out.parquet.work" / "part-00000001.parquet"
    deadline = time.monotonic() + 120
    while not second.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert second.exists()
    assert make(request(folder, resume=True)).resumed == 4
    make(request(folder, "whole.parquet"))
    assert same_rows(folder / "out.parquet", folder / "whole.parquet")


def test_the_metadata_say_how_it_was_made(folder):
    make(request(folder, options=Options(samples=20, draws=3)))
    schema = pq.read_schema(folder / "out.parquet")
    about = {k.decode(): v.decode() for k, v in schema.metadata.items()}
    assert about["model"] == "fake 1"
    assert about["software"].startswith("deeplegato-pp")
    assert json.loads(about["configuration"])["samples"] == 20
    assert Path(sys.argv[0]).name in about["command"]
    field = schema.field("effective_radius").metadata
    assert field[b"unit"] == b"arcsec"
    assert b"half-light radius" in field[b"description"]
    draws = pq.read_table(folder / "out.parquet").column("draws")
    assert np.shape(draws[0].as_py()["magnitude"]) == (3,)
