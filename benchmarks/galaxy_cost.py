"""CPU time of one galaxy's exact posterior: real images, and large galaxies drawn from the prior.

    python benchmarks/galaxy_cost.py real FOLDER [--part 0/3] -o costs.csv
    python benchmarks/galaxy_cost.py large [-n 500] [--part 0/3] -o costs.csv
    python benchmarks/galaxy_cost.py report costs.csv [more.csv]

Each galaxy is measured alone, as `deeplegato predict` does, on one thread. `report` prints the
median, the 99th percentile and the largest time, and whatever costs more than five times the
median with what explains it: how it was sampled, effective size, binning, flags.
Large galaxies have half-light radii of 16 to 100 px, log-uniform, on 443 px; everything else
is drawn as the network's prior has it.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.cli.measuring import Measuring
from deeplegato_pp.errors import DeepLegatoError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.refine.policy import Refining
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.scene.render.renderer import render_sersic

SIDE = 443
PIXEL_SCALE = 0.25
FEW = 5.0  # medians that a galaxy may cost without a reason

COLUMNS = ("name", "cpu_s", "method", "ess", "bin", "oversampling", "snr", "radius_px", "flags")


def real(folder: Path) -> Iterator[tuple[str, Observation]]:
    """Every image of a folder that can be read; what is refused is told."""
    for path in sorted(folder.rglob("*.fits")):
        try:
            yield str(path.relative_to(folder)), Observation.from_fits(path, psf_even="shift")
        except DeepLegatoError as error:
            print(f"refused: {path}: {error}")


def large(number: int) -> Iterator[tuple[str, Observation]]:
    """Galaxies larger than a stamp, with unit noise and neither gain nor mask."""
    for i in range(number):
        rng = np.random.default_rng([7, i])
        flux, radius = 10.0 ** rng.uniform(3.0, 6.5), np.exp(rng.uniform(*np.log([16.0, 100.0])))
        n, q = np.exp(rng.uniform(*np.log([0.3, 8.0]))), rng.uniform(0.1, 1.0)
        values = [flux, radius, n, q, rng.uniform(0.0, 180.0), *rng.uniform(-2.0, 2.0, 2)]
        psf, _ = moffat_psf(rng.uniform(2.0, 5.0))
        columns = torch.tensor(values, dtype=torch.float64)[:, None]
        image = render_sersic(*columns, torch.from_numpy(psf), SIDE)[0].numpy()
        image = image + rng.standard_normal(image.shape)
        noise = np.ones_like(image)
        yield (
            f"large-{i}",
            Observation.from_array(image, psf, noise, pixel_scale=PIXEL_SCALE, zero_point=30.5),
        )


def measure(galaxies: Iterator[tuple[str, Observation]], part: str, output: Path) -> None:
    """Writes one line per galaxy as they come."""
    torch.set_num_threads(1)
    which, parts = map(int, part.split("/"))
    predictor, how = Predictor.from_pretrained(), Measuring(1000, 0, Refining())
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i, (name, observation) in enumerate(galaxies):
            if i % parts != which:
                continue
            started = time.process_time()
            row = how.measure(predictor, [observation])
            spent = time.process_time() - started
            m, values = row.measurements[0], row.rows()[0]
            if not m.measured:
                print(f"not measured: {name}: {m.reason}")
                continue
            writer.writerow(
                [name, f"{spent:.3f}", m.method, f"{m.ess:.0f}", m.prepared.bin,
                 m.prepared.psf_oversampling, f"{values['snr']:.1f}",
                 f"{values['effective_radius_pix']:.1f}", " ".join(Flag.names(m.flags))]
            )  # fmt: skip
            file.flush()


def report(paths: list[Path]) -> None:
    """Prints the spread of the costs and what exceeds five medians."""
    rows = [row for path in paths for row in csv.DictReader(path.open())]
    cost = np.array([float(row["cpu_s"]) for row in rows])
    median = np.median(cost)
    print(
        f"{len(rows)} galaxies: median {median:.2f} s, 99th percentile "
        f"{np.percentile(cost, 99):.2f} s, largest {cost.max():.2f} s; "
        f"{(cost > FEW * median).sum()} cost more than {FEW:g} medians"
    )
    for i in np.argsort(-cost):
        if cost[i] <= FEW * median:
            break
        print("  ".join(rows[i].values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("real", "large"):
        command = commands.add_parser(name)
        if name == "real":
            command.add_argument("folder", type=Path)
        else:
            command.add_argument("-n", "--number", type=int, default=500)
        command.add_argument("--part", default="0/1", help="every so-manieth galaxy only: I/K")
        command.add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("report").add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.command == "report":
        report(options.files)
        return
    galaxies = real(options.folder) if options.command == "real" else large(options.number)
    measure(galaxies, options.part, options.output)


if __name__ == "__main__":
    main()
