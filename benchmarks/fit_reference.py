"""Fits the features of training images to a model's weights, for `ood` and `ood_p`.

    python benchmarks/fit_reference.py [FOLDER] [-n 6000]

FOLDER holds the weights; without it, the packaged model. Writes ``reference.safetensors`` beside
them. To be run again whenever the weights change: what belongs to other weights is not used.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from deeplegato_pp.calibration.novelty_reference import fit_novelty
from deeplegato_pp.models import DeepLeGAToPP, storage


def main() -> None:
    """Fits, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path, nargs="?", default=None)
    parser.add_argument("-n", "--number", type=int, default=6000, help="simulations")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    folder = storage.find(options.folder)
    model = DeepLeGAToPP.from_pretrained(folder).to(options.device)
    started = time.perf_counter()
    novelty = fit_novelty(model, options.number)
    path = storage.save_reference(folder, novelty.tensors(model))
    print(
        f"{path}: {options.number} simulations, {path.stat().st_size / 1e3:.0f} kB, "
        f"{time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
