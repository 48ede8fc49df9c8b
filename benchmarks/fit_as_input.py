"""What a fit would add to the network: a head that sees both, against each alone.

    python benchmarks/fit_as_input.py -n 1000 [--model FOLDER] [-o measured.npz]

Galaxies with the structure of the second edition, isolated and unmasked, are measured by the
network and by the refined posterior (exact; widths of the stated noise and honest ones). A small
head sees the means and widths of all three and predicts, for each parameter, a Gaussian: how the
two means are to be weighed, and its width. It is trained on four fifths of the galaxies and judged
on the fifth part, five times over. Printed by signal-to-noise: the mean -ln density of the truth
under the marginal Gaussians of network, noise widths, honest widths and head, summed over the seven
parameters (in shown units: magnitudes, logarithms of radius and index, axis ratio, degrees, px),
and the milliseconds of one core that each costs a galaxy.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deeplegato_pp.calibration.galaxies import MeasuredGalaxies
from deeplegato_pp.calibration.measure import measure_batch
from deeplegato_pp.calibration.settings import BATCH, Settings, Simulations
from deeplegato_pp.config.schema import load_config
from deeplegato_pp.inference import Predictor
from deeplegato_pp.scene.parameters import PARAMETERS, SNR_CLASSES

SEED = 78
FOLDS = 5
STEPS = 600
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2


def measure(
    predictor: Predictor, number: int
) -> tuple[MeasuredGalaxies, MeasuredGalaxies, list[float]]:
    """Returns network and exact posteriors of the same galaxies, and ms per galaxy of each."""
    simulations = Simulations.of(predictor.model, None, SEED)
    simulator = simulations.simulator
    simulator.conditions = replace(simulations.data.conditions.clean(), psf_error=0.0)
    simulator.structure = load_config("second_edition").data.structure
    parts: dict[bool, list[MeasuredGalaxies]] = {False: [], True: []}
    spent = {False: 0.0, True: 0.0}
    for step in range(-(-number // BATCH)):
        started = time.process_time()
        simulations.scene(step)
        drawing = time.process_time() - started
        for refine, found in parts.items():
            settings = Settings(number=max(number, 20), detailed=0, refine=refine)
            started = time.process_time()
            found.append(measure_batch(predictor, simulations, step, settings))
            spent[refine] += time.process_time() - started - drawing
        print(f"{min(number, (step + 1) * BATCH)} of {number}", flush=True)
    network, exact = (MeasuredGalaxies.concatenate(found)[:number] for found in parts.values())
    return network, exact, [1e3 * s / (len(parts[False]) * BATCH) for s in spent.values()]


def gaussian_nll(error: Tensor, log_width: Tensor) -> Tensor:
    """Returns -ln N(error; 0, width) summed over parameters, with shape (B,)."""
    z = error * (-log_width).exp()
    return (0.5 * z**2 + log_width + 0.5 * math.log(2.0 * math.pi)).sum(-1)


class Head(nn.Module):
    """Weighs two means and sets a width, for each of P parameters.

    Args:
        inputs: Number of inputs.
        parameters: Number of parameters P.
    """

    def __init__(self, inputs: int, parameters: int) -> None:
        super().__init__()
        last = nn.Linear(64, 2 * parameters)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(
            nn.Linear(inputs, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), last
        )

    def forward(
        self, seen: Tensor, network: Tensor, fit: Tensor, log_width: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns errors of the weighed means and logarithms of their widths."""
        weight, change = self.layers(seen).chunk(2, -1)
        share = torch.sigmoid(weight)
        return share * fit + (1.0 - share) * network, log_width + change


def trained(seen: Tensor, errors: list[Tensor], log_width: Tensor, known: Tensor) -> Tensor:
    """Returns each galaxy's -ln density under a head that has not seen it, with shape (B,)."""
    found = torch.full((len(seen),), torch.nan)
    fold = torch.arange(len(seen)) % FOLDS
    for k in range(FOLDS):
        torch.manual_seed(k)
        head = Head(seen.shape[1], errors[0].shape[1])
        optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
        train, judged = known & (fold != k), known & (fold == k)
        for _ in range(STEPS):
            error, width = head(seen[train], *(e[train] for e in errors), log_width[train])
            # A few galaxies whose mode is another one must not rule the fit.
            loss = gaussian_nll(error, width).clamp_max(100.0).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            error, width = head(seen[judged], *(e[judged] for e in errors), log_width[judged])
            found[judged] = gaussian_nll(error, width)
    return found


def compare(network: MeasuredGalaxies, exact: MeasuredGalaxies) -> dict[str, Tensor]:
    """Returns -ln density of each galaxy under the four posteriors, with shape (B,) each."""
    tensors = [
        torch.from_numpy(np.asarray(values)).float()
        for values in (network.error, exact.error, network.width, exact.width, exact.noise_width)
    ]
    by_network, by_fit, *widths = tensors
    log_widths = [w.clamp_min(1e-6).log() for w in widths]
    known = torch.stack([torch.isfinite(t).all(-1) for t in tensors]).all(0)
    apart = by_fit - by_network  # the truths cancel
    for column, parameter in enumerate(PARAMETERS):
        if parameter.period is not None:
            apart[:, column] = (apart[:, column] + 90.0) % 180.0 - 90.0
    seen = torch.cat(
        [*log_widths, torch.asinh(apart / widths[0]), torch.asinh(apart / widths[1])], 1
    )
    seen = (seen - seen[known].mean(0)) / seen[known].std(0).clamp_min(1e-3)
    return {
        "network": gaussian_nll(by_network, log_widths[0]),
        "noise widths": gaussian_nll(by_fit, log_widths[2]),
        "honest widths": gaussian_nll(by_fit, log_widths[1]),
        "head": trained(seen, [by_network, by_fit], log_widths[1], known),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=1000)
    parser.add_argument("--model", help="name or folder of the network; default: the packaged one")
    parser.add_argument("-o", "--output", type=Path, help="what was measured, as .npz")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.model)
    network, exact, spent = measure(predictor, options.number)
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
        # Medians beside means, which a few galaxies in another mode rule.
        cells = "".join(
            f"{float(v[known].mean()):8.2f}{float(v[known].median()):7.2f}" for v in found.values()
        )
        print(f"{low:5g}-{high:<6g} {int(known.sum()):9d}{cells}", flush=True)


if __name__ == "__main__":
    main()
