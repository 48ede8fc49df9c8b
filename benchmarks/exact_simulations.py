"""The exact engine on fresh draws from the prior, over processes and hours; cheap to restart.

    python benchmarks/exact_simulations.py -n 1000 --shard 0/2 -o runs/exact   # and 1/2 beside it
    python benchmarks/exact_simulations.py --merge -o runs/exact               # the table

Shard I of N takes every N-th batch of 10 galaxies; each finished batch is a file in the folder, and
one that is there already is not made again. `--merge` prints, by signal-to-noise class: the share
with k-hat below 0.7 and with a good verdict, quartiles of the importance efficiency, methods,
images rendered, galaxies a second of CPU, and the coverage of the refined intervals at 50, 68 and
95 % with its binomial band. It writes ``exact.json`` and draws ``ranks.png``, histograms of the
truth's rank.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from exact import likelihood_of, network_draws, weighted_ranks

from deeplegato_pp.data.sersic_simulator import SersicSimulator
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.parameters import NAMES, SNR_CLASSES
from deeplegato_pp.stats.pareto import khat_threshold

BATCH = 10
LEVELS = (0.5, 0.68, 0.95)
SEED = 2**42  # far from every stream of training and validation


def run_batch(
    model: DeepLeGAToPP, index: int, number: int, method: str, ess: float
) -> list[dict[str, object]]:
    """Simulates and refines batch `index`, whose random numbers are its own."""
    simulator = SersicSimulator.from_config(model.config.data, clean=True)
    generator = torch.Generator().manual_seed(SEED + index)
    scene = simulator.sample_scene(number, generator)
    likelihood, truth = likelihood_of(scene, model.prior), model.prior.to_normal(scene.params)
    network = network_draws(model, scene)
    cpu, wall = time.process_time(), time.perf_counter()
    seeds = torch.arange(number) + BATCH * index
    refined = refine_batch(
        likelihood, *network, method=method, ess=ess, seeds=seeds, options=RefineOptions()
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return [
        {
            "snr": snr,
            "params": scene.params[i].tolist(),
            "oversampling": likelihood.oversampling[i],
            "method": galaxy.method,
            "khat": galaxy.khat,
            "draws": len(galaxy.log_weights),
            "ess": galaxy.ess,
            "efficiency": galaxy.efficiency,
            "renders": galaxy.num_renders,
            "modes": galaxy.num_modes,
            "masked": galaxy.masked_pixels,
            "flags": int(galaxy.flags),
            "log_evidence_error": galaxy.log_evidence_error,
            "ranks": weighted_ranks(galaxy, truth[i]).tolist(),
            "cpu": cpu / number,
            "wall": wall / number,
        }
        for i, (galaxy, snr) in enumerate(zip(refined.galaxies, scene.snr.tolist(), strict=True))
    ]


def run(args: argparse.Namespace) -> None:
    shard, shards = (int(x) for x in args.shard.split("/"))
    args.output.mkdir(parents=True, exist_ok=True)
    model = DeepLeGAToPP.from_pretrained(args.model)
    for index in range(shard, math.ceil(args.number / BATCH), shards):
        path = args.output / f"batch_{index:04d}.json"
        if path.exists():
            continue
        number = min(BATCH, args.number - index * BATCH)
        rows = run_batch(model, index, number, args.method, args.ess)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(rows), encoding="utf-8")
        part.rename(path)
        print(f"{path.name}: {rows[0]['wall']:.2f} s a galaxy", flush=True)


def figures_of(rows: list[dict], ess: float) -> dict[str, object]:
    """Returns the figures of some galaxies."""
    count = len(rows)
    khat = np.array([r["khat"] for r in rows], dtype=float)
    chains = np.array([r["method"] == "mcmc" for r in rows])
    good = khat <= np.array([khat_threshold(r["draws"]) for r in rows])
    ranks = np.array([r["ranks"] for r in rows])
    efficiency = np.nan_to_num([r["efficiency"] for r in rows])
    return {
        "galaxies": count,
        "khat_below_0.7": float(((khat < 0.7) & ~chains).mean()),
        "good_khat": float((good & ~chains).mean()),
        "enough": float(np.mean([r["ess"] >= ess for r in rows])),
        "efficiency": np.quantile(efficiency, [0.25, 0.5, 0.75]).tolist(),
        "methods": dict(Counter(r["method"] for r in rows)),
        "renders": float(np.mean([r["renders"] for r in rows])),
        "cpu_seconds": float(np.mean([r["cpu"] for r in rows])),
        "wall_seconds": float(np.mean([r["wall"] for r in rows])),
        "coverage": {str(x): (np.abs(ranks - 0.5) < 0.5 * x).mean(0).tolist() for x in LEVELS},
        "band": {str(x): 1.96 * math.sqrt(x * (1 - x) / count) for x in LEVELS},
    }


def show(name: str, f: dict) -> None:
    quartiles = " ".join(f"{x:.2f}" for x in f["efficiency"])
    print(
        f"\n{name}: {f['galaxies']} galaxies, k-hat < 0.7 {f['khat_below_0.7']:.1%}, good verdict "
        f"{f['good_khat']:.1%}, enough {f['enough']:.1%}, efficiency {quartiles}, "
        f"{f['renders']:.0f} renders, {1 / f['cpu_seconds']:.2f} galaxies/s of CPU "
        f"({f['wall_seconds']:.2f} s wall each), {f['methods']}"
    )
    for level, values in f["coverage"].items():
        shares = " ".join(f"{x:6.1%}" for x in values)
        print(f"  {float(level):.0%} covers: {shares}  (95 % band +-{f['band'][level]:.1%})")


def draw_ranks(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ranks = np.array([r["ranks"] for r in rows])
    bins = 20
    expected = len(rows) / bins
    figure, axes = plt.subplots(1, len(NAMES), figsize=(14, 2.4), sharey=True)
    for axis, name, column in zip(axes, NAMES, ranks.T, strict=True):
        spread = 1.96 * math.sqrt(expected * (1 - 1 / bins))
        axis.axhspan(expected - spread, expected + spread, color="0.85")
        axis.hist(column, bins=bins, range=(0, 1), histtype="step", color="C0")
        axis.set_title(name, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def merge(folder: Path, ess: float) -> None:
    rows = [r for p in sorted(folder.glob("batch_*.json")) for r in json.loads(p.read_text())]
    if not rows:
        raise SystemExit(f"No batch_*.json in {folder}. Run without --merge first.")
    result = {"all": figures_of(rows, ess)}
    for low, high in itertools.pairwise(SNR_CLASSES):
        chosen = [r for r in rows if low <= r["snr"] < high]
        if chosen:
            result[f"S/N {low:g}-{high:g}"] = figures_of(chosen, ess)
    bright = [r for r in rows if r["snr"] > 50]
    if bright:
        result["S/N > 50"] = figures_of(bright, ess)
    for name, figures in result.items():
        show(name, figures)
    (folder / "exact.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    draw_ranks(rows, folder / "ranks.png")
    print(f"\nwrote {folder / 'exact.json'} and {folder / 'ranks.png'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=1000)
    parser.add_argument("--shard", default="0/1", help="I/N: batches I, I + N, ...")
    parser.add_argument("--merge", action="store_true", help="only the table of what is there")
    parser.add_argument("--model", default=None, help="name or folder of a network")
    parser.add_argument("--method", choices=("exact", "laplace"), default="exact")
    parser.add_argument("--ess", type=float, default=400.0)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.merge:
        run(args)
    if args.merge or args.shard == "0/1":
        merge(args.output, args.ess)


if __name__ == "__main__":
    main()
