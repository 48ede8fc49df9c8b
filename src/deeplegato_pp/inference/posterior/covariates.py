"""Observable quantities by which galaxies are grouped into classes.

Classes must be defined without knowledge of the truth. If galaxies are grouped by their *true*
index, even a perfect posterior appears biased: the galaxies with the largest true n have posteriors
that are on average too low, because they are drawn towards the bulk of the prior. For classes that
are functions of the data, the coverage of a correct posterior is nominal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.diagnostics.intervals import central_quantiles
from deeplegato_pp.diagnostics.rows import row_quantiles, row_weights
from deeplegato_pp.errors import InputError
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    MAGNITUDE,
    NAMES,
    RADIUS,
    SERSIC_INDEX,
    SNR_CLASSES,
    signal_to_noise,
)

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.base import PosteriorBase


SNR = "snr"
RADIUS_OVER_PSF = "radius_over_psf"


def of_draws(
    samples: Float[Array, "b s 7"], log_weights: Float[Array, "b s"] | None = None
) -> dict[str, Float[Array, "b"]]:
    """Returns the posterior medians of magnitude, radius, index and axis ratio, by name."""
    medians = central_quantiles(samples, (0.5,), log_weights)[..., 0]
    return {NAMES[j]: medians[:, j] for j in (MAGNITUDE, RADIUS, SERSIC_INDEX, AXIS_RATIO)}


def of_posterior(posterior: PosteriorBase) -> dict[str, Float[Array, "b"]]:
    """Returns posterior medians of S/N, R_e/FWHM, index and axis ratio, by name.

    Args:
        posterior: Posterior in which all galaxies were measured.

    Raises:
        InputError: If a galaxy has no stamp.
    """
    prepared = []
    for m in posterior.measurements:
        if m.prepared is None:
            raise InputError(f"the stamp of {m.name or 'a galaxy'} is not there: was it measured?")
        prepared.append(m.prepared)
    samples = posterior.batch_samples.numpy()
    log_weights = posterior.batch_log_weights
    weights = row_weights(None if log_weights is None else log_weights.numpy(), samples.shape[:2])

    def column(values: list[float]) -> Array:
        return np.array(values, dtype=np.float64)[:, None]

    zero_point = column([p.zero_point for p in prepared])
    scale, pixel = column([p.scale for p in prepared]), column([p.pixel_scale for p in prepared])
    fwhm = column([m.psf_fwhm for m in posterior.measurements])
    flux = 10.0 ** (-0.4 * (samples[..., MAGNITUDE] - zero_point)) / scale
    radius = samples[..., RADIUS] / pixel
    snr = signal_to_noise(
        *(torch.from_numpy(a) for a in (flux, radius, samples[..., AXIS_RATIO], fwhm))
    )
    columns = {
        SNR: snr.numpy(),
        RADIUS_OVER_PSF: radius / fwhm,
        NAMES[SERSIC_INDEX]: samples[..., SERSIC_INDEX],
        NAMES[AXIS_RATIO]: samples[..., AXIS_RATIO],
    }
    return {name: row_quantiles(draws, (0.5,), weights)[:, 0] for name, draws in columns.items()}


def class_edges(name: str, values: Float[Array, "b"], number: int = 10) -> tuple[float, ...]:
    """Returns the edges of classes: fixed edges for S/N, quantiles for other covariates.

    Args:
        name: Name of the covariate.
        values: Values, with shape (B,).
        number: Number of equally populated classes, for quantiles.
    """
    if name == SNR:
        return SNR_CLASSES
    inner = np.quantile(values, np.arange(1, number) / number)
    return (-math.inf, *np.unique(inner).tolist(), math.inf)


def class_of(values: Float[Array, "b"], edges: tuple[float, ...]) -> Array:
    """Returns the class of each value: i if edges[i] <= value < edges[i + 1].

    Example:
        >>> class_of(np.array([2.0, 3.0, 1e9]), (0.0, 3.0, math.inf)).tolist()
        [0, 1, 1]
    """
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
