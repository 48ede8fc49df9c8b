"""All figures of a calibration, computed from the measured galaxies, as one dictionary for JSON."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.calibration.classes import by_condition, by_name, coverage_by_name, reliability
from deeplegato_pp.calibration.galaxies import QUALITIES, MeasuredGalaxies
from deeplegato_pp.diagnostics import central_levels, ecdf, ecdf_band, expected_coverage, rank_test
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.noise_maps import MAD_TO_SIGMA
from deeplegato_pp.scene.parameters import NAMES, SNR_CLASSES
from deeplegato_pp.stats.pareto import GOOD_KHAT

GOAL_OVERALL = 0.01
"""Goal: maximum deviation of coverage from nominal, at any level, over all galaxies."""

LEVELS = (0.5, 0.68, 0.9, 0.95)
"""Nominal levels in tables."""

CURVE = tuple(round(0.01 * i, 2) for i in range(1, 100))
"""Nominal levels of curves."""

CURVES = (*NAMES, "joint", "tarp")
"""Quantities with a coverage curve: central intervals of each parameter, joint highest-density
region, and regions of the TARP test."""

GROSS = 3.0
"""Gross failure: the truth lies outside the 95 % interval by more than this number of posterior
standard deviations, in any parameter."""

SNR_BINS = tuple(float(x) for x in np.geomspace(1.0, 1e5, 16))
"""Edges of the S/N bins in which errors are compared with the bound."""

PULL_EDGES = tuple(round(-5.0 + 0.25 * i, 2) for i in range(41))


def assess(galaxies: MeasuredGalaxies, prior_width: Array) -> dict[str, Any]:
    """Computes all figures of a calibration, also in classes of the posterior median of S/N.

    Args:
        galaxies: Measured galaxies.
        prior_width: Standard deviations of the simulations' prior, with shape (7,). [shown units]

    Returns:
        Nested dictionaries and lists of plain numbers, with None for unknown values.
    """
    classes, snr = [], galaxies.estimates[:, 0]
    for low, high in itertools.pairwise(SNR_CLASSES):
        rows = (snr >= low) & (snr < high)
        if rows.any():
            summary = _summary(galaxies[rows], prior_width)
            classes.append({"snr": [low, high], **summary})
    content = {
        "goals": {"overall": GOAL_OVERALL},
        "overall": _summary(galaxies, prior_width),
        "snr_classes": classes,
        "coverage": _coverage(galaxies),
        "ranks": _ranks(galaxies),
        "reliability": reliability(galaxies, LEVELS),
        "conditions": by_condition(galaxies),
        "pulls": _pulls(galaxies),
        "errors": _errors(galaxies),
        "verdict": _verdict(galaxies),
        "refinement": _refinement(galaxies),
    }
    return plain(content)  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """Converts nested values to strict JSON types: NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def levels_of(galaxies: MeasuredGalaxies) -> Array:
    """Returns the level of the smallest region that contains the truth, with shape (B, 9)."""
    joint = np.stack([galaxies.hpd, galaxies.tarp], axis=1)
    return np.concatenate([central_levels(galaxies.ranks), joint], axis=1)


def _summary(galaxies: MeasuredGalaxies, prior_width: Array) -> dict[str, Any]:
    """Returns the headline figures of a set of galaxies."""
    levels = levels_of(galaxies)
    curve = expected_coverage(levels, CURVE)
    difference = curve - np.array(CURVE)[:, None]
    worst = np.abs(difference).argmax(axis=0)
    number = len(galaxies)
    rmse = np.sqrt((galaxies.error**2).mean(axis=0))
    known = galaxies.nll[np.isfinite(galaxies.nll)]
    miss = galaxies.miss.max(axis=1)
    return {
        "galaxies": number,
        "coverage": coverage_by_name(levels, LEVELS, CURVES),
        "largest_difference": by_name(difference[worst, np.arange(len(CURVES))], CURVES),
        "at_level": by_name(np.array(CURVE)[worst], CURVES),
        "rank_p_value": by_name(rank_test(galaxies.ranks).p_value),
        "rmse": by_name(rmse),
        "rmse_over_prior": by_name(rmse / prior_width),
        "crps": by_name(galaxies.crps.mean(axis=0)),
        "width": by_name(np.median(galaxies.width, axis=0)),
        "width_over_bound": by_name(_median(galaxies.width / galaxies.bound)),
        "bounds": int(np.isfinite(galaxies.bound).all(axis=1).sum()),
        "bias": by_name(galaxies.error.mean(axis=0)),
        "pull_std": by_name(_robust_std(galaxies.error / galaxies.width)),
        "nll": known.mean() if len(known) else None,
        "nll_median": np.median(known) if len(known) else None,
        "truths_outside_the_prior": int(np.isinf(galaxies.nll).sum()),
        "gross_failures": (miss > GROSS).mean(),
        "noise_widths": _noise_widths(galaxies),
    }


def _noise_widths(galaxies: MeasuredGalaxies) -> dict[str, Any] | None:
    """Returns the coverage of the same posteriors with the widths of the stated noise."""
    both = galaxies[np.asarray(np.isfinite(galaxies.noise_ranks).all(axis=1))]
    if not len(both):
        return None
    levels = central_levels(both.noise_ranks)
    inflation = np.median(both.width / both.noise_width, axis=0)
    return {"coverage": coverage_by_name(levels, LEVELS), "inflation": by_name(inflation)}


def _coverage(galaxies: MeasuredGalaxies) -> dict[str, Any]:
    """Returns coverage curves, and the simultaneous 95 % band of a perfect posterior."""
    curve = expected_coverage(levels_of(galaxies), CURVE)
    band = ecdf_band(len(galaxies), 1.0 - 0.05 / len(CURVES))
    lower = np.interp(CURVE, band.points, band.lower)
    upper = np.interp(CURVE, band.points, band.upper)
    within = (curve >= (lower - GOAL_OVERALL)[:, None]) & (curve <= (upper + GOAL_OVERALL)[:, None])
    return {
        "levels": CURVE,
        "curves": {name: curve[:, i] for i, name in enumerate(CURVES)},
        "band": {"probability": 0.95, "lower": lower, "upper": upper},
        "meets_goal": by_name(
            np.abs(curve - np.array(CURVE)[:, None]).max(axis=0) <= GOAL_OVERALL, CURVES
        ),
        "within_goal_and_band": by_name(np.asarray(within.all(axis=0)), CURVES),
    }


def _ranks(galaxies: MeasuredGalaxies) -> dict[str, Any]:
    band = ecdf_band(len(galaxies), 1.0 - 0.05 / len(NAMES))
    shares = ecdf(galaxies.ranks, band.points)
    return {
        "points": band.points,
        "ecdf": {name: shares[:, i] for i, name in enumerate(NAMES)},
        "band": {"probability": 0.95, "lower": band.lower, "upper": band.upper},
        "leaves_band": by_name(band.outside(galaxies.ranks)),
    }


def _pulls(galaxies: MeasuredGalaxies) -> dict[str, Any]:
    pulls = galaxies.error / np.maximum(galaxies.width, 1e-12)
    histograms = {
        name: np.histogram(pulls[:, i], PULL_EDGES)[0] / len(galaxies) / 0.25
        for i, name in enumerate(NAMES)
    }
    return {
        "edges": PULL_EDGES,
        "density": histograms,
        "mean": by_name(pulls.mean(axis=0)),
        "std": by_name(_robust_std(pulls)),
        "beyond_3": by_name((np.abs(pulls) > 3.0).mean(axis=0)),
        "beyond_5": by_name((np.abs(pulls) > 5.0).mean(axis=0)),
    }


def _errors(galaxies: MeasuredGalaxies) -> dict[str, Any]:
    """Returns errors, widths and bounds in bins of the true S/N with at least 5 galaxies."""
    rows: list[dict[str, Any]] = []
    for low, high in itertools.pairwise(SNR_BINS):
        inside = galaxies[(galaxies.snr >= low) & (galaxies.snr < high)]
        if len(inside) < 5:
            continue
        bounded = np.isfinite(inside.bound).all(axis=1)
        rows.append(
            {
                "snr": float(np.exp(np.log(inside.snr).mean())),
                "galaxies": len(inside),
                "error": by_name(_robust_std(inside.error, 0.0)),
                "rmse": by_name(np.sqrt((inside.error**2).mean(axis=0))),
                "width": by_name(np.median(inside.width, axis=0)),
                "bounds": int(bounded.sum()),
                "bound": by_name(_median(inside.bound)) if bounded.sum() >= 5 else None,
            }
        )
    return {"bins": rows}


def _verdict(galaxies: MeasuredGalaxies) -> dict[str, Any] | None:
    """Returns qualities of the judged galaxies, and the gross failures that were flagged."""
    judged = galaxies[galaxies.quality >= 0]
    if not len(judged):
        return None
    gross = judged.judged_miss > GROSS
    bad, wary = judged.quality == QUALITIES.index("bad"), judged.quality > 0
    flags = {
        str(flag.name).lower(): ((judged.flags & int(flag)) != 0).mean()
        for flag in Flag
        if ((judged.flags & int(flag)) != 0).any()
    }
    failed = int(gross.sum())
    return {
        "galaxies": len(judged),
        "quality": {name: (judged.quality == i).mean() for i, name in enumerate(QUALITIES)},
        "flags": flags,
        "gross_failures": failed,
        "caught_as_bad": bad[gross].mean() if failed else None,
        "caught": wary[gross].mean() if failed else None,
        "false_alarms": bad[~gross].mean() if failed < len(judged) else None,
    }


def _refinement(galaxies: MeasuredGalaxies) -> dict[str, Any] | None:
    refined = galaxies[np.isfinite(galaxies.ess)]
    if not len(refined):
        return None
    return {
        "galaxies": len(refined),
        "ess_median": np.median(refined.ess),
        "khat_good": (refined.khat < GOOD_KHAT).mean(),
    }


def _robust_std(values: Array, center: float | None = None) -> Array:
    """Returns the standard deviation of a normal distribution with the same MAD."""
    middle = np.median(values, axis=0) if center is None else center
    return np.asarray(MAD_TO_SIGMA * np.median(np.abs(values - middle), axis=0))


def _median(values: Array) -> Array:
    """Returns medians over finite rows, NaN if there are none."""
    known = values[np.isfinite(values).all(axis=1)]
    return np.median(known, axis=0) if len(known) else np.full(values.shape[1], np.nan)
