"""The mean -ln q(truth) of networks on the same fresh simulations, by signal-to-noise.

    python benchmarks/nll.py default runs/mine/model -n 1200
    python benchmarks/nll.py default -n 1200 --mirrored

Three kinds of galaxies: isolated and unmasked Sérsic profiles, the same under the first network's
training conditions (masks, neighbours, correlated noise), and under those with the structure of the
second edition. Densities of networks with other prior boxes are converted to the coordinates of the
first. Differences between networks are known far better than each mean, which
scatters with the choice of galaxies. With --mirrored each galaxy is also seen in its eight mirror
images, whose posteriors, turned back, are averaged: what a network eight times as slow would gain.
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import replace

import torch
from torch import Tensor

from deeplegato_pp.calibration.truth import best_profiles
from deeplegato_pp.config.schema import StructureConfig, load_config
from deeplegato_pp.data.datasets import stream_generator
from deeplegato_pp.data.mirroring import mirrored
from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.scene.parameters import SNR_CLASSES
from deeplegato_pp.scene.prior import PriorBox

BATCH = 100
STREAM = 2**42
"""Far from the streams of training, validation and calibration."""

KINDS = ("isolated", "without structure", "with structure")


@torch.no_grad()
def nll(model: DeepLeGAToPP, scene: SimulatedScene, box: PriorBox, mirror: bool) -> Tensor:
    """Returns -ln q(truth) of each galaxy in the coordinates of `box`, with shape (B,).

    With `mirror`, q is the mean over the mirror images.
    """
    w = model.prior.to_normal(scene.params)
    units = box.log_jacobian(box.to_normal(scene.params)) - model.prior.log_jacobian(w)
    found = []
    for turn in itertools.product((False, True), repeat=3 if mirror else 0):
        stamps, turned = scene.stamps, w
        if mirror:
            stamps, turned = mirrored(stamps, w, *(torch.full((len(w),), t) for t in turn))
        found.append(model.log_prob(model.encode(stamps), turned.float()[:, None])[:, 0])
    return math.log(len(found)) - torch.stack(found).logsumexp(0) + units


def show(name: str, snr: Tensor, values: Tensor) -> None:
    """Prints the mean of each class."""
    cells = []
    for low, high in itertools.pairwise(SNR_CLASSES):
        inside = values[(snr >= low) & (snr < high)]
        cells.append(f"{float(inside.mean()):8.2f}" if len(inside) else f"{'-':>8s}")
    print(f"{name:>32s} {float(values.mean()):8.3f}" + "".join(cells), flush=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("models", nargs="+", help="names or folders")
    parser.add_argument("-n", "--number", type=int, default=1200, help="galaxies, in hundreds")
    parser.add_argument("--mirrored", action="store_true")
    options = parser.parse_args()
    models = {name: DeepLeGAToPP.from_pretrained(name) for name in options.models}
    first = next(iter(models.values()))
    data = first.config.data
    structure = load_config("second_edition").data.structure
    for kind in KINDS:
        simulator = SersicSimulator.from_config(
            replace(data, structure=structure if kind == "with structure" else StructureConfig()),
            clean=kind == "isolated",
            truth=best_profiles,
        )
        scenes = [
            simulator.sample_scene(BATCH, stream_generator(STREAM, step))
            for step in range(-(-options.number // BATCH))
        ]
        snr = torch.cat([scene.snr for scene in scenes])
        classes = "".join(f"{f'>= {low:g}':>8s}" for low in SNR_CLASSES[:-1])
        print(f"\n{kind + f', {len(snr)} galaxies':>32s} {'all':>8s}{classes}")
        for name, model in models.items():
            for mirror in (False, True) if options.mirrored else (False,):
                values = torch.cat([nll(model, scene, first.prior, mirror) for scene in scenes])
                show(name[-20:] + (" mirrored" if mirror else ""), snr, values)


if __name__ == "__main__":
    main()
