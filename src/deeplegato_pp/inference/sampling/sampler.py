"""Adaptive importance sampling of many targets at once, each with its own budget.

Targets are any functions that return log-densities. Each has its own random generator, so its draws
do not depend on the other targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.inference.sampling.adaptation import adapt
from deeplegato_pp.inference.sampling.importance import (
    DrawPool,
    StudentMixture,
    effective_sample_size,
    split_counts,
)
from deeplegato_pp.stats.pareto import pareto_khat, reliable

LogDensity = Callable[[list[int], list[Tensor]], list[Tensor]]
"""Maps indices of targets and draws of each (S_i, D) to their log-densities (S_i,)."""


@dataclass(frozen=True)
class Budget:
    """Limits of the number of draws for a target.

    Attributes:
        ess: Effective sample size at which a target is done.
        max_draws: Maximum number of draws evaluated per target, including the pilot.
        adaptations: Maximum number of times that the proposal is refitted.
        good_efficiency: Efficiency of a round above which no adaptation is needed,
        good_khat: provided that the k-hat of its weights is below this: an efficient proposal can
            still miss a tail of the target, whose rare draws then have large weights.
    """

    ess: float = 400.0
    max_draws: int = 4000
    adaptations: int = 7
    good_efficiency: float = 0.45
    good_khat: float = 0.4

    def round_size(self, adaptations: int) -> int:
        """Returns the size of a round: all draws needed, or fewer while adapting."""
        return max(64, min(1000, math.ceil((0.8 if adaptations else 1.35) * self.ess)))


class TargetSampler:
    """State of one target: its pool of draws, its proposal and its remaining budget.

    Args:
        base: Draws from the base proposal (the network, or a prior), with shape (S, D).
        base_log_prob: Log-density of the base proposal at the draws, with shape (S,).
        pilot_log_target: Log-density of the target at the first P draws, the pilot, (P,).
        seed: Random seed of this target.
        budget: Limits of the number of draws.
    """

    def __init__(
        self,
        base: Float[Tensor, "s d"],
        base_log_prob: Float[Tensor, " s"],
        pilot_log_target: Float[Tensor, " p"],
        seed: int,
        budget: Budget,
    ) -> None:
        pilot = len(pilot_log_target)
        self.budget = budget
        self.generator = torch.Generator().manual_seed(seed)
        self.base, self.base_log_prob = base.double(), base_log_prob.double()
        self.base_used = pilot
        self.pool = DrawPool(base.shape[-1])
        self.pool.add_components(torch.zeros(0, 1, dtype=torch.float64))
        label = torch.zeros(pilot, dtype=torch.long)
        density = self.base_log_prob[:pilot, None]
        self.pool.add_draws(self.base[:pilot], pilot_log_target, label, density)
        self.pool.freeze()
        # A single draw always has an effective size of one, so this carries no information.
        ess = float(effective_sample_size(self.pool.log_weights()))
        self.base_efficiency = max(0.0, (ess - 1.0) / max(pilot - 1, 1))
        self.base_share = min(max(2.0 * self.base_efficiency, 0.05), 0.8)
        self.mixtures: list[StudentMixture] = []
        self.first_component = 0
        self.adaptations = 0
        self.done = False

    @property
    def ess(self) -> float:
        """Effective sample size of all draws so far."""
        return float(effective_sample_size(self.pool.log_weights()))

    def set_mixture(self, mixture: StudentMixture) -> None:
        """Sets the mixture used as proposal in the next rounds."""
        self.mixtures.append(mixture)
        self.first_component = self.pool.add_components(mixture.component_log_prob(self.pool.x))

    def next_size(self) -> int:
        """Returns the number of draws of the next round; 0 if the target is done."""
        left = self.budget.max_draws - len(self.pool)
        if self.done or left < 16:
            return 0
        round_size = self.budget.round_size(self.adaptations)
        if len(self.pool) == self.pool.frozen_from:
            return min(round_size, left)
        efficiency = max(self._recent_efficiency(), 0.01)
        missing = 1.1 * (self.budget.ess - self.ess) / efficiency
        # If only a heavy tail is wrong, half a round more is drawn.
        least = 64 if missing > 0 else round_size // 2
        return min(max(least, math.ceil(missing)), 4 * round_size, left)

    def propose(self, size: int) -> tuple[Tensor, Tensor]:
        """Returns new draws (S, D), the base proposal's first, and the component of each (S,)."""
        from_base = round(self.base_share * size) if self.mixtures else size
        from_base = min(from_base, len(self.base) - self.base_used)
        parts = [self.base[self.base_used : self.base_used + from_base]]
        labels = [torch.zeros(from_base, dtype=torch.long)]
        if self.mixtures:
            mixture = self.mixtures[-1]
            counts = split_counts(mixture.weights, size - from_base)
            x, component = mixture.sample(counts, self.generator)
            parts.append(x)
            labels.append(component + self.first_component)
        return torch.cat(parts), torch.cat(labels)

    def accept(
        self, x: Tensor, component: Tensor, log_target: Tensor, drawn_base_log_prob: Tensor
    ) -> None:
        """Adds evaluated draws and decides on the next step.

        Args:
            x: Draws, as returned by `propose`, with shape (S, D).
            component: Their components, with shape (S,).
            log_target: Log-density of the target, with shape (S,).
            drawn_base_log_prob: The base's log-density at draws from other components.
        """
        from_base = int((component == 0).sum())
        own = self.base_log_prob[self.base_used : self.base_used + from_base]
        columns = [torch.cat([own, drawn_base_log_prob])[:, None]]
        columns += [m.component_log_prob(x) for m in self.mixtures]
        self.base_used += from_base
        self.pool.add_draws(x, log_target, component, torch.cat(columns, 1))
        self._decide()

    def _decide(self) -> None:
        log_weights = self.pool.log_weights()
        if self.ess >= self.budget.ess and reliable(log_weights):
            self.done = True
            return
        exhausted = self.adaptations >= self.budget.adaptations
        if exhausted or self._proposal_is_good():
            return
        if self.budget.max_draws - len(self.pool) < self.budget.round_size(1) // 2:
            return
        if not bool(torch.isfinite(log_weights).any()):
            return
        mixture, share = adapt(
            self.pool.x,
            log_weights,
            self.mixtures[-1] if self.mixtures else None,
            self.generator,
            defensive_log_prob=self.pool.log_density[:, 0],
        )
        self.adaptations += 1
        self.base_share = min(max(share, 0.05), 0.9)
        self.pool.freeze()
        self.set_mixture(mixture)

    def _proposal_is_good(self) -> bool:
        efficient = self._recent_efficiency() >= self.budget.good_efficiency
        return efficient and pareto_khat(self.pool.recent_log_weights()) <= self.budget.good_khat

    def _recent_efficiency(self) -> float:
        """Returns the efficiency of draws since the last adaptation, under their own mixture."""
        log_w = self.pool.recent_log_weights()
        return float(effective_sample_size(log_w)) / max(len(log_w), 1)


def sample_targets(
    samplers: list[TargetSampler], log_target: LogDensity, base_log_prob: LogDensity
) -> None:
    """Runs rounds until every target is done or out of budget; samplers hold the results.

    Args:
        samplers: One per target, with their initial mixtures set.
        log_target: Log-density of the targets.
        base_log_prob: Log-density of the base proposals.
    """
    while True:
        sizes = [s.next_size() for s in samplers]
        active = [i for i, size in enumerate(sizes) if size > 0]
        if not active:
            return
        proposed = [samplers[i].propose(sizes[i]) for i in active]
        for position, i in enumerate(active):
            if len(proposed[position][0]) == 0:
                samplers[i].done = True
        kept = [p for p, i in enumerate(active) if not samplers[i].done]
        active, proposed = [active[p] for p in kept], [proposed[p] for p in kept]
        if not active:
            return
        targets = log_target(active, [x for x, _ in proposed])
        foreign = {i: x[c > 0] for i, (x, c) in zip(active, proposed, strict=True) if bool(c.any())}
        base = dict.fromkeys(active, torch.zeros(0, dtype=torch.float64))
        if foreign:
            values = base_log_prob(list(foreign), list(foreign.values()))
            base.update(zip(foreign, values, strict=True))
        for i, (x, component), value in zip(active, proposed, targets, strict=True):
            samplers[i].accept(x, component, value, base[i])
