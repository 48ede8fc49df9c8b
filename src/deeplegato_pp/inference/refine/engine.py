"""Exact posteriors from the network's draws, for batches of galaxies in detector units.

    network's draws -> weights -> modes, Student-t proposals -> adaptation -> Markov chain -> flags

Each galaxy has its own random numbers and its own render budget; see `docs/exact.md`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.errors import ConfigError, NumericalError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.emulator import InterpolatedTarget
from deeplegato_pp.inference.fit.fit import Fit
from deeplegato_pp.inference.fit.modes import ModeFinder, gaussian_draws, is_misfit, mixture_at
from deeplegato_pp.inference.fit.structure import Slopes, slopes_at, widening_at
from deeplegato_pp.inference.posterior.draws import RefinedDraws, RefinedGalaxy
from deeplegato_pp.inference.refine.fallback import (
    SHORTEST_CHAIN,
    fall_back,
    longest_chain,
    weights_failed,
)
from deeplegato_pp.inference.refine.options import METHODS, RefineOptions
from deeplegato_pp.inference.sampling.importance import effective_sample_size
from deeplegato_pp.inference.sampling.sampler import Budget, TargetSampler, sample_targets
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import NUM_PARAMETERS

logger = logging.getLogger(__name__)

LogProbFunction = Callable[[Tensor, Tensor], Tensor]
"""Density of the network: maps rows (R,) and coordinates (R, S, 7) to log-densities (R, S)."""

_FEWEST_DRAWS = 150
"""Minimum number of affordable draws for importance sampling."""
_FEWEST_EFFECTIVE = 50.0
"""Effective size below which weighted draws do not determine a covariance."""
_TENSION = 3.0


def refine_batch(
    likelihood: Likelihood,
    w: Float[Tensor, "b s 7"],
    log_q: Float[Tensor, "b s"],
    log_prob_fn: LogProbFunction,
    *,
    method: str = "exact",
    ess: float = 400.0,
    max_draws: int | None = None,
    fixed: Mapping[str, float] | None = None,
    seeds: Int[Tensor, " b"] | None = None,
    options: RefineOptions | None = None,
    coordinates: Member | None = None,
) -> RefinedDraws:
    """Computes the exact posteriors of a batch of galaxies.

    Args:
        likelihood: Likelihood of the galaxies.
        w: The network's draws, with shape (B, S, 7).
        log_q: Log-density of the draws under the network, in w, with shape (B, S).
        log_prob_fn: The network's log-density: called with galaxy indices (R,) and coordinates
            (R, S, 7), it returns (R, S).
        method: ``"exact"``, or ``"laplace"``: unweighted draws from the modes' Gaussians and from
            the network, mixed according to their efficiencies, for some 60 renders.
        ess: Required effective sample size.
        max_draws: Maximum number of draws evaluated per galaxy; ten times `ess` if None.
        fixed: Values of fixed parameters by name, in the units of the likelihood's box. The
            network's conditional density is unknown: draws from the prior and a widened Student-t
            replace it as the defensive part of the proposal.
        seeds: Random seeds, one per galaxy; the galaxy's index if None.
        options: Rarely changed settings.
        coordinates: Coordinates of galaxies whose neighbours are fitted too; None if isolated.

    Returns:
        Weighted draws and diagnostics.

    Raises:
        ConfigError: If the method is unknown.
        NumericalError: If a likelihood or a density is NaN.
        ShapeError: If the shapes of the arrays do not agree.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {METHODS}, got {method!r}.")
    batch, draws = log_q.shape
    if w.shape != (batch, draws, NUM_PARAMETERS) or len(likelihood) != batch:
        raise ShapeError(
            f"w must be (B, S, 7) and log_q (B, S) for the {len(likelihood)} galaxies of the "
            f"likelihood, got {tuple(w.shape)} and {tuple(log_q.shape)}."
        )
    seeds = torch.arange(batch) if seeds is None else seeds
    budget = Budget(ess=ess, max_draws=math.ceil(10 * ess) if max_draws is None else max_draws)
    job = _Job(
        likelihood.under(coordinates or SersicCoordinates(likelihood.box, fixed)),
        w.double(),
        log_q.double(),
        log_prob_fn,
        [int(s) for s in seeds],
        budget,
        RefineOptions() if options is None else options,
    )
    return job.laplace() if method == "laplace" else job.exact()


class _Job:
    """State of one call of :func:`refine_batch`."""

    def __init__(
        self,
        likelihood: Likelihood,
        w: Tensor,
        log_q: Tensor,
        log_prob_fn: LogProbFunction,
        seeds: list[int],
        budget: Budget,
        options: RefineOptions,
    ) -> None:
        self.likelihood, self.w, self.seeds = likelihood, w, seeds
        self.coordinates: SersicCoordinates | Member = likelihood.coordinates  # type: ignore[assignment]
        self.budget, self.options = budget, options
        self.conditional = self.coordinates.dim < NUM_PARAMETERS
        self.batches = Batches(likelihood)  # replaced by those of the search
        self.given_mask = likelihood.stamps.mask.clone()
        self.targets: dict[int, InterpolatedTarget] = {}
        self.short: set[int] = set()  # galaxies whose budget is exhausted
        self.modes: list[Fit | None] = [None] * len(w)
        self.evidence_loss, self.peak_loss = torch.zeros(2, len(w), dtype=torch.float64)
        if self.conditional:
            self.base, self.base_log_prob = self._prior_draws(w.shape[1])
            self.density = None
        else:
            self.base, self.base_log_prob, self.density = w, log_q, log_prob_fn

    def exact(self) -> RefinedDraws:
        """Runs adaptive importance sampling, with a Markov chain where it fails."""
        modes, pilot = self._find_modes()
        samplers = self._samplers(modes, pilot)
        sampled = [i for i, s in enumerate(samplers) if not s.done]
        sample_targets(
            [samplers[i] for i in sampled],
            lambda which, draws: self._log_target([sampled[k] for k in which], draws),
            lambda which, draws: self._base_density([sampled[k] for k in which], draws),
        )
        galaxies = [
            self._unsampled(i, s, mode)
            if i not in sampled and mode is not None
            else self._collect(i, s, mode)
            for i, (s, mode) in enumerate(zip(samplers, modes, strict=True))
        ]
        if self.options.fallback:
            galaxies = [self._fall_back(i, g, modes[i]) for i, g in enumerate(galaxies)]
        return self._verdicts(galaxies)

    def laplace(self) -> RefinedDraws:
        """Mixes Gaussians at the modes with the network's draws by their efficiencies."""
        pilot = min(16, self.options.pilot)
        self.options = replace(self.options, pilot=pilot, starts=1, interpolate=False)
        self.budget = replace(self.budget, adaptations=0)
        modes, log_target = self._find_modes()
        samplers = self._samplers(modes, log_target)
        sizes = [0 if m is None else 16 for m in modes]
        for i, sampler in enumerate(samplers):
            if sizes[i]:
                sampler.base_share = 0.0
                x, component = sampler.propose(sizes[i])
                target = self._log_target([i], [x])[0]
                sampler.accept(x, component, target, self._base_density([i], [x])[0])
        self.short.clear()  # this method does not sample
        return self._verdicts([self._mix(i, s, modes[i]) for i, s in enumerate(samplers)])

    # --- sampling ---------------------------------------------------------------------------

    def _find_modes(self) -> tuple[list[Fit | None], list[Tensor]]:
        """Searches for modes; neighbours are masked from here on."""
        pilot = self.options.pilot
        # The optimum of a group is known; sampling starts from it.
        known = self.conditional or isinstance(self.coordinates, Member)
        finder = ModeFinder(
            self.likelihood,
            self.coordinates,
            self.coordinates.project(self.w[:, :pilot]),
            None if known else self.base_log_prob[:, :pilot],
            starts=self.options.starts,
            mask_neighbours=self.options.mask_neighbours,
            budget=self.options.pixel_budget,
            hold_structure=self.options.honest,
        )
        modes, log_target = finder.find()
        self.likelihood, self.batches = finder.likelihood, finder.batches
        self.modes = modes
        self.evidence_loss, self.peak_loss = finder.evidence_loss, finder.peak_loss
        return modes, log_target

    def _prior_draws(self, number: int) -> tuple[Tensor, Tensor]:
        shape = (number, self.coordinates.dim)
        draws = torch.stack(
            [
                torch.randn(*shape, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
                for s in self.seeds
            ]
        )
        return draws, self.coordinates.log_prior(draws)

    def _samplers(self, modes: list[Fit | None], pilot: list[Tensor]) -> list[TargetSampler]:
        samplers = []
        for i, seed in enumerate(self.seeds):
            # Draws without a known density only start the search; they are not sampled from.
            known = pilot[i][:0] if self.conditional else pilot[i]
            found = modes[i]
            budget = self._draws_left(i, self.base[i, :1] if found is None else found.u[:1])
            sampler = TargetSampler(self.base[i], self.base_log_prob[i], known, seed, budget)
            sampler.done = found is not None and budget.max_draws < self._fewest_draws()
            if found is not None:
                sampler.set_mixture(mixture_at(found, widened=self.conditional))
            else:
                sampler.base_share = 1.0
            if self.options.interpolate:
                best = self._best(i, found, pilot[i])
                self.targets[i] = InterpolatedTarget(self.batches, i, *best)
            samplers.append(sampler)
        return samplers

    def _best(self, row: int, modes: Fit | None, pilot: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the best point known so far, and its image."""
        if modes is not None:
            return modes.u[0], modes.image[0]
        u = self.base[row, pilot.argmax()][None]
        return u[0], self.batches.render(torch.tensor([row]), u)[0]

    def _draws_left(self, row: int, u: Tensor) -> Budget:
        """Returns the number of draws within the galaxy's budget, if each is rendered."""
        affordable = int(self.batches.left(row) / float(self.batches.cost(torch.tensor([row]), u)))
        if affordable >= self.budget.max_draws:
            return self.budget
        self.short.add(row)
        return replace(self.budget, max_draws=max(affordable, 0))

    def _fewest_draws(self) -> float:
        return min(_FEWEST_DRAWS, self.budget.max_draws)

    def _log_target(self, rows: list[int], draws: list[Tensor]) -> list[Tensor]:
        return [
            self.targets[i](u) if i in self.targets else self.batches.log_posterior(i, u)
            for i, u in zip(rows, draws, strict=True)
        ]

    def _base_density(self, rows: list[int], draws: list[Tensor]) -> list[Tensor]:
        if self.density is None:
            return [self.coordinates.log_prior(u) for u in draws]
        lengths = [len(u) for u in draws]
        padded = torch.nn.utils.rnn.pad_sequence(draws, batch_first=True)
        with torch.no_grad():
            values = self.density(torch.tensor(rows), padded).double().cpu()
        return [v[:n] for v, n in zip(values, lengths, strict=True)]

    # --- results ----------------------------------------------------------------------------

    def _collect(self, row: int, sampler: TargetSampler, modes: Fit | None) -> RefinedGalaxy:
        pool = sampler.pool
        evidence, error = pool.log_evidence()
        galaxy = RefinedGalaxy(
            w=self.coordinates.embed(pool.x),
            log_proposal=pool.log_mixture(),
            log_likelihood=pool.log_target - self.coordinates.log_prior(pool.x),
            log_weights=pool.log_weights(),
            method="adapted" if sampler.adaptations else "importance",
            log_evidence=evidence,
            log_evidence_error=error,
            num_modes=0 if modes is None else len(modes.rows),
        )
        if not bool(torch.isfinite(galaxy.log_weights).any()):
            raise NumericalError(
                f"No draw of galaxy {row} has a finite weight. Are its noise and PSF right?"
            )
        galaxy.judge(self.budget.ess)
        return galaxy

    def _fall_back(self, row: int, galaxy: RefinedGalaxy, modes: Fit | None) -> RefinedGalaxy:
        """Runs a Markov chain if the weights failed, where it is useful and affordable.

        Elsewhere the modes' Gaussians replace draws of which hardly any has weight.
        """
        if galaxy.method == "laplace" or not weights_failed(galaxy, self.budget.ess):
            return galaxy
        best = self.coordinates.project(galaxy.w[galaxy.log_weights.argmax()])[None]
        cost = float(self.batches.cost(torch.tensor([row]), best))
        steps = min(self.options.chain_steps, longest_chain(self.batches.left(row), cost))
        if modes is not None and bool(is_misfit(self.likelihood, modes[:1])):
            logger.info("galaxy %d: no Sérsic profile, so no Markov chain is run", row)
            steps = 0
        elif steps < min(SHORTEST_CHAIN, self.options.chain_steps):
            self.short.add(row)
            steps = 0
        better, renders = fall_back(
            self.likelihood,
            row,
            galaxy,
            seed=self.seeds[row],
            ess=self.budget.ess,
            max_steps=steps,
            star_odds=self.options.star_odds,
        )
        self.batches.count(torch.tensor([row]), best, renders)
        star = math.isfinite(better.star_log_odds)
        if modes is None or star or renders or better.ess >= _FEWEST_EFFECTIVE:
            return better
        return self._gaussians(row, better, modes)

    def _gaussians(self, row: int, galaxy: RefinedGalaxy, modes: Fit) -> RefinedGalaxy:
        """Returns draws of the modes' Gaussians, with the diagnostics of the failed weights."""
        generator = torch.Generator().manual_seed(self.seeds[row])
        x, gaussian = gaussian_draws(modes, self.base.shape[1], generator)
        return replace(
            galaxy,
            w=self.coordinates.embed(x),
            log_proposal=gaussian.log_prob(x),
            log_likelihood=self._log_target([row], [x])[0] - self.coordinates.log_prior(x),
            log_weights=torch.zeros(len(x), dtype=torch.float64),
            method="laplace",
            log_evidence=modes.log_evidence(),
            log_evidence_error=math.nan,
        )

    def _mix(self, row: int, sampler: TargetSampler, modes: Fit | None) -> RefinedGalaxy:
        """Returns unweighted draws of the modes' Gaussians and of the network."""
        base, total = self.base[row], self.base.shape[1]
        share = laplace_share(sampler)
        x = base[: round(share * total)]
        if modes is not None and len(x) < total:
            drawn, gaussian = gaussian_draws(modes, total - len(x), sampler.generator)
            x = torch.cat([x, drawn])
            parts = [gaussian.log_prob(x) + math.log1p(-share)]
            if share > 0:
                parts.append(self._base_density([row], [x])[0] + math.log(share))
            log_proposal = torch.logsumexp(torch.stack(parts), 0)
        else:
            log_proposal = self.base_log_prob[row]
        evidence, error = sampler.pool.log_evidence()
        galaxy = RefinedGalaxy(
            w=self.coordinates.embed(x),
            log_proposal=log_proposal,
            log_likelihood=torch.full((len(x),), math.nan, dtype=torch.float64),
            log_weights=torch.zeros(len(x), dtype=torch.float64),
            method="laplace" if modes is not None else "amortized",
            log_evidence=evidence,
            log_evidence_error=error,
            num_modes=0 if modes is None else len(modes.rows),
        )
        if modes is not None and not bool(modes.converged[0]):
            galaxy.flags |= int(Flag.LOW_ESS)
        return galaxy

    def _unsampled(self, row: int, sampler: TargetSampler, modes: Fit) -> RefinedGalaxy:
        """Returns the modes' Gaussians and evidence, if the budget does not allow sampling."""
        galaxy = self._mix(row, sampler, modes)
        galaxy.log_evidence, galaxy.log_evidence_error = modes.log_evidence(), math.nan
        galaxy.flags |= int(Flag.LOW_ESS)
        return galaxy

    def _verdicts(self, galaxies: list[RefinedGalaxy]) -> RefinedDraws:
        slopes = self._slopes(galaxies) if self.options.honest else []
        for i, galaxy in enumerate(galaxies):
            # Other hypotheses are compared with the whole errors of the PSFs' widths.
            galaxy.log_evidence += float(self.evidence_loss[i])
            galaxy.note_masked(self.likelihood.stamps.mask[i] & ~self.given_mask[i])
            if i in self.short and galaxy.flags & int(Flag.LOW_ESS | Flag.HIGH_KHAT):
                galaxy.flags |= int(Flag.BUDGET)
            generator = torch.Generator().manual_seed(self.seeds[i] + 1)
            judged = galaxy.judge_fit(self.likelihood, i, generator)
            galaxy.peak = self._peak(i, galaxy) + float(self.peak_loss[i])
            best = self.coordinates.project(galaxy.best)[None]
            self.batches.count(torch.tensor([i]), best, judged)
            if self.options.honest:
                self._widen(i, galaxy, slopes[i])
            if not self.conditional and in_tension(self.w[i], galaxy):
                galaxy.flags |= int(Flag.TENSION)
            galaxy.num_renders = int(self.batches.renders[i])
        return RefinedDraws(galaxies, self.likelihood)

    def _peak(self, row: int, galaxy: RefinedGalaxy) -> float:
        """Returns the largest ln L found, at a draw or at the best mode."""
        known = [galaxy.log_likelihood, torch.tensor([galaxy.peak], dtype=torch.float64)]
        modes = self.modes[row]
        if modes is not None:
            known.append(modes.log_posterior[:1] - self.coordinates.log_prior(modes.u[:1]))
        values = torch.cat(known)
        return float(values[values.isfinite()].max())

    def _slopes(self, galaxies: list[RefinedGalaxy]) -> list[list[Slopes] | None]:
        """Returns images and derivatives at all modes; at the means without a search."""
        points = [
            self.coordinates.project(galaxy.mean()[None]) if modes is None else modes.u
            for galaxy, modes in zip(galaxies, self.modes, strict=True)
        ]
        return slopes_at(self.batches, range(len(galaxies)), points)

    def _widen(self, row: int, galaxy: RefinedGalaxy, slopes: list[Slopes] | None) -> None:
        """Computes the widening to honest widths; the noise widths are kept if it fails."""
        modes = self.modes[row]
        try:
            galaxy.widening = widening_at(self.likelihood, row, modes, galaxy.mean(), slopes)
        except (NumericalError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
            logger.info("galaxy %d keeps the noise's widths: %s", row, error)
        if galaxy.widening is None or not galaxy.widening.judged:
            galaxy.flags |= int(Flag.STRUCTURE_UNJUDGED)


def laplace_share(sampler: TargetSampler) -> float:
    """Returns the network's weight in a Laplace mixture, from the efficiencies of both parts."""
    if not sampler.mixtures:
        return 1.0
    log_w = sampler.pool.recent_log_weights()
    if not len(log_w):  # no draw of the modes has been evaluated
        return 0.0 if sampler.base_efficiency < 0.4 else 0.5
    ess = float(effective_sample_size(log_w))
    mode_efficiency = max(0.0, (ess - 1.0) / max(len(log_w) - 1, 1))
    both = sampler.base_efficiency + mode_efficiency
    share = sampler.base_efficiency / both if both > 0 else 0.5
    return 0.0 if share < 0.05 else share


def in_tension(w: Float[Tensor, "s 7"], galaxy: RefinedGalaxy) -> bool:
    """Returns whether network and exact means differ by more than 3 of their joint sigmas.

    The exact sigmas are the honest ones where those are larger. A single draw has no spread, and
    gives False.
    """
    if len(w) < 2:
        return False
    exact_std = galaxy.std()
    if galaxy.widening is not None and galaxy.widening.judged:
        exact_std = torch.maximum(exact_std, galaxy.widening.covariance.diagonal().sqrt())
    sigma = (w.var(0) + exact_std**2).sqrt()
    return bool(((w.mean(0) - galaxy.mean()).abs() > _TENSION * sigma).any())
