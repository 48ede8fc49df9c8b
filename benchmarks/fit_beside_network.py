"""What a fit adds to the network on galaxies with structure, and what it costs.

    python benchmarks/fit_beside_network.py -n 320 [--model FOLDER] [-o measured.npz]

Galaxies with the structure of the second edition, isolated and unmasked, are measured by the
network and by the refined posterior (exact; widths of the stated noise and honest ones). Printed by
estimated signal-to-noise: median and 84 % of -ln density of the truth under the marginal Gaussians
of each, summed over the seven parameters (magnitudes, logarithms of radius and index, axis ratio,
degrees, px), and the milliseconds of CPU that each costs a galaxy. A network that had the fit as an
input could gain no more than lies between.
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from network import isolated, measure
from torch import Tensor

from deeplegato_pp.arrays import Array
from deeplegato_pp.calibration.galaxies import MeasuredGalaxies
from deeplegato_pp.calibration.settings import Simulations
from deeplegato_pp.calibration.truth import best_profiles
from deeplegato_pp.config.schema import load_config
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.inference import Predictor
from deeplegato_pp.scene.parameters import SNR_CLASSES

SEED = 78


def structured(predictor: Predictor) -> Simulations:
    """Returns a stream of isolated galaxies with the structure of the second edition."""
    simulations = isolated(predictor, SEED)
    simulations.simulator = SersicSimulator.from_config(
        replace(
            simulations.data,
            conditions=simulations.data.conditions.clean(),
            structure=load_config("second_edition").data.structure,
        ),
        truth=best_profiles,
    )
    return simulations


def gaussian_nll(error: Array, width: Array) -> Tensor:
    """Returns -ln N(error; 0, width) summed over parameters, with shape (B,)."""
    z = error / width
    return torch.from_numpy((0.5 * z**2 + np.log(width) + 0.5 * math.log(2.0 * math.pi)).sum(-1))


def compare(network: MeasuredGalaxies, exact: MeasuredGalaxies) -> dict[str, Tensor]:
    """Returns -ln density of each galaxy under the three posteriors, with shape (B,) each."""
    return {
        "network": gaussian_nll(network.error, network.width),
        "noise widths": gaussian_nll(exact.error, exact.noise_width),
        "honest widths": gaussian_nll(exact.error, exact.width),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=320)
    parser.add_argument("--model", help="name or folder of the network; default: the packaged one")
    parser.add_argument("-o", "--output", type=Path, help="what was measured, as .npz")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.model)
    network, exact, spent = measure(predictor, structured(predictor), options.number)
    if options.output:
        kept = ("error", "width", "noise_width", "nll", "estimates")
        np.savez(
            options.output,
            **{f"network_{k}": getattr(network, k) for k in kept},
            **{f"exact_{k}": getattr(exact, k) for k in kept},
        )
    found = compare(network, exact)
    snr = torch.from_numpy(exact.estimates[:, 0])
    print(f"\nms a galaxy: network {spent[0]:.0f}, exact {spent[1]:.0f}")
    print(f"{'S/N':>12s} {'galaxies':>9s}" + "".join(f"{name:>15s}" for name in found))
    for low, high in [(0.0, math.inf), *itertools.pairwise(SNR_CLASSES)]:
        inside = (snr >= low) & (snr < high)
        known = inside & torch.stack([torch.isfinite(v) for v in found.values()]).all(0)
        if not bool(known.any()):
            continue
        levels = torch.tensor([0.5, 0.84], dtype=torch.float64)
        cells = "".join(
            f"{median:8.2f}{high:7.2f}"
            for v in found.values()
            for median, high in [torch.quantile(v[known], levels).tolist()]
        )
        print(f"{low:5g}-{high:<6g} {int(known.sum()):9d}{cells}", flush=True)


if __name__ == "__main__":
    main()
