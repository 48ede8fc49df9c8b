"""Overlapping galaxies, drawn with GalSim: masked, kept, or fitted together.

    python benchmarks/blends.py -o /tmp/blends --scene pairs
    python benchmarks/blends.py -o /tmp/blends --scene random --number 60
    python benchmarks/blends.py -o /tmp/blends --scene satellites --number 16 --neighbours fit keep

``pairs``: 24 pairs of equal discs (R_e 3 px, PSF of FWHM 3.2 px, S/N 6 to 50) 3 to 8 px apart.
``random``: pairs of Sérsic galaxies 0.5 to 3 R_e of the larger one apart.
``satellites``: compact galaxies on the discs of galaxies 16 to 160 times as bright, 1 to 2.5 R_e
from their centres. Each galaxy's magnitude is compared with what was drawn: its error in magnitudes
and in standard deviations (the pull). Neighbours are masked by photutils' segmentation, deblended;
the list holds the true positions, moved by a tenth of a pixel.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import galsim
import numpy as np
import torch
from astropy.io import fits

from deeplegato_pp import Predictor
from deeplegato_pp.catalog import catalog

ZERO_POINT, PIXEL_SCALE = 27.0, 0.2
CELL, STAMP = 176, 161
EXACT = galsim.GSParams(maximum_fft_size=16384, folding_threshold=1e-4, maxk_threshold=1e-4)


def galaxy(flux, radius, n, q, angle):
    profile = galsim.Sersic(
        n=n, half_light_radius=radius * np.sqrt(q), flux=flux, trunc=0, gsparams=EXACT
    )
    return profile.shear(q=q, beta=(angle + 90.0) * galsim.degrees)


def positions(scene, number, rng):
    """Galaxies (flux, R_e, n, q, angle, x, y from the cell's centre) by cell, and which count."""
    cells = []
    if scene == "pairs":
        for flux in (100.0, 200.0, 400.0, 800.0):
            for apart in (3.0, 4.0, 5.0, 6.0, 7.0, 8.0):
                angle = rng.uniform(0, np.pi)
                x, y = 0.5 * apart * np.cos(angle), 0.5 * apart * np.sin(angle)
                pa = rng.uniform(0, 180, 2)
                one = (flux, 3.0, 1.0, 0.8, pa[0], -x, -y)
                cells.append(([one, (flux, 3.0, 1.0, 0.8, pa[1], x, y)], [0, 1]))
    elif scene == "random":
        for _ in range(number):
            flux, radius = 10.0 ** rng.uniform(2.3, 4.0, 2), 10.0 ** rng.uniform(0.2, 0.8, 2)
            apart, angle = radius.max() * rng.uniform(0.5, 3.0), rng.uniform(0, 2 * np.pi)
            apart = max(apart, 1.5)
            x, y = 0.5 * apart * np.cos(angle), 0.5 * apart * np.sin(angle)
            shape = np.stack([rng.uniform(0.6, 4.0, 2), rng.uniform(0.3, 0.95, 2)])
            both = [
                (flux[i], radius[i], *shape[:, i], rng.uniform(0, 180), s * x, s * y)
                for i, s in enumerate((-1, 1))
            ]
            cells.append((both, [0, 1]))
    else:
        for _ in range(number):
            host = (10.0 ** rng.uniform(4.3, 4.9), rng.uniform(9, 14), 1.0, rng.uniform(0.4, 0.9),
                    rng.uniform(0, 180), 0.0, 0.0)  # fmt: skip
            apart, angle = host[1] * rng.uniform(1.0, 2.5), rng.uniform(0, 2 * np.pi)
            flux = 10.0 ** rng.uniform(2.7, 3.1)
            place = apart * np.cos(angle), apart * np.sin(angle)
            size = rng.uniform(1.0, 2.5), rng.uniform(0.8, 3.0)
            satellite = (flux, *size, rng.uniform(0.5, 1.0), rng.uniform(0, 180), *place)
            cells.append(([satellite, host], [0]))
    return cells


def field(cells, rng):
    psf = galsim.Moffat(beta=3.5, fwhm=3.2, gsparams=EXACT)
    per_row = 6
    height = CELL * (-(-len(cells) // per_row))
    image = np.zeros((height, CELL * per_row))
    table = {"id": [], "x": [], "y": []}
    truth = {}
    for k, (galaxies, counted) in enumerate(cells):
        bottom, left = CELL * (k // per_row), CELL * (k % per_row)
        jitter = rng.uniform(-0.5, 0.5, 2)
        for i, (flux, radius, n, q, angle, x, y) in enumerate(galaxies):
            x, y = x + jitter[0], y + jitter[1]
            seen = galsim.Convolve(galaxy(flux, radius, n, q, angle), psf, gsparams=EXACT)
            image[bottom : bottom + CELL, left : left + CELL] += seen.drawImage(
                nx=CELL, ny=CELL, scale=1.0, offset=galsim.PositionD(x, y), dtype=np.float64
            ).array
            listed = np.array([left, bottom]) + (CELL - 1) / 2 + (x, y) + rng.normal(0, 0.1, 2)
            name = 10 * k + i
            table["id"].append(name)
            table["x"].append(listed[0])
            table["y"].append(listed[1])
            if i in counted:
                truth[name] = ZERO_POINT - 2.5 * np.log10(flux), radius * PIXEL_SCALE, n
    sigma = np.sqrt(1.0 + np.maximum(image, 0.0) / 5.0)
    kernel = psf.drawImage(nx=51, ny=51, scale=1.0, dtype=np.float64).array
    noisy = image + sigma * rng.standard_normal(image.shape)
    return noisy, sigma, kernel, table, truth


def segmentation(noisy, sigma):
    from photutils.segmentation import deblend_sources, detect_sources, make_2dgaussian_kernel
    from scipy.signal import fftconvolve

    smooth = fftconvolve(noisy, make_2dgaussian_kernel(3.0, size=7).array, mode="same")
    found = detect_sources(smooth, 1.5 * sigma, 8)
    return deblend_sources(smooth, found, 8, contrast=0.005, progress_bar=False).data


def describe(rows, truth, label, seconds):
    pulls, errors, good = [], [], []
    log_radius = []
    for row in rows:
        if row["id"] not in truth or row["magnitude"] is None:
            continue
        magnitude, radius, _ = truth[row["id"]]
        errors.append(row["magnitude"] - magnitude)
        pulls.append(errors[-1] / row["magnitude_std"])
        good.append(row["quality"] == "good")
        log_radius.append(np.log(row["effective_radius"] / radius))
    pulls, errors, good = np.array(pulls), np.array(errors), np.array(good)
    wide = np.abs(pulls)
    sizes = np.bincount([row.get("group_size") or 0 for row in rows])
    print(
        f"{label:18s} n {len(pulls)}: magnitude bias {np.median(errors):+.3f}, scatter "
        f"{1.4826 * np.median(np.abs(errors - np.median(errors))):.3f}; pull median "
        f"{np.median(pulls):+.2f}, 68 % of |pull| {np.quantile(wide, 0.68):.2f}, within 1/2 sigma "
        f"{(wide < 1).mean():.2f}/{(wide < 2).mean():.2f}, beyond 3: {(wide > 3).sum()}, of these "
        f"good {((wide > 3) & good).sum()}; good {good.mean():.2f}; ln R_e bias "
        f"{np.median(log_radius):+.3f}; {seconds / len(rows):.2f} CPU s a source; groups "
        f"{dict(enumerate(sizes.tolist()))}",
        flush=True,
    )
    return pulls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--scene", choices=("pairs", "random", "satellites"), default="pairs")
    parser.add_argument("--number", type=int, default=24, help="cells; of the pairs some")
    parser.add_argument("--neighbours", nargs="+", default=["mask", "keep", "fit"])
    parser.add_argument("--no-refine", action="store_true")
    parser.add_argument("--method", default="exact")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", action="store_true", help="print every row")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(asked.seed)
    cells = positions(asked.scene, asked.number, rng)
    cells = cells[:: max(1, len(cells) // asked.number)]
    noisy, sigma, kernel, table, truth = field(cells, rng)
    asked.output.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(noisy.astype(np.float32)).writeto(
        asked.output / f"{asked.scene}.fits", overwrite=True
    )
    segments = segmentation(noisy, sigma)
    predictor = Predictor.from_pretrained(device="cpu")
    for how in asked.neighbours:
        given = {"segmentation": segments} if how == "mask" else {}
        if how == "fit-segmented":
            given = {"segmentation": segments}
        started = time.process_time()
        rows = list(
            catalog(
                predictor,
                noisy,
                table,
                psf=kernel,
                noise=sigma,
                pixel_scale=PIXEL_SCALE,
                zero_point=ZERO_POINT,
                refine=None if asked.no_refine else asked.method,
                neighbours=how.removesuffix("-segmented"),
                **given,
            )
        )
        spent = time.process_time() - started
        if asked.rows:
            for row in rows:
                if row["id"] in truth and row["magnitude"] is not None:
                    true, radius, n = truth[row["id"]]
                    error = row["magnitude"] - true
                    print(
                        f"  {row['id']:4d} {error:+.2f} ({error / row['magnitude_std']:+.1f}) "
                        f"R {row['effective_radius'] / radius:.2f} n {row['sersic_index']:.1f}/"
                        f"{n:.1f} k {row['khat']} {row['method']} {row['quality']} "
                        f"{row['flag_names']} {row['group_size']} {row['notes']}"
                    )
        describe(rows, truth, f"{asked.scene} {how}", spent)


if __name__ == "__main__":
    main()
