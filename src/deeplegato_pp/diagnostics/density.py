"""Coverage of highest-density regions, of the joint posterior and of marginals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.fft import irfft, rfft

from deeplegato_pp.arrays import Array
from deeplegato_pp.diagnostics.coverage import NOMINAL, expected_coverage
from deeplegato_pp.diagnostics.rows import (
    Checked,
    Periods,
    average,
    checked,
    effective_size,
    positions,
    row_weights,
    spread_rank,
    unwrapped,
)
from deeplegato_pp.errors import InputError, ShapeError
from deeplegato_pp.stats.circular import angular_difference

BINS = 64
"""Number of cells of a marginal density; the kernel is two to three cells wide."""

REACH = 5.0
"""Extent of the cells from the mean of the draws. [standard deviations]"""


def highest_density_levels(
    log_prob: Float[Array, "b s"],
    log_prob_truth: Float[Array, "b"],
    log_weights: Float[Array, "b s"] | None = None,
) -> Float[Array, "b"]:
    """Returns the probability of the region denser than the truth, uniform if calibrated.

    The truth lies in the smallest region of level L if at most that fraction of the draws is
    denser. All parameters are tested jointly.

    Blind to: a shift of few parameters among many (one of seven shifted by 0.2 sigma changes the
    squared distance by 0.04 in 7), the direction of errors, errors that preserve densities (draws
    and density of the same wrong flow differ only through the truth), and uninformative posteriors.

    Args:
        log_prob: Log-density of the posterior at its draws, up to a constant per galaxy, with shape
            (B, S). For weighted draws it is that of the target (log-density of the proposal plus
            log-weight), not of the proposal.
        log_prob_truth: The same density, with the same constant, at the truth, with shape (B,);
            -inf outside the support.
        log_weights: Log-weights of the draws, with shape (B, S), or None.

    Returns:
        Levels, with shape (B,).

    Raises:
        ShapeError: If the shapes do not agree.
        InputError: If a density is NaN.

    References:
        | A trust crisis in simulation-based inference? (Hermans et al., 2022)
        | https://arxiv.org/abs/2110.06581
    """
    log_prob = np.asarray(log_prob, dtype=np.float64)
    log_prob_truth = np.asarray(log_prob_truth, dtype=np.float64)
    if log_prob.ndim != 2 or log_prob_truth.shape != log_prob.shape[:1]:
        raise ShapeError(
            "log_prob (B, S) and log_prob_truth (B,) must agree, "
            f"got {log_prob.shape} and {log_prob_truth.shape}."
        )
    if np.isnan(log_prob).any() or np.isnan(log_prob_truth).any():
        raise InputError(
            "log_prob must be numbers, got NaN. Leave out galaxies that were not measured."
        )
    weights = row_weights(log_weights, log_prob.shape)
    denser = average(log_prob > log_prob_truth[:, None], weights)
    equal = average(log_prob == log_prob_truth[:, None], weights)
    size = effective_size(weights, log_prob.shape[1])
    return spread_rank(denser, equal, size, positions(log_prob_truth, log_prob[:, 0]))


def highest_density_coverage(
    log_prob: Float[Array, "b s"],
    log_prob_truth: Float[Array, "b"],
    log_weights: Float[Array, "b s"] | None = None,
    nominal: tuple[float, ...] = NOMINAL,
) -> Float[Array, " k"]:
    """Returns the fraction of truths in joint highest-density regions of given levels.

    See `highest_density_levels` for arguments, references, and limitations.
    """
    levels = highest_density_levels(log_prob, log_prob_truth, log_weights)
    return expected_coverage(levels, nominal)


def marginal_density_levels(
    samples: Float[Array, "b s d"],
    truth: Float[Array, "b d"],
    log_weights: Float[Array, "b s"] | None = None,
    periods: Periods = None,
) -> Float[Array, "b d"]:
    """Returns, per parameter, the probability of values denser than the truth.

    Densities are histograms of the draws smoothed by a Gaussian kernel of Silverman's width,
    periodic for angles. The truth is included as an additional draw, so that levels of a correct
    posterior are exactly uniform; otherwise it would lack its own kernel, which each draw has.

    Blind to: shifts that are small relative to the width, to first order; correlations between
    parameters; the sign of errors; structure finer than the kernel.

    Args:
        samples: Draws in physical units, with shape (B, S, D).
        truth: True parameters, with shape (B, D).
        log_weights: Log-weights of the draws, with shape (B, S), or None.
        periods: Period of each parameter, see :data:`~deeplegato_pp.diagnostics.rows.Periods`.

    Returns:
        Levels, uniform in (0, 1) if calibrated, with shape (B, D).

    Raises:
        ShapeError: If the shapes do not agree.
        InputError: If a value is not finite.

    References:
        | Density estimation for statistics and data analysis (Silverman, 1986)
        | Computing and graphing highest density regions (Hyndman, 1996)
        | https://doi.org/10.1080/00031305.1996.10474359
    """
    rows = checked(samples, truth, log_weights, periods)
    return np.concatenate([_marginal_levels(block) for block in rows.blocks()])


def _marginal_levels(rows: Checked) -> Float[Array, "b d"]:
    samples, truth = unwrapped(rows.samples, rows.truth, rows.weights, rows.periods)
    number = samples.shape[1]
    sizes = np.broadcast_to(effective_size(rows.weights, number), (len(samples),))
    own = 1.0 / (sizes + 1.0)  # fraction of the truth among the draws and itself
    shares = np.full(samples.shape[:2], 1.0 / number) if rows.weights is None else rows.weights
    mass = np.concatenate([shares * (1.0 - own)[:, None], own[:, None]], axis=1)
    levels = np.empty(truth.shape)
    for j, period in enumerate(rows.periods):
        points = np.concatenate([samples[..., j], truth[:, j : j + 1]], axis=1)
        density = _density_at_points(points, mass, sizes, period)
        denser = average(density[:, :-1] > density[:, -1:], rows.weights)
        equal = average(density[:, :-1] == density[:, -1:], rows.weights)
        position = positions(rows.truth[:, j], rows.samples[:, 0, j])
        levels[:, j] = spread_rank(denser, equal, sizes, position)
    return levels


def _density_at_points(
    points: Float[Array, "b s"],
    mass: Float[Array, "b s"],
    sizes: Float[Array, "b"],
    period: float | None,
) -> Float[Array, "b s"]:
    """Returns each row's smoothed density at its own points, up to a factor."""
    mean = (points * mass).sum(axis=1, keepdims=True)
    off = points - mean if period is None else angular_difference(points - mean, period)
    std = np.sqrt((off**2 * mass).sum(axis=1, keepdims=True))
    half = REACH * np.where(std > 0, std, 1.0)
    if period is not None:
        half = np.minimum(half, 0.5 * period)
    cells = np.clip((off + half) / (2.0 * half) * BINS - 0.5, 0.0, BINS - 1.001)
    low = cells.astype(np.int64)
    part = cells - low
    flat = (low + BINS * np.arange(len(points))[:, None]).ravel()
    counts = np.bincount(flat, ((1.0 - part) * mass).ravel(), BINS * len(points))
    counts += np.bincount(flat + 1, (part * mass).ravel(), BINS * len(points))
    width = 0.9 * std[:, 0] * (sizes + 1.0) ** -0.2 * BINS / (2.0 * half[:, 0])
    around = np.full(len(points), False) if period is None else half[:, 0] == 0.5 * period
    smooth = _smoothed(counts.reshape(-1, BINS), width, around)
    left, right = (np.take_along_axis(smooth, low + i, 1) for i in (0, 1))
    return left + part * (right - left)


def _smoothed(
    counts: Float[Array, "b k"], width: Float[Array, "b"], around: np.ndarray
) -> Float[Array, "b k"]:
    """Convolves rows of cells with a Gaussian kernel.

    Args:
        counts: Counts, with shape (B, K).
        width: Standard deviation of the kernel, with shape (B,). [cells]
        around: Whether a row is periodic, with shape (B,).
    """
    number = counts.shape[1]
    frequency = np.fft.rfftfreq(2 * number)
    kernel = np.exp(-2.0 * (np.pi * frequency * width[:, None]) ** 2)
    full = irfft(rfft(counts, 2 * number, axis=1) * kernel, 2 * number, axis=1)
    folded = np.where(around[:, None], full[:, number:], 0.0)
    return np.asarray(full[:, :number] + folded)
