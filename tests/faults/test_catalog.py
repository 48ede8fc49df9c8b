"""A run of `deeplegato catalog` that is stopped, or whose image changes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deeplegato_pp.cli.app import main
from deeplegato_pp.inference import predictor
from deeplegato_pp.models import storage
from faults import slowly
from faults.stopping import stop
from small_sky import make_sky, write_sky

CALL = ["catalog", "mosaic.fits", "--sources", "list.csv", "--psf", "psf.fits"]
CALL += ["--samples", "20", "--chunk", "2", "-o", "out.parquet"]
FIRST = ".out.parquet.work/part-00000000.parquet"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, "find", lambda name: Path(name or "default"))
    monkeypatch.setattr(predictor.Predictor, "from_pretrained", classmethod(slowly.load))
    write_sky(tmp_path, make_sky())
    return tmp_path


def test_termination_ends_with_a_line_and_nothing_is_lost(folder, capsys):
    status, message = stop(signal.SIGTERM, CALL, FIRST)
    assert status == 143
    assert message.endswith(
        "deeplegato: terminated. Finished chunks are safe; go on with --resume.\n"
    )
    assert "Traceback" not in message
    assert main([*CALL, "--resume"]) == 0
    assert "2 of them by an earlier run" in capsys.readouterr().out
    assert pq.read_table("out.parquet").column("id").to_pylist() == list(range(100, 106))


def test_an_image_changed_in_the_middle_is_noticed(folder, monkeypatch, capsys):
    store = slowly.WorkFolder.store

    def stopped(self, plan, number, table):
        store(self, plan, number, table)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slowly.WorkFolder, "store", stopped)
        assert main(CALL) == 130
    assert capsys.readouterr().err.endswith("go on with --resume.\n")
    content = bytearray(Path("mosaic.fits").read_bytes())
    content[len(content) // 2] ^= 1
    Path("mosaic.fits").write_bytes(content)
    os.utime("mosaic.fits", (2e9, 2e9))
    assert main([*CALL, "--resume"]) == 2
    assert "images was" in capsys.readouterr().err
    assert main([*CALL, "--overwrite"]) == 0
