"""Galaxies drawn by GalSim in four bands: fitted together, alone, and the singles' weighted mean.

    python benchmarks/bands.py [-n 60] [--structure shared]

Depth and PSF differ from band to band, the stamps are shifted by parts of a pixel, and the last
band has coarser pixels; their WCS say so. All bands have one structure. By quantity: the median
error bar, the error (half the width of the central 68 % of errors), and the coverage of 50, 68 and
95 % intervals; then effective sizes and CPU seconds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from itertools import pairwise

import galsim
import numpy as np
from astropy.wcs import WCS

from deeplegato_pp import MultiBandObservation, Observation, Predictor

SIZE, ZERO_POINT = 64, 27.0
BANDS = {
    # pixel scale [arcsec], PSF FWHM [arcsec], noise, magnitude less that in the second band
    "g": (0.25, 0.95, 1.0, 0.7),
    "r": (0.25, 0.70, 0.7, 0.0),
    "i": (0.25, 0.60, 1.0, -0.3),
    "z": (0.40, 0.90, 3.0, -0.5),
}
WAVELENGTHS = (0.48, 0.62, 0.76, 0.90)
STRUCTURE = ("ln_radius", "ln_index", "e1", "e2")


def draw(random: np.random.Generator) -> dict[str, float]:
    """The parameters of a galaxy; lengths in arcsec, angles in degrees."""
    truth = {
        "ln_radius": random.uniform(math.log(0.4), math.log(2.0)),
        "ln_index": random.uniform(math.log(0.6), math.log(4.5)),
        "q": random.uniform(0.3, 0.95),
        "angle": random.uniform(0.0, 180.0),
        "x": random.uniform(-0.4, 0.4),
        "y": random.uniform(-0.4, 0.4),
    }
    middle = random.uniform(18.0, 22.0)
    for band, (*_, colour) in BANDS.items():
        truth[f"magnitude_{band}"] = middle + colour * random.uniform(0.3, 1.7)
    size, phase = (1 - truth["q"]) / (1 + truth["q"]), math.radians(2 * (truth["angle"] + 90))
    truth |= {"e1": size * math.cos(phase), "e2": size * math.sin(phase)}
    names = list(BANDS)
    for first, second in pairwise(names):
        colour = truth[f"magnitude_{first}"] - truth[f"magnitude_{second}"]
        truth[f"{first}_minus_{second}"] = colour
    return truth


def observe(truth: dict[str, float], band: str, random: np.random.Generator) -> Observation:
    """The galaxy's stamp in one band, with a WCS."""
    scale, fwhm, sigma, _ = BANDS[band]
    shift = random.uniform(-0.5, 0.5, 2)
    psf = galsim.Moffat(beta=3.5, fwhm=fwhm)
    radius = math.exp(truth["ln_radius"]) * math.sqrt(truth["q"])
    profile = galsim.Sersic(math.exp(truth["ln_index"]), half_light_radius=radius)
    profile = profile.shear(q=truth["q"], beta=(truth["angle"] + 90.0) * galsim.degrees)
    flux = 10 ** (-0.4 * (truth[f"magnitude_{band}"] - ZERO_POINT))
    place = (truth["x"] + scale * shift[0], truth["y"] + scale * shift[1])
    source = galsim.Convolve(profile, psf).withFlux(flux).shift(*place)
    image = source.drawImage(nx=SIZE, ny=SIZE, scale=scale, dtype=float).array
    stamp = psf.drawImage(nx=41, ny=41, scale=scale, dtype=float).array
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = (SIZE + 1) / 2 + shift
    wcs.wcs.cd = np.diag([-scale, scale]) / 3600.0
    return Observation.from_array(
        image + sigma * random.normal(size=image.shape),
        stamp / stamp.sum(),
        sigma,
        pixel_scale=scale,
        zero_point=ZERO_POINT,
        wcs=wcs,
        name=band,
    )


def structure_of(row: dict) -> dict[str, tuple[float, float]]:
    """Value and error of the structure in a row."""
    found = {
        "ln_radius": ("effective_radius", math.log),
        "ln_index": ("sersic_index", math.log),
    }
    values = {
        name: (log(row[key]), row[f"{key}_std"] / row[key]) for name, (key, log) in found.items()
    }
    return values | {e: (row[e], row[f"{e}_std"]) for e in ("e1", "e2")}


class Scores:
    """Errors and error bars by quantity."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, found: dict[str, tuple[float, float]], truth: dict[str, float]) -> None:
        """Notes what was found of one galaxy."""
        for name, (value, error) in found.items():
            self.rows[name].append((value - truth[name], error))

    def report(self, title: str) -> None:
        """Prints a line per quantity."""
        print(f"\n{title}\n  quantity       error bar   error   50/68/95 %")
        for name, pairs in self.rows.items():
            wrong, bar = np.array(pairs).T
            spread = np.subtract(*np.quantile(wrong, (0.84, 0.16))) / 2
            within = [np.mean(np.abs(wrong) < k * bar) for k in (0.6745, 1.0, 1.96)]
            covered = " ".join(f"{c:.2f}" for c in within)
            print(f"  {name:14} {np.median(bar):9.4f} {spread:8.4f}   {covered}")


def weighted_mean(singles: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """The inverse-variance mean of what single bands say."""
    found = {}
    for name in STRUCTURE:
        values, errors = np.array([s[name] for s in singles]).T
        weights = errors**-2.0
        found[name] = (float(weights @ values / weights.sum()), float(weights.sum() ** -0.5))
    return found


class Comparison:
    """Galaxies measured together and alone."""

    def __init__(self) -> None:
        self.together, self.mean = Scores(), Scores()
        self.alone = {band: Scores() for band in BANDS}
        self.seconds: list[float] = []
        self.sizes: list[float] = []
        self.hats: list[float] = []

    def measure(self, predictor: Predictor, truth: dict, galaxy, structure: str, seed: int) -> None:
        """Measures one galaxy in both ways, and notes what was found."""
        start = time.process_time()
        joint = predictor.fit_bands(galaxy, structure, seed=seed)
        seconds = time.process_time() - start
        network = predictor.posterior(list(galaxy.observations.values()), widths="noise")
        rows = predictor.refine(network, star_odds=None, seed=seed).rows()
        (row,) = joint.rows()
        self.seconds.append(seconds)
        self.sizes.append(joint.ess)
        self.hats.append(joint.khat)
        names = [n for n in truth if n.startswith("magnitude_") or "_minus_" in n]
        found = {name: (row[name], row[f"{name}_std"]) for name in names}
        self.together.add(structure_of(row) | found, truth)
        singles = [structure_of(r) for r in rows]
        for band, single, r in zip(BANDS, singles, rows, strict=True):
            magnitude = (r["magnitude"], r["magnitude_std"])
            self.alone[band].add(single | {f"magnitude_{band}": magnitude}, truth)
        apart = weighted_mean(singles)
        for k, (first, second) in enumerate(pairwise(BANDS)):
            a, b = rows[k], rows[k + 1]
            error = math.hypot(a["magnitude_std"], b["magnitude_std"])
            apart[f"{first}_minus_{second}"] = (a["magnitude"] - b["magnitude"], error)
        self.mean.add(apart, truth)

    def report(self) -> None:
        """Prints all that was found."""
        self.together.report("together")
        self.mean.report("inverse-variance mean of single bands")
        for band, scores in self.alone.items():
            scores.report(f"alone: {band}")
        middle, largest = np.median(self.seconds), max(self.seconds)
        print(f"\nCPU seconds per galaxy: median {middle:.2f}, largest {largest:.2f}")
        print(
            f"effective size: smallest {min(self.sizes):.0f}; k-hat: largest {max(self.hats):.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=60, help="galaxies")
    parser.add_argument("--structure", default="shared")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    predictor = Predictor.from_pretrained(device="cpu")
    random = np.random.default_rng(chosen.seed)
    found = Comparison()
    try:
        for number in range(chosen.n):
            truth = draw(random)
            galaxy = MultiBandObservation(
                {band: observe(truth, band, random) for band in BANDS}, WAVELENGTHS
            )
            found.measure(predictor, truth, galaxy, chosen.structure, number)
            print(f"{number + 1} of {chosen.n}: {found.seconds[-1]:.1f} s", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted after {len(found.seconds)} galaxies")
    found.report()


if __name__ == "__main__":
    main()
