"""The exact engine on fresh simulations: reliability, coverage and speed, by signal-to-noise.

    python benchmarks/exact.py -n 200                       # the packaged network's draws
    python benchmarks/exact.py -n 200 --stand-in --size 64  # without a network
    python benchmarks/exact.py -n 40 --method laplace

Prints, by signal-to-noise class: importance efficiency (quartiles), the share of galaxies with a
good k-hat and with the effective size asked for, methods, images rendered, seconds per galaxy (of
its batch), and the coverage of refined intervals with its binomial error. The stand-in for a
network is a Gaussian about the optimum, displaced by half of its widths, which are three times the
posterior's and at least 0.05 of the prior's: the search has work to do and faint galaxies have a
fair start.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.inference.fit.modes import laplace_widths
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import SNR_CLASSES
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.stats.pareto import khat_threshold

BATCH = 20
DRAWS = 1000
LEVELS = (0.5, 0.68, 0.95)
SEED = 2**41  # far from every stream of training and validation

Network = tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]


@dataclass
class Row:
    """One galaxy's figures."""

    snr: float
    galaxy: RefinedGalaxy
    ranks: Tensor
    seconds: float
    cpu: float


def likelihood_of(scene: SimulatedScene, box: PriorBox) -> Likelihood:
    """Returns the likelihood of a scene's galaxies, with the PSFs as rendered."""
    fine = scene.psf.oversampled.tolist()
    psfs = [(scene.psf.fine if f else scene.psf.native)[i] for i, f in enumerate(fine)]
    return Likelihood(scene.stamps, psfs, [2 if f else 1 for f in fine], [True] * len(fine), box)


def network_draws(model: DeepLeGAToPP, scene: SimulatedScene) -> Network:
    """Returns the network's draws, their density and the density itself."""
    with torch.no_grad():
        context = model.encode(scene.stamps)
        w, log_q = model.sample(context, DRAWS, torch.arange(len(scene.stamps)))
    return w, log_q, lambda rows, points: model.log_prob(context[rows], points)


def stand_in(
    likelihood: Likelihood, truth: Tensor, generator: torch.Generator, draws: int = DRAWS
) -> Network:
    """Returns the same of a Gaussian about the optimum."""
    optimum, widths, _ = laplace_widths(likelihood, truth)
    std = (3.0 * widths).clamp(0.05, 1.0)
    options = {"generator": generator, "dtype": torch.float64}
    mean = optimum + 0.5 * std * torch.randn(optimum.shape, **options)
    w = mean[:, None] + std[:, None] * torch.randn(len(mean), draws, 7, **options)

    def log_prob(rows: Tensor, points: Tensor) -> Tensor:
        normal = torch.distributions.Normal(mean[rows][:, None], std[rows][:, None])
        return normal.log_prob(points).sum(-1)

    return w, log_prob(torch.arange(len(mean)), w), log_prob


def weighted_ranks(galaxy: RefinedGalaxy, truth: Tensor) -> Tensor:
    """Returns the posterior's mass below the truth, per coordinate, with shape (7,)."""
    return torch.softmax(galaxy.log_weights, 0) @ (galaxy.w < truth).double()


def run(args: argparse.Namespace) -> list[Row]:
    """Simulates and refines."""
    model = None if args.stand_in else DeepLeGAToPP.from_pretrained(args.model)
    if model is None:
        box, simulator = PriorBox(), SersicSimulator(image_size=args.size)
        simulator.conditions = simulator.conditions.clean()
    else:
        box = model.prior
        simulator = SersicSimulator.from_config(model.config.data, clean=True)
    generator = torch.Generator().manual_seed(SEED)
    options = RefineOptions(fallback=args.chains)
    rows: list[Row] = []
    while len(rows) < args.number:
        scene = simulator.sample_scene(min(BATCH, args.number - len(rows)), generator)
        likelihood, truth = likelihood_of(scene, box), box.to_normal(scene.params)
        if model is None:
            network = stand_in(likelihood, truth, generator)
        else:
            network = network_draws(model, scene)
        start, cpu_start = time.perf_counter(), time.process_time()
        refined = refine_batch(
            likelihood, *network, method=args.method, ess=args.ess, options=options
        )
        seconds = (time.perf_counter() - start) / len(refined)
        cpu = (time.process_time() - cpu_start) / len(refined)
        for galaxy, w, snr in zip(refined.galaxies, truth, scene.snr.tolist(), strict=True):
            light = replace(galaxy, w=galaxy.w[:1], log_proposal=galaxy.w[:0, 0])
            rows.append(Row(snr, light, weighted_ranks(galaxy, w), seconds, cpu))
        print(f"{len(rows)} galaxies, {seconds:.2f} s each ({cpu:.2f} s of CPU)", flush=True)
    return rows


def table(rows: list[Row], ess: float) -> list[dict[str, object]]:
    """Returns one row of figures per class, and one for all."""
    result = []
    for low, high in [(SNR_CLASSES[0], SNR_CLASSES[-1]), *itertools.pairwise(SNR_CLASSES)]:
        chosen = [r for r in rows if low <= r.snr < high]
        if not chosen:
            continue
        galaxies = [r.galaxy for r in chosen]
        efficiency = torch.tensor([g.efficiency for g in galaxies]).nan_to_num(0.0)
        ranks = torch.stack([r.ranks for r in chosen])
        good = [g.khat <= khat_threshold(len(g.log_weights)) for g in galaxies]
        result.append(
            {
                "snr": [low, high if math.isfinite(high) else None],
                "galaxies": len(chosen),
                "efficiency": efficiency.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist(),
                "good_khat": sum(good) / len(good),
                "enough": sum(g.ess >= ess for g in galaxies) / len(galaxies),
                "methods": dict(Counter(g.method for g in galaxies)),
                "renders": sum(g.num_renders for g in galaxies) / len(galaxies),
                "seconds": sum(r.seconds for r in chosen) / len(chosen),
                "cpu_seconds": sum(r.cpu for r in chosen) / len(chosen),
                "coverage": {
                    str(x): ((ranks - 0.5).abs() < 0.5 * x).double().mean(0).tolist()
                    for x in LEVELS
                },
            }
        )
    return result


def show(figures: list[dict[str, object]]) -> None:
    """Prints the table."""
    for row in figures:
        low, high = row["snr"]  # type: ignore[misc]
        quartiles = " ".join(f"{x:.2f}" for x in row["efficiency"])  # type: ignore[attr-defined]
        print(
            f"\nS/N {low:g}-{'inf' if high is None else f'{high:g}'}: {row['galaxies']} galaxies, "
            f"efficiency {quartiles}, good k-hat {row['good_khat']:.1%}, enough "
            f"{row['enough']:.1%}, {row['renders']:.0f} renders, {row['seconds']:.2f} s "
            f"({row['cpu_seconds']:.2f} s of CPU), "
            f"{row['methods']}"
        )
        for level, values in row["coverage"].items():  # type: ignore[attr-defined]
            error = math.sqrt(float(level) * (1 - float(level)) / int(row["galaxies"]))  # type: ignore[call-overload]
            shares = " ".join(f"{x:6.1%}" for x in values)
            print(f"  {float(level):.0%} covers (+-{error:.1%} each): {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=200)
    parser.add_argument("--model", default=None, help="name or folder of a network")
    parser.add_argument("--stand-in", action="store_true", help="a Gaussian in place of a network")
    parser.add_argument("--size", type=int, default=128, help="stamp side with --stand-in [px]")
    parser.add_argument("--method", choices=("exact", "laplace"), default="exact")
    parser.add_argument("--ess", type=float, default=400.0)
    parser.add_argument("--chains", action="store_true", help="allow the Markov chains")
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the figures")
    args = parser.parse_args()
    figures = table(run(args), args.ess)
    show(figures)
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
