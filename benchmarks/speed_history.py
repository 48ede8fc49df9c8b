"""History of the main speeds: measures them, compares with the last entry, and keeps the new one.

    python benchmarks/speed_history.py [--save] [--history benchmarks/speed_history.json]

CPU seconds of one thread per unit of work, so that other processes on the machine matter
little: reading a stamp, rendering, the network with the noise's and with honest widths,
Laplace, and the exact posterior. Each is also given in units of a yardstick measured in the
same run (Fourier transforms of numpy). These ratios are compared: an operation whose ratio grew
by more than a fifth is named, and the exit status is 1. ``--save`` appends the run to the
history.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

import deeplegato_pp
from deeplegato_pp import Observation, Predictor, SersicSimulator
from deeplegato_pp.observation.effective_psf import moffat_psf

HISTORY = Path(__file__).with_name("speed_history.json")

SLOWER = 1.2
"""Growth of a ratio from which on an entry is named."""

REPEATS = 3
"""Runs of each operation, of which the fastest counts."""


def cpu_seconds(work: Callable[[], object], units: int) -> float:
    """CPU seconds per unit: the least of some runs, after one that warms up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) / units


def galaxies(number: int, size: int) -> tuple[torch.Tensor, np.ndarray, list[Observation]]:
    """Galaxies of magnitude 20 to 25 (S/N of some tens to hundreds), with noise of 1."""
    generator = np.random.default_rng(0)
    values = torch.from_numpy(
        np.column_stack(
            [
                generator.uniform(20, 24.5, number),
                generator.uniform(0.4, 1.5, number),
                generator.uniform(0.7, 4.0, number),
                generator.uniform(0.3, 1.0, number),
                generator.uniform(0, 180, number),
                generator.uniform(-2, 2, (number, 2)),
            ]
        )
    )
    psf = moffat_psf(3.0)[0]
    images = SersicSimulator(image_size=size).render(values, torch.from_numpy(psf)).numpy()
    observed = [
        Observation.from_array(
            image + generator.normal(size=image.shape),
            psf,
            1.0,
            pixel_scale=0.25,
            zero_point=30.5,
            name=str(i),
        )
        for i, image in enumerate(images)
    ]
    return values, psf, observed


def measure() -> dict[str, float]:
    """CPU seconds per unit of each operation, the yardstick first."""
    torch.set_num_threads(1)
    noise = np.random.default_rng(0).normal(size=(20, 256, 256))
    values, psf, observed = galaxies(16, 128)
    simulator, kernel = SersicSimulator(image_size=128), torch.from_numpy(psf)
    predictor = Predictor.from_pretrained(device="cpu")
    path = files("deeplegato_pp") / "examples" / "hst_galaxy.fits"
    network = predictor.posterior(observed, 1000, widths="noise")
    return {
        "yardstick": cpu_seconds(lambda: np.fft.rfft2(noise), 20),
        "read a stamp": cpu_seconds(lambda: Observation.from_fits(path), 1),
        "render 128 px": cpu_seconds(lambda: simulator.render(values, kernel), 16),
        "network, noise widths": cpu_seconds(
            lambda: predictor.posterior(observed, 1000, widths="noise"), 16
        ),
        "network, honest widths": cpu_seconds(lambda: predictor.posterior(observed, 1000), 16),
        "laplace": cpu_seconds(lambda: predictor.refine(network[:4], method="laplace"), 4),
        "exact": cpu_seconds(lambda: predictor.refine(network[:4]), 4),
    }


def commit() -> str:
    """The commit of the checkout, empty outside one."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip()


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    """Each operation's time in yardsticks."""
    return {k: v / seconds["yardstick"] for k, v in seconds.items() if k != "yardstick"}


def slower(now: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Operations whose ratio grew by more than `SLOWER`, with the growth."""
    old, new = ratios(before), ratios(now)
    growth = {name: new[name] / old[name] for name in new if name in old}
    return {name: g for name, g in growth.items() if g > SLOWER}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--history", type=Path, default=HISTORY)
    arguments = parser.parse_args()
    entries = json.loads(arguments.history.read_text()) if arguments.history.exists() else []
    seconds = measure()
    before = entries[-1]["cpu_seconds"] if entries else None
    old = ratios(before) if before else {}
    print(f"{'':24s}{'CPU s':>10s}{'yardsticks':>12s}{'before':>12s}")
    for name, ratio in ratios(seconds).items():
        earlier = f"{old[name]:12.1f}" if name in old else f"{'':12s}"
        print(f"{name:24s}{seconds[name]:10.4f}{ratio:12.1f}{earlier}")
    if arguments.save:
        entries.append(
            {
                "date": datetime.now(UTC).date().isoformat(),
                "version": deeplegato_pp.__version__,
                "commit": commit(),
                "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, one thread",
                "torch": torch.__version__,
                "cpu_seconds": {k: round(v, 6) for k, v in seconds.items()},
            }
        )
        arguments.history.write_text(json.dumps(entries, indent=1) + "\n")
    found = slower(seconds, before) if before else {}
    for name, growth in found.items():
        print(f"slower: {name} takes {growth:.2f} times the yardsticks of the last entry")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
