"""The three sets of galaxies: Sérsic profiles, galaxies that are none, and real ones.

The simulations are GalSim's, so no program fits its own images.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import galsim
import numpy as np
from astropy.table import Table
from galaxy import Galaxy, moments

SIZE = 128
GAIN = 5.0
"""Electrons per background sigma: sources of 5 sigma per pixel double the variance."""

PARAMS = galsim.GSParams(folding_threshold=1e-3, maxk_threshold=1e-4, maximum_fft_size=16384)
CLASSES = (5.0, 20.0, 100.0, 1000.0)
"""Edges of the signal-to-noise classes."""


def make(folder: Path, numbers: tuple[int, int], data: Path | None, seed: int = 1) -> None:
    """Writes the sets that are not there yet: a file per galaxy, and ``truth.json``.

    Args:
        folder: Where the sets go, one folder each.
        numbers: Of Sérsic and of structured galaxies.
        data: Folder of real galaxies with ``cases.ecsv``; none if None.
        seed: Of the simulations.
    """
    for name, number, draw in (
        ("sersic", numbers[0], sersic_galaxy),
        ("structured", numbers[1], structured_galaxy),
    ):
        home = folder / name
        if (home / "truth.json").exists() or not number:
            continue
        home.mkdir(parents=True, exist_ok=True)
        truth = {}
        for i in range(number):
            rng = np.random.default_rng([seed, i, len(name)])
            galaxy, truth[f"{i:04d}"] = draw(rng, i / number)
            galaxy.save(home / f"{i:04d}.npz")
        (home / "truth.json").write_text(json.dumps(truth, indent=1))
    if data is not None and not (folder / "real" / "truth.json").exists():
        real(folder / "real", data)


def profile(flux: float, radius: float, index: float, q: float, angle: float) -> galsim.GSObject:
    """A Sérsic profile; R_e along the major axis, angle from +y. [px, deg]"""
    round_one = galsim.Sersic(index, half_light_radius=radius * math.sqrt(q), flux=flux)
    return round_one.shear(q=q, beta=(angle + 90.0) * galsim.degrees)


def sersic_galaxy(rng: np.random.Generator, place: float) -> tuple[Galaxy, dict[str, Any]]:
    """A Sérsic profile; `place` in [0, 1) sets its S/N, log-uniform over the classes."""
    snr = CLASSES[0] * (CLASSES[-1] / CLASSES[0]) ** place
    shape = _shape(rng)
    index = round(math.exp(rng.uniform(math.log(0.5), math.log(6.0))), 1)
    truth = shape | {"index": index, "snr": snr}
    form = (shape["radius"], index, shape["axis_ratio"], shape["angle"])
    galaxy, truth["flux"] = observe(rng, profile(1.0, *form), truth)
    return galaxy, truth


def structured_galaxy(rng: np.random.Generator, place: float) -> tuple[Galaxy, dict[str, Any]]:
    """A bulge in a disc of its axis ratio and angle; every second one has two spiral arms.

    The arms take as much light from between them as they bring, along each ellipse, so that the
    truth is the half-light radius along the ellipse, and the total flux, of bulge and disc alone.
    """
    snr = 20.0 * (CLASSES[-1] / 20.0) ** place
    shape = _shape(rng)
    share = rng.uniform(0.05, 0.7)
    disc = shape["radius"]
    bulge = disc * math.exp(rng.uniform(math.log(0.1), math.log(0.5)))
    form = (shape["axis_ratio"], shape["angle"])
    whole = profile(share, bulge, 3.0, *form) + profile(1.0 - share, disc, 1.0, *form)
    arms = bool(rng.integers(2))
    if arms:
        whole = whole + _arms(rng, disc, *form, 1.0 - share)
    parts = ((share, bulge, 3.0), (1.0 - share, disc, 1.0))
    truth = shape | {"snr": snr, "bulge_to_total": share, "arms": arms}
    truth["radius"] = _half_light(parts)
    galaxy, truth["flux"] = observe(rng, whole, truth)
    return galaxy, truth


def _shape(rng: np.random.Generator) -> dict[str, float]:
    return {
        "radius": math.exp(rng.uniform(math.log(1.5), math.log(12.0))),
        "axis_ratio": rng.uniform(0.25, 0.95),
        "angle": rng.uniform(0.0, 180.0),
        "x": (SIZE - 1) / 2 + rng.uniform(-1.0, 1.0),
        "y": (SIZE - 1) / 2 + rng.uniform(-1.0, 1.0),
        "psf_fwhm": math.exp(rng.uniform(math.log(2.2), math.log(4.5))),
    }


def _half_light(parts: tuple[tuple[float, float, float], ...]) -> float:
    """Half-light radius of a sum of profiles of one ellipse."""
    from scipy.optimize import brentq
    from scipy.special import gammainc, gammaincinv

    def excess(log_r: float) -> float:
        r = math.exp(log_r)
        inside = [
            f * gammainc(2 * n, gammaincinv(2 * n, 0.5) * (r / size) ** (1 / n))
            for f, size, n in parts
        ]
        return sum(inside) - 0.5

    return math.exp(brentq(excess, math.log(1e-3), math.log(1e3)))


def _arms(
    rng: np.random.Generator, radius: float, q: float, angle: float, flux: float
) -> galsim.GSObject:
    """Two logarithmic arms of 30 % of a disc, without light in sum along each ellipse."""
    fine = 4
    side = SIZE * fine
    axis = (np.arange(side) - (side - 1) / 2) / fine
    xx, yy = np.meshgrid(axis, axis)
    t = math.radians(angle + 90.0)
    along = xx * math.cos(t) + yy * math.sin(t)
    across = (yy * math.cos(t) - xx * math.sin(t)) / q
    r = np.hypot(along, across)
    scale = radius / 1.678
    disc = flux / (2 * math.pi * scale**2 * q) * np.exp(-r / scale)
    pitch = math.tan(math.radians(rng.uniform(12.0, 30.0)))
    phase = 2.0 * (np.arctan2(across, along) - np.log(np.maximum(r, 1e-3)) / pitch)
    rise = 1.0 - np.exp(-((r / radius) ** 2))
    image = 0.3 * disc * rise * np.cos(phase + rng.uniform(0.0, 2.0 * math.pi))
    return galsim.InterpolatedImage(
        galsim.Image(image / fine**2), scale=1.0 / fine, normalization="flux", flux=None
    )


def observe(
    rng: np.random.Generator, unit: galsim.GSObject, truth: dict[str, Any]
) -> tuple[Galaxy, float]:
    """Draws a galaxy of flux 1 at the wanted S/N with its noise; returns it with its flux.

    The S/N is that of the ideal filter for the noiseless image under the total noise.
    """
    psf = galsim.Moffat(beta=3.5, fwhm=truth["psf_fwhm"], gsparams=PARAMS)
    middle = (SIZE - 1) / 2
    placed = unit.shift(truth["x"] - middle, truth["y"] - middle)
    one = _drawn(galsim.Convolve(placed, psf, gsparams=PARAMS), SIZE)
    low, high = 1.0, 1e8
    for _ in range(60):
        flux = math.sqrt(low * high)
        snr = math.sqrt(float((flux**2 * one**2 / (1.0 + flux * np.maximum(one, 0) / GAIN)).sum()))
        low, high = (flux, high) if snr < truth["snr"] else (low, flux)
    model = np.maximum(flux * one, 0.0)
    electrons = rng.poisson(GAIN * model + GAIN**2) - GAIN**2
    image = electrons / GAIN
    sigma = np.sqrt(1.0 + model / GAIN)
    side = 41
    arrays = [_drawn(psf, side, pixel=p) for p in (True, False)]
    mask = np.zeros(image.shape, dtype=bool)
    start = moments(image, sigma, mask)
    whole, bare = (a / a.sum() for a in arrays)
    return Galaxy(image, whole, bare, sigma, mask, start), flux


def _drawn(profile: galsim.GSObject, side: int, pixel: bool = True) -> np.ndarray:
    method = "auto" if pixel else "no_pixel"
    drawn = profile.drawImage(nx=side, ny=side, scale=1.0, method=method, dtype=float)
    return np.asarray(drawn.array)


def real(home: Path, data: Path) -> None:
    """Keeps what all can fit: tiers A and B with a PSF, 40 to 300 px, nothing degenerate."""
    from deeplegato_pp import Observation
    from deeplegato_pp.errors import InputError

    home.mkdir(parents=True, exist_ok=True)
    truth = {}
    for row in Table.read(data / "cases.ecsv"):
        sides = (int(row["width"]), int(row["height"]))
        if row["tier"] == "C" or not row["has_psf"] or "degenerate" in str(row["flags"]):
            continue
        if min(sides) < 40 or max(sides) > 300:
            continue
        try:
            seen = Observation.from_fits(data / row["file"])
        except InputError as error:
            print(f"{row['file']} is left out: {error}", flush=True)
            continue
        psf = np.asarray(seen.psf, dtype=float)
        if seen.psf_oversampling != 1 or min(psf.shape) % 2 == 0:
            continue
        image, sigma = (np.asarray(a, dtype=float) for a in (seen.image, seen.noise))
        mask = np.asarray(seen.mask, dtype=bool)
        unit = float(np.median(sigma[~mask]))
        image, sigma = np.where(mask, 0.0, image / unit), np.where(mask, 1.0, sigma / unit)
        name = str(row["file"]).replace("/", "__").removesuffix(".fits")
        psf = psf / psf.sum()
        galaxy = Galaxy(image, psf, psf, sigma, mask, moments(image, sigma, mask))
        galaxy.save(home / f"{name}.npz")
        reference = {
            "radius": row["ref_effective_radius_px"],
            "index": row["ref_sersic_index"],
            "axis_ratio": row["ref_axis_ratio"],
            "angle": row["ref_position_angle"],
        }
        truth[name] = {
            "galaxy": f"{row['id']}",
            "source": str(row["source"]),
            "band": str(row["band"]),
            "tier": str(row["tier"]),
            "pixel_scale": float(row["pixel_scale"]),
        } | {k: float(v) for k, v in reference.items() if math.isfinite(v)}
    (home / "truth.json").write_text(json.dumps(truth, indent=1))
