"""Images a second over prior draws, each with its own index and PSF, against GalSim per core.

    python benchmarks/render_speed.py [--galaxies 512] [--galsim 12] [--threads 2]

Both are timed in the same run. GalSim runs on one core with the accuracy that the renderer's
error is measured at (folding threshold 5e-5), and with its own default accuracy for comparison.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import galsim
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from deeplegato_pp.data.psf import draw_psfs
from deeplegato_pp.data.sersic_simulator import SersicSimulator
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.wings import Galaxies
from scene.render.galsim_reference import N_RANGE, AnalyticPSF, galsim_image

FWHM = (2.5, 6.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=512, help="images per repetition")
    parser.add_argument("--galsim", type=int, default=12, help="galaxies that GalSim draws")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in (128, 64):
        ours = renderer_rate(size, options.galaxies)
        print(f"{size} px: renderer {ours:.0f} images/s on {options.threads} threads", flush=True)
        for name, folding in (("accurate", 5e-5), ("default", 5e-3)):
            theirs = galsim_rate(size, options.galsim, folding)
            rates = f"{theirs:.2f} images/s per core, ratio {ours / theirs:.0f}"
            print(f"{size} px: GalSim ({name}) {rates}", flush=True)


def renderer_rate(size: int, number: int, repetitions: int = 5) -> float:
    """Best of a few repetitions, float32, each with fresh galaxies and a PSF per galaxy."""
    simulator = SersicSimulator(size)
    generator = torch.Generator().manual_seed(size)
    fwhm = torch.empty(number).uniform_(*FWHM, generator=generator)
    psf = draw_psfs(fwhm, 43, 1, generator)
    times = []
    for _ in range(repetitions + 1):
        params = simulator.prior.sample(number, generator).float()
        started = time.perf_counter()
        simulator.render(params, psf)
        times.append(time.perf_counter() - started)
    return number / min(times[1:])


def galsim_rate(size: int, number: int, folding_threshold: float) -> float:
    """Prior draws with the indices that GalSim can do; a new index costs it a new table."""
    import scene.render.galsim_reference as reference

    params = galsim.GSParams(folding_threshold=folding_threshold, maximum_fft_size=32768)
    kept, reference.ACCURATE = reference.ACCURATE, params
    prior = PriorBox.from_mapping({"sersic_index": N_RANGE})
    draws = prior.sample(number, torch.Generator().manual_seed(1))
    galaxies: Galaxies = SersicSimulator(size).columns(draws)
    widths = np.random.default_rng(0).uniform(*FWHM, number)
    started = time.perf_counter()
    for i, width in enumerate(widths):
        galsim_image([float(c[i]) for c in galaxies], AnalyticPSF("moffat", width, 3.5), size)
    seconds = time.perf_counter() - started
    reference.ACCURATE = kept
    return number / seconds


if __name__ == "__main__":
    main()
