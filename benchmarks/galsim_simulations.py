"""Coverage on galaxies that GalSim drew, through PSFs that training never drew.

    python benchmarks/galsim_simulations.py -n 300 --refine 30 [--stars FOLDER] [-o table.json]

Galaxies come from the model's prior (n cut to GalSim's 0.3-6.2 and rounded to one of 60 values),
noise from GalSim too. The PSFs are those of 50 telescopes with aberrations (0.12 waves rms, Noll's
4 to 15, of which training has those to 11), struts and jitter (``galsim.OpticalPSF``), cut at 43 px
as if they ended there; with --stars, the PSFIMAGE extensions of the FITS files in FOLDER and below.
Prints, by signal-to-noise class, how often central intervals hold the truth, for the network and
for what was refined, and how many of those that miss by more than three standard deviations the
verdict does not call good. GalSim's transforms of the largest galaxies take up to 14 GB, which the
more galaxies are drawn the more often are met.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import galsim
import numpy as np
import torch
from astropy.io import fits

from deeplegato_pp import Observation, Posterior, Predictor
from deeplegato_pp.calibration.assess import GROSS
from deeplegato_pp.calibration.measure import largest_miss
from deeplegato_pp.diagnostics import binomial_error, central_coverage, truth_ranks
from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.scene.parameters import NAMES, SNR_CLASSES, signal_to_noise
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE

SIZE = 128
TELESCOPES = 50
ZERO_POINT = 30.5
INDICES = np.exp(np.linspace(math.log(0.301), math.log(6.19), 60))
PARAMS = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-4, maximum_fft_size=16384)
SHORT = ("mag", "R_e", "n", "q", "PA", "x", "y")


@dataclass(frozen=True)
class GivenPSF:
    """A PSF as an array, pixel included, and as GalSim draws with it.

    Attributes:
        array: With shape (P, P), P odd, sum 1.
        oversampling: Its samples per pixel.
    """

    array: np.ndarray
    oversampling: int

    @cached_property
    def profile(self) -> galsim.GSObject:
        """The band-limited function through the samples."""
        image = galsim.Image(self.array)
        return galsim.InterpolatedImage(
            image, scale=1.0 / self.oversampling, x_interpolant="lanczos7"
        )

    @property
    def fwhm(self) -> float:
        """See `psf_fwhm`. [px]"""
        return psf_fwhm(self.array, self.oversampling)


def telescope(rng: np.random.Generator) -> GivenPSF:
    """An aberrated, obscured, slightly jittering telescope, 1.6 to 5 px wide."""
    width = math.exp(rng.uniform(math.log(1.6), math.log(5.0)))
    waves = [*(0.04 * rng.normal(size=8)), *(0.02 * rng.normal(size=4))]
    optics = galsim.OpticalPSF(
        lam_over_diam=width / 1.05,
        obscuration=rng.uniform(0.05, 0.4),
        nstruts=int(rng.choice([0, 3, 4])),
        strut_thick=0.02,
        strut_angle=rng.uniform(0.0, 180.0) * galsim.degrees,
        oversampling=2.0,
        aberrations=[0.0] * 4 + waves,
    )
    whole = galsim.Convolve(optics, galsim.Gaussian(fwhm=0.3 * width), galsim.Pixel(1.0))
    array = whole.drawImage(nx=87, ny=87, scale=0.5, method="no_pixel", dtype=float).array
    return GivenPSF(array / array.sum(), 2)


def star(path: Path) -> GivenPSF:
    """The PSF of a real file."""
    array = np.asarray(fits.getdata(path, "PSFIMAGE"), dtype=float)
    return GivenPSF(array / array.sum(), 1)


def observe(truth: np.ndarray, psf: GivenPSF, seed: int) -> tuple[Observation, float]:
    """Draws one galaxy with its noise; returns it with its signal-to-noise ratio."""
    flux = 10.0 ** (-0.4 * (truth[0] - ZERO_POINT))
    radius = truth[1] / REFERENCE_PIXEL_SCALE
    profile = galsim.Sersic(truth[2], half_light_radius=radius * math.sqrt(truth[3]), flux=flux)
    profile = profile.shear(q=truth[3], beta=(truth[4] + 90.0) * galsim.degrees)
    scene = galsim.Convolve(profile.shift(truth[5], truth[6]), psf.profile, gsparams=PARAMS)
    image = scene.drawImage(nx=SIZE, ny=SIZE, scale=1.0, method="no_pixel", dtype=float)
    rng = np.random.default_rng(seed)
    gain = 10.0 ** rng.uniform(0.0, 4.0)
    image *= gain  # electrons
    image.array[image.array < 0.0] = 0.0  # ringing of the interpolated PSFs far out
    image.addNoise(galsim.PoissonNoise(galsim.BaseDeviate(seed + 1), sky_level=gain**2))
    image /= gain
    sky_sigma = 0.01
    observation = Observation.from_array(
        image.array + sky_sigma * rng.normal(),
        psf=psf.array,
        psf_oversampling=psf.oversampling,
        noise=np.ones((SIZE, SIZE)),
        gain=gain,
        pixel_scale=REFERENCE_PIXEL_SCALE,
        zero_point=ZERO_POINT,
        sky_sigma=sky_sigma,
    )
    values = torch.tensor([flux, radius, truth[3], psf.fwhm], dtype=torch.float64)
    return observation, float(signal_to_noise(*values))


def table(posterior: Posterior, truth: np.ndarray, snr: np.ndarray) -> list[dict[str, Any]]:
    """Returns a row of figures per class, and one for all."""
    weights = posterior.log_weights
    log_weights = None if weights is None else np.asarray(weights)
    ranks = truth_ranks(np.asarray(posterior.samples), truth, log_weights)
    rows = []
    for low, high in [(0.0, math.inf), *itertools.pairwise(SNR_CLASSES)]:
        inside = (snr >= low) & (snr < high)
        if inside.any():
            number = int(inside.sum())
            rows.append(
                {
                    "snr": [low, high if math.isfinite(high) else None],
                    "galaxies": number,
                    "coverage": {
                        str(level): central_coverage(ranks[inside], level).tolist()
                        for level in (0.5, 0.68, 0.95)
                    },
                    "binomial_error": {
                        str(level): binomial_error(level, number) for level in (0.5, 0.68, 0.95)
                    },
                }
            )
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints the table of 68 and 95 % intervals."""
    print(f"\n{title}\n{'S/N':>14s} {'N':>6s} {'level':>6s}" + "".join(f"{s:>7s}" for s in SHORT))
    for row in rows:
        low, high = row["snr"]
        name = f"{low:g}-{'inf' if high is None else f'{high:g}'}"
        for level in ("0.68", "0.95"):
            values = "".join(f"{v:7.1%}" for v in row["coverage"][level])
            error = row["binomial_error"][level]
            print(f"{name:>14s} {row['galaxies']:6d} {level:>6s}{values}  +-{error:.1%}")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=1000)
    parser.add_argument("--refine", type=int, default=100, help="of them, refined")
    parser.add_argument("--stars", type=Path, default=None, help="folder of FITS with PSFIMAGE")
    parser.add_argument("--model", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.model)
    rng = np.random.default_rng(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    truth = predictor.model.prior.sample(options.number, generator).numpy()
    nearest = np.abs(np.log(truth[:, 2:3] / INDICES)).argmin(1)
    truth[:, 2] = INDICES[nearest]
    if options.stars:
        psfs = [star(p) for p in sorted(options.stars.rglob("*.fits")) if _odd(p)]
        if not psfs:
            parser.error(f"no file in {options.stars} has an extension PSFIMAGE with odd sides")
    else:
        psfs = [telescope(rng) for _ in range(TELESCOPES)]
    observations, snr = [], []
    for i, params in enumerate(truth):
        seed = 10 * (options.seed * 10**6 + i)
        observation, value = observe(params, psfs[i % len(psfs)], seed)
        observations.append(observation)
        snr.append(value)
    posterior = predictor.posterior(observations)
    result: dict[str, Any] = {"network": table(posterior, truth, np.array(snr))}
    show("network", result["network"])
    gross = largest_miss(posterior, truth) > GROSS
    good = np.array(posterior.quality) == "good"
    result["verdict"] = {
        "good": float(good.mean()),
        "gross_failures": int(gross.sum()),
        "marked": float((~good[gross]).mean()) if gross.any() else None,
    }
    print(f"verdict: {result['verdict']}")
    if options.refine:
        refined = predictor.refine(posterior[: options.refine])
        first = slice(0, options.refine)
        result["refined"] = table(refined, truth[first], np.array(snr)[first])
        show("refined", result["refined"])
        print("share with k-hat below 0.7:", float(np.mean(np.asarray(refined.khat) < 0.7)))
    if options.output:
        options.output.write_text(json.dumps({"parameters": NAMES, **result}, indent=1) + "\n")


def _odd(path: Path) -> bool:
    with fits.open(path) as file:
        if "PSFIMAGE" not in file:
            return False
        return all(side % 2 for side in file["PSFIMAGE"].shape)


if __name__ == "__main__":
    main()
