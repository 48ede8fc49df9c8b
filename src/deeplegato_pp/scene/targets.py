"""The log posterior of galaxies as a target for samplers: likelihood times prior in w."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import W_MAX


def log_posterior_row(
    likelihood: Likelihood, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype | None = None
) -> Float[Tensor, " s"]:
    """Returns ln L + ln prior of one galaxy at many points, unnormalised.

    Beyond |u| = 8, where the prior's bijection ends (and 1e-15 of the prior lies), it is -inf.

    Args:
        likelihood: Galaxies and hypothesis.
        row: Which galaxy.
        u: Coordinates, with shape (S, F).
        dtype: What to render in; chosen by the galaxy's brightness if None.
    """
    inside = (u.abs() <= W_MAX).all(-1)
    value = torch.full((len(u),), -torch.inf, dtype=torch.float64)
    if bool(inside.any()):
        kept = u[inside]
        log_l = likelihood.log_likelihood_row(row, kept, dtype)
        value[inside] = log_l + likelihood.coordinates.log_prior(kept)
    return value
