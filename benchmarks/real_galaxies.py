"""Real galaxies against published fits: every file of a folder, by one network.

    python benchmarks/real_galaxies.py FOLDER [--refine exact|laplace] [--model-error 0.1]
        [--tier A] [--sources profit_kids profit_sdss galfits_jwst] [--sheet sheet.png]
        [--measure-correlation]

FOLDER holds ``cases.ecsv`` with the columns file, source, id, tier, flags, has_psf, pixel_scale and
ref_* in the project's conventions, and the files it names. Prints what became of each file, the
median and 68 % scatter of the differences for tier A, cases marked degenerate left out, and how
far the images of the same galaxy, in other bands or by other cameras, agree. With
--measure-correlation the noise's correlation is measured wherever a stamp has room for that.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from astropy.table import Table
from real_pulls import read_images

from deeplegato_pp import Observation, Posterior, Predictor
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.noise_correlation import measure_noise_correlation


def measure(
    cases: Table, folder: Path, refine: str | None, model_error: float, correlated: bool
) -> tuple[list[int], Posterior]:
    """Returns the rows that could be read, and their posterior."""
    rows, observations = read_images(folder, cases, range(len(cases)))
    if correlated:
        observations = [_correlated(observation) for observation in observations]
        found = [o.noise_correlation for o in observations if o.noise_correlation > 1.0]
        print(f"noise correlation of {len(found)}: {np.percentile(found, [16, 50, 84]).round(1)}")
    predictor = Predictor.from_pretrained()
    started = time.perf_counter()
    posterior = predictor.posterior(observations)
    print(f"{len(rows)} galaxies, {time.perf_counter() - started:.1f} s in the network")
    if refine:
        started = time.perf_counter()
        posterior = predictor.refine(posterior, method=refine, model_error=model_error)
        print(f"refined in {time.perf_counter() - started:.1f} s")
    return rows, posterior


def _correlated(observation: Observation) -> Observation:
    """Returns an observation with its noise's correlation, where there is room to measure it."""
    try:
        c = measure_noise_correlation(observation.image, observation.noise, observation.mask)
    except InputError:
        return observation
    return replace(observation, noise_correlation=c)


def report(cases: Table, table: Table) -> None:
    """Prints flags, goodness of fit, and differences from the references."""
    flags = Counter(name for value in table["flags"] for name in Flag.names(int(value)))
    print("flags:", dict(flags.most_common()))
    chi2 = np.asarray(table["chi2"], float)
    print("chi2 per pixel, quartiles:", np.nanpercentile(chi2, [25, 50, 75]).round(2))
    chosen = np.array(
        [
            c["tier"] == "A"
            and "degenerate" not in str(c["flags"])
            and np.isfinite(c["ref_effective_radius_px"])
            for c in cases
        ]
    )
    ours, theirs = table[chosen], cases[chosen]
    differences = {
        "ln R_e": np.log(ours["effective_radius_pix"].value / theirs["ref_effective_radius_px"]),
        "ln n": np.log(np.asarray(ours["sersic_index"], float) / theirs["ref_sersic_index"]),
        "q": np.asarray(ours["axis_ratio"], float) - theirs["ref_axis_ratio"],
        "PA": (ours["position_angle"].value - theirs["ref_position_angle"] + 90) % 180 - 90,
    }
    print(f"tier A without degenerate: {chosen.sum()} files")
    for name, difference in differences.items():
        d = np.asarray(difference, float)
        d = d[np.isfinite(d)]
        low, median, high = np.percentile(d, [16, 50, 84])
        print(f"  {name:7s} median {median:+.3f}, 68 % within {0.5 * (high - low):.3f} ({d.size})")


def repeats(cases: Table, table: Table) -> None:
    """Prints the scatter among images of the same galaxy, by where they come from."""
    images: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        images.setdefault(str(case["id"]), []).append(i)
    found: dict[str, list[list[float]]] = {}
    for rows in images.values():
        own = table[rows]
        if len(rows) > 1 and np.isfinite(np.asarray(own["sersic_index"], float)).all():
            angle = np.exp(2j * np.deg2rad(np.asarray(own["position_angle"].value, float)))
            turned = np.rad2deg(np.angle(angle / angle.mean())) / 2
            columns = (
                np.log(np.asarray(own["effective_radius"].value, float)),
                np.log(np.asarray(own["sersic_index"], float)),
                np.asarray(own["axis_ratio"], float),
                turned,
            )
            source = " + ".join(sorted({str(s) for s in cases["source"][rows]}))
            spread = [len(rows), *(float(np.std(column, ddof=1)) for column in columns)]
            found.setdefault(source, []).append(spread)
    if found:
        print("the same galaxies: standard deviation among their images, median over galaxies")
    for source, spreads in found.items():
        images_each, *median = np.median(np.array(spreads), axis=0)
        values = ", ".join(
            f"{name} {value:.{digits}f}"
            for name, value, digits in zip(
                ("ln R_e", "ln n", "q", "PA"), median, (3, 3, 3, 1), strict=True
            )
        )
        print(f"  {source}: {len(spreads)} galaxies of {images_each:.0f} images, {values}")


def contact_sheet(posterior: Posterior, path: Path) -> None:
    """Draws image, model and residual of every galaxy."""
    columns = 6
    lines = -(-len(posterior) // columns)
    figure, axes = plt.subplots(lines, 3 * columns, figsize=(3.3 * columns, 1.25 * lines))
    for axis in axes.flat:
        axis.axis("off")
    for i, single in enumerate(posterior):
        measurement = single.measurements[0]
        prepared = measurement.prepared
        if prepared is None:
            continue
        likelihood = measurement.likelihood()
        model = likelihood.render(0, single.w.reshape(-1, 7).mean(0, keepdim=True), torch.float64)
        residual = likelihood.residual(0, model).in_sigma[0]
        image = np.where(prepared.mask, np.nan, prepared.image)
        trio = axes[i // columns, 3 * (i % columns) : 3 * (i % columns) + 3]
        good = np.flatnonzero(~prepared.mask.all(0)), np.flatnonzero(~prepared.mask.all(1))
        window = (slice(good[1][0], good[1][-1] + 1), slice(good[0][0], good[0][-1] + 1))
        top = np.arcsinh(max(float(np.nanmax(image)), 3.0))
        for axis, picture in zip(trio, (image, model[0].numpy()), strict=False):
            axis.imshow(np.arcsinh(picture[window]), origin="lower", vmin=-2, vmax=top)
        trio[2].imshow(residual.numpy()[window], origin="lower", cmap="RdBu_r", vmin=-5, vmax=5)
        trio[0].set_title(measurement.name[:18], fontsize=5, pad=2)
        trio[2].set_title(f"chi2 {measurement.chi2:.1f}", fontsize=5, pad=2)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.99, 0.05, 0.15)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--refine", choices=("exact", "laplace"), default=None)
    parser.add_argument("--model-error", type=float, default=0.0, help="while refining")
    parser.add_argument("--sheet", type=Path, default=None, help="picture of all galaxies")
    parser.add_argument("--measure-correlation", action="store_true")
    parser.add_argument("--tier", default="ABC", help="tiers to measure")
    parser.add_argument(
        "--sources", nargs="+", default=None, help="sources to measure; default all"
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    cases = Table.read(options.folder / "cases.ecsv")
    wanted = options.sources or set(cases["source"])
    cases = cases[[c["tier"] in options.tier and c["source"] in wanted for c in cases]]
    rows, posterior = measure(
        cases, options.folder, options.refine, options.model_error, options.measure_correlation
    )
    table = posterior.summary()
    report(cases[rows], table)
    repeats(cases[rows], table)
    if options.sheet:
        contact_sheet(posterior, options.sheet)


if __name__ == "__main__":
    main()
