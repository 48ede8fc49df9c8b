"""The bare network beside the exact posterior, on the same fresh simulations.

    python benchmarks/network.py -n 500 -o network.json

Prints, by class of estimated signal-to-noise: the error of the network's mean over that of the
exact posterior's (root mean squares), the median ratio of their widths, and the mean of
-ln p(truth) of both. The exact one's is the floor that no network goes below on average, so that
the difference is how much training could still gain. None of these galaxies has been trained or
validated on. Coverage, ranks and all else: `deeplegato calibrate`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

from deeplegato_pp.calibration.galaxies import MeasuredGalaxies
from deeplegato_pp.calibration.measure import measure_batch
from deeplegato_pp.calibration.report import snr_range
from deeplegato_pp.calibration.settings import BATCH, Settings, Simulations
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.inference import Predictor
from deeplegato_pp.scene.parameters import NAMES, SNR_CLASSES

SEED = 77  # not the one that calibrations start from


def isolated(predictor: Predictor, seed: int) -> Simulations:
    """Returns a stream of isolated, unmasked Sérsic profiles from the network's prior."""
    simulations = Simulations.of(predictor.model, None, seed)
    simulations.simulator = SersicSimulator.from_config(simulations.data, clean=True)
    return simulations


def measure(
    predictor: Predictor, simulations: Simulations, number: int, ess: float = 400.0
) -> tuple[MeasuredGalaxies, MeasuredGalaxies, list[float]]:
    """Returns network and exact posteriors of the same galaxies.

    The last value is the CPU time of both. [ms per galaxy]
    """
    parts: dict[bool, list[MeasuredGalaxies]] = {False: [], True: []}
    spent = {False: 0.0, True: 0.0}
    for step in range(-(-number // BATCH)):
        started = time.process_time()
        simulations.scene(step)
        drawing = time.process_time() - started
        for refine, found in parts.items():
            settings = Settings(number=max(number, 20), detailed=0, refine=refine, ess=ess)
            started = time.process_time()
            found.append(measure_batch(predictor, simulations, step, settings))
            spent[refine] += time.process_time() - started - drawing
        print(f"{min(number, (step + 1) * BATCH)} of {number}", flush=True)
    network, exact = (MeasuredGalaxies.concatenate(found)[:number] for found in parts.values())
    return network, exact, [1e3 * s / (len(parts[False]) * BATCH) for s in spent.values()]


def table(network: MeasuredGalaxies, exact: MeasuredGalaxies) -> list[dict[str, object]]:
    """Returns one row per class that has galaxies, and one over all."""
    snr, rows = exact.estimates[:, 0], []
    for low, high in [(0.0, np.inf), *itertools.pairwise(SNR_CLASSES)]:
        inside = (snr >= low) & (snr < high)
        if not inside.any():
            continue
        known = inside & np.isfinite(exact.nll)
        gap = network.nll[known] - exact.nll[known]
        rms = [np.sqrt((g.error[inside] ** 2).mean(axis=0)) for g in (network, exact)]
        widths = np.median(network.width[inside] / exact.width[inside], axis=0)
        rows.append(
            {
                "snr": [low, high if np.isfinite(high) else None],
                "galaxies": int(inside.sum()),
                "nll": float(network.nll[known].mean()),
                "exact_nll": float(exact.nll[known].mean()),
                "gap": float(gap.mean()),
                "gap_error": float(gap.std() / np.sqrt(len(gap))),
                "rmse_over_exact": dict(zip(NAMES, (rms[0] / rms[1]).tolist(), strict=True)),
                "width_over_exact": dict(zip(NAMES, widths.tolist(), strict=True)),
            }
        )
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Prints the table, parameters along the columns."""
    print(f"{'':34s}" + "".join(f"{name[:9]:>10s}" for name in NAMES))
    for row in rows:
        low, high = row["snr"]  # type: ignore[misc]
        name = "all" if low == 0 and high is None else snr_range([low, high])
        for key in ("rmse_over_exact", "width_over_exact"):
            values = "".join(f"{v:10.2f}" for v in row[key].values())  # type: ignore[attr-defined]
            print(f"{name:>8s} {row['galaxies']:6d} {key:18s}{values}")
        print(
            f"{name:>8s} {'':6s} -ln p(truth): network {row['nll']:.2f}, exact "
            f"{row['exact_nll']:.2f}, gap {row['gap']:.2f} +- {row['gap_error']:.2f}"
        )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=500)
    parser.add_argument("--ess", type=float, default=400.0, help="of the exact posteriors")
    parser.add_argument("--model", default=None)
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained(options.model)
    network, exact, spent = measure(
        predictor, isolated(predictor, SEED), options.number, options.ess
    )
    rows = table(network, exact)
    show(rows)
    print(f"ms a galaxy: network {spent[0]:.0f}, exact {spent[1]:.0f}")
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
