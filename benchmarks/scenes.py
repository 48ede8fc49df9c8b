"""Bulge and disc, host and point, single profiles drawn by GalSim, measured with --scene auto.

    python benchmarks/scenes.py [-n 30]

Parameters are drawn from the scenes' own priors at S/N 20 to 2,000, images by GalSim at 64 px. By
true scene: which scene is chosen, by plain and by tempered odds; coverage of the parts' parameters;
the error of the share of the light; effective size, k-hat and time. Then the reliability of the
plain odds among these scenes: how often a scene is the true one where its probability says so, by
tenths of the probability. Galaxies are drawn from a narrower box than the evidence's, by a factor
of some ten a profile, which the odds here do not know.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter

import galsim
import numpy as np
import torch

from deeplegato_pp import Observation, Posterior, Predictor
from deeplegato_pp.scene import PriorBox
from deeplegato_pp.scene.components import flux_of
from deeplegato_pp.scene.galaxy_scene import GalaxyScene
from deeplegato_pp.scene.parameters import signal_to_noise

SIZE, SCALE, ZERO_POINT, FWHM = 64, 0.25, 30.5, 0.7
SCENES = ("sersic", "sersic+point", "bulge+disc")
SHARE = {"sersic+point": "point_to_total", "bulge+disc": "bulge_to_total"}


def draw(name: str, generator: torch.Generator) -> tuple[dict[str, torch.Tensor], float]:
    """Parameters of the parts, and the share of the first, of a galaxy that fits the stamp."""
    box = PriorBox.from_mapping({"effective_radius": (0.3, 2.0), "sersic_index": (0.5, 6.0)})
    scene = GalaxyScene(name, box)
    while True:
        u = torch.randn(1, scene.dim, generator=generator, dtype=torch.float64)
        parts = scene.parts(u)
        total = sum(flux_of(p[:, 0]) for p in parts.values())
        largest = max((p for p in parts.values() if p.shape[1] == 7), key=lambda p: float(p[0, 1]))
        width = torch.tensor(FWHM / SCALE)
        snr = float(signal_to_noise(total, largest[:, 1] / SCALE, largest[:, 3], width))
        if 20 < snr < 2000 and float(largest[0, 5:].abs().max()) < 4.5:
            share = scene.share(u)
            return parts, math.nan if share is None else float(share[1])


def observe(parts: dict[str, torch.Tensor], seed: int) -> Observation:
    """An image of the parts by GalSim, with noise of one unit."""
    psf = galsim.Moffat(beta=3.0, fwhm=FWHM)
    image = galsim.ImageD(SIZE, SIZE, scale=SCALE)
    for values in parts.values():
        flux, (x, y) = float(flux_of(values[0, 0])), (SCALE * values[0, -2:]).tolist()
        source = psf
        if values.shape[1] == 7:
            _, radius, n, q, angle, *_ = values[0].tolist()
            profile = galsim.Sersic(n, half_light_radius=radius * math.sqrt(q))
            shape = galsim.Shear(q=q, beta=(angle + 90.0) * galsim.degrees)
            source = galsim.Convolve(profile.shear(shape), psf)
        image += source.withFlux(flux).shift(x, y).drawImage(image.copy()).array
    noise = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
    stamp = psf.drawImage(nx=41, ny=41, scale=SCALE, dtype=float).array
    options = {"psf": stamp / stamp.sum(), "noise": 1.0}
    return Observation.from_array(
        image.array + noise, pixel_scale=SCALE, zero_point=ZERO_POINT, **options
    )


def report(name: str, refined: Posterior, truth: list[tuple[dict, float]]) -> None:
    """Prints what a set of galaxies of one scene came out as."""
    records = [m.scene for m in refined.measurements]
    plain = Counter(max(r.log_evidence, key=r.log_evidence.__getitem__) for r in records)
    print(f"\n{name}: tempered {dict(Counter(r.best for r in records))}, plain {dict(plain)}")
    right = [i for i, r in enumerate(records) if r.best == name and name in SHARE]
    if not right:
        return
    levels: dict[str, list[tuple[float, float]]] = {}
    for i in right:
        record, (parts, share) = records[i], truth[i]
        known = {SHARE[name]: share}
        for part, values in parts.items():
            known |= {f"{part}_magnitude": float(values[0, 0])}
            if values.shape[1] == 7:
                known |= {f"{part}_effective_radius": float(values[0, 1])}
        for column, value in known.items():
            pair = [
                float((record.weights * (draws[column] < value)).sum())
                for draws in (record.draws, record.noise_draws)
            ]
            levels.setdefault(column, []).append((pair[0], pair[1]))
    for column, found in levels.items():
        ranks = 2.0 * np.abs(np.array(found) - 0.5)
        text = "  ".join(
            f"{p}: {c[0]:.2f} / {c[1]:.2f}"
            for p in (0.5, 0.68, 0.95)
            for c in [(ranks < p).mean(0)]
        )
        print(f"  {column:<24} covered (honest / noise) {text}  ({len(found)} galaxies)")
    error = [
        abs(np.average(records[i].draws[SHARE[name]], weights=records[i].weights) - truth[i][1])
        for i in right
    ]
    print(f"  error of {SHARE[name]}: 68 % within {np.quantile(error, 0.68):.3f}")
    print(
        f"  k-hat above 0.7: {sum(records[i].khat > 0.7 for i in right)} of {len(right)}, "
        f"median ess {np.median([records[i].ess for i in right]):.0f}"
    )


def probabilities(refined: Posterior) -> np.ndarray:
    """Probabilities of :data:`SCENES` by their evidences, equal before, with shape (B, 3)."""
    log_z = np.array(
        [[m.scene.log_evidence.get(s, -math.inf) for s in SCENES] for m in refined.measurements]
    )
    weights = np.exp(log_z - log_z.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def show_reliability(given: np.ndarray, right: np.ndarray) -> None:
    """Prints how often what has a given probability is true.

    Args:
        given: Probabilities, with shape (K,).
        right: Whether each is of the true scene, with shape (K,).
    """
    print("\nprobability of a scene: number, mean probability, share that is true (one sigma)")
    for k in range(10):
        inside = (given >= k / 10) & ((given < (k + 1) / 10) | (k == 9))
        if not inside.any():
            continue
        number, share = int(inside.sum()), float(right[inside].mean())
        error = math.sqrt(max(share * (1.0 - share), 1.0 / number) / number)
        mean = float(given[inside].mean())
        print(
            f"  {k / 10:.1f}-{(k + 1) / 10:.1f} {number:5d} {mean:.3f} {share:.3f} +- {error:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=30, help="galaxies of each scene")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained()
    generator = torch.Generator().manual_seed(11)
    given, right = [], []
    for name in SCENES:
        truth = [draw(name, generator) for _ in range(options.number)]
        observed = [observe(parts, seed) for seed, (parts, _) in enumerate(truth)]
        network = predictor.posterior(observed, widths="noise")
        started = time.perf_counter()
        refined = predictor.refine(network, scene="auto", star_odds=None, model_error=0.0)
        report(name, refined, truth)
        print(f"  {len(observed) / (time.perf_counter() - started):.2f} galaxies/s")
        given.append(probabilities(refined))
        right.append(np.tile(np.array(SCENES) == name, (len(observed), 1)))
    show_reliability(np.concatenate(given).ravel(), np.concatenate(right).ravel())


if __name__ == "__main__":
    main()
