"""TARP: tests of accuracy with random points, by distances to truth and draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_choice
from deeplegato_pp.diagnostics.coverage import NOMINAL, expected_coverage
from deeplegato_pp.diagnostics.rows import (
    Checked,
    Periods,
    average,
    checked,
    effective_size,
    positions,
    spread_rank,
)
from deeplegato_pp.errors import InputError, ShapeError
from deeplegato_pp.stats.circular import angular_difference

METRICS = ("euclidean", "cityblock")


def tarp_levels(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    references: Float[Array, "b d"] | None = None,
    log_weights: Float[Array, "b s"] | None = None,
    *,
    scale: Float[Array, "*b d"] | None = None,
    metric: str = "euclidean",
    joint: bool = True,
    spread: bool = True,
    periods: Periods = None,
) -> Float[Array, "b *p"]:
    """Returns the fraction of draws closer to a reference than the truth, uniform if calibrated.

    The reference may be random and may depend on the data, but not on the truth; it determines
    which errors are detected. A reference that is independent of the data does not detect a
    posterior that is independent of them too (the prior passes), and, if far from narrow
    posteriors, tests each only along one direction. By default each galaxy's reference is one of
    its own draws, which is then excluded: close to the truth, on the scale of the posterior, and
    random. It depends on the data as far as the posterior does, so a posterior that ignores part of
    the data still passes; a reference measured from the image (a centroid, a curve of growth)
    detects that too.

    Distances are in units of each posterior's own standard deviation, to give all parameters
    similar influence; those of angles are circular.

    Blind to: a shift of few parameters among many; the direction of errors; a posterior that uses
    less information than the references.

    Args:
        samples: Draws in physical units, with shape (B, S, D).
        truth: True parameters, with shape (B, D).
        references: Reference points, with shape (B, D); None for one draw each.
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        scale: Units of the distances, with shape (D,) or (B, D), e.g. the prior's widths; None for
            the posteriors' standard deviations.
        metric: ``"euclidean"`` or ``"cityblock"``.
        joint: Whether distances are of all parameters jointly; False for each parameter alone.
        spread: Whether levels are randomised within the steps of a finite number of draws.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.

    Returns:
        Levels, with shape (B,), or (B, D) if not joint.

    Raises:
        ShapeError: If the shapes do not agree.
        InputError: If a value is not finite, the metric is unknown, or there is a single draw and
            no reference.

    References:
        | Sampling-based accuracy testing of posterior estimators for general inference
        | (Lemos et al., 2023), https://arxiv.org/abs/2302.03026
    """
    rows = checked(samples, truth, log_weights, periods)
    check_choice(metric, METRICS, "metric")
    number = rows.samples.shape[1]
    if references is None and number < 2:
        raise InputError("a reference is one of the draws: give at least 2, or references.")
    points = None if references is None else _rows_of(references, rows.truth.shape, "references")
    units = None if scale is None else _rows_of(scale, rows.truth.shape, "scale")
    levels, start = [], 0
    for block in rows.blocks():
        part = slice(start, start + len(block.truth))
        start = part.stop
        block, reference = _set_one_aside(block) if points is None else (block, points[part])
        unit = _spread_of(block, reference) if units is None else units[part]
        levels.append(_levels(block, reference, unit, metric, joint, spread))
    return np.concatenate(levels)


def tarp_coverage(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    references: Float[Array, "b d"] | None = None,
    log_weights: Float[Array, "b s"] | None = None,
    *,
    scale: Float[Array, "*b d"] | None = None,
    metric: str = "euclidean",
    joint: bool = True,
    nominal: tuple[float, ...] = NOMINAL,
    periods: Periods = None,
) -> Float[Array, "k *p"]:
    """Returns the fraction of truths in TARP's regions of given levels: the coverage curve.

    See `tarp_levels` for arguments, references, and limitations.
    """
    levels = tarp_levels(
        samples,
        truth,
        references,
        log_weights,
        scale=scale,
        metric=metric,
        joint=joint,
        periods=periods,
    )
    return expected_coverage(levels, nominal)


def _rows_of(array: Array, shape: tuple[int, ...], what: str) -> Float[Array, "b d"]:
    array = np.asarray(array, dtype=np.float64)
    if array.shape not in (shape[1:], shape):
        raise ShapeError(f"{what} must have shape {shape[1:]} or {shape}, got {array.shape}.")
    if not np.isfinite(array).all():
        raise InputError(f"{what} must be finite, got NaN or infinity.")
    return np.broadcast_to(array, shape)


def _set_one_aside(rows: Checked) -> tuple[Checked, Float[Array, "b d"]]:
    """Returns the rows without one draw each, and those draws, chosen in proportion to weight."""
    batch, number = rows.samples.shape[:2]
    if rows.weights is None:
        return replace(rows, samples=rows.samples[:, 1:]), rows.samples[:, 0]
    position = positions(rows.samples[:, 0, 0])[:, None]
    edges = np.cumsum(rows.weights, axis=1)
    index = np.minimum((edges <= position * edges[:, -1:]).sum(axis=1), number - 1)
    all_rows = np.arange(batch)
    weights = rows.weights.copy()
    weights[all_rows, index] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    alone = total[:, 0] <= 1e-12  # the only draw with non-zero weight is not excluded
    weights = np.where(alone[:, None], rows.weights, weights / np.where(total > 0, total, 1.0))
    return replace(rows, weights=weights), rows.samples[all_rows, index]


def _spread_of(rows: Checked, reference: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Returns each posterior's standard deviation, with the truth included as a draw.

    Without it, the truth would be the only point that does not contribute to the unit, and correct
    posteriors with few draws would appear too narrow.
    """
    off = _differences(rows.samples, reference[:, None], rows.periods)
    own = _differences(rows.truth, reference, rows.periods)
    share = 1.0 / (np.asarray(effective_size(rows.weights, off.shape[1])) + 1.0)
    share = np.broadcast_to(share, (len(off),))[:, None]
    mean = (1.0 - share) * average(off, rows.weights) + share * own
    inner = average((off - mean[:, None]) ** 2, rows.weights)
    variance = (1.0 - share) * inner + share * (own - mean) ** 2
    return np.sqrt(np.where(variance > 0, variance, 1.0))


def _levels(
    rows: Checked,
    reference: Float[Array, "b d"],
    unit: Float[Array, "b d"],
    metric: str,
    joint: bool,
    spread: bool,
) -> Float[Array, "b *p"]:
    off = _differences(rows.samples, reference[:, None], rows.periods)
    draws = _distances(off / unit[:, None], metric, joint)
    own = _distances(_differences(rows.truth, reference, rows.periods) / unit, metric, joint)
    closer = average(draws < own[:, None], rows.weights)
    if not spread:
        return closer
    equal = average(draws == own[:, None], rows.weights)
    size = effective_size(rows.weights, rows.samples.shape[1])
    first = rows.samples[:, 0] if not joint else rows.samples[:, 0].sum(axis=1)
    return spread_rank(closer, equal, size, positions(own, first))


def _distances(differences: Float[Array, "*b d"], metric: str, joint: bool) -> Float[Array, "*b"]:
    difference = np.abs(differences)
    if not joint:
        return difference
    if metric == "cityblock":
        return np.asarray(difference.sum(axis=-1))
    return np.asarray(np.sqrt(np.square(difference).sum(axis=-1)))


def _differences(
    values: Float[Array, "*b d"],
    reference: Float[Array, "*#b d"],
    periods: tuple[float | None, ...],
) -> Float[Array, "*b d"]:
    difference = values - reference
    for j, period in enumerate(periods):
        if period is not None:
            difference[..., j] = angular_difference(difference[..., j], period)
    return np.asarray(difference)
