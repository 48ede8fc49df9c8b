"""A posterior whose draws were moved to wider widths, made of numbers alone."""

from __future__ import annotations

import math

import torch

from deeplegato_pp import Posterior
from deeplegato_pp.inference.fit.sandwich import affine_map
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.measurement import Measurement
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch


def widening_of(*modes: float, factor: float = 3.0, judged: bool = True) -> Widening:
    """Modes on a diagonal, each with draws 0.01 wide, made wider by a factor along the second."""
    identity = torch.eye(7, dtype=torch.float64)
    target = identity.clone()
    target[1, 1] = factor**2
    number = len(modes)
    return Widening(
        torch.tensor(modes, dtype=torch.float64)[:, None].expand(number, 7).contiguous(),
        1e4 * identity.expand(number, 7, 7),
        affine_map(identity[None], target[None]).expand(number, 7, 7),
        1e-4 * target,
        target.diagonal().sqrt(),
        20,
        judged,
    )


def posterior_with(widening: Widening | None, weighted: bool = True, draws: int = 400) -> Posterior:
    box = PriorBox()
    generator = torch.Generator().manual_seed(0)
    modes = torch.tensor([[0.3]]) if widening is None else widening.modes
    center = modes[torch.arange(draws) % len(modes)]
    noise = torch.randn(1, draws, 7, generator=generator, dtype=torch.float64)
    w = center + 0.01 * noise
    stamps = StampBatch(
        torch.zeros(1, 4, 4),
        torch.ones(1, 4, 4),
        torch.zeros(1, 4, 4, dtype=torch.bool),
        torch.zeros(1, 43, 43),
        *(torch.ones(1) for _ in range(3)),
    )
    measurement = Measurement(name="a", method="adapted", box=box, widening=widening)
    log_weights = torch.randn(1, draws, generator=generator, dtype=torch.float64)
    log_weights[0, :5] = -math.inf
    return Posterior(
        box.to_physical(w),
        w,
        -0.5 * (noise**2).sum(-1) + box.log_jacobian(w),
        [measurement],
        stamps,
        log_weights if weighted else None,
    )
