"""The verdict on real galaxies: shares of good, caution and bad, and what good rows are worth.

    python benchmarks/real_verdict.py FOLDER [--method laplace|exact] [--tiers AB]
        [--sources profound_kids_viking ...] [-o rows.json]

FOLDER holds ``cases.ecsv`` with the columns file, source, id, tier, flags, has_psf, pixel_scale and
ref_* in the project's conventions, and the files it names. Measured are the images of these tiers
that have a PSF, cases marked degenerate left out. Printed are the shares of the verdicts by source,
the flags that keep rows from being good (and those that alone do), and of good rows and of the
others how many parameters lie more than 3 sigma from published fits (tier A; ln R_e, ln n, q,
position angle, floors as in `real_pulls.py`) and between KiDS r and VIKING Z (ln R_e, ln n, e1, e2,
both rows good, the median difference of the first two taken out), with 95 % binomial intervals.
With -o the rows of the table too.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from real_pulls import (
    COLOUR,
    FLOORS,
    GROUPS,
    Shape,
    differences,
    pairs_of,
    published,
    read_images,
    shape_of,
)
from scipy import stats

from deeplegato_pp import Posterior, Predictor
from deeplegato_pp.flags import Flag

FAR = 3.0
QUALITIES = ("good", "caution", "bad")


def clean(cases: Table, tiers: str, sources: list[str] | None) -> list[int]:
    """Returns the rows of images with a PSF whose free fit is not degenerate."""
    return [
        i
        for i, case in enumerate(cases)
        if case["tier"] in tiers
        and case["has_psf"]
        and "degenerate" not in str(case["flags"])
        and (sources is None or case["source"] in sources)
    ]


def report_verdicts(cases: Table, rows: list[int], posterior: Posterior) -> None:
    """Prints shares by source, and which flags keep rows from being good."""
    by_source: dict[str, Counter[str]] = {}
    for i, quality in zip(rows, posterior.quality, strict=True):
        by_source.setdefault(str(cases[i]["source"]), Counter())[quality] += 1
    total = sum(by_source.values(), Counter())
    for source, tally in (*by_source.items(), ("all", total)):
        shares = ", ".join(f"{tally[q]} {q}" for q in QUALITIES)
        print(f"  {source:22s} {tally.total():4d}: {shares}")
    print("all: " + ", ".join(f"{total[q] / total.total():.0%} {q}" for q in QUALITIES))
    every, alone = Counter[str](), Counter[str]()
    for m in posterior.measurements:
        objections = [
            name
            for name in Flag.names(m.flags)
            if replace(m, flags=int(Flag[name.upper()])).quality != "good"
        ]
        every.update(objections)
        if len(objections) == 1:
            alone.update(objections)
    print("objections (alone):", ", ".join(f"{n} {c} ({alone[n]})" for n, c in every.most_common()))


def report_far(
    cases: Table, rows: list[int], posterior: Posterior, shapes: dict[int, Shape]
) -> None:
    """Prints how many parameters of good rows, and of others, lie beyond 3 sigma."""
    good = {i for i, quality in zip(rows, posterior.quality, strict=True) if quality == "good"}
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for i, (difference, error) in published(cases, shapes).items():
        kind = "good" if i in good else "not good"
        found.setdefault((kind, "published, without floors"), []).append(difference / error)
        floored = difference / np.hypot(error, FLOORS)
        found.setdefault((kind, "published"), []).append(floored)
    pairs = pairs_of(cases, sorted(shapes), GROUPS[COLOUR])
    if pairs:
        difference, error = differences(shapes, pairs, coloured=True)
        for (a, b), pull in zip(pairs, difference / error, strict=True):
            kind = "good" if {a, b} <= good else "not good"
            found.setdefault((kind, COLOUR), []).append(pull)
    for kind in ("good", "not good"):
        parts = {what: np.array(v) for (k, what), v in found.items() if k == kind}
        both = [parts[what] for what in ("published", COLOUR) if what in parts]
        if both:
            parts["together"] = np.concatenate(both)
        for what, pulls in parts.items():
            far, number = int((np.abs(pulls) > FAR).sum()), pulls.size
            low, high = stats.binomtest(far, number).proportion_ci(method="exact")
            print(
                f"  {kind}, {what}: {far} of {number} beyond {FAR:g} sigma "
                f"({far / number:.1%}; {low:.1%} to {high:.1%})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", choices=("exact", "laplace"), default="laplace")
    parser.add_argument("--tiers", default="AB")
    parser.add_argument("--sources", nargs="+", default=None, help="default: all")
    parser.add_argument("-o", "--output", type=Path, default=None, help="the rows, as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    cases = Table.read(options.folder / "cases.ecsv")
    wanted = clean(cases, options.tiers, options.sources)
    rows, observations = read_images(options.folder, cases, wanted)
    predictor = Predictor.from_pretrained()
    posterior = predictor.refine(predictor.posterior(observations, widths="noise"), options.method)
    report_verdicts(cases, rows, posterior)
    measured = {
        i: shape_of(row)
        for i, row in zip(rows, posterior, strict=True)
        if row.measurements[0].measured
    }
    report_far(cases, rows, posterior, measured)
    if options.output:
        table = [
            {"file": str(cases[i]["file"])} | row
            for i, row in zip(rows, posterior.rows(), strict=True)
        ]
        options.output.write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
