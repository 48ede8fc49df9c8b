"""Validation metrics during training: errors and coverage, in the coordinates w."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.scene.stamps import StampBatch

LEVELS = (0.68, 0.95)
"""Levels of the central intervals whose coverage is measured."""


@torch.no_grad()
def validation_metrics(
    model: DeepLeGAToPP, stamps: StampBatch, w: Float[Tensor, "b 7"], num_draws: int
) -> dict[str, Tensor]:
    """Returns the metrics of a batch.

    Args:
        model: The network.
        stamps: A batch.
        w: Its true coordinates.
        num_draws: Number of posterior draws per galaxy; 0 omits the coverage and uses the
            whitening's mean for the errors.

    Returns:
        ``nll`` of the flow, ``gaussian_nll`` of its whitening, ``mae_<parameter>`` of the posterior
        mean (in w, where the prior has width 1), and, with draws, ``coverage_68`` and
        ``coverage_95`` over all parameters, ``coverage_68_<parameter>`` of each.
    """
    context = model.encode(stamps)
    terms = model.compute_loss(stamps, w.float(), context)
    metrics = {"nll": terms["flow"].mean(), "gaussian_nll": terms["gaussian"].mean()}
    error = terms["error"].abs()
    if num_draws:
        draws, _ = model.sample(context, num_draws, torch.arange(len(stamps)))
        error = (draws.mean(1) - w).abs().float()
        distance = 2.0 * ((draws < w[:, None]).double().mean(1) - 0.5).abs()
        for level in LEVELS:
            inside = (distance <= level).float()
            metrics[f"coverage_{level:.0%}".rstrip("%")] = inside.mean()
            if level == LEVELS[0]:
                each = inside.mean(0)
        metrics |= {f"coverage_68_{name}": each[i] for i, name in enumerate(NAMES)}
    metrics |= {f"mae_{name}": error[:, i].mean() for i, name in enumerate(NAMES)}
    return metrics
