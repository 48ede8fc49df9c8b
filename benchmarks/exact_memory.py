"""Peak memory of one large batch: 256 galaxies of 128 px, 2,000 draws each.

    python benchmarks/exact_memory.py -o memory.json
    python benchmarks/exact_memory.py -n 8 --draws 100        # a look

A Gaussian stands in for the network. All is done that refining does (search, weights, adaptation)
but for chains. The peak is the process's own high-water mark,
the 300-400 MB of the libraries included.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch

from deeplegato_pp.data.sersic_simulator import SersicSimulator
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.scene.prior import PriorBox

WIDTH = 0.05
GOAL = 4.0  # GB


def peak() -> float:
    """Returns the largest resident size so far. [GB]"""
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=256)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    from exact import likelihood_of  # in main: the module loads the network's libraries

    before = peak()
    generator = torch.Generator().manual_seed(0)
    simulator = SersicSimulator(image_size=args.size)
    simulator.conditions = simulator.conditions.clean()
    scene = simulator.sample_scene(args.number, generator)
    likelihood, box = likelihood_of(scene, PriorBox()), PriorBox()
    truth = box.to_normal(scene.params)
    made = peak()

    def log_prob(rows: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        normal = torch.distributions.Normal(truth[rows][:, None], WIDTH)
        return normal.log_prob(points).sum(-1)

    noise = torch.randn(args.number, args.draws, 7, generator=generator, dtype=torch.float64)
    w = truth[:, None] + WIDTH * noise
    start = time.perf_counter()
    refined = refine_batch(
        likelihood,
        w,
        log_prob(torch.arange(args.number), w),
        log_prob,
        ess=args.draws,
        max_draws=args.draws,
        options=RefineOptions(fallback=False),
    )
    figures = {
        "galaxies": args.number,
        "draws": refined.w.shape[1],
        "size": args.size,
        "peak_gb": peak(),
        "libraries_gb": before,
        "scene_gb": made - before,
        "seconds": time.perf_counter() - start,
        "within_goal": peak() < GOAL,
    }
    for name, value in figures.items():
        print(f"{name:>14s}  {value:.2f}" if isinstance(value, float) else f"{name:>14s}  {value}")
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
