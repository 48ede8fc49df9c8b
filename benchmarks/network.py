"""The bare network against the truth and against Laplace's approximation, on fresh simulations.

    python benchmarks/network.py -n 2000 --laplace 200

Prints, by signal-to-noise class: the flow's NLL, coverage of central intervals with its binomial
error, the error of the posterior mean over the prior's, and the posterior's width over that of the
Gauss-Newton posterior. None of these galaxies has been trained or validated on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deeplegato_pp.data.datasets import SimulatedGalaxyDataset
from deeplegato_pp.data.sersic_simulator import Scene, SersicSimulator
from deeplegato_pp.inference.diagnostics import binomial_error, central_coverage, truth_ranks
from deeplegato_pp.inference.likelihood import ExactProblem
from deeplegato_pp.inference.optimize import laplace_widths
from deeplegato_pp.inference.statistics import circular_mean, unwrap
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.parameters import NAMES, PARAMETERS, SNR_CLASSES

BATCH = 100
DRAWS = 500
LEVELS = (0.5, 0.68, 0.95)
SEED = 2**40  # far from the streams of training and validation


@dataclass
class Results:
    """Per-galaxy figures, first axis the galaxies."""

    snr: np.ndarray
    nll: np.ndarray
    ranks: np.ndarray
    error: np.ndarray
    width: np.ndarray
    laplace: np.ndarray


def measure(model: DeepLeGAToPP, number: int, laplace: int, clean: bool) -> Results:
    """Simulates galaxies and runs the network on them."""
    simulator = SersicSimulator.from_config(model.config.data, clean=clean)
    stream = SimulatedGalaxyDataset(simulator, BATCH, math.ceil(number / BATCH), seed=SEED)
    parts: list[tuple[np.ndarray, ...]] = []
    left = laplace
    for step in range(len(stream)):
        scene = stream.scene(step)
        parts.append(measure_batch(model, scene, min(left, BATCH)))
        left = max(0, left - BATCH)
    return Results(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def measure_batch(model: DeepLeGAToPP, scene: Scene, laplace: int) -> tuple[np.ndarray, ...]:
    """Returns the columns of `Results` for one batch."""
    context = model.encode(scene.stamps)
    w, _ = model.sample(context, DRAWS, torch.arange(BATCH))
    samples, truth = model.prior.to_physical(w).numpy(), scene.params.numpy()
    true_w = model.prior.to_normal(scene.params)
    nll = -model.log_prob(context, true_w[:, None])[:, 0]
    widths = np.full((BATCH, len(NAMES)), np.nan)
    if laplace:
        with torch.enable_grad():
            _, sigma, converged = laplace_widths(problem(model, scene, laplace), true_w[:laplace])
        widths[:laplace] = np.where(converged[:, None], sigma.numpy(), np.nan)
    return (
        scene.snr.numpy(),
        nll.numpy(),
        truth_ranks(samples, truth),
        mean_error(samples, truth),
        w.std(1).numpy(),
        widths,
    )


def problem(model: DeepLeGAToPP, scene: Scene, number: int) -> ExactProblem:
    """Returns the likelihood of the first galaxies of a scene, with the PSFs as rendered."""
    fine = scene.psf.oversampled[:number].tolist()
    psfs = [(scene.psf.fine if f else scene.psf.native)[i] for i, f in enumerate(fine)]
    oversampling = [2 if f else 1 for f in fine]
    return ExactProblem(scene.stamps[:number], psfs, oversampling, [True] * number, model.prior)


def mean_error(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns posterior mean minus truth: radius and n in logarithms, the angle on its circle."""
    error = np.empty_like(truth)
    for j, p in enumerate(PARAMETERS):
        draws, value = samples[..., j], truth[:, j]
        if p.period is not None:
            for i in range(len(truth)):
                center = np.array([circular_mean(draws[i], p.period)])
                error[i, j] = (unwrap(center, value[i], p.period) - value[i])[0]
        elif p.scale == "log":
            error[:, j] = np.log(draws).mean(1) - np.log(value)
        else:
            error[:, j] = draws.mean(1) - value
    return error


def prior_rms(model: DeepLeGAToPP) -> np.ndarray:
    """Returns the error of somebody who only knows the prior, in the units of `mean_error`."""
    rms = []
    for p in PARAMETERS:
        low, high = getattr(model.prior, p.name)
        span = math.log(high / low) if p.scale == "log" else high - low
        rms.append(span / math.sqrt(12.0))
    return np.array(rms)


def table(results: Results, scale: np.ndarray) -> list[dict[str, object]]:
    """Returns one row of figures per signal-to-noise class, and one for all."""
    rows = []
    edges = [(SNR_CLASSES[0], SNR_CLASSES[-1]), *itertools.pairwise(SNR_CLASSES)]
    for low, high in edges:
        inside = (results.snr >= low) & (results.snr < high)
        if not inside.any():
            continue
        ratio = results.width[inside] / results.laplace[inside]
        measured = np.isfinite(ratio).any(axis=1)
        rows.append(
            {
                "snr": [low, high if math.isfinite(high) else None],
                "galaxies": int(inside.sum()),
                "nll": float(results.nll[inside].mean()),
                "nll_median": float(np.median(results.nll[inside])),
                "coverage": {
                    str(level): central_coverage(results.ranks[inside], level).tolist()
                    for level in LEVELS
                },
                "binomial_error": {
                    str(level): binomial_error(level, int(inside.sum())) for level in LEVELS
                },
                "rmse_over_prior": (np.sqrt((results.error[inside] ** 2).mean(0)) / scale).tolist(),
                "width_over_laplace": (
                    np.nanmedian(ratio[measured], axis=0).tolist() if measured.any() else None
                ),
                "laplace_galaxies": int(measured.sum()),
            }
        )
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Prints the table, parameters along the columns."""
    short = ("mag", "R_e", "n", "q", "PA", "x", "y")
    for row in rows:
        low, high = row["snr"]  # type: ignore[misc]
        print(
            f"\nS/N {low:g}-{'inf' if high is None else f'{high:g}'}: {row['galaxies']} galaxies, "
            f"NLL {row['nll']:.2f} (median {row['nll_median']:.2f})"
        )
        print(f"{'':22s}" + "".join(f"{name:>8s}" for name in short))
        for level in LEVELS:
            error = row["binomial_error"][str(level)]  # type: ignore[index]
            line(f"  {level:.0%} covers, +-{error:.1%}", row["coverage"][str(level)], "{:8.1%}")  # type: ignore[index]
        line("  RMSE / prior's", row["rmse_over_prior"], "{:8.4f}")
        if row["width_over_laplace"]:
            count = row["laplace_galaxies"]
            line(f"  width / Laplace ({count})", row["width_over_laplace"], "{:8.2f}")


def line(label: str, values: object, form: str) -> None:
    """Prints a row of seven numbers."""
    print(f"{label:22s}" + "".join(form.format(v) for v in values))  # type: ignore[attr-defined]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=2000)
    parser.add_argument("--laplace", type=int, default=200, help="galaxies to fit as well")
    parser.add_argument("--full", action="store_true", help="masks and neighbours too")
    parser.add_argument("--model", default=None)
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    model = DeepLeGAToPP.from_pretrained(options.model)
    results = measure(model, options.number, options.laplace, clean=not options.full)
    rows = table(results, prior_rms(model))
    show(rows)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
