"""TARP: tests of accuracy with points from which distances to truth and draws are compared."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deeplegato_pp.checks import check_choice
from deeplegato_pp.diagnostics.coverage import NOMINAL, expected_coverage
from deeplegato_pp.diagnostics.rows import (
    Checked,
    average,
    checked,
    effective_size,
    positions,
    spread_rank,
)
from deeplegato_pp.errors import InputError, ShapeError
from deeplegato_pp.scene.parameters import NUM_PARAMETERS, PARAMETERS
from deeplegato_pp.stats.circular import angular_difference

Array = np.ndarray

METRICS = ("euclidean", "cityblock")


def tarp_levels(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    references: Float[Array, "b 7"] | None = None,
    log_weights: Float[Array, "b s"] | None = None,
    *,
    scale: Float[Array, "*b 7"] | None = None,
    metric: str = "euclidean",
    joint: bool = True,
    spread: bool = True,
) -> Float[Array, "b *p"]:
    """Returns the share of draws closer to a reference than the truth, uniform if all is well.

    The reference may lie anywhere and be random; it may depend on the data, never on the truth.
    What it can find depends on where it lies. One that does not depend on the data is blind to a
    posterior that does not either (the prior passes), and if it lies far from narrow posteriors
    sees each only as a rank along one direction. By default each galaxy's reference is one of
    its own draws, which is then set aside: near the truth, on the posterior's scale, and random. It
    depends on the data as far as the posterior does, so that a posterior that ignores part of the
    data passes still; a reference measured from the image (a centroid, a curve of growth) finds
    that too.

    Distances are in units of each posterior's own standard deviation, lest the magnitude's be lost
    beside the angle's; those of an angle are taken round its circle.

    Blind to: a shift of few parameters among many; the direction of an error; a posterior that
    knows less than the references' data.

    Args:
        samples: Draws in physical units, with shape (B, S, 7).
        truth: True parameters, with shape (B, 7).
        references: Reference points, with shape (B, 7); None: one draw each.
        log_weights: Logarithms of the draws' weights, with shape (B, S), or None.
        scale: Units of the distances, with shape (7,) or (B, 7), e.g. the prior's widths; None:
            the posteriors' standard deviations.
        metric: ``"euclidean"`` or ``"cityblock"``.
        joint: Whether distances are of all parameters together; False: of each alone.
        spread: Whether to spread levels over the steps that a finite number of draws makes.

    Returns:
        Levels, with shape (B,), or (B, 7) if not joint.

    Raises:
        ShapeError: If shapes do not agree.
        InputError: If a value is not finite, the metric unknown, or there is a single draw and no
            reference.

    References:
        | Sampling-based accuracy testing of posterior estimators for general inference
        | (Lemos et al., 2023), https://arxiv.org/abs/2302.03026
    """
    rows = checked(samples, truth, log_weights)
    check_choice(metric, METRICS, "metric")
    batch, number = rows.samples.shape[:2]
    if references is None and number < 2:
        raise InputError("a reference is one of the draws: give at least 2, or references.")
    points = None if references is None else _rows_of(references, batch, "references")
    units = None if scale is None else _rows_of(scale, batch, "scale")
    levels, start = [], 0
    for block in rows.blocks():
        part = slice(start, start + len(block.truth))
        start = part.stop
        block, reference = _set_one_aside(block) if points is None else (block, points[part])
        unit = _spread_of(block, reference) if units is None else units[part]
        levels.append(_levels(block, reference, unit, metric, joint, spread))
    return np.concatenate(levels)


def tarp_coverage(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    references: Float[Array, "b 7"] | None = None,
    log_weights: Float[Array, "b s"] | None = None,
    *,
    scale: Float[Array, "*b 7"] | None = None,
    metric: str = "euclidean",
    joint: bool = True,
    nominal: tuple[float, ...] = NOMINAL,
) -> Float[Array, "k *p"]:
    """Returns how often TARP's regions of some levels hold the truth: the coverage curve.

    See `tarp_levels` for arguments, references, and what this is blind to.
    """
    levels = tarp_levels(
        samples, truth, references, log_weights, scale=scale, metric=metric, joint=joint
    )
    return expected_coverage(levels, nominal)


def _rows_of(array: Array, batch: int, what: str) -> Float[Array, "b 7"]:
    array = np.asarray(array, dtype=np.float64)
    if array.shape not in ((NUM_PARAMETERS,), (batch, NUM_PARAMETERS)):
        raise ShapeError(f"{what} must have shape (7,) or ({batch}, 7), got {array.shape}.")
    if not np.isfinite(array).all():
        raise InputError(f"{what} must be finite, got NaN or infinity.")
    return np.broadcast_to(array, (batch, NUM_PARAMETERS))


def _set_one_aside(rows: Checked) -> tuple[Checked, Float[Array, "b 7"]]:
    """Returns the rows without one draw each, and those draws, taken in proportion to weight."""
    batch, number = rows.samples.shape[:2]
    if rows.weights is None:
        return Checked(rows.samples[:, 1:], rows.truth, None), rows.samples[:, 0]
    position = positions(rows.samples[:, 0, 0])[:, None]
    edges = np.cumsum(rows.weights, axis=1)
    index = np.minimum((edges <= position * edges[:, -1:]).sum(axis=1), number - 1)
    all_rows = np.arange(batch)
    weights = rows.weights.copy()
    weights[all_rows, index] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    alone = total[:, 0] <= 1e-12  # the one draw of a row that has any weight is not set aside
    weights = np.where(alone[:, None], rows.weights, weights / np.where(total > 0, total, 1.0))
    return Checked(rows.samples, rows.truth, weights), rows.samples[all_rows, index]


def _spread_of(rows: Checked, reference: Float[Array, "b 7"]) -> Float[Array, "b 7"]:
    """Returns each posterior's standard deviation; the truth counts as one draw of it.

    Left out, it alone would not have been fitted by the unit in which it is measured, and right
    posteriors of few draws would look too narrow.
    """
    off, own = _differences(rows.samples, reference[:, None]), _differences(rows.truth, reference)
    share = 1.0 / (np.asarray(effective_size(rows.weights, off.shape[1])) + 1.0)
    share = np.broadcast_to(share, (len(off),))[:, None]
    mean = (1.0 - share) * average(off, rows.weights) + share * own
    inner = average((off - mean[:, None]) ** 2, rows.weights)
    variance = (1.0 - share) * inner + share * (own - mean) ** 2
    return np.sqrt(np.where(variance > 0, variance, 1.0))


def _levels(
    rows: Checked,
    reference: Float[Array, "b 7"],
    unit: Float[Array, "b 7"],
    metric: str,
    joint: bool,
    spread: bool,
) -> Float[Array, "b *p"]:
    draws = _distances(rows.samples, reference[:, None], unit[:, None], metric, joint)
    own = _distances(rows.truth, reference, unit, metric, joint)
    closer = average(draws < own[:, None], rows.weights)
    if not spread:
        return closer
    equal = average(draws == own[:, None], rows.weights)
    size = effective_size(rows.weights, rows.samples.shape[1])
    first = rows.samples[:, 0] if not joint else rows.samples[:, 0].sum(axis=1)
    return spread_rank(closer, equal, size, positions(own, first))


def _distances(
    values: Float[Array, "*b 7"],
    reference: Float[Array, "*b 7"],
    unit: Float[Array, "*b 7"],
    metric: str,
    joint: bool,
) -> Float[Array, "*b"]:
    difference = np.abs(_differences(values, reference) / unit)
    if not joint:
        return difference
    if metric == "cityblock":
        return np.asarray(difference.sum(axis=-1))
    return np.asarray(np.sqrt(np.square(difference).sum(axis=-1)))


def _differences(
    values: Float[Array, "*b 7"], reference: Float[Array, "*#b 7"]
) -> Float[Array, "*b 7"]:
    difference = values - reference
    for j, p in enumerate(PARAMETERS):
        if p.period is not None:
            difference[..., j] = angular_difference(difference[..., j], p.period)
    return np.asarray(difference)
