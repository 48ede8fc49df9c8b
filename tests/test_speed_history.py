"""The history of speeds names what became slower, and nothing else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load():
    spec = importlib.util.spec_from_file_location("speed_history", FOLDER / "speed_history.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_became_slower_is_named_in_units_of_the_yardstick(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    history = load()
    before = {"yardstick": 1.0, "render": 2.0, "exact": 30.0}
    # A machine of half the speed: nothing became slower.
    assert history.slower({"yardstick": 2.0, "render": 4.0, "exact": 61.0}, before) == {}
    found = history.slower({"yardstick": 1.0, "render": 3.0, "exact": 20.0, "new": 9.0}, before)
    assert found == {"render": 1.5}


def test_the_history_holds_what_is_compared():
    entries = json.loads((FOLDER / "speed_history.json").read_text())
    assert entries
    for entry in entries:
        assert entry["cpu_seconds"]["yardstick"] > 0
        assert {"date", "version", "commit", "machine", "torch"} <= set(entry)
