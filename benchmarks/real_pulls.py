"""Do error bars hold on real galaxies? Pulls between independent images, and published fits.

    python benchmarks/real_pulls.py FOLDER [--model FOLDER] [--method laplace|exact]
        [--model-error 0.03] [--psf-error 0.02] [--sources profound_kids_viking ...]
        [--write-card]

FOLDER holds ``cases.ecsv`` with the columns file, source, id, band, tier, flags, pixel_scale and
ref_* in the project's conventions, and the files it names. Posteriors of each galaxy are compared:
the network's and the refined ones, each with the widths of the stated noise and with honest ones.
With --write-card, figures of several pairs go to the model's card.

Pulls are differences between two images of one galaxy over their combined error, in ln R_e, ln n
and the two components of the ellipticity (1 - q)/(1 + q). Printed is the value within which 68 % of
them lie (1 if the errors are right) with the central 68 % of its bootstrap over pairs, and the
value for the differences themselves. Between KiDS r and VIKING Z the median difference in ln R_e
and ln n, a gradient of colour, is taken out. Then, for tier A without degenerate cases: the share
of published values within 1 and 2 sigma, also with floors of 5 % in R_e, 10 % in n, 0.02 in q and
2 degrees in position angle added in quadrature, and the 68 % scatter of the differences.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table

from deeplegato_pp import Observation, Posterior, Predictor
from deeplegato_pp.calibration.card import write_real_galaxies
from deeplegato_pp.errors import InputError
from deeplegato_pp.models.storage import find, weights_digest
from deeplegato_pp.scene.noise import MODEL_ERROR

NAMES = ("ln R_e", "ln n", "e1", "e2")
PUBLISHED = ("ln R_e", "ln n", "q", "position angle")
FLOORS = np.array([0.05, 0.10, 0.02, 2.0])
DRAWS = 1000

GROUPS = {
    "KiDS r and VIKING Z": ("profound_kids_viking",),
    "KiDS and SDSS": ("profit_kids", "profit_sdss"),
    "JWST bands": ("galfits_jwst",),
    "DECam exposures": ("legacypipe_decam",),
    "DECaLS bands": ("pysersic_decals",),
    "quick-start bands": ("galfits_quickstart",),
    "GAMA bands": ("galfitm_gama",),
}
"""Sources whose images of one galaxy are compared."""

FEWEST_PAIRS = 10
"""Of a group in the card."""

COLOUR = "KiDS r and VIKING Z"
"""The group whose median difference in ln R_e and ln n is taken out."""


@dataclass(frozen=True)
class Shape:
    """Means and standard deviations of one galaxy: ln R_e [arcsec], ln n, e1, e2, q, angle."""

    mean: np.ndarray
    std: np.ndarray


def shape_of(row: Posterior) -> Shape:
    """Returns a galaxy's shape from equally weighted draws."""
    p = row.draws(DRAWS).numpy().reshape(-1, 7)
    angle = np.deg2rad(2.0 * p[:, 4])
    ellipticity = (1.0 - p[:, 3]) / (1.0 + p[:, 3])
    middle = np.angle(np.exp(1j * angle).mean())
    turned = np.angle(np.exp(1j * (angle - middle)))
    columns = [
        np.log(p[:, 1]),
        np.log(p[:, 2]),
        ellipticity * np.cos(angle),
        ellipticity * np.sin(angle),
        p[:, 3],
        np.rad2deg(turned) / 2.0,
    ]
    mean = np.array([c.mean() for c in columns])
    mean[5] += np.rad2deg(middle) / 2.0
    return Shape(mean, np.array([c.std() for c in columns]))


def pairs_of(cases: Table, rows: list[int], sources: tuple[str, ...]) -> list[tuple[int, int]]:
    """Returns pairs of images of one galaxy, of different sources where two are named."""
    images: dict[str, list[int]] = {}
    for i in rows:
        if cases[i]["source"] in sources:
            images.setdefault(str(cases[i]["id"]), []).append(i)
    pairs = [p for group in images.values() for p in itertools.combinations(group, 2)]
    if len(sources) == 1:
        return pairs
    return [(a, b) for a, b in pairs if cases[a]["source"] != cases[b]["source"]]


def differences(
    shapes: dict[int, Shape], pairs: list[tuple[int, int]], coloured: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns differences within pairs and their combined errors, each with shape (P, 4).

    Args:
        shapes: By case.
        pairs: Of cases.
        coloured: The median difference in ln R_e and ln n is a gradient of colour: take it out.
    """
    difference = np.array([shapes[a].mean[:4] - shapes[b].mean[:4] for a, b in pairs])
    error = np.array([np.hypot(shapes[a].std[:4], shapes[b].std[:4]) for a, b in pairs])
    if coloured:
        difference[:, :2] -= np.median(difference[:, :2], 0)
    return difference, error


def within(values: np.ndarray) -> float:
    """Returns the absolute value within which 68 % of values lie."""
    return float(np.quantile(np.abs(values), 0.68))


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """Returns that value and the central 68 % of its bootstrap."""
    again = [within(rng.choice(values, len(values))) for _ in range(500)]
    low, high = np.quantile(again, [0.16, 0.84])
    return f"{within(values):5.2f} ({low:4.2f}-{high:4.2f})"


def report_pairs(cases: Table, kinds: dict[str, dict[int, Shape]]) -> dict[str, Any]:
    """Prints pulls and differences between images of the same galaxies, and returns the pulls."""
    found: dict[str, Any] = {}
    for group, sources in GROUPS.items():
        rows = sorted(next(iter(kinds.values())))
        pairs = pairs_of(cases, rows, sources)
        if not pairs:
            continue
        print(f"{group}: {len(pairs)} pairs; 68 % of pulls in {', '.join(NAMES)}; differences")
        for kind, shapes in kinds.items():
            difference, error = differences(shapes, pairs, coloured=group == COLOUR)
            rng = np.random.default_rng(0)
            pulls = "  ".join(interval(column, rng) for column in (difference / error).T)
            scatter = " ".join(f"{within(column):.3f}" for column in difference.T)
            found.setdefault(group, {"pairs": len(pairs), "kinds": {}})["kinds"][kind] = dict(
                zip(NAMES, map(within, (difference / error).T), strict=True)
            )
            print(f"  {kind:15s} {pulls}   {scatter}")
    return found


def published(cases: Table, shapes: dict[int, Shape]) -> dict[int, np.ndarray]:
    """Returns how far galaxies of tier A lie from published fits.

    Returns:
        By case, the differences in ln R_e, ln n, q and angle [deg], and their errors, with shape
        (2, 4).
    """
    found = {}
    for i, s in sorted(shapes.items()):
        c = cases[i]
        radius = c["ref_effective_radius_px"] * c["pixel_scale"]
        if c["tier"] != "A" or "degenerate" in str(c["flags"]) or not np.isfinite(radius):
            continue
        turn = (s.mean[5] - c["ref_position_angle"] + 90.0) % 180.0 - 90.0
        theirs = np.array([math.log(radius), math.log(c["ref_sersic_index"])])
        difference = [*(s.mean[:2] - theirs), s.mean[4] - c["ref_axis_ratio"], turn]
        found[i] = np.array([difference, s.std[[0, 1, 4, 5]]])
    return found


def report_published(cases: Table, kinds: dict[str, dict[int, Shape]]) -> dict[str, Any]:
    """Prints how published fits lie in the error bars; returns fractions within two sigma."""
    number_of = len(published(cases, next(iter(kinds.values()))))
    found: dict[str, Any] = {"galaxies": number_of, "kinds": {}}
    if not number_of:
        return found
    for number, (kind, shapes) in enumerate(kinds.items()):
        d, e = np.array(list(published(cases, shapes).values())).transpose(1, 0, 2)
        if number == 0:
            print(f"published fits: {len(d)}; ln R_e, ln n, q, angle within 1 and 2 sigma,")
            print("  within 1 and 2 sigma with floors, 68 % scatter")
        shares = [
            " ".join(f"{x:.2f}" for x in (np.abs(d) < level * width).mean(0))
            for width in (e, np.hypot(e, FLOORS))
            for level in (1.0, 2.0)
        ]
        found["kinds"][kind] = dict(
            zip(PUBLISHED, (np.abs(d) < 2.0 * e).mean(0).tolist(), strict=True)
        )
        low, high = np.nanpercentile(d, [16, 84], axis=0)
        scatter = " ".join(f"{x:.3f}" for x in 0.5 * (high - low))
        print(f"  {kind:15s} " + " | ".join([*shares, scatter]))
    return found


def read_images(
    folder: Path, cases: Table, wanted: Iterable[int]
) -> tuple[list[int], list[Observation]]:
    """Returns the rows whose images could be read, and the images; prints what is refused."""
    rows, observations = [], []
    for i in wanted:
        try:
            observations.append(Observation.from_fits(folder / cases[i]["file"]))
            rows.append(i)
        except InputError as error:
            print(f"refused: {cases[i]['file']}: {error}")
    return rows, observations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="name or folder of the network; default: the packaged one")
    parser.add_argument("--method", choices=("exact", "laplace"), default="laplace")
    parser.add_argument("--model-error", type=float, default=MODEL_ERROR)
    parser.add_argument("--psf-error", type=float, help="in place of the observations'")
    parser.add_argument("--sources", nargs="+", default=None, help="default: all")
    parser.add_argument("--write-card", action="store_true", help="figures to the model's card")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    cases = Table.read(options.folder / "cases.ecsv")
    wanted = [
        i
        for i, case in enumerate(cases)
        if options.sources is None or case["source"] in options.sources
    ]
    rows, observations = read_images(options.folder, cases, wanted)
    predictor = Predictor.from_pretrained(options.model)
    network = predictor.posterior(observations, DRAWS, widths="noise")
    started = time.perf_counter()
    refined = predictor.refine(
        network, options.method, model_error=options.model_error, psf_error=options.psf_error
    )
    print(f"{len(rows)} galaxies refined in {time.perf_counter() - started:.0f} s")
    inflation = refined.structure[np.isfinite(refined.structure)]
    print(f"inflation, 16, 50, 84 %: {np.percentile(inflation, [16, 50, 84]).round(2)}")
    posteriors = {
        "network, noise": network,
        "network, honest": predictor.posterior(observations, DRAWS),
        "refined, noise": refined.under_noise(),
        "refined, honest": refined,
    }
    measured = [k for k, m in enumerate(refined.measurements) if m.measured]
    kinds = {
        kind: {rows[k]: shape_of(posterior[k]) for k in measured}
        for kind, posterior in posteriors.items()
    }
    pulls, fits = report_pairs(cases, kinds), report_published(cases, kinds)
    if options.write_card:
        several = {group: p for group, p in pulls.items() if p["pairs"] >= FEWEST_PAIRS}
        digest = weights_digest(predictor.model)
        for path in write_real_galaxies(find(options.model), digest, several, fits):
            print(f"written: {path}")


if __name__ == "__main__":
    main()
