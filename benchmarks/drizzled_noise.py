"""Noise of drizzled images in the likelihood: coverage, p-values, star odds, cost.

White exposures at random dithers are drizzled with the square kernel, galaxies of the prior (S/N 10
to 300) or stars added, and measured with the noise's correlation

* ``untold``: pixels taken for independent;
* ``scaled``: the noise map times the square root of c, so that sums over many pixels are right;
* ``number``: c alone told;
* ``told``: scale and pixfrac told;
* ``measured``: found on the stamp.

Refined by the stated noise (widths="noise", model_error=0, psf_error=0), so that coverage is that
of the likelihood.

    python benchmarks/drizzled_noise.py run OUT.jsonl --galaxies 96 --stars 60 --scale 0.6
    python benchmarks/drizzled_noise.py report OUT.jsonl
    python benchmarks/drizzled_noise.py linear      # the same of linearised fits, in a minute
    python benchmarks/drizzled_noise.py cost        # CPU time of refining, one thread
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.data.psf import moffat, radial_grid
from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.batches import Data, respond
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import signal_to_noise
from deeplegato_pp.scene.psf_grid import convolve_pixel
from deeplegato_pp.scene.render.point_source import render_points
from deeplegato_pp.scene.render.renderer import render_sersic

SIZE, FWHM, ZERO_POINT, PIXEL_SCALE = 128, 3.2, 30.5, 0.25
EXACT = {"method": "exact", "widths": "noise", "model_error": 0.0, "psf_error": 0.0}
VARIANTS = ("untold", "scaled", "number", "told", "measured")
LEVELS = (0.5, 0.68, 0.95)


def drizzled(
    scale: float, pixfrac: float, rng: np.random.Generator, exposures: int
) -> tuple[np.ndarray, ...]:
    """White exposures of unit noise, drizzled: the stack and its 1-sigma map, in units of it."""
    side = math.ceil(scale * SIZE) + 4
    out = scale * np.arange(SIZE) + 1.5
    total, weight, variance = np.zeros((3, SIZE, SIZE))
    for _ in range(exposures):
        x, y = (overlap(out, np.arange(side) + rng.uniform(), scale, pixfrac) for _ in "xy")
        total += y @ rng.normal(size=(side, side)) @ x.T
        weight += np.outer(y.sum(1), x.sum(1))
        variance += np.outer((y**2).sum(1), (x**2).sum(1))
    sigma = np.sqrt(variance) / weight
    unit = float(np.median(sigma))
    return total / weight / unit, sigma / unit


def overlap(out: np.ndarray, drops: np.ndarray, scale: float, pixfrac: float) -> np.ndarray:
    low = np.maximum.outer(out - scale / 2, drops - pixfrac / 2)
    high = np.minimum.outer(out + scale / 2, drops + pixfrac / 2)
    return np.maximum(high - low, 0.0)


def psf() -> torch.Tensor:
    one = torch.ones(1, dtype=torch.float64)
    fine = convolve_pixel(moffat(radial_grid(215, 5, one, 0 * one), FWHM * one, 3.5), 5)[0]
    kernel = fine[2::5, 2::5]
    return kernel / kernel.sum()


def galaxies(number: int, predictor: Predictor) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters in the prior and noiseless images, S/N 10 to 300."""
    params = predictor.prior.sample(40 * number, torch.Generator().manual_seed(1))
    flux = 10 ** (-0.4 * (params[:, 0] - ZERO_POINT))
    radius = params[:, 1] / PIXEL_SCALE
    snr = signal_to_noise(flux, radius, params[:, 3], torch.tensor(FWHM))
    kept = ((snr > 10) & (snr < 300) & (radius < 16)).nonzero()[:number, 0]
    p = params[kept]
    columns = [flux[kept], radius[kept], *p[:, 2:].unbind(1)]
    return p, render_sersic(*columns, psf(), SIZE)


def stars(number: int) -> torch.Tensor:
    """Noiseless images of stars, S/N 15 to 300."""
    rng = np.random.default_rng(2)
    snr = torch.from_numpy(np.exp(rng.uniform(np.log(15), np.log(300), number)))
    flux = snr / (0.5 / (math.sqrt(2 * math.pi) * FWHM / 2))
    x, y = torch.from_numpy(rng.uniform(-1, 1, (2, number)))
    return render_points(flux, x, y, psf(), SIZE)


def observe(image: np.ndarray, sigma: np.ndarray, variant: str, scale: float, pixfrac: float):
    told = NoiseCorrelation.drizzle(scale, pixfrac)
    how = {"number": told.total, "told": told, "measured": "measure"}.get(variant, 1.0)
    return Observation.from_array(
        image,
        psf().numpy(),
        sigma * (math.sqrt(told.total) if variant == "scaled" else 1.0),
        pixel_scale=PIXEL_SCALE,
        zero_point=ZERO_POINT,
        noise_correlation=how,
    )


def below_truth(posterior, truth: np.ndarray) -> list[float]:
    """Share of the posterior below the truth, parameter by parameter."""
    log_w = posterior.batch_log_weights[0]
    w = torch.softmax(log_w, 0).numpy() if log_w is not None else None
    off = posterior.batch_samples[0].numpy() - truth
    off[:, 4] = (off[:, 4] + 90.0) % 180.0 - 90.0
    return [float(np.average(column < 0, weights=w)) for column in off.T]


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    predictor = Predictor.from_pretrained()
    params, light = galaxies(args.galaxies, predictor)
    scenes = [("galaxy", image, p) for image, p in zip(light, params, strict=True)]
    scenes += [("star", image, None) for image in stars(args.stars)]
    if not args.stars:
        scenes = [s for s in scenes if s[0] == "galaxy"]
    variants = args.variants.split(",")
    with Path(args.out).open("a") as file:
        for i, (kind, image, truth) in enumerate(scenes):
            noise, sigma = drizzled(
                args.scale, args.pixfrac, np.random.default_rng(i), args.exposures
            )
            # The stack's mean is no sky offset: the galaxy's sky is known to 0.02 sigma.
            pixels = image.double().numpy() + noise
            for variant in variants:
                started = time.process_time()
                observation = observe(pixels, sigma, variant, args.scale, args.pixfrac)
                network = predictor.posterior(observation, num_samples=1000, seed=i)
                found = predictor.refine(network, ess=400, seed=i, **EXACT)
                m = found.measurements[0]
                row = {
                    "kind": kind,
                    "variant": variant,
                    "c": observation.noise_correlation,
                    "seconds": time.process_time() - started,
                    "method": m.method,
                    "p_value": m.p_value,
                    "chi2": m.chi2,
                    "flags": int(m.flags),
                    "log_odds": m.hypotheses and m.hypotheses.star_log_evidence - m.log_evidence,
                    "below": None if truth is None else below_truth(found, truth.numpy()),
                    "std": found.batch_samples[0].std(0).tolist(),
                }
                file.write(json.dumps(row) + "\n")
                file.flush()


def report(args: argparse.Namespace) -> None:
    rows = [json.loads(line) for line in Path(args.out).read_text().splitlines()]
    print("variant   galaxies  coverage 50  68   95    p-value: KS p, mean  chi2   s/galaxy")
    for variant in VARIANTS:
        mine = [r for r in rows if r["variant"] == variant and r["kind"] == "galaxy"]
        if not mine:
            continue
        level = np.abs(2 * np.array([r["below"] for r in mine]) - 1)
        covered = "  ".join(f"{float((level < x).mean()):.3f}" for x in LEVELS)
        p = np.array([r["p_value"] for r in mine])
        p = p[np.isfinite(p)]
        print(
            f"{variant:10} {len(mine):5}   {covered}   {stats.kstest(p, 'uniform').pvalue:.1e} "
            f"{p.mean():.2f} {np.mean([r['chi2'] for r in mine]):.4f} "
            f"{np.median([r['seconds'] for r in mine]):.2f}"
        )
    print("\nstar odds (ln, > 0 for a star)")
    for variant in VARIANTS:
        for kind in ("star", "galaxy"):
            odds = [r["log_odds"] for r in rows if (r["variant"], r["kind"]) == (variant, kind)]
            odds = np.array([x for x in odds if x is not None and np.isfinite(x)])
            if not len(odds):
                continue
            toward = odds if kind == "star" else -odds
            confidence = 1 / (1 + np.exp(-np.abs(toward).clip(max=700)))
            low, middle = np.quantile(toward, (0.05, 0.5))
            print(
                f"{variant:10} {kind:7} {len(odds):4}: wrong {int((toward < 0).sum())} (expected "
                f"{float((1 - confidence).sum()):.1f}), ln odds for the truth: "
                f"5 % {low:.1f}, median {middle:.1f}"
            )


def linear(args: argparse.Namespace) -> None:
    """Fits linearised at the truth: pulls of seven parameters, chi-square, widths."""
    torch.set_num_threads(1)
    predictor = Predictor.from_pretrained()
    params, light = galaxies(args.galaxies, predictor)
    pulls, p_values, chi2, widths = ({v: [] for v in VARIANTS} for _ in range(4))
    for i, (image, truth) in enumerate(zip(light, params, strict=True)):
        noise, sigma = drizzled(args.scale, args.pixfrac, np.random.default_rng(i), args.exposures)
        slopes = None
        for variant in VARIANTS:
            told = observe(image.double().numpy() + noise, sigma, variant, args.scale, args.pixfrac)
            prepared = prepare(told, SIZE)
            likelihood = Likelihood.of([prepared], predictor.prior).replace(psf_error=0.0)
            if slopes is None:  # in background sigmas, which are image units but for `scaled`
                slopes = likelihood.jacobian(0, likelihood.box.to_normal(truth[None].double())[0])
            image_at_truth, jacobian = (x[None] / prepared.scale for x in slopes)
            row = torch.zeros(1, dtype=torch.long)
            data = Data.of(likelihood, row)
            found = respond(data, image_at_truth, jacobian)
            covariance = torch.linalg.inv(found.information)[0]
            width = covariance.diagonal().sqrt()
            pulls[variant].append((covariance @ found.gradient[0] / width).numpy())
            widths[variant].append(width.numpy())
            at_truth = data.residual(image_at_truth)
            p_values[variant].append(float(at_truth.p_value))
            chi2[variant].append(float(at_truth.chi2 / at_truth.count))
    print("variant   galaxies  coverage 50  68   95    p-value: KS p, mean  chi2   width/told")
    for v in VARIANTS:
        off = np.abs(np.array(pulls[v]))
        covered = "  ".join(
            f"{float((off < stats.norm.isf((1 - x) / 2)).mean()):.3f}" for x in LEVELS
        )
        p = np.array(p_values[v])
        ratio = np.median(np.array(widths[v]) / np.array(widths["told"]))
        print(
            f"{v:10} {len(off):5}   {covered}   {stats.kstest(p, 'uniform').pvalue:.1e} "
            f"{p.mean():.2f} {np.mean(chi2[v]):.4f}  {ratio:.3f}"
        )


def cost(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    predictor = Predictor.from_pretrained()
    _, light = galaxies(8, predictor)
    noise, sigma = drizzled(args.scale, args.pixfrac, np.random.default_rng(0), args.exposures)
    for options in (EXACT, {"method": "exact"}):
        for variant in ("untold", "told", "untold", "told"):
            images = light.double().numpy() + noise
            batch = [observe(x, sigma, variant, args.scale, args.pixfrac) for x in images]
            network = predictor.posterior(batch, num_samples=1000, seed=0)
            started = time.process_time()
            predictor.refine(network, ess=400, seed=0, **options)
            spent = (time.process_time() - started) / len(batch)
            print(f"{'exact' if options is EXACT else 'default'} {variant}: {spent:.2f} s/galaxy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report", "linear", "cost"))
    parser.add_argument("out", nargs="?", default="drizzled_noise.jsonl")
    parser.add_argument("--galaxies", type=int, default=96)
    parser.add_argument("--stars", type=int, default=60)
    parser.add_argument("--scale", type=float, default=0.6)
    parser.add_argument("--pixfrac", type=float, default=0.8)
    parser.add_argument("--exposures", type=int, default=8)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    args = parser.parse_args()
    {"run": run, "report": report, "linear": linear, "cost": cost}[args.what](args)


if __name__ == "__main__":
    main()
