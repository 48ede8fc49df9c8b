"""Reference of novelty scores: features of simulations under the training conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.data.datasets import stream_generator
from deeplegato_pp.errors import RangeError
from deeplegato_pp.inference.verdict.novelty import TAIL, Novelty

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

DIRECTIONS = 128
"""Maximum number of principal directions: 600 features take 300 kB.

Half precision is insufficient: rounding would leak wide directions into narrow ones.
"""

FEWEST = 8 * DIRECTIONS
"""Minimum number of simulations: half for the directions, half for the p-values."""

_QUANTILES = 256
"""Number of stored scores of fresh simulations."""

_SEED = 20_260_101
"""Random seed of the simulations, different from those of training runs."""

_BATCH = 64


def fit_novelty(
    model: DeepLeGAToPP,
    number: int = 6000,
    seed: int = _SEED,
    advance: Callable[[int], None] = lambda _: None,
) -> Novelty:
    """Fits the features of simulations under the model's training conditions.

    Half of the simulations determine the directions, the others the p-values. Takes about 30 ms per
    simulation on one core.

    Args:
        model: The network, on its device.
        number: Number of simulations.
        seed: Random seed of the simulations.
        advance: Called with the number of simulations since the last call.

    Raises:
        RangeError: If there are fewer than 1024 simulations.
    """
    if number < FEWEST:
        raise RangeError(f"at least {FEWEST} simulations are needed, got {number}.")
    features = _features(model, number, seed, advance)
    fitted, fresh = features[: number // 2], features[number // 2 :]
    mean = fitted.mean(0)
    _, singular, directions = torch.linalg.svd(fitted - mean, full_matrices=False)
    kept = min(DIRECTIONS, features.shape[1] - 1)
    variances = singular**2 / len(fitted)
    rest = float((variances[kept:].sum() / (features.shape[1] - kept)).sqrt())
    unscored = Novelty(
        mean, directions[:kept].T, variances[:kept].sqrt(), rest, mean.new_zeros(1), 1.0
    )
    scores = unscored.score(fresh)
    levels = torch.linspace(0.0, 1.0 - TAIL, _QUANTILES, dtype=torch.float64)
    quantiles = torch.quantile(scores, levels)
    tail = float((scores[scores > quantiles[-1]] - quantiles[-1]).mean())
    return Novelty(mean, directions[:kept].T, unscored.widths, rest, quantiles, tail)


@torch.no_grad()
def _features(
    model: DeepLeGAToPP, number: int, seed: int, advance: Callable[[int], None]
) -> Float[Tensor, "b f"]:
    simulator = SersicSimulator.from_config(model.config.data, truth=_not_sought)
    device = next(model.parameters()).device
    found = []
    for step, start in enumerate(range(0, number, _BATCH)):
        scene = simulator.sample_scene(_BATCH, stream_generator(seed, step))
        features = model.encode(scene.stamps.to(device)).features
        found.append(features[: number - start].double().cpu())
        advance(len(found[-1]))
    return torch.cat(found)


def _not_sought(*scene: Any) -> tuple[Tensor, Tensor]:
    """Keeps the smooth galaxies' coordinates: features need images, and no truths."""
    start: Tensor = scene[2]
    return start, torch.ones(len(start), dtype=torch.bool, device=start.device)
