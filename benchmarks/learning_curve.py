"""The learning curve of a trained network, down to the exact posterior's floor.

    python benchmarks/network.py -n 400 -o network.json
    python benchmarks/learning_curve.py default --network network.json -o learning_curve.png

Draws the validation's -ln q(truth) against the images seen, from ``training.csv`` beside the
weights, and below it the exact posterior's mean on other galaxies of the same distribution: what
is left between the two is what a perfect network would still gain.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from deeplegato_pp.models.storage import find
from deeplegato_pp.training.callbacks import CURVE

PRIOR = 3.5 * np.log(2.0 * np.pi * np.e)
"""-ln p of a network that has learnt nothing: the entropy of seven standard-normal numbers."""

CURVES = {
    "val_clean/nll": ("isolated, unmasked", "#0072b2"),
    "val_full/nll": ("as in training", "#d55e00"),
}


def main() -> None:
    """Draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("model", nargs="?", default="default", help="name or folder")
    parser.add_argument("--network", type=Path, default=None, help="JSON of network.py")
    parser.add_argument("-o", "--output", type=Path, default=Path("learning_curve.png"))
    options = parser.parse_args()
    with (find(options.model) / CURVE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    images = np.array([float(row["images"]) for row in rows]) / 1e3
    figure, axis = plt.subplots(figsize=(7.0, 4.0), constrained_layout=True)
    for name, (label, colour) in CURVES.items():
        axis.plot(images, [float(row[name]) for row in rows], color=colour, label=label)
    axis.axhline(PRIOR, color="#888888", linestyle=":", label="the prior")
    if options.network:
        total = json.loads(options.network.read_text())[0]
        axis.axhline(
            total["exact_nll"],
            color="#009e73",
            linestyle="--",
            label=f"exact posterior, {total['galaxies']} galaxies",
        )
    axis.set_xlabel("images seen [thousands]")
    axis.set_ylabel(r"mean of $-\ln\,q(\mathrm{truth})$")
    axis.set_xlim(0, None)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.02, 0.06))
    figure.savefig(options.output, dpi=150)
    last = float(rows[-1]["val_clean/nll"])
    print(f"{len(rows)} epochs, the last at {last:.2f}: {options.output}")


if __name__ == "__main__":
    main()
