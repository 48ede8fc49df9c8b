"""Flows, backbones, whitening and extra losses, compared at equal images seen.

    python benchmarks/training_choices.py -o runs/choices
    python benchmarks/training_choices.py -o runs/choices --variants coupling_nsf nsf maf -n 60000
    python benchmarks/training_choices.py -o runs/choices --base cpu training.batch_size=32

Each variant is a configuration that differs from the base in a few settings. It is trained in a
folder of its own under the output, and goes on there if the benchmark was stopped; a finished one
is not trained again. Then all are measured on the same fresh simulations: NLL by signal-to-noise
class (the prior's is 9.93), coverage, and the time of a thousand posterior draws per galaxy. The
table is printed, and written to choices.json as each variant finishes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from deeplegato_pp.config.schema import Config, load_config
from deeplegato_pp.data.datasets import SimulatedGalaxyDataset
from deeplegato_pp.data.sersic_simulator import SersicSimulator
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.parameters import SNR_CLASSES
from deeplegato_pp.training import train

VARIANTS: dict[str, list[str]] = {
    "coupling_nsf": [],
    "nsf": ["model.npe.type=nsf", "model.npe.num_flow_layers=3", "model.npe.hidden_dim=128"],
    "maf": ["model.npe.type=maf", "model.npe.num_flow_layers=6"],
    "realnvp": ["model.npe.type=realnvp"],
    "coupling_nsf_unwhitened": ["model.npe.whitening=false", "training.gaussian_weight=0"],
    "nsf_unwhitened": [
        "model.npe.type=nsf",
        "model.npe.num_flow_layers=3",
        "model.npe.hidden_dim=128",
        "model.npe.whitening=false",
        "training.gaussian_weight=0",
    ],
    "one_view": ["model.backbone.views=1", "model.backbone.patch_size=8"],
    "pooled_only": ["model.backbone.layout_channels=0"],
    "adamw": ["training.optimizer=adamw", "training.learning_rate=1e-3"],
    "resnet18": ["model.backbone.type=resnet18"],
    "efficientnet_lite0": ["model.backbone.type=efficientnet_lite0"],
    "convnext_atto": ["model.backbone.type=convnext_atto"],
    "swinv2_tiny": ["model.backbone.type=swinv2_tiny_window8_256"],
    "physics_0.1": ["training.physics_weight=0.1"],
    "calibration_10": ["training.calibration_weight=10"],
    "calibration_100": ["training.calibration_weight=100"],
    "reconstruction_1": ["training.reconstruction_weight=1"],
    "pretrained_here": [],
}
"""Settings by name. The last is trained on half of its images after half of them were spent on
filling in hidden pixels, so that it has seen as many as the others."""

BATCH = 100
DRAWS = 200
SEED = 2**40  # far from the streams of training and validation
SPEED_GALAXIES = 20


def configure(name: str, options: argparse.Namespace, extra: list[str]) -> Config:
    """Returns a variant's configuration: equal images, a schedule that ends with them."""
    base = load_config(options.base, options.overrides)
    steps = max(1, options.images // base.training.batch_size)
    epochs = min(5, steps)
    length = steps // epochs
    lengths = [
        f"training.max_steps={epochs * length}",
        f"training.steps_per_epoch={length}",
        f"training.warmup_steps={max(1, min(200, steps // 10))}",
        f"training.decay_steps={max(1, int(0.4 * steps))}",
        "training.ema_decay=0.98",
        "validation.num_images=256",
        f"logging.output_dir={options.output / name}",
        "logging.progress_bar=false",
    ]
    return load_config(options.base, [*lengths, *VARIANTS[name], *extra, *options.overrides])


def run(name: str, options: argparse.Namespace) -> DeepLeGAToPP:
    """Trains a variant, or loads it if it is there."""
    if (options.output / name / "model" / "config.json").is_file():
        return DeepLeGAToPP.from_pretrained(options.output / name / "model")
    if name != "pretrained_here":
        return train(configure(name, options, []))
    half = argparse.Namespace(**{**vars(options), "images": options.images // 2})
    first = configure(name, half, ["training.task=reconstruction"])
    first.logging.output_dir = str(options.output / "pretrained_here_first")
    spent = train(first).card["training"]
    model = train(configure(name, half, [f"model.init={first.logging.output_dir}/model"]))
    for key in ("hours", "images"):  # of both halves
        model.card["training"][key] += spent[key]
    model.save_pretrained(options.output / name / "model")
    return model


@torch.no_grad()
def measure(model: DeepLeGAToPP, number: int, clean: bool) -> dict[str, object]:
    """Returns figures on fresh simulations: NLL and coverage by class, and the cost of draws."""
    model.eval().cpu()
    simulator = SersicSimulator.from_config(model.config.data, clean=clean)
    stream = SimulatedGalaxyDataset(simulator, BATCH, math.ceil(number / BATCH), seed=SEED)
    snr, nll, inside = [], [], []
    for step in range(len(stream)):
        scene = stream.scene(step)
        w = simulator.prior.to_normal(scene.params)
        context = model.encode(scene.stamps)
        nll.append(-model.log_prob(context, w[:, None])[:, 0])
        draws, _ = model.sample(context, DRAWS, torch.arange(BATCH))
        rank = (draws < w[:, None]).double().mean(1)
        inside.append(((rank - 0.5).abs() <= 0.34).double().mean(1))
        snr.append(scene.snr)
    start = time.perf_counter()
    model.sample(context[:SPEED_GALAXIES], 1000, torch.arange(SPEED_GALAXIES))
    cost = (time.perf_counter() - start) / SPEED_GALAXIES
    columns = [torch.cat(c).double().numpy() for c in (snr, nll, inside)]
    rows = [_row(columns, low, high) for low, high in itertools.pairwise(SNR_CLASSES)]
    return {
        "all": _row(columns, 0.0, math.inf),
        "classes": rows,
        "ms_per_1000_draws": 1000 * cost,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _row(columns: list[np.ndarray], low: float, high: float) -> dict[str, object]:
    snr, nll, inside = columns
    chosen = (snr >= low) & (snr < high)
    size = int(chosen.sum())
    if not size:
        return {"snr": [low, None if math.isinf(high) else high], "galaxies": 0}
    return {
        "snr": [low, None if math.isinf(high) else high],
        "galaxies": size,
        "nll": float(nll[chosen].mean()),
        "nll_error": float(nll[chosen].std() / math.sqrt(size)),
        "coverage_68": float(inside[chosen].mean()),
    }


def show(results: dict[str, dict[str, object]]) -> None:
    """Prints the table."""
    edges = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(SNR_CLASSES)]
    print(f"\n{'variant':26s}{'NLL':>8s}" + "".join(f"{e:>10s}" for e in edges), end="")
    print(f"{'68 %':>8s}{'hours':>8s}{'ms/1000':>9s}")
    for name, result in sorted(results.items(), key=lambda item: item[1]["all"]["nll"]):  # type: ignore[index]
        whole = result["all"]
        print(f"{name:26s}{whole['nll']:8.2f}", end="")  # type: ignore[index]
        for row in result["classes"]:  # type: ignore[attr-defined]
            print(f"{row['nll']:10.2f}" if row["galaxies"] else f"{'-':>10s}", end="")
        print(
            f"{whole['coverage_68']:8.1%}{result['hours']:8.2f}{result['ms_per_1000_draws']:9.1f}"  # type: ignore[index]
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("overrides", nargs="*", help="settings of all variants")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="default", help="configuration that they differ from")
    parser.add_argument("-n", "--images", type=int, default=30_000, help="images seen by each")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS)[:7], choices=VARIANTS)
    parser.add_argument("--test", type=int, default=3000, help="galaxies to measure on")
    parser.add_argument("--full", action="store_true", help="masks and neighbours there too")
    options = parser.parse_intermixed_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "choices.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for name in options.variants:
        if name not in results:
            model = run(name, options)
            record = model.card["training"]
            results[name] = {
                **measure(model, options.test, clean=not options.full),
                "hours": record["hours"],
                "images": record["images"],
                "settings": VARIANTS[name],
            }
            path.write_text(json.dumps(results, indent=1) + "\n")
        show({name: results[name]})
    show(results)


if __name__ == "__main__":
    main()
