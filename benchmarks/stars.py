"""Stars against galaxies: is `star_probability` what it says, and how well does it separate?

    python benchmarks/stars.py -n 5000 -o stars.json                  # and stars.png
    python benchmarks/stars.py -n 5000 --shard 0/8 -o part0.json      # in pieces, anywhere
    python benchmarks/stars.py --merge part*.json -o stars.json
    python benchmarks/stars.py -n 500 --model default                 # the packaged network, 128 px

Objects are point sources or galaxies at the stated odds: galaxies from the model's own prior, point
sources with the same priors in magnitude and centre, each with its own PSF, gain or total noise,
and sky. Each is refined exactly and weighed against the point source. Shown: the reliability of the
probability with its binomial band, in bins and as a whole; how well it separates, by
signal-to-noise class and apart for galaxies with R_e of 0.4 to 1.5 px; how often blank sky is
preferred; and whether galaxies' p-values are uniform. Without --model, the draws that
are refined come from a stand-in for a network, a broad Gaussian about the optimum: evidences do not
depend on the proposal, and stamps may be smaller than a network's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from deeplegato_pp.data.conditions import DrawnPSF, draw_psf
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.sersic_simulator import SersicSimulator
from deeplegato_pp.inference.fit.modes import laplace_widths
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.evidence import compare
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.components import POINT_RADIUS
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import draw_noise
from deeplegato_pp.scene.parameters import RADIUS, SNR_CLASSES, signal_to_noise
from deeplegato_pp.scene.psf_grid import to_network_grid
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, StampBatch

BATCH = 10
DRAWS = 600
SEED = 2**42  # far from every stream of training and validation
SMALL = (0.4, 1.5)
BINS = 10
FEW_COUNTS = 20.0  # background electrons below which noise is not Gaussian, and is flagged


@dataclass
class Objects:
    """Stars and galaxies, observed."""

    stamps: StampBatch
    psf: DrawnPSF
    params: Tensor
    star: Tensor
    snr: Tensor

    def likelihood(self, box: Any) -> Likelihood:
        fine = self.psf.oversampled.tolist()
        psfs = [(self.psf.fine if f else self.psf.native)[i] for i, f in enumerate(fine)]
        return Likelihood(self.stamps, psfs, [2 if f else 1 for f in fine], [True] * len(fine), box)


def simulate(simulator: SersicSimulator, odds: float, seed: int) -> Objects:
    """Draws one batch; it depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    config, size = simulator.conditions, simulator.image_size
    draw = Draw(BATCH, generator, torch.float64)
    params = simulator.prior.sample(BATCH, generator)
    star = torch.rand(BATCH, generator=generator) < odds / (1.0 + odds)
    psf = draw_psf(draw, config)
    galaxies = simulator.columns(params)
    one = torch.ones_like(galaxies.radius)
    drawn = galaxies._replace(
        radius=torch.where(star, POINT_RADIUS, galaxies.radius),
        sersic_index=torch.where(star, one, galaxies.sersic_index),
        axis_ratio=torch.where(star, one, galaxies.axis_ratio),
    )
    model = psf.render(drawn, size, torch.arange(BATCH))
    gain = draw.log_uniform(config.gain)
    gain = torch.where(draw.chance(config.fixed_variance), torch.inf, gain)
    sky_sigma = draw.log_uniform(config.sky_sigma)
    read = draw.uniform(0.0, config.read_fraction)
    noisy = draw_noise(model, torch.ones_like(model), gain, read_fraction=read, generator=generator)
    image = noisy + (sky_sigma * draw.normal())[:, None, None]
    radius = torch.where(star, 0.0, galaxies.radius)
    snr = signal_to_noise(galaxies.flux, radius, drawn.axis_ratio, psf.fwhm)
    stamps = StampBatch(
        image,
        torch.ones_like(image),
        torch.zeros_like(image, dtype=torch.bool),
        to_network_grid(psf.fine, 2, True),
        gain,
        sky_sigma,
        torch.ones_like(gain),
    )
    return Objects(stamps, psf, params, star, snr)


def stand_in(likelihood: Likelihood, start: Tensor, generator: torch.Generator) -> tuple:
    """Returns draws, density and density function of a broad Gaussian about the optimum."""
    optimum, widths, _ = laplace_widths(likelihood, start)
    std = (3.0 * widths).clamp(0.05, 1.0)
    options = {"generator": generator, "dtype": torch.float64}
    mean = optimum + 0.5 * std * torch.randn(optimum.shape, **options)
    w = mean[:, None] + std[:, None] * torch.randn(len(mean), DRAWS, 7, **options)

    def log_prob(rows: Tensor, points: Tensor) -> Tensor:
        normal = torch.distributions.Normal(mean[rows][:, None], std[rows][:, None])
        return normal.log_prob(points).sum(-1)

    return w, log_prob(torch.arange(len(mean)), w), log_prob


def network(model: DeepLeGAToPP, objects: Objects) -> tuple:
    """Returns the network's draws, their density and the density itself."""
    s = objects.stamps
    seen = StampBatch(
        s.image.float(),
        s.sigma.float(),
        s.mask,
        s.psf.float(),
        s.gain.float(),
        s.sky_sigma.float(),
        s.noise_correlation.float(),
    )
    with torch.no_grad():
        context = model.encode(seen)
        w, log_q = model.sample(context, DRAWS, torch.arange(BATCH))

    def log_prob(rows: Tensor, points: Tensor) -> Tensor:
        with torch.no_grad():
            return model.log_prob(context[rows], points)

    return w.double(), log_q.double(), log_prob


def measure(objects: Objects, model: DeepLeGAToPP | None, box: Any, args: Any) -> list[dict]:
    """Refines and compares one batch; returns a record per object."""
    likelihood = objects.likelihood(box)
    generator = torch.Generator().manual_seed(1)
    if model is None:
        start = objects.params.clone()  # a point source is sought as a small galaxy
        small = 0.6 * REFERENCE_PIXEL_SCALE
        start[:, RADIUS] = torch.where(objects.star, small, start[:, RADIUS])
        draws = stand_in(likelihood, box.to_normal(start), generator)
    else:
        draws = network(model, objects)
    start_time = time.process_time()
    options = RefineOptions(fallback=False)
    refined = refine_batch(likelihood, *draws, ess=args.ess, options=options)
    middle = time.process_time()
    comparison = compare(refined, odds=args.odds)
    end = time.process_time()
    fwhm = objects.psf.fwhm.tolist()
    return [
        {
            "star": bool(objects.star[i]),
            "snr": float(objects.snr[i]),
            "radius": float(objects.params[i, RADIUS]) / REFERENCE_PIXEL_SCALE,
            "fwhm": fwhm[i],
            "gain": float(objects.stamps.gain[i].nan_to_num(posinf=0.0)),
            "probability": float(comparison.star_probability[i]),
            "detection": float(comparison.detection[i]),
            "log_evidence_error": g.log_evidence_error,
            "star_error": float(comparison.star_log_evidence_error[i].nan_to_num()),
            "high_khat": bool(g.khat > 0.7),
            "ess": g.ess,
            "chi2": g.chi2,
            "p_value": g.p_value,
            "refine_seconds": (middle - start_time) / BATCH,
            "compare_seconds": (end - middle) / BATCH,
        }
        for i, g in enumerate(refined.galaxies)
    ]


def run(args: argparse.Namespace) -> list[dict]:
    """Simulates and measures this shard's batches."""
    model = None if args.model is None else DeepLeGAToPP.from_pretrained(args.model)
    if model is None:
        simulator = SersicSimulator(image_size=args.size)
        simulator.conditions = simulator.conditions.clean()
    else:
        simulator = SersicSimulator.from_config(model.config.data, clean=True)
    shard, shards = (int(x) for x in args.shard.split("/"))
    records: list[dict] = []
    batches = range(shard, math.ceil(args.number / BATCH), shards)
    for k, batch in enumerate(batches):
        objects = simulate(simulator, args.odds, args.seed + batch)
        records += measure(objects, model, simulator.prior, args)
        if args.output:
            save(args.output, records, args.odds, final=k == len(batches) - 1)
        seconds = np.mean([[r["refine_seconds"], r["compare_seconds"]] for r in records], 0)
        print(
            f"{len(records)} objects, refined in {seconds[0]:.2f} s and compared in "
            f"{seconds[1]:.2f} s of CPU each",
            flush=True,
        )
    return records


# --- figures ------------------------------------------------------------------------------


def reliability(records: list[dict]) -> dict[str, Any]:
    """Returns the share of point sources by bin of probability, and tests of the whole."""
    p = np.array([r["probability"] for r in records])
    star = np.array([r["star"] for r in records])
    edges = np.linspace(0.0, 1.0, BINS + 1)
    rows = []
    for low, high in itertools.pairwise(edges):
        chosen = (p >= low) & ((p < high) | (high == 1.0))
        if not chosen.any():
            continue
        q = np.clip(p[chosen], 1e-12, 1 - 1e-12)
        rows.append(
            {
                "bin": [float(low), float(high)],
                "objects": int(chosen.sum()),
                "expected": float(q.mean()),
                "found": float(star[chosen].mean()),
                "sigma": float(np.sqrt((q * (1 - q)).sum()) / chosen.sum()),
            }
        )
    q = np.clip(p, 1e-12, 1 - 1e-12)
    z = float((star.sum() - q.sum()) / np.sqrt((q * (1 - q)).sum()))
    surprise = -np.where(star, np.log(q), np.log1p(-q))
    entropy = -(q * np.log(q) + (1 - q) * np.log1p(-q))
    spread = np.sqrt((q * (1 - q) * np.log(q / (1 - q)) ** 2).sum())
    inside = [abs(r["found"] - r["expected"]) <= 1.96 * r["sigma"] + 1e-9 for r in rows]
    return {
        "bins": rows,
        "share_of_bins_in_95_band": float(np.mean(inside)),
        "number_of_stars_z": z,
        "cross_entropy": float(surprise.mean()),
        "cross_entropy_z": float((surprise.sum() - entropy.sum()) / spread),
    }


def roc(records: list[dict]) -> dict[str, Any] | None:
    """Returns the separation of stars and galaxies: area and completeness at few false ones."""
    p = np.array([r["probability"] for r in records])
    star = np.array([r["star"] for r in records])
    if star.all() or not star.any():
        return None
    ranks = stats.rankdata(p)
    n1, n0 = int(star.sum()), int((~star).sum())
    area = (ranks[star].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)
    limits = {q: np.quantile(p[~star], 1 - q) for q in (0.01, 0.1)}
    return {
        "stars": n1,
        "galaxies": n0,
        "area": float(area),
        "stars_found_at_1_%_of_galaxies": float((p[star] > limits[0.01]).mean()),
        "stars_found_at_10_%_of_galaxies": float((p[star] > limits[0.1]).mean()),
    }


def p_values(records: list[dict]) -> list[float]:
    """Returns the p-values of galaxies (no galaxy fits a bright star) whose noise is Gaussian."""
    return [
        r["p_value"]
        for r in records
        if not r["star"] and (r["gain"] == 0 or r["gain"] ** 2 >= FEW_COUNTS)
    ]


def figures(records: list[dict]) -> dict[str, Any]:
    """Returns everything that is reported."""
    small = [r for r in records if r["star"] or SMALL[0] <= r["radius"] < SMALL[1]]
    classes = {}
    for low, high in itertools.pairwise(SNR_CLASSES):
        name = f"{low:g}-{high:g}"
        inside = [r for r in records if low <= r["snr"] < high]
        if inside:
            classes[name] = {
                "objects": len(inside),
                "undetected": float(np.mean([r["detection"] < math.log(100.0) for r in inside])),
                "high_khat": float(np.mean([r["high_khat"] for r in inside])),
                "roc": roc(inside),
                "roc_small_galaxies": roc([r for r in small if low <= r["snr"] < high]),
            }
    gaussian = p_values(records)
    uniform = stats.kstest(gaussian, "uniform")
    return {
        "objects": len(records),
        "stars": sum(r["star"] for r in records),
        "reliability": reliability(records),
        "reliability_good_khat": reliability([r for r in records if not r["high_khat"]]),
        "roc": roc(records),
        "roc_small_galaxies": roc(small),
        "by_snr": classes,
        "p_value": {
            "objects": len(gaussian),
            "ks_p": float(uniform.pvalue),
            "below_0.05": float(np.mean(np.array(gaussian) < 0.05)),
            "above_0.95": float(np.mean(np.array(gaussian) > 0.95)),
        },
        "median_log_evidence_error": float(np.median([r["log_evidence_error"] for r in records])),
        "refine_seconds": float(np.mean([r["refine_seconds"] for r in records])),
        "compare_seconds": float(np.mean([r["compare_seconds"] for r in records])),
    }


def save(path: Path, records: list[dict], odds: float, *, final: bool) -> None:
    """Writes records, and once all are there the figures and their picture."""
    content: dict[str, Any] = {"odds": odds, "records": records}
    if final:
        content["figures"] = figures(records)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    if final:
        picture(records, path.with_suffix(".png"))


def picture(records: list[dict], path: Path) -> None:
    """Draws reliability, ROC curves and the p-values' histogram."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 4.0), layout="constrained")
    rows = reliability(records)["bins"]
    x = np.array([r["expected"] for r in rows])
    band = 1.96 * np.array([r["sigma"] for r in rows])
    left.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    left.errorbar(x, x, band, fmt="none", ecolor="0.75", elinewidth=6, label="95 % binomial")
    left.plot(x, [r["found"] for r in rows], "o", color="#20639b")
    for r in rows:
        left.annotate(str(r["objects"]), (r["expected"], r["found"]), fontsize=6, va="bottom")
    left.set(xlabel="star_probability", ylabel="share of stars", ylim=(-0.05, 1.05))
    left.set_title(f"{len(records)} objects", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    chosen = {"all": records}
    small = [r for r in records if r["star"] or SMALL[0] <= r["radius"] < SMALL[1]]
    chosen[f"R_e {SMALL[0]}-{SMALL[1]} px"] = small
    for low, high in ((10.0, 30.0), (100.0, 500.0)):
        chosen[f"the same, S/N {low:g}-{high:g}"] = [r for r in small if low <= r["snr"] < high]
    for name, some in chosen.items():
        if roc(some) is None:
            continue
        p = np.array([r["probability"] for r in some])
        star = np.array([r["star"] for r in some])[np.argsort(-p, kind="stable")]
        middle.plot(np.cumsum(~star) / (~star).sum(), np.cumsum(star) / star.sum(), label=name)
    middle.set(xlabel="galaxies called stars", ylabel="stars called stars", xscale="symlog")
    middle.set_xscale("symlog", linthresh=0.01)
    middle.set_xlim(0, 1)
    middle.legend(frameon=False, fontsize=8)
    gaussian = p_values(records)
    right.hist(gaussian, np.linspace(0, 1, 21), color="#20639b")
    right.axhline(len(gaussian) / 20, color="0.4", linewidth=0.8)
    right.set(xlabel="p_value", ylabel="objects")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def show(found: dict[str, Any]) -> None:
    """Prints the figures."""
    print(f"\n{found['objects']} objects, {found['stars']} of them stars")
    print("star_probability   objects  expected  found   sigma")
    for r in found["reliability"]["bins"]:
        print(
            f"  {r['bin'][0]:.1f} to {r['bin'][1]:.1f} {r['objects']:>12} {r['expected']:>9.3f}"
            f" {r['found']:>7.3f} {r['sigma']:>7.3f}"
        )
    for name in ("share_of_bins_in_95_band", "number_of_stars_z", "cross_entropy_z"):
        print(f"{name}: {found['reliability'][name]:.3g}")
    print(f"ROC, all: {found['roc']}\nROC, small galaxies: {found['roc_small_galaxies']}")
    for name, row in found["by_snr"].items():
        print(f"S/N {name}: {row}")
    print(f"p-values of chi-square: {found['p_value']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=5000)
    parser.add_argument("--odds", type=float, default=1.0, help="prior odds, star to galaxy")
    parser.add_argument("--model", default=None, help="name or folder of a network")
    parser.add_argument("--size", type=int, default=64, help="stamp side without --model [px]")
    parser.add_argument("--ess", type=float, default=200.0, help="effective size of a galaxy")
    parser.add_argument("--shard", default="0/1", help="which part of how many, e.g. 0/8")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--merge", nargs="+", type=Path, help="parts to put together")
    parser.add_argument("-o", "--output", type=Path, help="JSON; a PNG is put beside it")
    args = parser.parse_args()
    if args.merge:
        parts = [json.loads(path.read_text(encoding="utf-8")) for path in args.merge]
        if len({part["odds"] for part in parts}) != 1:
            parser.error("the parts were made at different odds")
        records = [r for part in parts for r in part["records"]]
        if args.output:
            save(args.output, records, parts[0]["odds"], final=True)
    else:
        records = run(args)
    show(figures(records))


if __name__ == "__main__":
    main()
