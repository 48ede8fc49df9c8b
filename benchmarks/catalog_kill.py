"""Kills ``deeplegato catalog`` at random times, resumes it, and compares with an uninterrupted run.

    python benchmarks/catalog_kill.py [--kills 10] [--sources 60] [--workers N]

A small mosaic is measured once without interruption, and then again and again with the process
killed (-9) after random times, --resume following each time, until it has been killed as often as
asked; with --workers N its workers are killed in place of the parent. Every catalogue must hold the
same numbers as the first, bit for bit (with workers to 1e-4 of their errors, since a dead worker's
sources are measured by another).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from astropy.io import fits

from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.observation.effective_psf import moffat_psf

SIDE = 1000
CALL = [sys.executable, "-c", "import sys; from deeplegato_pp.cli.app import main; "
        "sys.exit(main())", "catalog"]  # fmt: skip


def make_mosaic(folder: Path, sources: int, rng: np.random.Generator) -> None:
    import torch

    image = rng.standard_normal((SIDE, SIDE))
    psf, _ = moffat_psf(3.0)
    lines = ["id,x,y"]
    for i in range(sources):
        x, y = rng.uniform(70, SIDE - 70, 2)
        left, bottom = round(x) - 64, round(y) - 64
        values = [rng.uniform(20, 25), rng.uniform(0.3, 2), rng.uniform(0.6, 5),
                  rng.uniform(0.3, 1), rng.uniform(0, 180),
                  x - left - 63.5, y - bottom - 63.5]  # fmt: skip
        model = SersicSimulator(128).render(torch.tensor([values]).double(), torch.from_numpy(psf))
        image[bottom : bottom + 128, left : left + 128] += model[0].numpy()
        lines.append(f"{i},{x:.3f},{y:.3f}")
    header = fits.Header({"PIXSCALE": 0.25, "MAGZERO": 30.5})
    fits.PrimaryHDU(image.astype(np.float32), header).writeto(folder / "mosaic.fits")
    fits.PrimaryHDU(psf).writeto(folder / "psf.fits")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")


def command(folder: Path, output: str, workers: int | None) -> list[str]:
    call = [*CALL, str(folder / "mosaic.fits"), "--sources", str(folder / "list.csv"),
            "--psf", str(folder / "psf.fits"), "--noise", "1", "--chunk", "4",
            "-o", str(folder / output), "--resume"]  # fmt: skip
    return call + (["--workers", str(workers)] if workers else [])


def worker_of(parent: int) -> int | None:
    """A process below the parent that has a network loaded: the largest one."""
    found, todo = [], [parent]
    while todo:
        pid = todo.pop()
        try:
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                todo += map(int, path.read_text().split())
            if pid != parent:
                found.append((int(Path(f"/proc/{pid}/statm").read_text().split()[1]), pid))
        except OSError:
            continue
    return max(found)[1] if found else None


def kill_workers(call: list[str], kills: int, whole: float, rng: np.random.Generator) -> int:
    """One run of which workers die at random times; returns how many did."""
    process = subprocess.Popen(call)
    done = 0
    while done < kills:
        try:
            process.wait(rng.uniform(0.1, 0.4) * whole)
            break
        except subprocess.TimeoutExpired:
            victim = worker_of(process.pid)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                done += 1
    process.wait()
    return done


def kill_parent(call: list[str], kills: int, whole: float, rng: np.random.Generator) -> int:
    """Runs killed at random times, each resuming the one before, and a last one that ends."""
    for done in range(kills):
        process = subprocess.Popen(call)
        wait = rng.uniform(0.2, 0.9) * whole
        try:
            process.wait(wait)
            return done
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print(f"kill {done + 1} after {wait:.1f} s")
    subprocess.run(call, check=True)
    return kills


def largest_difference(one: Path, other: Path) -> float:
    """Of the parameters, in units of their errors; inf if rows or texts differ."""
    a, b = (pq.read_table(p).to_pandas() for p in (one, other))
    if len(a) != len(b) or not (a["id"] == b["id"]).all():
        return np.inf
    names = [n for n in a.columns if f"{n}_std" in a.columns]
    scaled = [np.abs((a[n] - b[n]) / a[f"{n}_std"]).max() for n in names]
    return float(np.nanmax(scaled))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--sources", type=int, default=60)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_mosaic(folder, options.sources, rng)
        started = time.perf_counter()
        subprocess.run(command(folder, "whole.parquet", options.workers), check=True)
        whole = time.perf_counter() - started
        print(f"uninterrupted: {whole:.1f} s")
        kill = kill_workers if options.workers else kill_parent
        kills, attempt, good = 0, 0, True
        while kills < options.kills:
            attempt += 1
            name = f"killed_{attempt}.parquet"
            call = command(folder, name, options.workers)
            kills += kill(call, options.kills - kills, whole, rng)
            good &= agree(folder / "whole.parquet", folder / name, options.workers)
            print(f"{kills} kills so far", flush=True)
        sys.exit(0 if good else 1)


def agree(whole: Path, killed: Path, workers: int | None) -> bool:
    """Says how two catalogues differ; returns whether they agree as well as they should."""
    one, other = (pq.read_table(p).to_pydict() for p in (whole, killed))
    differing = [n for n in one if one[n] != other[n]]
    difference = largest_difference(whole, killed)
    print(
        f"rows {len(other['id'])} of {len(one['id'])}; columns that differ: "
        f"{', '.join(differing) or 'none'}; largest difference {difference:.1e} sigma"
    )
    return not differing or bool(workers and difference < 1e-4)


if __name__ == "__main__":
    main()
