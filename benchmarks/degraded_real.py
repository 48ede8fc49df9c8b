"""What the point estimate of a real galaxy does when the image gets worse.

    python benchmarks/degraded_real.py FOLDER [--number 15] [--method laplace|exact]
        [--sources profound_kids_viking ...] [--seed 0]

FOLDER holds ``cases.ecsv`` and the files that it names. The brightest resolved galaxies of each
source in turn, one image of a galaxy, are degraded: noise added until S/N is a third and a tenth,
the image convolved until the PSF is 1.5 times as wide, 2 x 2 pixels summed, the stamp cut to half
of its side. Printed are, by degradation and parameter, the pulls (68 % of |difference| over the
combined error) with honest widths and with the stated noise's, the median of the differences
(degraded less undegraded) and 68 % of their absolute values. Both images share the galaxy's
structure and, in part, their noise: where error bars hold, honest pulls are about 1 or below.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from real_pulls import NAMES, Shape, shape_of, within
from scipy.signal import fftconvolve

from deeplegato_pp import Observation, Posterior, Predictor
from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.effective_psf import psf_fwhm

WIDER = 1.5
"""By how much the PSF gets wider."""

BRIGHT = 60.0
"""Least S/N: a tenth of it is still a galaxy."""

Degradation = Callable[[Observation, np.random.Generator], Observation]


def noisier(factor: float) -> Degradation:
    """Returns what divides S/N by a number, with white noise of the background's size."""

    def degraded(o: Observation, rng: np.random.Generator) -> Observation:
        added = float(np.median(o.noise[~o.mask])) * math.sqrt(factor**2 - 1.0)
        image = o.image + added * rng.normal(size=o.image.shape)
        return replace(o, image=image, noise=np.hypot(o.noise, added))

    return degraded


def blurred(o: Observation, rng: np.random.Generator) -> Observation:
    """Convolves image and PSF with a Gaussian, and adds white noise until each pixel has its own.

    What is left of the old noise is smooth: the correlation that it has is told.
    """
    sigma = psf_fwhm(o.psf, o.psf_oversampling) * math.sqrt(WIDER**2 - 1.0) / 2.3548
    kernel = gaussian(sigma)
    psf = fftconvolve(o.psf, gaussian(sigma * o.psf_oversampling))
    image = fftconvolve(np.where(o.mask, 0.0, o.image), kernel, mode="same")
    share = fftconvolve(np.where(o.mask, 0.0, 1.0), kernel, mode="same")
    left = float((kernel**2).sum())
    image += o.noise * math.sqrt(1.0 - left) * rng.normal(size=image.shape)
    return replace(
        o,
        image=image,
        psf=psf / psf.sum(),
        mask=o.mask | (share < 0.98),  # beside masked pixels and edges light is missing
        noise_correlation=o.noise_correlation + 1.0 - left,
    )


def gaussian(sigma: float) -> np.ndarray:
    """Returns a normalised Gaussian out to four sigma, odd-sided."""
    half = max(1, math.ceil(4.0 * sigma))
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    kernel = np.outer(line, line)
    return np.asarray(kernel / kernel.sum())


def binned(o: Observation, _: np.random.Generator) -> Observation:
    """Sums 2 x 2 pixels; the PSF stays, sampled twice a pixel, and the new pixel is put in."""
    height, width = (side // 2 * 2 for side in o.image.shape)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.asarray(
            values[:height, :width].reshape(height // 2, 2, width // 2, 2).sum((1, 3))
        )

    return replace(
        o,
        image=sums(np.where(o.mask, 0.0, o.image)),
        noise=np.sqrt(sums(o.noise**2)),
        mask=sums(o.mask.astype(int)) > 0,
        sky_sigma=4.0 * o.sky_sigma,
        pixel_scale=2.0 * o.pixel_scale,
        psf_oversampling=2,
        psf_includes_pixel=False,
        wcs=None,
    )


def cut(o: Observation, _: np.random.Generator) -> Observation:
    """Keeps the middle half of rows and columns."""
    rows, columns = (slice(side // 4, side - side // 4) for side in o.image.shape)
    window = (rows, columns)
    return replace(o, image=o.image[window], noise=o.noise[window], mask=o.mask[window], wcs=None)


DEGRADATIONS: dict[str, Degradation] = {
    "S/N / 3": noisier(3.0),
    "S/N / 10": noisier(10.0),
    f"PSF x {WIDER:g}": blurred,
    "binned 2 x 2": binned,
    "half the stamp": cut,
}


def choose(
    predictor: Predictor, folder: Path, sources: list[str] | None, number: int
) -> list[Observation]:
    """Returns the brightest resolved galaxies, source by source in turn."""
    ranked: dict[str, list[tuple[float, Observation]]] = {}
    seen = set()
    for case in Table.read(folder / "cases.ecsv"):
        wanted = sources is None or case["source"] in sources
        clean = case["tier"] in "AB" and "degenerate" not in str(case["flags"])
        if not wanted or not clean or case["id"] in seen:
            continue
        try:
            observation = Observation.from_fits(folder / case["file"])
        except InputError:
            continue
        if observation.psf_oversampling != 1 or min(observation.image.shape) < 64:
            continue
        posterior = predictor.posterior(observation, 100, widths="noise")
        row = posterior.summary()[0]
        fwhm = psf_fwhm(observation.psf) * observation.pixel_scale
        if float(row["snr"]) > BRIGHT and float(row["effective_radius"].value) > 1.2 * fwhm:
            seen.add(case["id"])
            ranked.setdefault(str(case["source"]), []).append((float(row["snr"]), observation))
    for found in ranked.values():
        found.sort(key=lambda entry: -entry[0])
    chosen: list[Observation] = []
    while len(chosen) < number and any(ranked.values()):
        for found in ranked.values():
            if found and len(chosen) < number:
                chosen.append(found.pop(0)[1])
    return chosen


def shapes(
    predictor: Predictor, observations: list[Observation], method: str
) -> tuple[list[Shape], list[Shape], Posterior]:
    """Returns shapes with honest widths, the same with the noise's, and the posterior."""
    posterior = predictor.refine(predictor.posterior(observations, 1000), method)
    under_noise = posterior.under_noise()
    return [shape_of(p) for p in posterior], [shape_of(p) for p in under_noise], posterior


def pulls(before: list[Shape], after: list[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """Returns differences (after less before) and pulls, with shape (G, 4)."""
    difference = np.array([b.mean[:4] - a.mean[:4] for a, b in zip(before, after, strict=True)])
    error = [np.hypot(a.std[:4], b.std[:4]) for a, b in zip(before, after, strict=True)]
    return difference, difference / np.array(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=15)
    parser.add_argument("--method", choices=("exact", "laplace"), default="laplace")
    parser.add_argument("--sources", nargs="+", default=None, help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    predictor = Predictor.from_pretrained()
    observations = choose(predictor, options.folder, options.sources, options.number)
    honest, noise, posterior = shapes(predictor, observations, options.method)
    for observation, inflation in zip(observations, posterior.structure, strict=True):
        print(f"{observation.name:40s} structure {inflation:.1f}")
    every = []
    print(f"{len(observations)} galaxies; {', '.join(NAMES)}")
    for name, degrade in DEGRADATIONS.items():
        started = time.perf_counter()
        rng = np.random.default_rng(options.seed)
        worse = [degrade(o, rng) for o in observations]
        honest_worse, noise_worse, _ = shapes(predictor, worse, options.method)
        difference, pull = pulls(honest, honest_worse)
        _, pull_noise = pulls(noise, noise_worse)
        every.append(pull)
        columns = [
            " ".join(f"{within(column):5.2f}" for column in pull.T),
            " ".join(f"{within(column):5.2f}" for column in pull_noise.T),
            " ".join(f"{value:6.3f}" for value in np.median(difference, 0)),
            " ".join(f"{within(column):5.3f}" for column in difference.T),
        ]
        print(
            f"{name:15s} honest {columns[0]} | noise {columns[1]} | median {columns[2]} | "
            f"68 % {columns[3]} | {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    total = np.concatenate(every)
    print(
        f"together        honest {' '.join(f'{within(column):5.2f}' for column in total.T)}; "
        f"beyond 3: {(np.abs(total) > 3.0).mean():.3f} of {total.size}"
    )


if __name__ == "__main__":
    main()
