"""Losses."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn


class NPELoss(nn.Module):
    """Negative log-likelihood of neural posterior estimation.

    The flow's term alone is the posterior's; the Gaussian's keeps the whitening honest, so that
    the flow always sees residuals of order one.

    Args:
        gaussian_weight: Weight of the Gaussian's term.

    References:
        | Fast epsilon-free inference of simulation models (Papamakarios & Murray, 2016)
        | https://arxiv.org/abs/1605.06376

    Example:
        >>> import torch
        >>> float(NPELoss(0.5)({"flow": torch.ones(2), "gaussian": torch.ones(2)}))
        1.5
    """

    def __init__(self, gaussian_weight: float = 1.0) -> None:
        super().__init__()
        self.gaussian_weight = gaussian_weight

    def forward(self, terms: Mapping[str, Float[Tensor, " b"]]) -> Float[Tensor, ""]:
        """Returns the batch's mean loss from `DeepLeGAToPP.compute_loss`'s terms."""
        return (terms["flow"] + self.gaussian_weight * terms["gaussian"]).mean()
