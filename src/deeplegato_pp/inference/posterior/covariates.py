"""What galaxies are sorted into classes by: quantities that follow from the posterior.

A class must be made of what is known without the truth. Sorted by its *true* index, even a perfect
posterior fails: the galaxies with the largest true n are those whose posterior, drawn towards the
bulk of the prior, lies too low on average. By any function of the data its coverage is nominal.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

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

Array = np.ndarray

SNR = "snr"
RADIUS_OVER_PSF = "radius_over_psf"


def of_draws(
    samples: Float[Array, "b s 7"], log_weights: Float[Array, "b s"] | None = None
) -> dict[str, Float[Array, "b"]]:
    """Returns the posterior medians of magnitude, radius, index and axis ratio, by name."""
    medians = central_quantiles(samples, (0.5,), log_weights)[..., 0]
    return {NAMES[j]: medians[:, j] for j in (MAGNITUDE, RADIUS, SERSIC_INDEX, AXIS_RATIO)}


def of_posterior(posterior: PosteriorBase) -> dict[str, Float[Array, "b"]]:
    """Returns posterior medians of S/N, R_e over the PSF's FWHM, index and axis ratio, by name.

    Args:
        posterior: All of whose galaxies were measured.

    Raises:
        InputError: If a galaxy's stamp is not there.
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
    """Returns the edges of classes: the project's own of S/N, else quantiles.

    Args:
        name: Of the covariate.
        values: With shape (B,).
        number: Classes of the same size, where they are quantiles.
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
