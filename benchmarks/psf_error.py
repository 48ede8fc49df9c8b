"""What an imperfect PSF does to star odds and radii, and what `psf_error` makes of it.

Stars and galaxies are drawn with a Moffat of FWHM 3.2 px (beta 3.5) and measured with one that is
narrower or wider by some per cent, with and without an error of the PSF's width in the likelihood.

    python benchmarks/psf_error.py stars        # star odds, S/N 125 and 1,250
    python benchmarks/psf_error.py small        # galaxies of R_e 0.8 px, a quarter of the FWHM
    python benchmarks/psf_error.py wings        # PSFs whose arrays miss part of their light
    python benchmarks/psf_error.py coverage     # simulations whose PSFs are off by 2 % at random
    python benchmarks/psf_error.py frozen       # ln L if the error acted at each draw
    python benchmarks/psf_error.py cost         # CPU time, one thread
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.data.psf import moffat, radial_grid
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.scene.psf_grid import convolve_pixel
from deeplegato_pp.scene.render.point_source import render_points
from deeplegato_pp.scene.render.renderer import render_sersic

FWHM, BETA, GAIN, ZERO_POINT = 3.2, 3.5, 5.0, 27.0
SIZE, EXTENT = 101, 161
"""Sides of images and of the true PSF. [px]"""

FINE = 5
"""Samples per pixel at which the true PSF is drawn."""


def fine_psf(width: float = 1.0, beta: float = BETA) -> torch.Tensor:
    """A Moffat with the pixel in it, of so many times the width, far into its wings, (P, P)."""
    one = torch.ones(1, dtype=torch.float64)
    r = radial_grid(FINE * EXTENT, FINE, one, 0.0 * one)
    psf = convolve_pixel(moffat(r, FWHM * width * one[:, None, None], beta), FINE)[0]
    return psf / psf.sum()


def psf_of(width: float = 1.0, beta: float = BETA, size: int = 51) -> torch.Tensor:
    """The same at the pixels, cut to a side; its sum is the light that the array holds."""
    first = FINE * (EXTENT // 2 - size // 2) + FINE // 2
    picked = slice(first, first + FINE * size, FINE)
    return FINE**2 * fine_psf(width, beta)[picked, picked]


def observe(
    flux: float,
    radius: float,
    n: float,
    q: float,
    told: torch.Tensor,
    seed: int,
    *,
    true: torch.Tensor,
    name: str = "",
    psf_error: float = 0.02,
) -> Observation:
    """A star (radius 0) or galaxy under the true PSF, with shot noise, and the PSF that is told."""
    column = torch.tensor([[flux, radius, n, q, 70.0, 0.2, -0.3]], dtype=torch.float64).T
    options = {"oversampling": FINE, "psf_includes_pixel": True}
    if radius:
        image = render_sersic(*column, true, SIZE, **options)[0].numpy()
    else:
        image = render_points(column[0], column[5], column[6], true, SIZE, **options)[0].numpy()
    sigma = np.sqrt(1.0 + np.maximum(image, 0.0) / GAIN)
    data = image + sigma * np.random.default_rng(seed).standard_normal(image.shape)
    return Observation.from_array(
        data,
        psf=told.numpy(),
        noise=sigma,
        pixel_scale=0.2,
        zero_point=ZERO_POINT,
        psf_error=psf_error,
        name=name,
    )


def refined(
    predictor: Predictor, observations: list[Observation], error: float
) -> tuple[Posterior, Posterior]:
    """The network's posterior and the exact one under an error of the PSF's width."""
    network = predictor.posterior(observations, 500, widths="noise")
    return network, predictor.refine(network, psf_error=error)


def odds(posterior: Posterior, row: int) -> float:
    """Log10 of the odds of a point source, prior odds even."""
    m = posterior.measurements[row]
    assert m.hypotheses is not None
    return (m.hypotheses.star_log_evidence - m.log_evidence) / math.log(10.0)


def stars(predictor: Predictor, seeds: int) -> None:
    """Star odds."""
    true = fine_psf()
    cases = [
        (flux, width, seed)
        for flux in (1e3, 1e4)
        for width in (1.0, 0.98, 0.96, 1.02, 1.04)
        for seed in range(seeds)
    ]
    seen = [
        observe(flux, 0.0, 1.0, 1.0, psf_of(width), 700 + seed, true=true)
        for flux, width, seed in cases
    ]
    for error in (0.0, 0.02):
        _, posterior = refined(predictor, seen, error)
        for i, (flux, width, seed) in enumerate(cases):
            print(
                f"psf_error {error:.2f} star S/N {0.4 * flux / FWHM:5.0f} PSF x {width:.2f} "
                f"seed {seed}: log10 odds {odds(posterior, i):+8.2f} "
                f"P(star) {posterior.star_probability[i]:.2e} {posterior.quality[i]} "
                f"chi2_p {posterior.chi2_p[i]:.1e} {Flag.names(posterior.flags[i])}",
                flush=True,
            )


COLUMNS = ("magnitude", "effective_radius", "sersic_index", "axis_ratio")


def pulls(posterior: Posterior, row: int, truth: tuple[float, ...]) -> list[float]:
    """(Mean less truth) over the standard deviation, of magnitude, R_e [px], n and q."""
    draws = posterior[row].draws(2000).numpy()
    draws[:, 1] /= 0.2
    return [float((draws[:, i].mean() - t) / draws[:, i].std()) for i, t in enumerate(truth)]


def table(
    predictor: Predictor,
    cases: list[tuple[str, Observation, tuple[float, ...]]],
    errors: tuple[float, ...] = (0.0, 0.02),
) -> None:
    """Pulls and verdicts."""
    for error in errors:
        _, posterior = refined(predictor, [o for _, o, _ in cases], error)
        for i, (name, _, truth) in enumerate(cases):
            z = " ".join(f"{p:+5.1f}" for p in pulls(posterior, i, truth))
            print(
                f"psf_error {error:.2f} {name}: pulls m R_e n q {z} "
                f"log10 star odds {odds(posterior, i):+7.2f} {posterior.quality[i]} "
                f"{Flag.names(posterior.flags[i])}",
                flush=True,
            )


def small(predictor: Predictor, seeds: int) -> None:
    """Galaxies a quarter as large as the PSF."""
    true = fine_psf()
    cases = []
    for flux in (300.0, 2e3, 1e4):
        for width in (1.0, 0.98, 0.97, 0.96, 0.92, 1.03):
            for seed in range(seeds):
                o = observe(flux, 0.8, 1.5, 0.7, psf_of(width), 130 + seed, true=true)
                truth = (ZERO_POINT - 2.5 * math.log10(flux), 0.8, 1.5, 0.7)
                cases.append((f"R_e 0.8 px F {flux:5.0f} PSF x {width:.2f} s{seed}", o, truth))
    table(predictor, cases)


def wings(predictor: Predictor, seeds: int) -> None:
    """PSFs on arrays that are too small."""
    true = fine_psf(beta=2.2)
    cases = []
    for flux, radius in ((60.0, 5.0), (3e2, 5.0), (3e3, 5.0), (3e4, 5.0), (3e3, 1.5)):
        for size in (11, 15, 25, 41, 81):
            for seed in range(seeds):
                told = psf_of(beta=2.2, size=size)
                o = observe(flux, radius, 1.0, 0.7, told, 90 + seed, true=true)
                truth = (ZERO_POINT - 2.5 * math.log10(flux), radius, 1.0, 0.7)
                missing = 1.0 - float(told.sum())
                name = (
                    f"F {flux:5.0f} R_e {radius} PSF {size:2d} px, {missing:.1%} missing, s{seed}"
                )
                cases.append((name, o, truth))
    table(predictor, cases)


def coverage(predictor: Predictor, seeds: int) -> None:
    """Galaxies whose PSFs are 2 % off at random, told so or told that they are known."""
    random = np.random.default_rng(0)
    cases = []
    for seed in range(seeds):
        flux = 10.0 ** random.uniform(2.5, 4.5)
        radius, n, q = (
            10.0 ** random.uniform(0, 1),
            random.uniform(0.7, 4.0),
            random.uniform(0.3, 1),
        )
        true = fine_psf(1.0 + 0.02 * random.standard_normal())
        o = observe(flux, radius, n, q, psf_of(), 1000 + seed, true=true)
        cases.append((o, (ZERO_POINT - 2.5 * math.log10(flux), radius, n, q)))
    for error in (0.0, 0.02):
        _, posterior = refined(predictor, [o for o, _ in cases], error)
        posterior = posterior.under_noise()
        z = np.array([pulls(posterior, i, truth) for i, (_, truth) in enumerate(cases)])
        for level, limit in ((50, 0.674), (68, 0.994), (95, 1.96)):
            share = (np.abs(z) < limit).mean(0)
            print(
                f"psf_error {error:.2f} noise widths, {len(cases)} galaxies, level {level}: "
                + " ".join(f"{c} {s:.2f}" for c, s in zip(COLUMNS, share, strict=True)),
                flush=True,
            )


def frozen(predictor: Predictor, seeds: int) -> None:
    """Scatter of ln L among posterior draws when the PSF's error acts at each, not at the mode."""
    true = fine_psf()
    cases = [(2e3, 0.8), (1e4, 0.8), (300.0, 5.0), (3e3, 5.0), (3e4, 5.0), (3e4, 1.5), (1e4, 0.0)]
    seen = [observe(f, r, 1.5, 0.7, psf_of(), 40, true=true, psf_error=0.02) for f, r in cases]
    _, posterior = refined(predictor, seen, 0.02)
    rows = torch.zeros(1, dtype=torch.long)
    for i, (flux, radius) in enumerate(cases):
        m = posterior.measurements[i]
        likelihood = m.likelihood()
        w = posterior.under_noise().batch_w[i][posterior.choose(20 * seeds)[i]]
        u = likelihood.coordinates.project(w)
        change = []
        for point in u:
            before = float(likelihood.log_likelihood_row(0, point[None]))
            other = likelihood.replace()
            other.freeze(rows, point[None])
            change.append(float(other.log_likelihood_row(0, point[None])) - before)
        print(
            f"F {flux:6.0f} R_e {radius}: ln L changes by {np.mean(change):+.3f} on average, "
            f"scatter {np.std(change):.3f}",
            flush=True,
        )


def cost(predictor: Predictor, seeds: int) -> None:
    """CPU time of refining with and without the PSF's error and honest widths, interleaved."""
    torch.set_num_threads(1)
    random = np.random.default_rng(1)
    true = fine_psf()
    seen = [
        observe(
            10.0 ** random.uniform(2.5, 4.5),
            10.0 ** random.uniform(0, 1),
            random.uniform(0.7, 4.0),
            random.uniform(0.3, 1),
            psf_of(),
            seed,
            true=true,
        )
        for seed in range(seeds)
    ]
    network = predictor.posterior(seen, 500, widths="noise")
    kinds = {
        "noise widths, PSF known": {"psf_error": 0.0, "widths": "noise"},
        "noise widths": {"psf_error": 0.02, "widths": "noise"},
        "honest widths": {"psf_error": 0.02, "widths": "honest"},
    }
    spent: dict[tuple[str, str], float] = {}
    for method in ("laplace", "exact"):
        for start in range(0, seeds, 8):
            for kind, options in kinds.items():
                began = time.process_time()
                predictor.refine(network[start : start + 8], method, **options)
                key = (method, kind)
                spent[key] = spent.get(key, 0.0) + time.process_time() - began
    for (method, kind), seconds in spent.items():
        least = spent[method, next(iter(kinds))]
        print(f"{method}, {kind}: {seconds / seeds:.3f} CPU s per galaxy, x {seconds / least:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["stars", "small", "wings", "coverage", "frozen", "cost"])
    parser.add_argument("--seeds", type=int, default=2, help="noise realisations, or galaxies")
    arguments = parser.parse_args()
    predictor = Predictor.from_pretrained(device="cpu")
    globals()[arguments.what](predictor, arguments.seeds)


if __name__ == "__main__":
    main()
