"""Pictures of real galaxies: image, model, residual, the blocks of pixels, and both error bars.

    python benchmarks/real_pictures.py FOLDER OUT.png [--files NAME ...] [--number 10]

FOLDER holds ``cases.ecsv`` with the columns file, tier, flags, has_psf, pixel_scale and ref_* in
the project's conventions, and the files it names. Drawn are the files whose names hold one of
--files, or else tier A and B by turns of their sources, refined (Laplace tier). The residual is in
units of the stated noise; beside it is its sum over each of the blocks whose scores make the honest
widths, in units of that sum's noise (colours end at 6 and 10). The error bars are in units of the
honest ones: wide ones honest, narrow ones those of the stated noise, with both in numbers, crosses
published values.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from astropy.table import Table
from real_pulls import Shape, published, read_images, shape_of
from real_verdict import clean

from deeplegato_pp import Posterior, Predictor
from deeplegato_pp.inference.fit.structure import blocks_at

SHOWN = (0, 1, 4, 5)
LABELS = ("ln R_e", "ln n", "q", "angle")


def choose(cases: Table, names: list[str] | None, number: int) -> list[int]:
    """Returns cases by name, or one source after the other."""
    rows = clean(cases, "AB", None)
    if names is not None:
        return [i for name in names for i in rows if name in str(cases[i]["file"])]
    by_source: dict[str, list[int]] = {}
    for i in rows:
        by_source.setdefault(str(cases[i]["source"]), []).append(i)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_source.values()))
    return [i for i in turns if i is not None][:number]


def block_sums(residual: np.ndarray, blocks: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Returns in each pixel the residual's sum over its block, over what noise makes of it."""
    labels = np.where(good, blocks, -1) - blocks.min() + 1
    count = np.bincount(labels.ravel()).clip(1)
    total = np.bincount(labels.ravel(), residual.ravel())
    return np.asarray((total / np.sqrt(count))[labels])


def draw(axes: Any, row: Posterior, honest: Shape, noise: Shape, off: np.ndarray | None) -> None:
    """Draws one galaxy into five axes.

    Args:
        axes: Image, model, residual, blocks, error bars.
        row: The refined posterior of the galaxy.
        honest: Its shape with honest widths.
        noise: The same with those of the stated noise.
        off: Published values less ours in ln R_e, ln n, q and angle; None if there are none.
    """
    m = row.measurements[0]
    assert m.prepared is not None
    likelihood = m.likelihood()
    w = row.w.mean(0) if m.widening is None else m.widening.modes[0]
    u = likelihood.coordinates.project(w[None])
    model = likelihood.render(0, u, torch.float64)
    residual = likelihood.residual(0, model).in_sigma[0].numpy()
    blocks = blocks_at(likelihood, 0, u[0])[0].numpy()
    mask = likelihood.stamps.mask[0].numpy()
    seen = np.flatnonzero(~mask.all(1)), np.flatnonzero(~mask.all(0))
    window = tuple(slice(int(part[0]), int(part[-1]) + 1) for part in seen)
    image = np.where(mask, np.nan, m.prepared.image)
    top = np.arcsinh(max(float(np.nanmax(image)), 3.0))
    for axis, picture in zip(axes, (image, model[0].numpy()), strict=False):
        axis.imshow(np.arcsinh(picture[window]), origin="lower", vmin=-2, vmax=top, cmap="magma")
    shown = np.where(mask, np.nan, residual)[window]
    axes[2].imshow(shown, origin="lower", cmap="RdBu_r", vmin=-6, vmax=6)
    sums = block_sums(np.where(mask, 0.0, residual), blocks, ~mask)
    axes[3].imshow(
        np.where(mask, np.nan, sums)[window], origin="lower", cmap="RdBu_r", vmin=-10, vmax=10
    )
    for axis in axes[:4]:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].set_ylabel(f"{m.name[:22]}\n{m.quality}", fontsize=7)
    axes[2].set_title(f"chi2 {m.chi2:.1f}", fontsize=7, pad=2)
    axes[3].set_title("blocks", fontsize=7, pad=2)
    axes[4].set_title(f"widths x {row.structure:.1f}", fontsize=7, pad=2)
    places = -np.arange(len(SHOWN))
    width, own_width = honest.std[list(SHOWN)], noise.std[list(SHOWN)]
    axes[4].errorbar(0 * places, places, xerr=1.0, fmt="none", ecolor="0.6", elinewidth=5)
    axes[4].errorbar(0 * places, places, xerr=own_width / width, fmt="k|", elinewidth=1.5)
    if off is not None:
        axes[4].plot((off / width).clip(-4, 4), places, "x", color="C3", markersize=6)
    for place, name, a, b in zip(places, LABELS, width, own_width, strict=True):
        text = f"{name}: {a:.2g} ({b:.1g})" if name != "angle" else f"{name}: {a:.1f} ({b:.2g}) deg"
        axes[4].text(-4.0, place + 0.28, text, fontsize=6)
    axes[4].set_yticks([])
    axes[4].set_xlim(-4.2, 4.2)
    axes[4].set_ylim(-3.6, 0.6)
    axes[4].tick_params(axis="x", labelsize=6)
    axes[4].axvline(0.0, color="0.8", zorder=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--files", nargs="+", default=None, help="parts of files' names")
    parser.add_argument("--number", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    cases = Table.read(options.folder / "cases.ecsv")
    wanted = choose(cases, options.files, options.number)
    rows, observations = read_images(options.folder, cases, wanted)
    predictor = Predictor.from_pretrained()
    posterior = predictor.refine(predictor.posterior(observations, widths="noise"), "laplace")
    under_noise = posterior.under_noise()
    figure, axes = plt.subplots(
        len(rows), 5, figsize=(8.6, 1.75 * len(rows)), squeeze=False, layout="constrained"
    )
    for title, axis in zip(("image", "model"), axes[0], strict=False):
        axis.set_title(title, fontsize=7, pad=2)
    axes[-1, 4].set_xlabel("honest standard deviations", fontsize=7)
    for k, i in enumerate(rows):
        honest, noise = shape_of(posterior[k]), shape_of(under_noise[k])
        known = published(cases, {i: honest})
        draw(axes[k], posterior[k], honest, noise, -known[i][0] if i in known else None)
        print(f"{cases[i]['file']}: {posterior[k].quality}, widths x {posterior[k].structure:.1f}")
    figure.savefig(options.output, dpi=100)


if __name__ == "__main__":
    main()
