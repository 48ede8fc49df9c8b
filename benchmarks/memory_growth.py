"""Resident memory and open files over many predictions, and over a large catalogue.

    python benchmarks/memory_growth.py predict [-n 2000] [--refine]
    python benchmarks/memory_growth.py catalog [-n 10000] [--network FOLDER]

`predict` measures a few stamps again and again, 50 at a time; `catalog` runs the command on a
mosaic of noise and looks at its process. A line is printed for every tenth of the way.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.cli.memory import keep_freed_memory
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.observation.effective_psf import moffat_psf

TOGETHER = 50
SIDE = 3000
CHUNK = 128
PARTS = 10


def used(process: int | str = "self") -> tuple[float, int]:
    """Resident memory [MB] and open files of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 1e6, len(list(Path(f"/proc/{process}/fd").iterdir()))


def predictions(number: int, refine: bool) -> None:
    keep_freed_memory()
    psf, _ = moffat_psf(3.0)
    simulator = SersicSimulator(128)
    params = simulator.sample_scene(TOGETHER, torch.Generator().manual_seed(0)).params
    models = simulator.render(params, torch.from_numpy(psf)).numpy()
    rng = np.random.default_rng(0)
    predictor = Predictor.from_pretrained()
    for done in range(0, number, TOGETHER):
        if done % (number // PARTS) == 0:
            memory, files = used()
            print(f"{done} predictions: {memory:.0f} MB, {files} open files", flush=True)
        observations = [
            Observation.from_array(m + rng.standard_normal(m.shape), psf, 1.0) for m in models
        ]
        posterior = predictor.posterior(observations, seed=done)
        if refine:
            posterior = predictor.refine(posterior)
        posterior.rows()
    memory, files = used()
    print(f"{number} predictions: {memory:.0f} MB, {files} open files")


def watch(process: subprocess.Popen[bytes], folder: Path, number: int) -> None:
    """Prints what the process of a catalogue holds, for every tenth of the sources."""
    told = 0
    while process.poll() is None:
        done = CHUNK * len(list(folder.glob(".c.parquet.work/part-*.parquet")))
        if done and done * PARTS // number >= told:
            memory, files = used(process.pid)
            print(f"{done} sources: {memory:.0f} MB, {files} open files", flush=True)
            told += 1
        time.sleep(0.2)


def catalogue(number: int, network: str) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        header = fits.Header({"PIXSCALE": 0.25, "MAGZERO": 30.5})
        image = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
        fits.PrimaryHDU(image, header).writeto(folder / "mosaic.fits")
        positions = rng.uniform(70, SIDE - 70, (number, 2))
        lines = ["id,x,y", *(f"{i},{x:.2f},{y:.2f}" for i, (x, y) in enumerate(positions))]
        (folder / "list.csv").write_text("\n".join(lines) + "\n")
        call = [sys.executable, "-m", "deeplegato_pp", "catalog", str(folder / "mosaic.fits"),
                "--sources", str(folder / "list.csv"), "--psf-fwhm", "3", "--noise", "1",
                "--samples", "100", "--chunk", str(CHUNK), "--neighbours", "keep",
                "--model", network, "-o", str(folder / "c.parquet")]  # fmt: skip
        with subprocess.Popen(call, stdout=subprocess.DEVNULL) as process:
            watch(process, folder, number)
        print(f"exit status {process.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict")
    predict.add_argument("-n", "--number", type=int, default=2000)
    predict.add_argument("--refine", action="store_true")
    catalog = commands.add_parser("catalog")
    catalog.add_argument("-n", "--number", type=int, default=10_000)
    catalog.add_argument("--network", default="default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "predict":
        predictions(options.number, options.refine)
    else:
        catalogue(options.number, options.network)


if __name__ == "__main__":
    main()
