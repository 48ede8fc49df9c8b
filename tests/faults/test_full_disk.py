"""File systems that are really full, or read-only: one line, and nothing finished is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deeplegato_pp.cli import measuring
from deeplegato_pp.cli.app import main
from deeplegato_pp.inference import predictor
from faults.commands import CATALOG, PREDICT, prepare

ONE = ["predict", "g0.fits", "--no-refine", "--samples", "2000", "--psf-fwhm", "3"]

Resize = Callable[[str], None]


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def resize(tmp_path, monkeypatch) -> Iterator[Resize]:
    """A file system of 16 kB in the folder `small`, and what gives it another size."""
    monkeypatch.chdir(tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    try:
        mounted = _mount("-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small))
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("file systems may not be mounted here")

    def grow(size: str) -> None:
        assert _mount("-o", f"remount,size={size}", str(small))

    try:
        prepare(tmp_path, monkeypatch)
        yield grow
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def is_said(capsys) -> None:
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("deeplegato: no space is left for ")
    assert error.endswith("(predict and catalog: with --resume).\n")


def test_predict(resize, monkeypatch, capsys):
    monkeypatch.setattr(measuring, "CHUNK", 1)
    assert main([*PREDICT, "-o", "whole.json"]) == 0
    capsys.readouterr()
    assert main([*PREDICT, "-o", "small/t.json"]) == 2
    is_said(capsys)
    resize("20k")
    assert main([*PREDICT, "-o", "small/t.json", "--resume"]) == 2
    is_said(capsys)
    resize("10M")
    assert main([*PREDICT, "-o", "small/t.json", "--resume"]) == 0
    assert json.loads(Path("small/t.json").read_text()) == json.loads(
        Path("whole.json").read_text()
    )
    assert [p.name for p in Path("small").iterdir()] == ["t.json"]


def test_figures_and_draws(resize, capsys):
    resize("4k")
    for output in (["--plot", "small/p.png"], ["--samples-output", "small/s.npz"]):
        assert main([*ONE, *output]) == 2
        is_said(capsys)
        assert list(Path("small").iterdir()) == []


def test_catalog(resize, capsys):
    assert main([*CATALOG, "-o", "whole.parquet"]) == 0
    capsys.readouterr()
    assert main([*CATALOG, "-o", "small/t.parquet"]) == 2
    is_said(capsys)
    resize("10M")
    assert main([*CATALOG, "-o", "small/t.parquet", "--resume"]) == 0
    one, other = (pq.read_table(p).to_pandas() for p in ("whole.parquet", "small/t.parquet"))
    assert one.equals(other)


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ([*PREDICT, "-o", "small/t.json"], "table small/t.json"),
        ([*ONE, "--plot", "small/p.png"], "plot small/p.png"),
        ([*ONE, "--samples-output", "small/s.npz"], "samples small/s.npz"),
        ([*CATALOG, "-o", "small/t.parquet"], "catalogue small/t.parquet"),
    ],
)
def test_a_read_only_folder_is_refused_before_work(resize, monkeypatch, capsys, call, what):
    assert _mount("-o", "remount,ro", "small")
    work = lambda *ignored, **options: pytest.fail("work was done")  # noqa: E731
    monkeypatch.setattr(predictor.Predictor, "from_pretrained", work)
    assert main(call) == 2
    assert capsys.readouterr().err == (
        f"deeplegato: {what}: folder small cannot be written to. Choose another.\n"
    )
