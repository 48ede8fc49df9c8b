"""Galaxies too large for the stamp: is the network right about them on binned pixels?

    python benchmarks/large_galaxies.py [-n 60] [--model FOLDER]

Isolated galaxies with R_e of 18 to 38 px and bright enough that their noise hardly matters are
rendered on 420 px and given to the network, which bins them. By the width of the binned PSF, which
training knows down to 1 px: the errors of ln R_e, ln n and q, as they are and in the posterior's
standard deviations.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.scene.parameters import AXIS_RATIO, RADIUS, SERSIC_INDEX
from deeplegato_pp.scene.render.renderer import render_sersic

SIDE = 420
PIXEL_SCALE = 0.25


def simulate(number: int, rng: np.random.Generator) -> tuple[list[Observation], np.ndarray]:
    """Returns observations of unit noise, and (ln R_e [arcsec], ln n, q, FWHM [px]) of each."""
    observations, truths = [], []
    for _ in range(number):
        flux, radius = 10.0 ** rng.uniform(3.5, 6.0), rng.uniform(18.0, 38.0)
        n, q = np.exp(rng.uniform(np.log(0.5), np.log(5.0))), rng.uniform(0.2, 1.0)
        angle, (x, y) = rng.uniform(0.0, 180.0), rng.uniform(-2.0, 2.0, 2)
        fwhm = rng.uniform(2.0, 4.0)
        psf, _ = moffat_psf(fwhm)
        columns = torch.tensor([flux, radius, n, q, angle, x, y], dtype=torch.float64)[:, None]
        model = render_sersic(*columns, torch.from_numpy(psf), SIDE)[0].numpy()
        image = model + rng.standard_normal(model.shape)
        observations.append(
            Observation.from_array(
                image, psf, np.ones_like(image), pixel_scale=PIXEL_SCALE, zero_point=30.5
            )
        )
        truths.append((np.log(radius * PIXEL_SCALE), np.log(n), q, fwhm))
    return observations, np.array(truths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=60)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    observations, truth = simulate(options.number, np.random.default_rng(1))
    posterior = Predictor.from_pretrained(options.model).posterior(observations)
    draws = posterior.batch_samples.numpy()
    draws = np.stack(
        [np.log(draws[..., RADIUS]), np.log(draws[..., SERSIC_INDEX]), draws[..., AXIS_RATIO]], -1
    )
    error = draws.mean(1) - truth[:, :3]
    pull = np.abs(error / draws.std(1))
    binned = np.array([m.prepared.bin for m in posterior.measurements])
    width = truth[:, 3] / binned
    print("binned FWHM  galaxies   median |error| of ln R_e, ln n, q   median |pull|   largest")
    for low, high in ((0.0, 1.0), (1.0, 1.5), (1.5, np.inf)):
        inside = (width >= low) & (width < high)
        if inside.any():
            columns = (
                np.median(np.abs(error[inside]), 0).round(3),
                np.median(pull[inside], 0).round(2),
                pull[inside].max(0).round(1),
            )
            print(f"{low:.1f}-{high:<8.1f} {inside.sum():8d}   " + "   ".join(map(str, columns)))


if __name__ == "__main__":
    main()
