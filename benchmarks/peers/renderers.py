"""The renderers alone: images of Sérsic profiles under a Gaussian PSF, against quadrature."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
from environments import interpreter
from pages import markdown
from programs import PROGRAMS
from scipy.special import erf, gammaincinv

HERE = Path(__file__).resolve().parent
SIZE = 64
FWHM = 3.0
SIGMA = FWHM / math.sqrt(8.0 * math.log(2.0))
RADII, INDICES, RATIOS = (1.0, 2.0, 4.0, 8.0), (0.5, 1.0, 2.5, 4.0, 6.0), (0.3, 0.8)
PLACE = (0.3, -0.2, 35.0)
"""Centre's offset from the stamp's, and position angle. [px, deg]"""

RENDERERS = (
    ("DeepLeGATo++ float64", "ours", None),
    ("DeepLeGATo++ float32, 40 a call", "ours32", None),
    ("GalSim", "galsim", None),
    ("pysersic pixel", "pysersic_pixel", "pysersic MAP"),
    ("pysersic Fourier", "pysersic_fourier", "pysersic MAP"),
    ("pysersic hybrid", "pysersic_hybrid", "pysersic MAP"),
    ("AstroPhot", "astrophot", "AstroPhot LM"),
    ("pyimfit", "pyimfit", "pyimfit LM"),
    ("lenstronomy, 3 samples a pixel", "lenstronomy", "GaLight PSO"),
)
"""Name in the table, function of the worker, and the program whose environment has it."""


def quadrature(radius: float, index: float, q: float, radial: int, angles: int) -> np.ndarray:
    """Returns the image of a profile of flux 1, by quadrature over the profile's own plane.

    A Gaussian averaged over a pixel is a product of error functions of x and y, so that the sum
    over points of the profile is a product of two matrices. The radius is R_e s^n, which makes the
    profile an exponential of s; angles are equally spaced, s is on panels of Gauss and Legendre.

    Args:
        radius: R_e along the major axis. [px]
        index: Sérsic index.
        q: Axis ratio.
        radial: Points per panel.
        angles: Points in angle.
    """
    b = gammaincinv(2.0 * index, 0.5)
    # Panels no wider than the PSF on the sky, out to where no ellipse touches the stamp.
    edges = np.array([0.0, *np.geomspace(1e-6, 2.0, 12), *np.arange(4.0, 1.6 * SIZE / q, 2.0)])
    ends = (edges / radius) ** (1.0 / index)
    nodes, weights = np.polynomial.legendre.leggauss(radial)
    middle, half = (ends[1:] + ends[:-1]) / 2, (ends[1:] - ends[:-1]) / 2
    s = (middle[:, None] + half[:, None] * nodes).ravel()
    w = (half[:, None] * weights).ravel()
    w = w * np.exp(-b * s) * s ** (2.0 * index - 1.0)
    w /= math.gamma(2.0 * index) * b ** (-2.0 * index)
    t = (np.arange(angles) + 0.5) * 2.0 * math.pi / angles
    turn = math.radians(PLACE[2] + 90.0)
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    image = np.zeros((SIZE, SIZE))
    for ri, wi in zip(radius * s**index, w, strict=True):
        along, across = ri * np.cos(t), q * ri * np.sin(t)
        x = PLACE[0] + along * math.cos(turn) - across * math.sin(turn)
        y = PLACE[1] + along * math.sin(turn) + across * math.cos(turn)
        seen = np.maximum(np.abs(x), np.abs(y)) < SIZE / 2 + 8.0 * SIGMA
        columns, rows = pixel(axis[:, None] - x[seen]), pixel(axis[:, None] - y[seen])
        image += (rows * (wi / angles)) @ columns.T
    return image


def pixel(distance: np.ndarray) -> np.ndarray:
    """Returns a Gaussian of the PSF's width averaged over a pixel that far away."""
    scale = 1.0 / (math.sqrt(2.0) * SIGMA)
    return 0.5 * (erf((distance + 0.5) * scale) - erf((distance - 0.5) * scale))


def cases() -> list[dict[str, float]]:
    """Returns the profiles."""
    return [
        {"radius": r, "index": n, "axis_ratio": q, "angle": PLACE[2], "x": PLACE[0], "y": PLACE[1]}
        for r, n, q in itertools.product(RADII, INDICES, RATIOS)
    ]


def compare(work: Path, environments: Path) -> None:
    """Writes ``renderers.md``: worst and median error over the peak pixel, and images per second.

    Args:
        work: Folder of the run.
        environments: Folder of the environments.
    """
    work.mkdir(parents=True, exist_ok=True)
    wanted = cases()
    forms = [(c["radius"], c["index"], c["axis_ratio"]) for c in wanted]
    coarse = np.stack([quadrature(*f, 5, 768) for f in forms])
    truth = np.stack([quadrature(*f, 8, 1024) for f in forms])
    peak = truth.max((1, 2))
    own = (np.abs(coarse - truth).max((1, 2)) / peak).max()
    axis = np.arange(41) - 20.0
    line, bare = pixel(axis), np.exp(-0.5 * (axis / SIGMA) ** 2)
    whole = np.outer(line, line)
    bare = np.outer(bare, bare)
    np.savez(work / "psf.npz", whole=whole / whole.sum(), bare=bare / bare.sum())
    (work / "profiles.json").write_text(json.dumps({"size": SIZE, "fwhm": FWHM, "cases": wanted}))
    by_name = {p.name: p for p in PROGRAMS}
    rows = []
    for name, function, program in RENDERERS:
        row: dict[str, object] = {"renderer": name}
        try:
            python = interpreter(by_name[program] if program else PROGRAMS[0], environments)
        except RuntimeError as error:
            rows.append(row | {"not run": str(error)})
            continue
        command = [python, str(HERE / "render_worker.py"), function, str(work.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work)
        if done.returncode != 0:
            rows.append(row | {"not run": (done.stderr.strip().splitlines() or ["?"])[-1][:160]})
            continue
        with np.load(work / f"{function}.npz") as file:
            images, seconds = file["images"], float(file["seconds"])
        error = np.abs(images - truth).max((1, 2)) / peak
        row |= {"worst": np.nanmax(error), "median": float(np.nanmedian(error))}
        row["not finite"] = int(np.isnan(error).sum())
        for key, values in (("R_e", RADII), ("n", INDICES)):
            column = {"R_e": 0, "n": 1}[key]
            for value in values:
                inside = np.array([f[column] == value for f in forms])
                known = error[inside & ~np.isnan(error)]
                row[f"{key} {value:g}"] = float(np.median(known)) if len(known) else None
        rows.append(row | {"images/s": 1.0 / seconds})
    text = (
        f"{len(wanted)} profiles on {SIZE} px under a Gaussian PSF of {FWHM:g} px: the largest "
        f"difference over the peak pixel. Two orders of the quadrature agree to {own:.0e}. Images "
        "per CPU second after the first.\n\n" + markdown(pd.DataFrame(rows))
    )
    (work / "renderers.md").write_text(text, encoding="utf-8")
    print(text)
