"""The same galaxies through this program, pyimfit and pysersic, in one run.

    python benchmarks/peers.py                                # what is installed here
    python benchmarks/peers.py --python ../peers/bin/python   # the peers of another environment
    python benchmarks/peers.py -n 6 --size 128 -o peers.json

Simulates a few isolated galaxies with known constant noise and PSF, so that every tool has the same
likelihood, and prints for each tool the time per galaxy (the first apart: it may hold compilation),
the error of each parameter against the truth, the stated sigma, and how often the truth lies within
it. pyimfit runs Levenberg-Marquardt from a plain start, pysersic finds the MAP and runs NUTS (2
chains of 1,000 + 1,000) under its automatic prior. A tool that is not installed is skipped, and
said so. `pip install "deeplegato-pp[compare]"` brings pyimfit; pysersic brings jax and numpyro,
which are best kept in an environment of their own (`pip install pysersic`): give its interpreter by
--python.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("magnitude", "effective_radius", "sersic_index", "axis_ratio")
PEERS = ("pyimfit", "pysersic-map", "pysersic-nuts")
ZERO_POINT = 30.5
FWHM = 3.0

Result = dict[str, tuple[float, float | None]]
"""Value and standard deviation (None: the tool states none) by parameter, radii in pixels."""


# --- the peers, which know nothing of this package ----------------------------------------


def bn(n: float) -> float:
    """Returns the Sérsic profile's b_n."""
    from scipy.special import gammaincinv

    return float(gammaincinv(2.0 * n, 0.5))


def run_pyimfit(image: np.ndarray, psf: np.ndarray, seed: int, draws: int) -> Result:
    """Fits by Levenberg-Marquardt from a plain start."""
    import pyimfit

    size = len(image)
    middle = (size + 1) / 2
    sersic = pyimfit.make_imfit_function("Sersic")
    for name, start, limits in (
        ("PA", 45.0, (0.0, 180.0)),
        ("ell", 0.3, (0.0, 0.9)),
        ("n", 2.0, (0.3, 8.0)),
        ("I_e", max(float(image.max()) / 4.0, 0.1), (1e-6, 1e6)),
        ("r_e", 5.0, (0.1, 40.0)),
    ):
        getattr(sersic, name).setValue(start, limits)
    model = pyimfit.SimpleModelDescription()
    model.x0.setValue(middle, (middle - 5.0, middle + 5.0))
    model.y0.setValue(middle, (middle - 5.0, middle + 5.0))
    model.addFunction(sersic)
    fitter = pyimfit.Imfit(model, psf=psf.astype(np.float64), maxThreads=1)
    fitter.loadData(image.astype(np.float64), error=np.ones_like(image, dtype=np.float64))
    fitter.doFit(solver="LM")
    names = [n.split("_1")[0] for n in fitter.numberedParameterNames]
    value = dict(zip(names, fitter.getRawParameters(), strict=True))
    error = dict(zip(names, np.atleast_1d(fitter.getParameterErrors()), strict=True))
    n, b = value["n"], bn(value["n"])
    flux = 2 * math.pi * value["r_e"] ** 2 * (1 - value["ell"]) * value["I_e"] * n
    flux *= math.exp(b) * b ** (-2 * n) * math.gamma(2 * n)
    return {
        "magnitude": (ZERO_POINT - 2.5 * math.log10(flux), None),
        "effective_radius": (value["r_e"], error["r_e"]),
        "sersic_index": (n, error["n"]),
        "axis_ratio": (1.0 - value["ell"], error["ell"]),
    }


def pysersic_fitter(image: np.ndarray, psf: np.ndarray) -> Any:
    """Returns pysersic's fitter with its automatic prior."""
    from pysersic import FitSingle
    from pysersic.priors import autoprior

    mask = np.zeros_like(image, dtype=bool)
    prior = autoprior(image, profile_type="sersic", mask=mask, sky_type="none")
    return FitSingle(data=image, rms=np.ones_like(image), psf=psf, prior=prior, mask=mask)


def run_map(image: np.ndarray, psf: np.ndarray, seed: int, draws: int) -> Result:
    """Finds pysersic's maximum a posteriori."""
    import jax

    best = pysersic_fitter(image, psf).find_MAP(rkey=jax.random.PRNGKey(seed))
    return {
        "magnitude": (ZERO_POINT - 2.5 * math.log10(float(best["flux"])), None),
        "effective_radius": (float(best["r_eff"]), None),
        "sersic_index": (float(best["n"]), None),
        "axis_ratio": (1.0 - float(best["ellip"]), None),
    }


def run_nuts(image: np.ndarray, psf: np.ndarray, seed: int, draws: int) -> Result:
    """Samples with pysersic's NUTS."""
    import jax

    found = pysersic_fitter(image, psf).sample(
        jax.random.PRNGKey(seed),
        num_samples=draws,
        num_warmup=draws,
        mcmc_kwargs={"progress_bar": False},
        return_model=False,
    )
    chain = {k: np.asarray(v).ravel() for k, v in found.idata.posterior.items()}
    columns = {
        "magnitude": ZERO_POINT - 2.5 * np.log10(chain["flux"]),
        "effective_radius": chain["r_eff"],
        "sersic_index": chain["n"],
        "axis_ratio": 1.0 - chain["ellip"],
    }
    return {name: (float(x.mean()), float(x.std())) for name, x in columns.items()}


RUNNERS: dict[str, tuple[str, Callable[..., Result]]] = {
    "pyimfit": ("pyimfit", run_pyimfit),
    "pysersic-map": ("pysersic", run_map),
    "pysersic-nuts": ("pysersic", run_nuts),
}


def work(data: Path, tool: str, draws: int) -> None:
    """Runs one peer over all galaxies: a line of JSON for each."""
    try:
        __import__(RUNNERS[tool][0])
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    arrays = np.load(data)
    for i, image in enumerate(arrays["images"]):
        start = time.perf_counter()
        try:
            result = RUNNERS[tool][1](image, arrays["psf"], i, draws)
        except Exception as error:
            print(json.dumps({"failed": f"{type(error).__name__}: {error}"}), flush=True)
            continue
        line = {"seconds": time.perf_counter() - start, "result": result}
        print(json.dumps(line), flush=True)


# --- this program ---------------------------------------------------------------------------


def simulate(number: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images with noise 1, the PSF and the truth, (G, 7), radii in pixels."""
    import torch

    from deeplegato_pp.data import SersicSimulator
    from deeplegato_pp.observation.effective_psf import moffat_psf

    rng = np.random.default_rng(seed)
    psf, _ = moffat_psf(FWHM)
    radius = np.exp(rng.uniform(np.log(1.5), np.log(8.0), number))
    q = rng.uniform(0.3, 0.95, number)
    snr = np.exp(rng.uniform(np.log(20.0), np.log(400.0), number))
    flux = 2.0 * snr * np.sqrt(2.0 * np.pi * (radius**2 * q + FWHM**2 / 4.0))
    truth = np.stack(
        [
            ZERO_POINT - 2.5 * np.log10(flux),
            radius,
            np.exp(rng.uniform(np.log(0.7), np.log(4.5), number)),
            q,
            rng.uniform(0.0, 180.0, number),
            rng.uniform(-1.0, 1.0, number),
            rng.uniform(-1.0, 1.0, number),
        ],
        1,
    )
    simulator = SersicSimulator(size, pixel_scale=1.0, zero_point=ZERO_POINT)
    model = simulator.render(torch.from_numpy(truth), torch.from_numpy(psf)).numpy()
    return model + rng.normal(size=model.shape), psf, truth


def run_ours(images: np.ndarray, psf: np.ndarray, method: str) -> Iterator[dict[str, Any]]:
    """Refines each galaxy on its own, as the peers do."""
    from deeplegato_pp import Observation, Predictor

    predictor = Predictor.from_pretrained(device="cpu")
    for image in images:
        start = time.perf_counter()
        observation = Observation.from_array(
            image, psf, 1.0, pixel_scale=0.25, zero_point=ZERO_POINT, sky_sigma=1e-6
        )
        row = predictor.refine(predictor.posterior(observation), method).rows()[0]
        seconds = time.perf_counter() - start
        result = {name: [row[name], row[f"{name}_std"]] for name in NAMES}
        result["effective_radius"] = [x / 0.25 for x in result["effective_radius"]]
        yield {"seconds": seconds, "result": result}


# --- the comparison -------------------------------------------------------------------------


def run_peer(python: str, data: Path, tool: str, draws: int) -> Iterator[dict[str, Any]]:
    """Runs a peer under its interpreter; its progress bars are not shown."""
    command = [python, __file__, "--worker", tool, "--data", str(data), "--draws", str(draws)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield json.loads(line)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield {"failed": f"exit status {done.returncode}, {last}"}


def table_row(lines: list[dict[str, Any]], truth: np.ndarray) -> dict[str, Any]:
    """Returns one tool's figures; errors of radius and index are relative."""
    done = [(line, t) for line, t in zip(lines, truth, strict=False) if "result" in line]
    seconds = [line["seconds"] for line, _ in done]
    row: dict[str, Any] = {
        "galaxies": len(done),
        "failed": sum("failed" in line for line in lines),
        "first_seconds": seconds[0] if seconds else None,
        "seconds": float(np.median(seconds[1:])) if len(seconds) > 1 else None,
    }
    for i, name in enumerate(NAMES):
        pairs = [(*line["result"][name], t[i]) for line, t in done]
        relative = name in ("effective_radius", "sersic_index")
        unit = np.array([t if relative else 1.0 for *_, t in pairs])
        error = np.array([v - t for v, _, t in pairs]) / unit
        stated = [s is not None for _, s, _ in pairs]
        sigma = np.array([s if s is not None else math.nan for _, s, _ in pairs]) / unit
        row[name] = {
            "error": float(np.median(np.abs(error))) if done else None,
            "sigma": float(np.median(sigma)) if done and all(stated) else None,
            "within_sigma": float(np.mean(np.abs(error) < sigma)) if done and all(stated) else None,
        }
    return row


def show(table: dict[str, dict[str, Any]]) -> None:
    """Prints the table."""
    print("\nmedian |error| / median sigma / share within one sigma (0.68 is right)")
    headings = "".join(f"{n:>25}" for n in NAMES)
    print(f"{'':<16}{'galaxies':>9}{'first [s]':>11}{'then [s]':>10}{headings}")
    for tool, row in table.items():
        first, then = (f"{row[k]:.2f}" if row[k] else "-" for k in ("first_seconds", "seconds"))
        cells = ""
        for name in NAMES:
            x = row[name]
            cell = [f"{x[k]:.2g}" if x[k] is not None else "-" for k in x]
            cells += f"{' / '.join(cell):>25}"
        print(f"{tool:<16}{row['galaxies']:>9}{first:>11}{then:>10}{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=6)
    parser.add_argument("--size", type=int, default=64, help="stamp side [px]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the peers")
    parser.add_argument("--skip", nargs="*", choices=PEERS, default=[], help="peers left out")
    parser.add_argument("--draws", type=int, default=1000, help="of NUTS, after as many to warm up")
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the figures")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.data, args.worker, args.draws)
        return
    images, psf, truth = simulate(args.number, args.size, args.seed)
    lines: dict[str, list[dict[str, Any]]] = {}
    for method in ("exact", "laplace"):
        lines[f"refine {method}"] = list(run_ours(images, psf, method))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "galaxies.npz"
        np.savez(data, images=images, psf=psf)
        for tool in (p for p in PEERS if p not in args.skip):
            found = list(run_peer(args.python, data, tool, args.draws))
            if any("missing" in line for line in found):
                print(f"{tool} is skipped: {found[0]['missing']} under {args.python}.")
                continue
            for line in found:
                if "failed" in line:
                    print(f"{tool} failed on a galaxy: {line['failed']}")
            lines[tool] = found
    table = {tool: table_row(found, truth) for tool, found in lines.items()}
    show(table)
    if args.output:
        content = {"size": args.size, "table": table, "galaxies": lines, "truth": truth.tolist()}
        args.output.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
