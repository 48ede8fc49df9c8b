from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from deeplegato_pp.cli import memory

FAULTS = """
import resource
import numpy as np
from deeplegato_pp.cli.memory import keep_freed_memory
told = keep_freed_memory()
def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        np.ones(40 * 2**20 // 8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(2)
print(told, faults(5))
"""


def run(**changes: str) -> tuple[str, int]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    source = str(Path(memory.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**kept, "PYTHONPATH": source, **changes},
        capture_output=True,
        text=True,
        check=True,
    )
    told, number = done.stdout.split()
    return told, int(number)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_unless_switched_off():
    told, faults = run()
    assert told == "True"
    assert faults < 100  # of 51,200 pages of 4 kB
    told, faults = run(DEEPLEGATO_MALLOC="default")
    assert told == "False"
    assert faults > 50  # huge pages are 2 MB: 20 a round


def test_settings_of_the_users_own_and_other_libraries_are_left_alone(monkeypatch):
    for name in [n for n in os.environ if n.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("it was told"))
    for name, value in (
        ("MALLOC_TRIM_THRESHOLD_", "1"),
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1"),
        (memory.SWITCH, "default"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not memory.keep_freed_memory()
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not memory.keep_freed_memory()
