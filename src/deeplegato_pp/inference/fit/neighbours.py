"""Detection of unmasked neighbours: pixels that a single Sérsic galaxy cannot explain."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import model_variance
from deeplegato_pp.scene.render.sersic_profile import ellipse_form

THRESHOLD = 5.0
"""Significance of a deviating pixel. [sigma]"""

INNER_RADIUS = 1.5
"""Pixels within this ellipse are attributed to the galaxy's own structure. [R_e]"""

_FEWEST_PIXELS = 2
"""Minimum size of a group. In 16,384 pixels of pure noise, 1 % of stamps have one 5-sigma pixel,
and two adjacent ones practically never occur."""

_LARGEST_FRACTION = 0.3
"""Maximum fraction of deviating pixels; above it, the model is wrong and nothing is masked."""


def find_neighbours(
    likelihood: Likelihood,
    row: int,
    mask: Bool[Tensor, "n n"],
    model: Float[Tensor, "n n"],
    model_sigma: Float[Tensor, "n n"] | float,
    w: Float[Tensor, "7"],
) -> Bool[Tensor, "n n"]:
    """Returns the pixels to mask in addition to those already masked.

    These are connected groups of at least two pixels more than 5 sigma from the model and outside
    1.5 R_e (the ellipse enlarged by one pixel), each dilated by one pixel.

    Args:
        likelihood: Galaxies.
        row: Index of the galaxy.
        mask: Pixels masked initially, with shape (N, N).
        model: Predicted image, with shape (N, N).
        model_sigma: Uncertainty of the prediction, added to the noise, with shape (N, N).
        w: Coordinates of the galaxy, with shape (7,).

    Returns:
        Pixels to mask, with shape (N, N); none if they exceed 30 % of the unmasked pixels.
    """
    s = likelihood.stamps
    noise = model_variance(model, s.sigma[row], s.gain[row], likelihood.model_error)
    variance = noise + model_sigma**2
    deviation = ((s.image[row] - model) / variance.sqrt()).abs()
    outlier = (deviation > THRESHOLD) & ~mask & _outside(likelihood, w).to(mask.device)
    if int(outlier.sum()) < _FEWEST_PIXELS:
        return torch.zeros_like(mask)
    # Pixels are connected if adjacent, diagonally too.
    labels, count = ndimage.label(outlier.cpu().numpy(), structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    large = np.isin(labels, 1 + np.flatnonzero(sizes >= _FEWEST_PIXELS))
    grown = torch.from_numpy(ndimage.binary_dilation(large, structure=np.ones((3, 3))))
    found = grown.to(mask.device) & ~mask & _outside(likelihood, w).to(mask.device)
    if int(found.sum()) > _LARGEST_FRACTION * int((~mask).sum()):
        return torch.zeros_like(mask)
    return found


def _outside(likelihood: Likelihood, w: Tensor) -> Tensor:
    """Returns the pixels beyond 1.5 R_e of the galaxy at w."""
    _, radius, _, q, angle, x, y = SersicCoordinates(likelihood.box).profiles(
        w[None].double().cpu()
    )[0]
    grid = torch.arange(likelihood.size, dtype=torch.float64) - (likelihood.size - 1) / 2
    dy, dx = torch.meshgrid(grid, grid, indexing="ij")
    dx, dy = dx - x, dy - y
    xx, xy, yy = ellipse_form(INNER_RADIUS * radius + 1.0, q, angle)
    return xx * dx**2 + xy * dx * dy + yy * dy**2 > 1.0
