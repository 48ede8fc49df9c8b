"""CPU time of refining with glibc's own thresholds, with raised ones, and with the program's.

    python benchmarks/allocator.py [-n 30]

The same galaxies are refined in three processes of one thread: ``default`` leaves glibc as it is,
``program`` is what the command line sets through ``mallopt``, ``environment`` what the variables
``MALLOC_...`` of the Makefile set. Page faults say why times differ.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys

import numpy as np
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.cli.memory import SWITCH, keep_freed_memory
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.observation.effective_psf import moffat_psf

VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "1073741824",
}


def refine(number: int) -> None:
    """Refines simulated galaxies and prints what it cost."""
    torch.set_num_threads(1)
    kept = keep_freed_memory()
    psf, _ = moffat_psf(3.0)
    simulator = SersicSimulator(128)
    params = simulator.sample_scene(number, torch.Generator().manual_seed(1)).params
    models = simulator.render(params, torch.from_numpy(psf)).numpy()
    rng = np.random.default_rng(1)
    observations = [
        Observation.from_array(m + rng.standard_normal(m.shape), psf, 1.0) for m in models
    ]
    predictor = Predictor.from_pretrained()
    network = predictor.posterior(observations, widths="noise")
    before = resource.getrusage(resource.RUSAGE_SELF)
    predictor.refine(network)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"mallopt {'yes' if kept else 'no':3}  user {after.ru_utime - before.ru_utime:6.1f} s  "
        f"system {after.ru_stime - before.ru_stime:6.1f} s  "
        f"page faults {after.ru_minflt - before.ru_minflt:9d}  "
        f"peak {after.ru_maxrss / 1e6:.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=30)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        refine(options.number)
        return
    bare = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    for name, more in (
        ("default", {SWITCH: "default"}),
        ("program", {}),
        ("environment", VARIABLES),
    ):
        print(f"{name:12s}", end="", flush=True)
        call = [sys.executable, __file__, "-n", str(options.number), "--child"]
        subprocess.run(call, env=bare | more, check=True)


if __name__ == "__main__":
    main()
