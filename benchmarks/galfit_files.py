"""Three GALFIT input files: this program's answer against imfit's on the same image.

    python benchmarks/galfit_files.py [-o FOLDER]

A single Sérsic profile with a free sky; a bulge and a disc whose centres are tied; a Sérsic
profile and a point source. The images are imfit's own models (the package pyimfit) with noise
of 1, so that neither the renderer nor the PSF's convolution is ours. imfit fits them from the
file's start values by Levenberg-Marquardt, we read the file by ``deeplegato predict --galfit``.
Prints truth, start, both answers with their errors, and what astropy reads back from the image
block.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import pyimfit
from astropy.io import fits
from scipy.special import gamma, gammaincinv

from deeplegato_pp.cli.app import main as deeplegato
from deeplegato_pp.observation.effective_psf import moffat_psf

SIDE, ZERO_POINT, SKY = 81, 25.0, 10.0

Values = dict[str, float]

BULGE = {"mag": 15.4, "re": 2.5, "n": 4.0, "q": 0.85, "pa": 20.0}
DISC = {"mag": 15.0, "re": 8.0, "n": 1.0, "q": 0.5, "pa": 60.0}
SINGLE = {"mag": 15.0, "re": 5.0, "n": 2.3, "q": 0.6, "pa": 40.0}
POINT = {"mag": 16.5}
CENTER = (41.3, 40.8)

CASES: dict[str, list[Values]] = {
    "single": [SINGLE],
    "bulge_disc": [BULGE, DISC],
    "point": [SINGLE, POINT],
}
"""The truths, in GALFIT's conventions: magnitude, pixels, b/a, degrees from +y."""


def start_of(part: Values, fixed_index: bool) -> Values:
    """Start values as a user writes them: off by some tenths."""
    start = {"mag": part["mag"] + 0.4}
    if "re" in part:
        index = part["n"] if fixed_index else 1.5
        start |= {"re": 1.4 * part["re"], "n": index, "q": 0.9, "pa": part["pa"] - 25.0}
    return start


def surface_brightness(part: Values) -> float:
    """Surface brightness at the half-light radius of a total magnitude. [per pixel]"""
    n, b = part["n"], gammaincinv(2 * part["n"], 0.5)
    shape = 2 * math.pi * n * math.exp(b) * b ** (-2 * n) * gamma(2 * n) * part["q"]
    return 10 ** (-0.4 * (part["mag"] - ZERO_POINT)) / (shape * part["re"] ** 2)


def magnitude(i_e: float, part: Values) -> float:
    return part["mag"] - 2.5 * math.log10(i_e / surface_brightness(part))


def imfit_model(parts: list[Values], fixed: bool, center: tuple[float, float], sky: float):
    """A description with the parts about one centre and a flat sky."""
    model = pyimfit.SimpleModelDescription()
    model.x0.setValue(center[0], (center[0] - 5, center[0] + 5))
    model.y0.setValue(center[1], (center[1] - 5, center[1] + 5))
    for part in parts:
        if "re" not in part:
            point = pyimfit.make_imfit_function("PointSource")
            flux = 10 ** (-0.4 * (part["mag"] - ZERO_POINT))
            point.I_tot.setValue(flux, (0.0, 100 * flux))
            model.addFunction(point)
            continue
        sersic = pyimfit.make_imfit_function("Sersic")
        sersic.PA.setValue(part["pa"], (-180.0, 360.0))
        sersic.ell.setValue(1 - part["q"], (0.0, 0.95))
        sersic.n.setValue(part["n"], (0.3, 8.0))
        if fixed:
            sersic.n.setValue(part["n"], fixed=True)
        i_e = surface_brightness(part)
        sersic.I_e.setValue(i_e, (0.0, 1000 * i_e))
        sersic.r_e.setValue(part["re"], (0.1, float(SIDE)))
        model.addFunction(sersic)
    flat = pyimfit.make_imfit_function("FlatSky")
    flat.I_sky.setValue(sky, (sky - 5, sky + 5))
    model.addFunction(flat)
    return model


def feedme(name: str, parts: list[Values], fixed: bool) -> str:
    lines = [f"A) {name}.fits", "C) sigma.fits", "D) psf.fits", "E) 1", "F) none"]
    lines += [f"G) {'ties' if len(parts) > 1 else 'none'}", f"H) 1 {SIDE} 1 {SIDE}"]
    lines += [f"I) {SIDE} {SIDE}", f"J) {ZERO_POINT}", "K) 0.2 0.2"]
    for part in parts:
        lines += [f"0) {'sersic' if 're' in part else 'psf'}", "1) 41.0 41.0 1 1"]
        lines.append(f"3) {part['mag']} 1")
        if "re" in part:
            lines += [f"4) {part['re']} 1", f"5) {part['n']} {0 if fixed else 1}"]
            lines += [f"9) {part['q']} 1", f"10) {part['pa']} 1"]
    return "\n".join([*lines, "0) sky", f"1) {SKY} 1", "2) 0 0", "3) 0 0", ""])


def fit_with_imfit(image, psf, starts: list[Values], fixed: bool) -> dict[str, tuple[float, float]]:
    fitter = pyimfit.Imfit(imfit_model(starts, fixed, (41.0, 41.0), SKY), psf=psf, maxThreads=1)
    fitter.loadData(image, error=np.ones_like(image))
    fitter.doFit(solver="LM")
    print(f"imfit: converged {fitter.fitConverged}, chi2/nu {fitter.reducedFitStatistic:.3f}")
    names = list(fitter.numberedParameterNames)
    values = dict(zip(names, fitter.getRawParameters(), strict=True))
    errors = dict(zip(names, np.atleast_1d(fitter.getParameterErrors()), strict=True))
    found = {}
    for k, start in enumerate(starts, 1):
        if "re" not in start:
            flux, error = values[f"I_tot_{k}"], errors[f"I_tot_{k}"]
            found[f"{k}_MAG"] = (ZERO_POINT - 2.5 * math.log10(flux), 1.086 * error / flux)
            continue
        part = {"mag": 0.0, "re": values[f"r_e_{k}"], "n": values[f"n_{k}"]}
        part["q"] = 1 - values[f"ell_{k}"]
        found[f"{k}_MAG"] = (magnitude(values[f"I_e_{k}"], part), math.nan)
        found[f"{k}_RE"] = (part["re"], errors[f"r_e_{k}"])
        found[f"{k}_N"] = (part["n"], errors[f"n_{k}"])
        found[f"{k}_AR"] = (part["q"], errors[f"ell_{k}"])
        found[f"{k}_PA"] = ((values[f"PA_{k}"] + 90) % 180 - 90, errors[f"PA_{k}"])
    return found


def ours(name: str) -> dict[str, tuple[float, float]]:
    """What the image block says, read back by astropy."""
    call = f"predict --galfit {name}.feedme -o {name}.ecsv --imgblock {name}-block.fits"
    if deeplegato(call.split()) != 0:
        raise SystemExit(f"{name} was not measured")
    header = fits.getheader(f"{name}-block.fits", 2)
    found = {}
    for key, text in header.items():
        if key[:2] in ("1_", "2_") and key[2:] in ("MAG", "RE", "N", "AR", "PA"):
            value, _, error = str(text).strip("[]").partition(" +/- ")
            found[key] = (float(value), float(error or 0.0))
    components = [header[f"COMP_{i}"] for i in range(1, 5) if f"COMP_{i}" in header]
    print(f"image block: {', '.join(components)}; chi2/nu {header['CHI2NU']:.3f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    folder = parser.parse_args().output or Path(tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    psf = moffat_psf(3.0)[0].astype(np.float64)
    psf /= psf.sum()
    for path in Path().glob("*.fits"):
        path.unlink()
    fits.writeto("psf.fits", psf)
    fits.writeto("sigma.fits", np.ones((SIDE, SIDE)))
    Path("ties").write_text("1_2 x offset\n1_2 y offset\n")
    rng = np.random.default_rng(1)
    for name, truths in CASES.items():
        fixed = name == "bulge_disc"
        maker = pyimfit.Imfit(imfit_model(truths, fixed, CENTER, SKY), psf=psf, maxThreads=1)
        image = maker.getModelImage(shape=(SIDE, SIDE)) + rng.normal(size=(SIDE, SIDE))
        fits.writeto(f"{name}.fits", image)
        starts = [start_of(part, fixed) for part in truths]
        Path(f"{name}.feedme").write_text(feedme(name, starts, fixed))
        theirs, mine = fit_with_imfit(image, psf, starts, fixed), ours(name)
        print(f"{name}\n{'':8s}{'truth':>9s}{'start':>9s}{'imfit':>20s}{'ours':>20s}")
        keys = {"MAG": "mag", "RE": "re", "N": "n", "AR": "q", "PA": "pa"}
        for k, (truth, start) in enumerate(zip(truths, starts, strict=True), 1):
            for suffix, name_ in keys.items():
                if name_ not in truth:
                    continue
                a, b = theirs[f"{k}_{suffix}"], mine[f"{k}_{suffix}"]
                print(
                    f"{k}_{suffix:6s}{truth[name_]:9.3f}{start[name_]:9.3f}"
                    f"{a[0]:11.4f} ± {a[1]:6.4f}{b[0]:11.4f} ± {b[1]:6.4f}"
                )


if __name__ == "__main__":
    main()
