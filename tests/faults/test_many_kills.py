"""Runs that are killed and resumed again and again: nothing is lost, nothing comes twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deeplegato_pp.cli import measuring
from deeplegato_pp.cli.app import main
from faults.commands import CATALOG, PREDICT, prepare
from faults.stopping import environment, program

KILLS = 10
PAUSE = 0.5  # after each row, in seconds


def interrupted(call: list[str], number: int, output: Path, rng: np.random.Generator) -> int:
    """Runs and kills until the output is there; returns how often it was killed."""
    kills = 0
    while not output.exists():
        process = subprocess.Popen(
            [sys.executable, program(), str(PAUSE), *call, "-o", str(output), "--resume"],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        traces = list(output.parent.glob(f".{output.name}.*"))
        before = max((p.stat().st_mtime for p in traces), default=0.0)
        while process.poll() is None and not _written_since(output, before):
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 2.0) * PAUSE)
        process.send_signal(number)  # nothing happens where it has ended
        _, said = process.communicate(timeout=120)
        assert process.returncode in (-number, 128 + number, 0), said
        kills += process.returncode != 0
    return kills


def _written_since(output: Path, before: float) -> bool:
    """Whether a run has begun to keep rows."""
    work = output.parent / f".{output.name}.work"
    kept = [output.parent / f".{output.name}.rows", *work.glob("part-*.parquet")]
    return any(p.exists() and p.stat().st_mtime > before for p in kept)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("call", "suffix"), [(PREDICT, ".parquet"), (CATALOG, ".parquet")])
def test_nothing_is_lost_and_nothing_comes_twice(tmp_path, monkeypatch, number, call, suffix):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, monkeypatch)
    monkeypatch.setattr(measuring, "CHUNK", 1)  # as in the program that is killed
    assert main([*call, "-o", f"whole{suffix}"]) == 0
    whole = pq.read_table(f"whole{suffix}").to_pandas()
    rng, kills, run = np.random.default_rng(number), 0, 0
    while kills < KILLS:
        run += 1
        output = tmp_path / f"out{run}{suffix}"
        kills += interrupted(call, number, output, rng)
        assert pq.read_table(output).to_pandas().equals(whole)
        assert not list(tmp_path.glob(f".{output.name}.rows"))
