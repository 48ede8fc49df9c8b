"""A simulated survey field through ``deeplegato catalog``: what is found, how well, how fast.

    python benchmarks/survey_field.py [--side 8000] [--galaxies 20000] [--stars 2000]
        [--folder survey_field] [--workers N] [--refine auto|all] [--detect]

The field is drawn with GalSim once and kept in the folder: galaxies with a Sérsic index of 60
values, stars, a PSF whose width and shape vary over the field, background and source noise, two
bad columns and a saturated star. The list given to the command is the truth's, positions disturbed
by a tenth of a pixel (or what --detect finds, matched within 3 px). Printed: rows against sources,
failed rows and why, bias and coverage by magnitude and by distance to the nearest neighbour, the
wall time and its parts, and the peak memory of the parent and of its largest child.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS

PIXEL_SCALE = 0.25
ZERO_POINT = 30.5
GAIN = 2.0
STAMP = 256
"""Side of the squares that galaxies are drawn on; four times as wide for the bright. [px]"""
PLANES = 5
"""PSFs of the cube along each side of the field."""


def psf_at(x: float, y: float, side: int):
    """The field's PSF: a Moffat whose width grows and whose shape turns across it."""
    import galsim

    u, v = 2.0 * x / side - 1.0, 2.0 * y / side - 1.0
    fwhm = (3.0 + 0.4 * (u * u + v * v)) * PIXEL_SCALE
    return galsim.Moffat(beta=4.0, fwhm=fwhm).shear(g1=0.03 * u, g2=0.03 * v)


def draw_truth(galaxies: int, stars: int, side: int, rng: np.random.Generator) -> Table:
    """Magnitudes as number counts have them, sizes that shrink with them, uniform positions."""
    number = galaxies + stars
    kind = np.array(["galaxy"] * galaxies + ["star"] * stars)
    magnitude = 27.0 + np.log10(rng.uniform(10.0 ** (0.3 * (19.0 - 27.0)), 1.0, number)) / 0.3
    size = np.exp(rng.normal(np.log(0.5) - 0.12 * (magnitude - 24.0), 0.4))
    values = np.geomspace(0.5, 6.0, 60)
    return Table(
        {
            "id": np.arange(1, number + 1),
            "kind": kind,
            "x": rng.uniform(-0.4, side - 0.6, number),
            "y": rng.uniform(-0.4, side - 0.6, number),
            "magnitude": magnitude,
            "effective_radius": np.clip(size, 0.11, 8.0),
            "sersic_index": rng.choice(values, number),
            "axis_ratio": rng.uniform(0.15, 1.0, number),
            "position_angle": rng.uniform(0.0, 180.0, number),
        }
    )


def make_wcs(side: int) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [side / 2 + 0.5, side / 2 + 0.5]
    wcs.wcs.cdelt = [-PIXEL_SCALE / 3600, PIXEL_SCALE / 3600]
    return wcs


def draw_image(truth: Table, side: int) -> np.ndarray:
    """The noiseless field. [image units]"""
    import galsim

    params = galsim.GSParams(folding_threshold=1e-3, maximum_fft_size=16384)
    image = galsim.ImageF(side, side, scale=PIXEL_SCALE)
    image.setOrigin(0, 0)
    for row in truth:
        flux = 10.0 ** (-0.4 * (row["magnitude"] - ZERO_POINT))
        psf = psf_at(row["x"], row["y"], side)
        profile = psf.withFlux(flux)
        if row["kind"] == "galaxy":
            q = float(row["axis_ratio"])
            galaxy = galsim.Sersic(
                n=float(row["sersic_index"]),
                half_light_radius=float(row["effective_radius"]) * np.sqrt(q),
                flux=flux,
                gsparams=params,
            )
            angle = (float(row["position_angle"]) + 90.0) * galsim.degrees
            profile = galsim.Convolve(galaxy.shear(q=q, beta=angle), psf, gsparams=params)
        center = galsim.PositionD(float(row["x"]), float(row["y"]))
        half = (
            STAMP * (2 if row["magnitude"] < 23 else 1) * (2 if row["magnitude"] < 21 else 1) // 2
        )
        edges = [round(c) + sign * half for c in (center.x, center.y) for sign in (-1, 1)]
        bounds = galsim.BoundsI(*edges) & image.bounds
        # The PSF was made with its pixel: the profile is sampled, not averaged over pixels.
        profile.drawImage(image[bounds], center=center, method="no_pixel", add_to_image=True)
    return np.array(image.array, dtype=np.float64)


def make_field(folder: Path, side: int, galaxies: int, stars: int, seed: int = 1) -> None:
    """Writes mosaic.fits (SCI, ERR, DQ), psf.fits (a cube with positions), truth and list."""
    rng = np.random.default_rng(seed)
    truth = draw_truth(galaxies, stars, side, rng)
    model = draw_image(truth, side)
    image = model + rng.normal(0.0, np.sqrt(1.0 + np.clip(model, 0, None) / GAIN))
    mask = np.zeros((side, side), dtype=np.uint8)
    for column in (side // 3, side // 3 + 1):
        image[:, column], mask[:, column] = 1e4 * rng.standard_normal(side), 1
    cut = 0.2 * np.max(model)
    saturated = model > cut
    image[saturated], mask[saturated] = cut, 2
    header = make_wcs(side).to_header()
    header["MAGZERO"] = ZERO_POINT
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(image.astype(np.float32), header, name="SCI"),
            fits.ImageHDU(mask, name="DQ")]  # fmt: skip
    fits.HDUList(hdus).writeto(folder / "mosaic.fits", overwrite=True)
    write_psf(folder / "psf.fits", side)
    truth.write(folder / "truth.ecsv", overwrite=True)
    listed = truth["id", "x", "y"].copy()
    for name in ("x", "y"):
        listed[name] = np.clip(listed[name] + rng.normal(0.0, 0.1, len(truth)), -0.4, side - 0.6)
    listed.write(folder / "list.fits", overwrite=True)


def write_psf(path: Path, side: int) -> None:
    places = (np.arange(PLANES) + 0.5) * side / PLANES
    x, y = (a.ravel() for a in np.meshgrid(places, places))
    planes = [
        psf_at(px, py, side).drawImage(nx=51, ny=51, scale=PIXEL_SCALE, method="no_pixel").array
        for px, py in zip(x, y, strict=True)
    ]
    columns = [fits.Column("x", "D", array=x), fits.Column("y", "D", array=y)]
    table = fits.BinTableHDU.from_columns(columns)
    fits.HDUList([fits.PrimaryHDU(np.array(planes)), table]).writeto(path, overwrite=True)


class Memory(threading.Thread):
    """Peak memory of a process and of its children, their shared file pages left out. [MB]"""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.parent, self.children = pid, 0.0, 0.0

    def run(self) -> None:
        while (own := anonymous(self.pid)) is not None:
            self.parent = max(self.parent, own)
            found = [anonymous(p) or 0.0 for p in descendants(self.pid)]
            self.children = max(self.children, max(found, default=0.0))
            time.sleep(0.2)


def anonymous(pid: int) -> float | None:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return float(line.split()[1]) / 1024
    except OSError:
        return None
    return None


def descendants(pid: int) -> list[int]:
    """All processes below one, whichever of its threads started them."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(p) for p in path.read_text().split()]
        except OSError:
            continue
        found += [p for child in children for p in (child, *descendants(child))]
    return found


def run_command(folder: Path, options: argparse.Namespace) -> None:
    output = folder / "catalogue.parquet"
    command = [sys.executable, "-c", "import sys; from deeplegato_pp.cli.app import main; "
               "sys.exit(main())", "catalog", str(folder / "mosaic.fits"), "--psf",
               str(folder / "psf.fits"), "--noise", "1", "--gain", str(GAIN),
               "-o", str(output), "--overwrite",
               "--residual-image", str(folder / "residual.fits")]  # fmt: skip
    command += ["--detect"] if options.detect else ["--sources", str(folder / "list.fits")]
    if options.workers:
        command += ["--workers", str(options.workers)]
    if options.refine:
        command += ["--refine", "--refine-rule", options.refine]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ)
    memory = Memory(process.pid)
    memory.start()
    status = process.wait()
    print(f"exit status {status}, {time.perf_counter() - started:.1f} s from call to end")
    print(f"peak memory: parent {memory.parent:.0f} MB, largest child {memory.children:.0f} MB")


def matched(table: QTable, truth: Table, detect: bool) -> QTable:
    """The catalogue's rows in the truth's order; of detections the nearest within 3 px."""
    from scipy.spatial import cKDTree

    if not detect:
        assert np.array_equal(np.asarray(table["id"]), np.asarray(truth["id"])), "rows differ"
        return table
    tree = cKDTree(np.stack([table["x_source"].value, table["y_source"].value], 1))
    distance, nearest = tree.query(np.stack([truth["x"], truth["y"]], 1))
    found = distance < 3.0
    print("completeness of the detection by magnitude:")
    for low in np.arange(19.0, 27.0):
        inside = (truth["magnitude"] >= low) & (truth["magnitude"] < low + 1)
        if inside.sum():
            print(f"  {low:.0f}-{low + 1:.0f}: {found[inside].mean():.3f} of {inside.sum()}")
    print(f"detections {len(table)}, without a source within 3 px "
          f"{len(table) - len(set(nearest[found].tolist()))}")  # fmt: skip
    # Of sources blended into one detection the brightest is the one measured.
    brightest: dict[int, int] = {}
    for i in np.flatnonzero(found)[np.argsort(truth["magnitude"][found])]:
        brightest.setdefault(int(nearest[i]), int(i))
    print(f"sources blended with a brighter one {int(found.sum()) - len(brightest)}")
    kept = np.array(sorted(brightest.values()))
    truth.remove_rows(np.setdiff1d(np.arange(len(truth)), kept))
    return table[nearest[kept]]


NAMES = ("magnitude", "effective_radius", "sersic_index", "axis_ratio")


def compare(folder: Path, detect: bool) -> None:
    from scipy.spatial import cKDTree

    table = QTable.read(folder / "catalogue.parquet")
    truth = Table.read(folder / "truth.ecsv")
    places = np.stack([truth["x"], truth["y"]], 1)
    truth["distance"] = cKDTree(places).query(places, k=2)[0][:, 1]
    print(f"sources {len(truth)}, rows {len(table)}")
    table = matched(table, truth, detect)
    failed = np.array(["failed" in str(n).split(",") for n in table["flag_names"]])
    print(f"not measured {failed.sum()}")
    for reason in sorted({str(r)[:100] for r in table["reason"][failed]}):
        print(f"  {reason}")
    names, counts = np.unique(
        [n for text in table["flag_names"] for n in str(text).split(",") if n], return_counts=True
    )
    print("flags: " + ", ".join(f"{n} {c}" for n, c in zip(names, counts, strict=True)))
    good = ~failed & (np.asarray(truth["kind"]) == "galaxy")
    for what, edges in (("magnitude", [19, 22, 23, 24, 25, 26, 27]),
                        ("distance", [0, 5, 10, 20, 40, 1e9])):  # fmt: skip
        print(f"by {what}: number; per parameter bias in sigma, coverage of 68 % and 95 %")
        for low, high in pairwise(edges):
            inside = good & (truth[what] >= low) & (truth[what] < high)
            if inside.sum():
                print(f"  {low:g}-{high:g}: {inside.sum()}; {figures(table, truth, inside)}")
    masked = np.array(["masked_core" in str(n).split(",") for n in table["flag_names"]])
    print("brighter than 22, by masked core")
    for word, rows in (("masked", masked), ("whole", ~masked)):
        inside = good & rows & (np.asarray(truth["magnitude"]) < 22)
        if inside.sum():
            print(f"  {word}: {inside.sum()}; {figures(table, truth, inside)}")


def figures(table: QTable, truth: Table, inside: np.ndarray) -> str:
    parts = []
    for name in NAMES:
        value = {s: plain(table[f"{name}{s}"])[inside] for s in
                 ("", "_std", "_q025", "_q16", "_q84", "_q975")}  # fmt: skip
        true = np.asarray(truth[name])[inside]
        bias = np.median((value[""] - true) / value["_std"])
        inner = np.mean((true > value["_q16"]) & (true < value["_q84"]))
        outer = np.mean((true > value["_q025"]) & (true < value["_q975"]))
        parts.append(f"{name} {bias:+.2f} {inner:.2f} {outer:.2f}")
    return ", ".join(parts)


def plain(column) -> np.ndarray:
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column), dtype=float), np.nan)
    return np.asarray(values, dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=8000)
    parser.add_argument("--galaxies", type=int, default=20_000)
    parser.add_argument("--stars", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=Path("survey_field"))
    parser.add_argument("--workers", type=int)
    parser.add_argument("--refine", choices=["auto", "all"])
    parser.add_argument("--detect", action="store_true")
    options = parser.parse_args()
    folder = options.folder / f"{options.side}-{options.galaxies}-{options.stars}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "list.fits").exists():
        started = time.perf_counter()
        make_field(folder, options.side, options.galaxies, options.stars)
        print(f"the field was drawn in {time.perf_counter() - started:.0f} s")
    run_command(folder, options)
    compare(folder, options.detect)


if __name__ == "__main__":
    main()
