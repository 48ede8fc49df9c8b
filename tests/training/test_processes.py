"""Runs in processes of their own: killed without warning, and two that train together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"
SCRIPT = """
import sys
from deeplegato_pp.cli.app import main
if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
"""
PATIENCE = 600.0
"""How long a run may take on a machine that is busy. [s]"""


@pytest.fixture
def start(tiny, tmp_path):
    """Returns a function that starts a run, in a process of its own."""
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny().to_dict()))  # JSON is YAML
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)

    def go(folder: str, *overrides: str) -> subprocess.Popen[str]:
        output = f"logging.output_dir={tmp_path / folder}"
        command = [sys.executable, str(script), str(tmp_path / "tiny.yaml"), output, *overrides]
        environment = {**os.environ, "PYTHONPATH": str(SRC)}
        return subprocess.Popen(
            command, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
        )

    return go


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors


def wait_for_lines(path: Path, number: int) -> None:
    for _ in range(int(PATIENCE / 0.02)):
        if path.is_file() and path.read_text().count("\n") > number:
            return
        time.sleep(0.02)
    pytest.fail(f"{path} never had {number} lines")


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_epoch_leaves_no_trace(start, tmp_path, read_rows):
    steps = ["training.max_steps=16", "training.steps_per_epoch=8", "training.decay_steps=4"]
    noisy = ["model.npe.dropout=0.2", "training.reconstruction_weight=0.1"]
    finish(start("whole", *steps, *noisy))
    killed = start("killed", *steps, *noisy)
    wait_for_lines(tmp_path / "killed" / "steps.csv", 10)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model").exists()
    finish(start("killed", *steps, *noisy))
    for name in ("steps.csv", "training.csv"):
        expected, rows = (read_rows(tmp_path / run / name) for run in ("whole", "killed"))
        assert [row["step"] for row in rows] == [row["step"] for row in expected]
        for row, other in zip(rows, expected, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_run_says_how_to_go_on_and_does(start, tmp_path, read_rows, number, status, word):
    steps = ["training.max_steps=12", "training.steps_per_epoch=4", "training.decay_steps=4"]
    stopped = start("run", *steps)
    wait_for_lines(tmp_path / "run" / "steps.csv", 5)  # in the second epoch
    stopped.send_signal(number)
    _, errors = stopped.communicate(timeout=PATIENCE)
    assert stopped.returncode == status
    checkpoint = tmp_path / "run" / "last.ckpt"
    assert errors.splitlines()[-1] == (
        f"deeplegato: {word}. The epochs that had ended are safe in {checkpoint}: go on with the "
        "same command."
    )
    assert "Traceback" not in errors
    curve = tmp_path / "run" / "training.csv"
    first = curve.read_text().splitlines()[1]
    finish(start("run", *steps))
    assert curve.read_text().splitlines()[1] == first  # times too: the first epoch was kept
    assert [row["step"] for row in read_rows(tmp_path / "run" / "steps.csv")] == list(range(1, 13))


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(start, tmp_path, read_rows):
    steps = ["training.max_steps=6"]
    finish(start("one", *steps, "training.accumulation_steps=2"))
    finish(start("two", *steps, "training.devices=2"))
    for name, columns in (("steps.csv", ["flow_nll"]), ("training.csv", ["val_full/nll"])):
        expected, rows = (read_rows(tmp_path / run / name) for run in ("one", "two"))
        assert [row["images"] for row in rows] == [row["images"] for row in expected]
        for column in columns:
            assert [r[column] for r in rows] == pytest.approx(
                [r[column] for r in expected], rel=1e-4
            )
