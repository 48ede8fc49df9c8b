"""The renderer's error against GalSim, by size, index, axis ratio and plan, and its cost.

    python benchmarks/render_accuracy.py [--galaxies 120] [--seed 5]

Each galaxy has its own PSF, Gaussian or Moffat, which GalSim convolves analytically and the
renderer gets with two samples a pixel. Errors are the largest difference over the peak pixel, and
the difference in the stamp's flux over the galaxy's flux.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from deeplegato_pp.scene.render.renderer import PLANS, choose_plans, render_sersic
from scene.render.galsim_reference import draw_galaxies, draw_psfs, galsim_image

SIZE = 128
EDGES = {
    "R_e": (0.4, 2.0, 8.0, 20.0, 40.0),
    "n": (0.3, 0.7, 1.5, 4.0, 6.2),
    "q": (0.1, 0.2, 0.5, 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=120)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    galaxies = draw_galaxies(options.galaxies, options.seed)
    psfs = draw_psfs(options.galaxies, options.seed + 1)
    peak, flux, seconds = [], [], []
    for i, psf in enumerate(psfs):
        one = galaxies.at(slice(i, i + 1))
        started = time.perf_counter()
        reference = galsim_image([float(c) for c in one], psf, SIZE)
        seconds.append(time.perf_counter() - started)
        image = render_sersic(*one, psf.samples(2), SIZE, oversampling=2)[0].numpy()
        peak.append(np.abs(image - reference).max() / reference.max())
        flux.append(abs(image.sum() - reference.sum()) / float(one.flux))
    peak, flux = np.array(peak), np.array(flux)
    plan = choose_plans(galaxies.radius, galaxies.axis_ratio, SIZE).numpy()

    print(f"{options.galaxies} galaxies on {SIZE} px; GalSim took {np.mean(seconds):.2f} s each")
    names = ("class", "number", "peak worst", "median", "flux worst", "median")
    print("{:>16} {:>6} {:>11} {:>8} {:>11} {:>8}".format(*names))
    everything = np.ones(len(peak), bool)
    report("all", everything, peak, flux)
    values = {"R_e": galaxies.radius, "n": galaxies.sersic_index, "q": galaxies.axis_ratio}
    for name, edges in EDGES.items():
        for low, high in itertools.pairwise(edges):
            inside = (values[name].numpy() >= low) & (values[name].numpy() <= high)
            report(f"{name} {low:g}-{high:g}", inside, peak, flux)
    for index in range(len(PLANS)):
        report(f"plan {index}", plan == index, peak, flux)
    print_costs()


def report(name: str, chosen: np.ndarray, peak: np.ndarray, flux: np.ndarray) -> None:
    if chosen.any():
        p, f = peak[chosen], flux[chosen]
        print(
            f"{name:>16} {chosen.sum():6d} {p.max():11.1e} {np.median(p):8.1e} "
            f"{f.max():11.1e} {np.median(f):8.1e}"
        )


def print_costs(batch: int = 32) -> None:
    """CPU time per image of each plan, in float32, with one native PSF per galaxy."""
    galaxies = draw_galaxies(batch, 1).float()
    psf = torch.stack([p.samples(1, 21) for p in draw_psfs(batch, 2, (3.0, 5.0))]).float()
    for index, plan in enumerate(PLANS):
        render_sersic(*galaxies, psf, SIZE, plan=plan)
        times = []
        for _ in range(3):
            started = time.process_time()
            render_sersic(*galaxies, psf, SIZE, plan=plan)
            times.append(time.process_time() - started)
        print(f"plan {index} {plan}: {min(times) / batch * 1e3:.2f} ms of CPU time per image")


if __name__ == "__main__":
    main()
