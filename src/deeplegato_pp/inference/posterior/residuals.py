"""Residual images of a posterior: data, model, residual and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.measurement import Measured, as_measured
from deeplegato_pp.inference.posterior.summary import parameter_summaries

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.base import PosteriorBase


@dataclass(frozen=True, eq=False)
class Residuals:
    """One galaxy's image and model on its stamp, in image units.

    Attributes:
        data: Image, with shape (N, N); 0 where masked.
        model: Noiseless galaxy convolved with the PSF, plus the best constant sky and PSF-width
            error, with shape (N, N).
        residual: data - model, with shape (N, N); 0 where masked.
        sigma: Standard deviation of each pixel under the model, with shape (N, N).
        mask: True for ignored pixels, with shape (N, N): the given mask, padding and neighbours.
        neighbours: Pixels that refinement masked as neighbours, with shape (N, N).
        sky: Best constant sky under its prior.
        parameters: The model's parameters in the user's units, with shape (7,).
        bin: Binning: image pixels per stamp pixel along each axis.
        origin: Column and row of the centre of the stamp's first pixel, in 0-based pixels of the
            original image.
    """

    data: Float[Array, "n n"]
    model: Float[Array, "n n"]
    residual: Float[Array, "n n"]
    sigma: Float[Array, "n n"]
    mask: Bool[Array, "n n"]
    neighbours: Bool[Array, "n n"]
    sky: float
    parameters: Float[Array, "7"]
    bin: int
    origin: tuple[float, float]

    @property
    def in_sigma(self) -> Float[Array, "n n"]:
        """Residual in units of each pixel's standard deviation, (N, N); 0 where masked."""
        return self.residual / self.sigma


def residual_image(posterior: PosteriorBase) -> Residuals:
    """Computes data, model and residual of one galaxy.

    The model is that of the best draw (highest posterior density in the coordinates with normal
    prior) for a refined galaxy, and that of the mean of the network's draws otherwise.

    Raises:
        InputError: If the posterior is of several galaxies, or the galaxy was not measured.
    """
    if len(posterior) != 1:
        raise InputError(f"residuals are of one galaxy, got {len(posterior)}. Take posterior[i].")
    m = posterior.measurements[0]
    if not isinstance(m, Measured):
        raise InputError(f"a galaxy that was not measured has no residual: {m.reason}")
    prepared, likelihood = m.prepared, m.likelihood()
    mask = likelihood.stamps.mask[0].numpy()
    w = best_coordinates(posterior)
    rows = torch.zeros(1, dtype=torch.long)
    model = likelihood.images(rows, likelihood.coordinates.project(w[None]))
    found = likelihood.residual(rows, model)
    sky = float(found.sky)
    sigma = likelihood.variance(rows, model)[0].sqrt().numpy() * prepared.scale
    added = found.templates.combine(found.amplitudes.best)
    shown = (model + added)[0].numpy() * prepared.scale
    data = np.where(mask, 0.0, prepared.image * prepared.scale)
    height, width = m.observation.shape
    corner = -(len(mask) - 1) / 2
    x, y = prepared.center_to_user(corner, corner)
    return Residuals(
        data=data,
        model=shown,
        residual=np.where(mask, 0.0, data - shown),
        sigma=sigma,
        mask=np.array(mask),
        neighbours=mask & ~prepared.mask,
        sky=sky * prepared.scale,
        parameters=m.box.to_physical(w[None])[0].numpy(),
        bin=prepared.bin,
        origin=(x + (width - 1) / 2, y + (height - 1) / 2),
    )


def best_coordinates(posterior: PosteriorBase) -> Float[Tensor, "7"]:
    """Returns w of one galaxy's best draw, or of the mean if it was not refined."""
    m = as_measured(posterior.measurements[0])
    if posterior.batch_log_weights is None or m.method == "amortized":
        mean = [[s.value for s in parameter_summaries(posterior)]]
        return m.box.to_normal(torch.tensor(mean, dtype=torch.float64))[0]
    w = posterior.batch_w[0]
    density = posterior.batch_log_prob[0] - m.box.log_jacobian(w)
    target = posterior.batch_log_weights[0] + density
    return w[int(target.argmax())]
