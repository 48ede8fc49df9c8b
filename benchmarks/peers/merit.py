"""Figures of merit of every program from the answers and the truth: plain tables."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from galaxy import PARAMETERS
from programs import PROGRAMS
from sets import CLASSES

ERRORS = ("magnitude", "ln R_e", "ln n", "q", "PA")
"""Columns of errors: differences from the truth, PA in degrees."""

GROSS = {"magnitude": 0.5, "ln R_e": 0.7}
"""Errors beyond which an answer is an outlier: half a magnitude, or a factor of two in R_e."""

REFERENCE = "DeepLeGATo++ exact, honest widths"
"""The program that others are compared with, galaxy by galaxy."""

FLOORS = {"ln R_e": 0.05, "ln n": 0.10, "q": 0.02, "PA": 2.0}
"""What published fits of real galaxies may be off."""


@dataclass(frozen=True)
class Answers:
    """Answers of all programs to one set, beside the truth.

    Attributes:
        table: A row per program and galaxy: `program`, `id`, `failed`, the cost, the columns of
            :data:`ERRORS` and each one's ``std``, `snr` where it is known.
        truth: By galaxy.
    """

    table: pd.DataFrame
    truth: dict[str, dict[str, float]]


def load(work: Path, name: str) -> Answers | None:
    """Returns the answers to a set; None if there is none.

    Args:
        work: Folder of the run.
        name: Of the set.
    """
    home = work / "sets" / name / "truth.json"
    if not home.exists():
        return None
    truth = json.loads(home.read_text())
    table = pd.read_parquet(work / "answers.parquet")
    table = table[(table["set"] == name) & (table["id"] != "")].copy()
    answered = (*PARAMETERS, *(f"{p}_std" for p in PARAMETERS), "failed")
    table = table.reindex(columns=list(dict.fromkeys([*table.columns, *answered])))
    known = {k: table["id"].map(lambda i, k=k: truth[i].get(k, math.nan)) for k in _USED}
    table["snr"] = known["snr"]
    q = table["axis_ratio"]
    table["magnitude"] = -2.5 * np.log10(table["flux"] / known["flux"])
    table["magnitude_std"] = 2.5 / math.log(10.0) * table["flux_std"]
    table["ln R_e"] = np.log(table["radius"] / known["radius"])
    table["ln R_e_std"] = table["radius_std"] / table["radius"]
    table["ln n"] = np.log(table["index"] / known["index"])
    table["ln n_std"] = table["index_std"] / table["index"]
    table["q"], table["q_std"] = q - known["axis_ratio"], table["axis_ratio_std"]
    table["PA"] = (table["angle"] - known["angle"] + 90.0) % 180.0 - 90.0
    table["PA_std"] = table["angle_std"]
    return Answers(table, truth)


_USED = ("snr", "flux", "radius", "index", "axis_ratio", "angle")


def programs_of(answers: Answers) -> list[str]:
    """Returns the programs that have answers, in the order of the table of programs."""
    present = set(answers.table["program"])
    return [p.name for p in PROGRAMS if p.name in present]


def classes(answers: Answers) -> list[tuple[str, pd.Series]]:
    """Returns the signal-to-noise classes: name, and which rows are in it."""
    snr = answers.table["snr"]
    return [
        (f"{low:g}-{high:g}", (snr >= low) & (snr < high))
        for low, high in itertools.pairwise(CLASSES)
        if ((snr >= low) & (snr < high)).any()
    ]


def is_gross(table: pd.DataFrame) -> pd.Series:
    """Returns which answers are outliers; a failed one is none."""
    wrong = [table[name].abs() > limit for name, limit in GROSS.items()]
    return np.logical_or.reduce(wrong) & table["failed"].isna()


def errors(answers: Answers) -> pd.DataFrame:
    """Returns median absolute errors, with failures and outliers, by program and S/N class."""
    rows = []
    for program in programs_of(answers):
        mine = answers.table[answers.table["program"] == program]
        for name, inside in classes(answers):
            part = mine[inside.loc[mine.index]]
            if not len(part):
                continue
            good = part[part["failed"].isna()]
            row = {"program": program, "S/N": name, "galaxies": len(part)}
            row |= {
                "failed": part["failed"].notna().mean(),
                "outliers": is_gross(part).mean(),
            }
            rows.append(row | {e: good[e].abs().median() for e in ERRORS})
    return pd.DataFrame(rows)


def beside(answers: Answers, reference: str = REFERENCE) -> pd.DataFrame:
    """Returns each program's errors over those of a reference, on the galaxies that both answered.

    Args:
        answers: Of all programs.
        reference: Name of the program to compare with.

    Returns:
        A row per program and S/N class: median absolute error over the reference's, with the 68 %
        bootstrap interval. Above 1, the reference is closer to the truth.
    """
    rng = np.random.default_rng(1)
    by_name = {p: answers.table[answers.table["program"] == p] for p in programs_of(answers)}
    rows = []
    for program in by_name:
        if program == reference or reference not in by_name:
            continue
        both = by_name[program].merge(by_name[reference], on="id", suffixes=("", " there"))
        both = both[both["failed"].isna() & both["failed there"].isna()]
        for low, high in itertools.pairwise(CLASSES):
            part = both[(both["snr"] >= low) & (both["snr"] < high)]
            if len(part) < 5:
                continue
            row: dict[str, object] = {"program": program, "S/N": f"{low:g}-{high:g}"}
            row["galaxies"] = len(part)
            chosen = rng.integers(0, len(part), (400, len(part)))
            for e in ERRORS:
                pair = part[[e, f"{e} there"]].abs().to_numpy()
                here, there = np.median(pair, axis=0)
                many = np.median(pair[chosen], axis=1)
                if not np.isfinite(pair).all() or not many[:, 1].all():
                    continue
                below, above = np.quantile(many[:, 0] / many[:, 1], (0.16, 0.84))
                row[e] = f"{here / there:.2f} ({below:.2f}-{above:.2f})"
            rows.append(row)
    return pd.DataFrame(rows)


def honesty(answers: Answers) -> pd.DataFrame:
    """Returns the share of truths within one and two stated sigmas, by program and S/N class.

    Where a program states none, the cell is empty. Right are 0.68 and 0.95.
    """
    rows = []
    for program in programs_of(answers):
        mine = answers.table[answers.table["program"] == program]
        for name, inside in classes(answers):
            part = mine[inside.loc[mine.index] & mine["failed"].isna()]
            if not len(part):
                continue
            row: dict[str, object] = {"program": program, "S/N": name, "galaxies": len(part)}
            for e in ERRORS:
                stated = part[part[f"{e}_std"].notna() & part[e].notna()]
                if len(stated):
                    pull = (stated[e] / stated[f"{e}_std"]).abs()
                    row[e] = f"{(pull < 1).mean():.2f} / {(pull < 2).mean():.2f}"
            rows.append(row)
    return pd.DataFrame(rows)


def cost(answers: Answers) -> pd.DataFrame:
    """Returns seconds for the first galaxy and for the others, memory, and lines to write."""
    rows = []
    for program in PROGRAMS:
        mine = answers.table[answers.table["program"] == program.name]
        timed = mine[mine["cpu_seconds"].notna()]
        if not len(timed):
            continue
        first = timed["first"].astype(bool)
        then = timed.loc[~first, "cpu_seconds"]
        rows.append(
            {
                "program": program.name,
                "first [s]": timed.loc[first, "cpu_seconds"].max(),
                "then [s]": then.median(),
                "90 % below [s]": then.quantile(0.9),
                "memory [MB]": timed["peak_mb"].max(),
                "lines": program.user_lines,
                "version": mine["versions"].iloc[0],
            }
        )
    return pd.DataFrame(rows)


def pulls(answers: Answers) -> pd.DataFrame:
    """Returns what 68 % of pulls between two images of one real galaxy do not exceed.

    Pairs are of different bands or telescopes; between two bands the median difference of radius
    and index, a gradient of colour, is taken out. In brackets: of the differences themselves.
    """
    table, rows = answers.table.copy(), []
    scale = table["id"].map(lambda i: answers.truth[i]["pixel_scale"])
    table["size"] = np.log(table["radius"] * scale)
    table["steep"] = np.log(table["index"])
    turn = np.deg2rad(2.0 * table["angle"])
    ellipticity = (1.0 - table["axis_ratio"]) / (1.0 + table["axis_ratio"])
    table["e1"], table["e2"] = ellipticity * np.cos(turn), ellipticity * np.sin(turn)
    de = 2.0 * table["q_std"] / (1.0 + table["axis_ratio"]) ** 2
    dt = ellipticity * np.deg2rad(2.0 * table["PA_std"])
    table["e1_std"] = np.hypot(np.cos(turn) * de, np.sin(turn) * dt)
    table["e2_std"] = np.hypot(np.sin(turn) * de, np.cos(turn) * dt)
    table["size_std"], table["steep_std"] = table["ln R_e_std"], table["ln n_std"]
    names = {"size": "ln R_e", "steep": "ln n", "e1": "e1", "e2": "e2"}
    for program in programs_of(answers):
        mine = table[(table["program"] == program) & table["failed"].isna()].set_index("id")
        for title, sources in PAIRS.items():
            found = pairs(answers.truth, set(mine.index), sources)
            if len(found) < 5:
                continue
            a, b = (mine.loc[list(x)] for x in zip(*found, strict=True))
            row: dict[str, object] = {"program": program, "pairs of": title, "number": len(found)}
            for column, name in names.items():
                difference = a[column].to_numpy() - b[column].to_numpy()
                if column in ("size", "steep"):
                    difference = difference - np.median(difference)
                sigma = np.hypot(a[f"{column}_std"].to_numpy(), b[f"{column}_std"].to_numpy())
                scatter = f"({within(difference):.3f})"
                known = np.isfinite(sigma) & (sigma > 0)
                pull = within(difference[known] / sigma[known]) if known.mean() > 0.5 else None
                row[name] = scatter if pull is None else f"{pull:.2f} {scatter}"
            rows.append(row)
    return pd.DataFrame(rows)


PAIRS = {
    "KiDS r, VIKING Z": ("profound_kids_viking",),
    "JWST bands": ("galfits_jwst",),
    "DECam exposures": ("legacypipe_decam",),
}
"""Sources whose images of one galaxy are compared."""


def pairs(
    truth: dict[str, dict[str, float]], present: set[str], sources: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Returns pairs of images of one galaxy, both answered."""
    groups: dict[str, list[str]] = {}
    for name, row in truth.items():
        if name in present and row["source"] in sources:
            groups.setdefault(str(row["galaxy"]), []).append(name)
    return [p for group in groups.values() for p in itertools.combinations(sorted(group), 2)]


def within(values: np.ndarray) -> float:
    """Returns the absolute value within which 68 % of values lie."""
    return float(np.quantile(np.abs(values), 0.68))


def published(answers: Answers) -> pd.DataFrame:
    """Returns the scatter against published fits, and the share within two sigmas with floors."""
    rows = []
    for program in programs_of(answers):
        mine = answers.table[answers.table["program"] == program]
        tier = mine["id"].map(lambda i: answers.truth[i]["tier"] == "A")
        part = mine[tier & mine["failed"].isna() & mine["ln R_e"].notna()]
        if not len(part):
            continue
        row: dict[str, object] = {"program": program, "galaxies": len(part)}
        for name, floor in FLOORS.items():
            known = part[part[name].notna()]
            sigma = np.hypot(known[f"{name}_std"], floor)
            inside = (known[name].abs() < 2 * sigma)[sigma.notna()]
            scatter = f"({within(known[name].to_numpy()):.3f})" if len(known) else ""
            row[name] = f"{inside.mean():.2f} {scatter}" if len(inside) > 5 else scatter
        rows.append(row)
    return pd.DataFrame(rows)
