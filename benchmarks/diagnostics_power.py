"""What each diagnostic catches, on posteriors right, too wide, too narrow and shifted by intent.

    python benchmarks/diagnostics_power.py -n 10000 --draws 100 --repetitions 20

Prints the share of repetitions in which each diagnostic rejects, at 1 % for each diagnostic as a
whole: of tests of the seven parameters the smallest p-value counts, times seven. What stands under
"right" are false alarms.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplegato_pp import diagnostics
from deeplegato_pp.scene.parameters import NUM_PARAMETERS, POSITION_ANGLE

LEVEL = 0.01
PERIOD = 180.0


@dataclass(frozen=True)
class Case:
    """Draws of a posterior known to be right or wrong, and what they should say."""

    samples: np.ndarray
    truth: np.ndarray
    estimate: np.ndarray
    log_prob: np.ndarray
    log_prob_truth: np.ndarray


@dataclass(frozen=True)
class Defect:
    """What is wrong with a posterior: its width, its place, or that it ignores the data."""

    width: float = 1.0
    shift_one: float = 0.0
    shift_all: float = 0.0
    is_prior: bool = False


DEFECTS = {
    "right": Defect(),
    "20 % too wide": Defect(width=1.2),
    "20 % too narrow": Defect(width=0.8),
    "one shifted 0.2 sigma": Defect(shift_one=0.2),
    "all shifted 0.2 sigma": Defect(shift_all=0.2),
    "the prior itself": Defect(is_prior=True),
}


def make_case(rng: np.random.Generator, galaxies: int, draws: int, defect: Defect) -> Case:
    """Makes galaxies of N(0, 1) truths, each measured with its own errors, 0.01 to 1 times that.

    The right posterior of estimate e and error s is N(e / (1 + s^2), s^2 / (1 + s^2)); that of the
    angle, whose prior is flat, is N(e, s^2) round the circle, s up to 50 degrees.
    """
    shape = (galaxies, NUM_PARAMETERS)
    sigma = 10.0 ** rng.uniform(-2.0, 0.0, shape)
    truth = rng.normal(size=shape)
    truth[:, POSITION_ANGLE] = rng.uniform(0.0, PERIOD, galaxies)
    sigma[:, POSITION_ANGLE] *= 50.0
    known = 1.0 / (1.0 + sigma**2)
    known[:, POSITION_ANGLE] = 1.0
    estimate = truth + sigma * rng.normal(size=shape)
    center, scale = known * estimate, sigma * np.sqrt(known)
    if defect.is_prior:
        center, scale = np.zeros(shape), np.ones(shape)
    center = center + defect.shift_all * scale
    center[:, 0] += defect.shift_one * scale[:, 0]
    scale = defect.width * scale
    z = rng.normal(size=(galaxies, draws, NUM_PARAMETERS))
    samples = center[:, None] + scale[:, None] * z
    if defect.is_prior:
        samples[..., POSITION_ANGLE] = rng.uniform(0.0, PERIOD, (galaxies, draws))
    samples[..., POSITION_ANGLE] %= PERIOD
    log_prob, log_prob_truth = (log_density(x, center, scale, defect) for x in (samples, truth))
    return Case(samples, truth, estimate, log_prob, log_prob_truth)


def log_density(
    values: np.ndarray, center: np.ndarray, scale: np.ndarray, defect: Defect
) -> np.ndarray:
    """Returns the posterior's log-density up to a constant, of draws (B, S, 7) or truths (B, 7)."""
    if values.ndim == 3:
        center, scale = center[:, None], scale[:, None]
    z = (values - center) / scale
    angle, width = values[..., POSITION_ANGLE], scale[..., POSITION_ANGLE]
    turns = np.arange(-3, 4) * PERIOD  # a Gaussian round the circle, as wide as 60 degrees
    around = (angle - center[..., POSITION_ANGLE]) % PERIOD
    total = np.exp(-0.5 * ((around[..., None] + turns) / width[..., None]) ** 2).sum(-1)
    z[..., POSITION_ANGLE] = 0.0
    flat = np.zeros_like(total) if defect.is_prior else np.log(np.maximum(total, 1e-300))
    return -0.5 * (z**2).sum(-1) + flat


def of_ranks(test: Callable[[np.ndarray], np.ndarray]) -> Callable[[Case], np.ndarray]:
    """Makes a diagnostic of a test of rank statistics."""
    return lambda c: test(diagnostics.truth_ranks(c.samples, c.truth))


def ks(levels: np.ndarray) -> np.ndarray:
    return diagnostics.rank_test(levels).p_value


def band(ranks: np.ndarray) -> np.ndarray:
    """A p-value of 0 or 1: whether the ranks' distribution leaves the band of all seven."""
    outside = diagnostics.ecdf_band(len(ranks), 1.0 - LEVEL / ranks.shape[1]).outside(ranks)
    return np.where(outside, 0.0, 1.0)


def central(ranks: np.ndarray) -> np.ndarray:
    return diagnostics.calibration_error(diagnostics.central_levels(ranks)).p_value


def crude_references(case: Case) -> np.ndarray:
    """What a crude measurement gives: estimates with errors of their own, from the data alone."""
    return case.estimate + np.random.default_rng(1).normal(size=case.estimate.shape)


DIAGNOSTICS: dict[str, Callable[[Case], np.ndarray]] = {
    "ranks, KS": of_ranks(ks),
    "ranks, simultaneous band": of_ranks(band),
    "central coverage": of_ranks(central),
    "highest density, each": lambda c: ks(diagnostics.marginal_density_levels(c.samples, c.truth)),
    "highest density, joint": lambda c: ks(
        diagnostics.highest_density_levels(c.log_prob, c.log_prob_truth)
    ),
    "TARP, each": lambda c: ks(diagnostics.tarp_levels(c.samples, c.truth, joint=False)),
    "TARP, joint": lambda c: ks(diagnostics.tarp_levels(c.samples, c.truth)),
    "TARP, joint, from data": lambda c: ks(
        diagnostics.tarp_levels(c.samples, c.truth, crude_references(c))
    ),
}


def rejects(p_values: np.ndarray) -> bool:
    p_values = np.atleast_1d(p_values)
    return bool(p_values.min() * len(p_values) < LEVEL)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=10_000, help="galaxies")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    start = time.monotonic()
    shares: dict[str, dict[str, float]] = {name: {} for name in DIAGNOSTICS}
    for number, (what, defect) in enumerate(DEFECTS.items()):
        caught = dict.fromkeys(DIAGNOSTICS, 0)
        for repetition in range(options.repetitions):
            rng = np.random.default_rng([number, repetition])
            case = make_case(rng, options.number, options.draws, defect)
            for name, diagnostic in DIAGNOSTICS.items():
                caught[name] += rejects(diagnostic(case))
        for name, count in caught.items():
            shares[name][what] = count / options.repetitions
        print(f"{what}: {time.monotonic() - start:.0f} s", flush=True)
    show(shares)
    if options.output:
        options.output.write_text(json.dumps({"level": LEVEL, "rejected": shares}, indent=1) + "\n")


def show(shares: dict[str, dict[str, float]]) -> None:
    """Prints the matrix as a Markdown table."""
    print("\n| diagnostic | " + " | ".join(DEFECTS) + " |")
    print("|---" * (len(DEFECTS) + 1) + "|")
    for name, row in shares.items():
        print(f"| {name} | " + " | ".join(f"{row[what]:.0%}" for what in DEFECTS) + " |")


if __name__ == "__main__":
    main()
