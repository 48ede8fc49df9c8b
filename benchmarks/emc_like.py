"""Sizes and shapes by magnitude, in the manner of the Euclid Morphology Challenge.

    python benchmarks/emc_like.py -n 200 --refine 40 -o emc.json

The images are this project's own, so the table is "EMC-like" and no more: single Sérsic galaxies at
VIS's pixel (0.1 arcsec), width of the PSF (0.16 arcsec, obscured Airy with jitter) and depth (10
sigma at I_E = 24.5 in a circle of 1.3 arcsec). By magnitude it prints Q68 of the relative error of
R_e, of n in dex and of q, the median bias and the share of gross outliers (R_e off by half), for
the network's posterior medians and, on the galaxies that were refined, for both; what the refined
ones reach is the floor for anybody under these assumptions.

The population: ln R_e normal about 0.32 arcsec x 10^(-0.12 (I_E - 24)) with a scatter of 0.2 dex,
four fifths with log10 n = 0.0 +- 0.15 and one fifth 0.5 +- 0.15, q uniform in 0.2-1, cut to the
prior's ranges. Metrics as in Euclid preparation XXVI (Bretonnière et al., 2023, arXiv:2209.12907).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplegato_pp import Observation, Posterior, Predictor, SersicSimulator
from deeplegato_pp.data.telescope import Telescopes, telescope_psfs
from deeplegato_pp.scene.noise import draw_noise
from deeplegato_pp.scene.psf_grid import convolve_pixel, normalise

PIXEL_SCALE = 0.1
FWHM = 0.16
ZERO_POINT = 24.5 + 2.5 * np.log10(10.0 * np.sqrt(np.pi) * 0.65 / PIXEL_SCALE)
"""The noise of a pixel is one unit: 10 sigma at 24.5 in a circle of radius 0.65 arcsec."""
GAIN = 25.0
"""Electrons per unit: some 600 electrons of sky and read noise in the variance of a pixel."""
MAGNITUDES = (19.0, 20.0, 21.0, 21.7, 22.7, 23.8, 24.8)
SKY_SIGMA = 0.01
SIZE = 128


def population(magnitude: float, number: int, rng: np.random.Generator) -> torch.Tensor:
    """Draws parameters at about one magnitude (+-0.25), with shape (N, 7)."""
    mag = magnitude + rng.uniform(-0.25, 0.25, number)
    radius = 0.32 * 10.0 ** (-0.12 * (mag - 24.0) + 0.2 * rng.normal(size=number))
    steep = rng.uniform(size=number) < 0.2
    index = 10.0 ** (np.where(steep, 0.5, 0.0) + 0.15 * rng.normal(size=number))
    columns = [
        mag,
        radius.clip(0.045, 3.9),
        index.clip(0.32, 7.8),
        rng.uniform(0.2, 1.0, number),
        rng.uniform(0.0, 180.0, number),
        *rng.uniform(-1.0, 1.0, (2, number)),
    ]
    return torch.from_numpy(np.stack(columns, 1))


def vis_psf() -> torch.Tensor:
    """A PSF like VIS's at two samples a pixel, with shape (87, 87)."""
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, 8, dtype=torch.float64)
    width = FWHM / PIXEL_SCALE * one
    optics = Telescopes(width, 0.35 * one, none, none[:, :3], 0.4 * width, none[:, :2])
    core = telescope_psfs(optics, 87, 2)
    return normalise(convolve_pixel(core, 2))[0]


def observe(params: torch.Tensor, seed: int) -> list[Observation]:
    """Renders galaxies and adds sky and noise."""
    simulator = SersicSimulator(SIZE, PIXEL_SCALE, ZERO_POINT)
    psf, generator = vis_psf(), torch.Generator().manual_seed(seed)
    model = simulator.render(params, psf, oversampling=2)
    number = len(params)
    noisy = draw_noise(
        model,
        torch.ones_like(model),
        torch.full((number,), GAIN, dtype=model.dtype),
        read_fraction=0.1,
        generator=generator,
    )
    sky = SKY_SIGMA * torch.randn(number, 1, 1, generator=generator, dtype=model.dtype)
    return [
        Observation.from_array(
            image.numpy(),
            psf=psf.numpy(),
            psf_oversampling=2,
            noise=np.ones((SIZE, SIZE)),
            gain=GAIN,
            pixel_scale=PIXEL_SCALE,
            zero_point=ZERO_POINT,
            sky_sigma=SKY_SIGMA,
        )
        for image in noisy + sky
    ]


def metrics(posterior: Posterior, truth: np.ndarray) -> dict[str, Any]:
    """Returns the challenge's metrics of the posterior medians, and coverage of 68 % intervals."""
    table = posterior.summary()
    radius = np.asarray(table["effective_radius_q50"].value, float) / truth[:, 1] - 1.0
    dex = np.log10(np.asarray(table["sersic_index_q50"], float) / truth[:, 2])
    q = np.asarray(table["axis_ratio_q50"], float) - truth[:, 3]
    inside = (np.asarray(table["effective_radius_q16"].value, float) < truth[:, 1]) & (
        truth[:, 1] < np.asarray(table["effective_radius_q84"].value, float)
    )
    return {
        "galaxies": len(truth),
        "radius_q68": _q68(radius),
        "radius_bias": float(np.nanmedian(radius)),
        "outliers": float(np.mean(~(np.abs(radius) < 0.5))),
        "index_q68": _q68(dex),
        "index_bias": float(np.nanmedian(dex)),
        "axis_ratio_q68": _q68(q),
        "radius_coverage_68": float(inside.mean()),
    }


def _q68(error: np.ndarray) -> float:
    return float(np.nanquantile(np.abs(error), 0.68))


def show(magnitude: float, label: str, row: dict[str, Any]) -> None:
    """Prints a line of the table."""
    print(
        f"{magnitude:5.1f} {label:22s} {row['galaxies']:5d} {row['radius_q68']:8.4f} "
        f"{row['radius_bias']:+8.4f} {row['outliers']:8.2%} {row['index_q68']:8.4f} "
        f"{row['index_bias']:+8.4f} {row['axis_ratio_q68']:8.4f} {row['radius_coverage_68']:8.1%}",
        flush=True,
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=200, help="galaxies per magnitude")
    parser.add_argument("--refine", type=int, default=40, help="of them, refined")
    parser.add_argument("--model", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.model)
    print(f"{'I_E':>5s} {'':22s} {'N':>5s} {'Q68(Re)':>8s} {'bias':>8s} {'outliers':>8s} "
          f"{'Q68(n)':>8s} {'bias':>8s} {'Q68(q)':>8s} {'68 % R_e':>8s}")  # fmt: skip
    rows = []
    for i, magnitude in enumerate(MAGNITUDES):
        rng = np.random.default_rng([options.seed, i])
        params = population(magnitude, options.number, rng)
        posterior = predictor.posterior(observe(params, seed=1000 * options.seed + i))
        truth = params.numpy()
        row: dict[str, Any] = {"magnitude": magnitude, "network": metrics(posterior, truth)}
        show(magnitude, "network", row["network"])
        if options.refine:
            few = posterior[: options.refine]
            refined = predictor.refine(few)
            row["network_same"] = metrics(few, truth[: options.refine])
            row["refined"] = metrics(refined, truth[: options.refine])
            show(magnitude, "network, the refined", row["network_same"])
            show(magnitude, "refined (the floor)", row["refined"])
        rows.append(row)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
