"""Structure of real galaxies and of simulated ones: the residuals' power by scale and azimuth.

    python benchmarks/structure_power.py FOLDER [--config second_edition] [--copies 2]
        [--sources profound_kids_viking ...] [--figure structure_power.png]

FOLDER holds ``cases.ecsv`` and the files that it names. Of every real galaxy that is bright and
resolved, the best Sérsic profile is subtracted (the likelihood's optimum, model error 3 %), and the
residual over the profile is summed, weighted, with exp(-i m phi) over rings in the fitted ellipse,
m being the order in azimuth. The squared modulus less what the noise contributes is the power of
the structure. The same is done with simulations: structure of the configuration on the very profile
that was fitted, through the galaxy's own PSF, with its noise and mask. Printed are the 25, 50 and
84 % quantiles over galaxies of the root of the power (a negative power has a negative root), for
rings that are 0.2, 0.4 and 0.8 wide in ln(radius), and how many of the simulated exceed the median
of the real ones.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from torch import Tensor

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.config.schema import StructureConfig, load_config
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.polar_structure import PlanePixels
from deeplegato_pp.data.structure import draw_structure
from deeplegato_pp.errors import DeepLegatoError
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.observation.noise_correlation import measure_noise_correlation
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import MODEL_ERROR, model_variance
from deeplegato_pp.scene.parameters import signal_to_noise
from deeplegato_pp.scene.psf_grid import normalise
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.render.wings import Galaxies

ORDERS = 7
WIDTHS = (0.2, 0.4, 0.8)
"""Widths of the rings in ln(radius)."""

INNER, OUTER = 0.3, 2.5
"""Where structure is looked at. [R_e]"""

BRIGHT = 50.0
"""S/N of the galaxies that are used."""

CLEAR = 1.5
"""R_e of those over the PSF's FWHM."""

QUANTILES = (0.25, 0.5, 0.84)
BATCH = 12


class OnePSF:
    """One PSF for all rows, with what `Structure.images` asks of a batch's PSFs."""

    def __init__(self, psf: Tensor, number: int) -> None:
        self.native = normalise(psf.float())[None].expand(number, -1, -1)

    def render(self, galaxies: Galaxies, size: int, owner: Tensor) -> Tensor:
        """Renders galaxies through it."""
        return render_sersic(*galaxies, self.native[owner], size)


def power(
    residual: Tensor, model: Tensor, variance: Tensor, mask: Tensor, galaxy: Galaxies, c: float
) -> np.ndarray:
    """Returns the power of structure by width of the rings and order, with shape (W, M)."""
    pixels = PlanePixels.of(galaxy, residual.shape[-1])
    log_r, phi = pixels.radius[0].log(), torch.atan2(pixels.across, pixels.along)[0]
    used = (log_r > np.log(INNER)) & (log_r < np.log(OUTER)) & ~mask & (model > 0)
    weight = torch.where(used, model**2 / variance, 0.0)
    over = torch.where(used, residual / model, 0.0)
    found = np.zeros((len(WIDTHS), ORDERS))
    for i, width in enumerate(WIDTHS):
        ring = ((log_r - np.log(INNER)) / width).floor().long().clamp_min(0)
        sums = torch.zeros(int(ring.max()) + 1, dtype=torch.float64)
        total = sums.index_add(0, ring.flatten(), weight.flatten())
        seen = total > 0
        for m in range(ORDERS):
            parts = [
                sums.index_add(0, ring.flatten(), (weight * over * wave).flatten())[seen]
                for wave in (torch.cos(m * phi), torch.sin(m * phi))
            ]
            value = (parts[0] ** 2 + parts[1] ** 2) / total[seen] ** 2
            found[i, m] = float((value - c / total[seen]).mean())
    return found


def powers(likelihood: Likelihood, fits: Fit, correlation: list[float]) -> list[np.ndarray]:
    """Returns the power of each galaxy whose search ended at an optimum."""
    s, rows = likelihood.stamps, []
    for i in range(len(fits)):
        if bool(fits.converged[i]):
            model = fits.image[i]
            stated = model_variance(model, torch.where(s.mask[i], 1.0, s.sigma[i]), s.gain[i])
            galaxy = columns(likelihood, fits.u[i : i + 1])
            args = (fits.residual[i], model, stated, s.mask[i], galaxy, correlation[i])
            rows.append(power(*args))
    return rows


def columns(likelihood: Likelihood, u: Tensor) -> Galaxies:
    """Returns galaxies as the renderer takes them."""
    return Galaxies(*likelihood.coordinates.profiles(u)[0])


def simulate(
    likelihood: Likelihood, row: int, u: Tensor, structure: StructureConfig, seed: int, copies: int
) -> Tensor:
    """Returns noisy images of galaxies with structure on a fitted profile, (copies, N, N)."""
    s = likelihood.stamps
    generator = torch.Generator().manual_seed(seed)
    one = columns(likelihood, u)
    galaxies = Galaxies(*(column.float().expand(copies) for column in one))
    psf = OnePSF(likelihood.psfs[row], copies)
    fwhm = torch.full((copies,), psf_fwhm(likelihood.psfs[row].numpy()))
    draw = Draw(copies, generator, torch.float32)
    drawn = draw_structure(draw, galaxies, fwhm, structure)
    size = likelihood.size
    images = psf.render(galaxies, size, torch.arange(copies))
    if drawn is not None:
        images[drawn.rows] = drawn.images(psf, size)  # type: ignore[arg-type]
    sigma = torch.where(s.mask[row], 1.0, s.sigma[row])
    variance = model_variance(images.double(), sigma, s.gain[row])
    return images + variance.sqrt() * torch.randn(images.shape, generator=generator)


def measure(
    predictor: Predictor, observations: list[Observation], structure: StructureConfig, copies: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the powers of some real galaxies, and of their simulated copies."""
    posterior = predictor.posterior(observations, 100, widths="noise")
    chosen, correlation = [], []
    for i, m in enumerate(posterior.measurements):
        if m.measured and m.prepared is not None and m.prepared.psf_oversampling == 1:
            p = m.prepared
            try:
                c = measure_noise_correlation(p.image, p.noise, p.mask)
            except DeepLegatoError:
                continue
            chosen.append(i)
            correlation.append(c)
    if not chosen:
        return [], []
    stamps = [posterior.measurements[i].prepared for i in chosen]
    likelihood = Likelihood.of(stamps, predictor.prior, model_error=MODEL_ERROR)  # type: ignore[arg-type]
    fits = fit(likelihood, torch.arange(len(chosen)), posterior.batch_w[chosen].double().mean(1))
    fwhm = torch.tensor([psf_fwhm(p.numpy()) for p in likelihood.psfs], dtype=torch.float64)
    g = columns(likelihood, fits.u)
    snr = signal_to_noise(g.flux, g.radius, g.axis_ratio, fwhm)
    good = (snr > BRIGHT) & (g.radius > CLEAR * fwhm) & fits.converged
    rows = good.nonzero()[:, 0]
    if not len(rows):
        return [], []
    part = likelihood.select(rows.tolist())
    kept = [correlation[i] for i in rows.tolist()]
    real = powers(part, fits[rows], kept)
    made = []
    for k in range(copies):
        stamps = part.stamps
        images = torch.stack(
            [
                simulate(part, i, fits.u[rows[i : i + 1]], structure, 1000 * k + i, 1)[0].double()
                for i in range(len(rows))
            ]
        )
        copy = part.select(range(len(rows)))
        copy.stamps = replace(stamps, image=torch.where(stamps.mask, 0.0, images))
        again = fit(copy, torch.arange(len(rows)), fits.u[rows])
        made += powers(copy, again, [1.0] * len(rows))
    return real, made


def root(values: np.ndarray) -> np.ndarray:
    """Returns square roots that keep the sign."""
    return np.sign(values) * np.sqrt(np.abs(values))


def report(real: np.ndarray, made: np.ndarray) -> None:
    """Prints the table."""
    print(f"{len(real)} real galaxies, {len(made)} simulated; 25, 50, 84 % of rms by order")
    for i, width in enumerate(WIDTHS):
        for m in range(ORDERS):
            a, b = (root(np.quantile(x[:, i, m], QUANTILES)) for x in (real, made))
            more = (made[:, i, m] > np.median(real[:, i, m])).mean()
            print(
                f"rings {width:.1f} m {m}: real {' '.join(f'{v:6.3f}' for v in a)}   simulated "
                f"{' '.join(f'{v:6.3f}' for v in b)}   {more:.2f}"
            )


def draw(real: np.ndarray, made: np.ndarray, path: Path) -> None:
    """Draws medians and 16 to 84 % by order."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(WIDTHS), figsize=(9, 3), sharey=True, layout="constrained")
    for i, axis in enumerate(axes):
        for values, name, shift in ((real, "real", -0.1), (made, "simulated", 0.1)):
            low, middle, high = root(np.quantile(values[:, i], (0.16, 0.5, 0.84), axis=0))
            error = np.abs(np.stack([middle - low, high - middle]))
            at = np.arange(ORDERS) + shift
            axis.errorbar(at, 100 * middle, 100 * error, fmt="o", ms=4, capsize=2, label=name)
        axis.set_title(f"rings {WIDTHS[i]:.1f} wide in ln r", fontsize=9)
        axis.set_xlabel("order in azimuth, m")
        axis.axhline(0.0, color="0.7", lw=0.8)
    axes[0].set_ylabel("residual over profile, rms [%]")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="second_edition", help="with data.structure")
    parser.add_argument("--copies", type=int, default=2, help="simulations of each galaxy")
    parser.add_argument("--sources", nargs="+", default=None, help="default: all")
    parser.add_argument("--figure", type=Path, default=None)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    structure = load_config(options.config).data.structure
    cases = Table.read(options.folder / "cases.ecsv")
    observations = []
    for case in cases:
        named = options.sources is None or case["source"] in options.sources
        if named and case["tier"] in "AB" and "degenerate" not in str(case["flags"]):
            try:
                observations.append(Observation.from_fits(options.folder / case["file"]))
            except DeepLegatoError as error:
                print(f"refused: {case['file']}: {error}")
    predictor = Predictor.from_pretrained()
    real, made = [], []
    for start in range(0, len(observations), BATCH):
        found = measure(predictor, observations[start : start + BATCH], structure, options.copies)
        real += found[0]
        made += found[1]
    report(np.array(real), np.array(made))
    if options.figure:
        draw(np.array(real), np.array(made), options.figure)


if __name__ == "__main__":
    main()
