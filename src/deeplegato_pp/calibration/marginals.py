"""Means, widths and intervals of many galaxies' draws, and distances of the truth from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.diagnostics import central_quantiles, errors, log_scaled
from deeplegato_pp.diagnostics.rows import average, row_weights, unwrapped
from deeplegato_pp.scene.parameters import PARAMETERS
from deeplegato_pp.stats.weighted import QUANTILES


@dataclass(frozen=True)
class Marginals:
    """Marginals of each galaxy and its truth; see :class:`MeasuredGalaxies` for the units.

    Attributes:
        mean: Means, with shape (B, 7). [physical units]
        width: Standard deviations, with shape (B, 7).
        quantiles: Quantiles, with shape (B, 7, 5).
        error: Mean minus truth, with shape (B, 7).
        miss: Distance of the truth from the central 95 % interval in widths, with shape (B, 7).
    """

    mean: Float[Array, "b 7"]
    width: Float[Array, "b 7"]
    quantiles: Float[Array, "b 7 5"]
    error: Float[Array, "b 7"]
    miss: Float[Array, "b 7"]


def marginals(
    samples: Float[Array, "b s 7"],
    truth: Float[Array, "b 7"],
    log_weights: Float[Array, "b s"] | None = None,
) -> Marginals:
    """Computes the marginals of (weighted) draws.

    Args:
        samples: Draws in physical units, with shape (B, S, 7).
        truth: True parameters, with shape (B, 7). [physical units]
        log_weights: Log-weights, with shape (B, S), or None.
    """
    weights = row_weights(log_weights, samples.shape[:2])
    turned, turned_truth = unwrapped(samples, truth, weights)
    values, true = log_scaled(turned), log_scaled(turned_truth)
    width = np.sqrt(average((values - average(values, weights)[:, None]) ** 2, weights))
    scaled = log_scaled(samples)
    quantiles = central_quantiles(scaled, tuple(QUANTILES.values()), log_weights)
    outside = np.maximum(quantiles[..., 0] - true, true - quantiles[..., -1])
    mean = average(turned, weights)
    for j, p in enumerate(PARAMETERS):
        if p.period is not None:
            mean[:, j] %= p.period
    return Marginals(
        mean=mean,
        width=width,
        quantiles=quantiles,
        error=errors(scaled, log_scaled(truth), log_weights),
        miss=np.maximum(outside, 0.0) / np.maximum(width, 1e-12),
    )
