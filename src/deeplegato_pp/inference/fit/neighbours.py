"""Pixels that no Sérsic galaxy explains: neighbours that were left unmasked."""

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
"""Deviation of a pixel that counts. [sigma]"""

INNER_RADIUS = 1.5
"""Pixels within this ellipse are the galaxy's own structure. [R_e]"""

_FEWEST_PIXELS = 2
"""Of 16,384 pixels of pure noise one deviates by 5 sigma in 1 % of stamps, two together never."""

_LARGEST_FRACTION = 0.3
"""Where more than this part of the stamp deviates, the model is wrong, not the pixels."""


def find_neighbours(
    likelihood: Likelihood,
    row: int,
    mask: Bool[Tensor, "n n"],
    model: Float[Tensor, "n n"],
    model_sigma: Float[Tensor, "n n"] | float,
    w: Float[Tensor, "7"],
) -> Bool[Tensor, "n n"]:
    """Returns the pixels to mask beyond those masked already.

    Connected groups of at least two pixels more than 5 sigma off the model and outside 1.5 R_e
    (the ellipse broadened by a pixel), each grown by a pixel.

    Args:
        likelihood: Galaxies.
        row: Which one.
        mask: Pixels that are ignored to begin with, with shape (N, N).
        model: Its image as predicted, with shape (N, N).
        model_sigma: Uncertainty of that prediction, added to the noise, with shape (N, N).
        w: Where the galaxy is and how large, with shape (7,).

    Returns:
        Pixels to mask, with shape (N, N); none if they are more than 30 % of the unmasked.
    """
    s = likelihood.stamps
    noise = model_variance(model, s.sigma[row], s.gain[row], likelihood.model_error)
    variance = noise + model_sigma**2
    deviation = ((s.image[row] - model) / variance.sqrt()).abs()
    outlier = (deviation > THRESHOLD) & ~mask & _outside(likelihood, w).to(mask.device)
    if int(outlier.sum()) < _FEWEST_PIXELS:
        return torch.zeros_like(mask)
    # Pixels next to each other, diagonally too.
    labels, count = ndimage.label(outlier.cpu().numpy(), structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    large = np.isin(labels, 1 + np.flatnonzero(sizes >= _FEWEST_PIXELS))
    grown = torch.from_numpy(ndimage.binary_dilation(large, structure=np.ones((3, 3))))
    found = grown.to(mask.device) & ~mask & _outside(likelihood, w).to(mask.device)
    if int(found.sum()) > _LARGEST_FRACTION * int((~mask).sum()):
        return torch.zeros_like(mask)
    return found


def _outside(likelihood: Likelihood, w: Tensor) -> Tensor:
    """Pixels beyond 1.5 R_e of the galaxy at w."""
    _, radius, _, q, angle, x, y = SersicCoordinates(likelihood.box).profiles(
        w[None].double().cpu()
    )[0]
    grid = torch.arange(likelihood.size, dtype=torch.float64) - (likelihood.size - 1) / 2
    dy, dx = torch.meshgrid(grid, grid, indexing="ij")
    dx, dy = dx - x, dy - y
    xx, xy, yy = ellipse_form(INNER_RADIUS * radius + 1.0, q, angle)
    return xx * dx**2 + xy * dx * dy + yy * dy**2 > 1.0
