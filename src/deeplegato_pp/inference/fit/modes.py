"""Where galaxies' posteriors peak: searches from the network's draws, neighbours masked."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.inference.fit.curvature import use_full_curvature
from deeplegato_pp.inference.fit.fit import Fit, Stop, fit
from deeplegato_pp.inference.fit.neighbours import find_neighbours
from deeplegato_pp.inference.sampling.importance import StudentMixture, effective_sample_size
from deeplegato_pp.inference.sampling.sampler import Budget, TargetSampler
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.components import Coordinates, SersicCoordinates
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import W_MAX

_PREDICTIVE = 12
"""Draws whose mean and scatter are the network's predictive image."""

_SAME_MODE = 1.0
"""Distance from a known mode at which a further search ends. [its sigmas]"""

PRIOR_DRAWS = 2000
"""Draws of the prior, the defensive part of proposals that no network makes."""

MISFIT = 1.2
"""Chi-square per pixel above which Fisher information does not tell a mode's shape."""


class ModeFinder:
    """Weighs a few of the network's draws, masks neighbours, and climbs from the best draws.

    Neighbours are masked twice: by the network's predictive image with its scatter, then, where the
    climb ended at a mode, by the mode's own image, until the mask stays as it is. What an error of
    the PSF's width changes is that of the best mode, and of the pilot's mean where none is sought.

    Args:
        likelihood: Galaxies; it is left as it is.
        coordinates: Its coordinates.
        pilot_u: The network's draws to start from, in those coordinates, with shape (B, P, F).
        log_q: Their density, with shape (B, P); None where it is not known (fixed parameters).
        starts: Searches per galaxy.
        mask_neighbours: Whether neighbours are masked.
        budget: Pixels that may be rendered per galaxy.

    Attributes:
        batches: Renders of the galaxies, those of the search counted.
        likelihood: The galaxies, the neighbours found masked.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        coordinates: SersicCoordinates | Member,
        pilot_u: Float[Tensor, "b p f"],
        log_q: Float[Tensor, "b p"] | None,
        *,
        starts: int,
        mask_neighbours: bool,
        budget: float = math.inf,
    ) -> None:
        self.likelihood, self.coordinates = likelihood.replace(), coordinates
        self.batches = Batches(self.likelihood, budget=budget)
        self.pilot_u, self.log_q = pilot_u, log_q
        self.count, self.mask_neighbours = starts, mask_neighbours
        self.given_mask = self.likelihood.stamps.mask.clone()

    def find(self) -> tuple[list[Fit | None], list[Tensor]]:
        """Returns each galaxy's modes (None: the network needs none) and pilot log posteriors."""
        rows = list(range(len(self.likelihood)))
        self.batches.freeze(torch.arange(len(rows)), self.pilot_u.mean(1))
        pilot = [self._pilot(i) for i in rows]
        modes: list[Fit | None] = [None] * len(rows)
        searching = [i for i in rows if self._needs_modes(i, pilot[i])]
        starts = {
            i: choose_starts(self.pilot_u[i, : len(pilot[i])], pilot[i], self.count)
            for i in searching
        }
        for _ in range(3):
            if not searching:
                break
            self._search(searching, starts, modes)
            changed = [i for i in searching if self._mask_by_mode(i, modes[i])]
            for i in changed:
                pilot[i] = self._log_target(i, self.pilot_u[i, : len(pilot[i])])
                starts[i] = modes[i].u  # type: ignore[union-attr]
            searching = changed
        return [None if m is None else self._sharpen(m) for m in modes], pilot

    def _sharpen(self, modes: Fit) -> Fit:
        """Gives a galaxy that its best model does not fit the posterior's own curvature."""
        row = int(modes.rows[0])
        if self.batches.left(row) <= 0 or not bool(is_misfit(self.likelihood, modes[:1])):
            return modes
        return use_full_curvature(self.batches, modes)

    def _needs_modes(self, row: int, pilot: Tensor) -> bool:
        return self.log_q is None or self._efficiency(row, pilot) < 0.4

    def _efficiency(self, row: int, pilot: Tensor) -> float:
        """How far the network's draws are worth what independent ones of the posterior are."""
        assert self.log_q is not None  # noqa: S101  # asked only where the density is known
        size = float(effective_sample_size(pilot - self.log_q[row, : len(pilot)]))
        # One draw has an effective size of one whatever it is worth.
        return (size - 1.0) / max(len(pilot) - 1, 1)

    def _search(self, rows: list[int], starts: dict[int, Tensor], modes: list[Fit | None]) -> None:
        """Climbs from the first starts, then from the others, those ending at what is known."""
        first = self._fit(rows, [starts[i][0] for i in rows])
        found = [first]
        more = [
            (k, u) for k, i in enumerate(rows) if self.batches.left(i) > 0 for u in starts[i][1:]
        ]
        if more:
            known = first[torch.tensor([k for k, _ in more])]
            precision = torch.linalg.inv(known.covariance)

            def is_known(which: Tensor, u: Tensor, _: Tensor) -> Bool[Tensor, " r"]:
                delta = (u - known.u[which])[..., None]
                distance2 = (delta.mT @ precision[which] @ delta)[:, 0, 0]
                return known.converged[which] & (distance2 < _SAME_MODE**2)

            stop = Stop(satisfied=is_known)
            second = self._fit([rows[k] for k, _ in more], [u for _, u in more], stop)
            found.append(second[~is_known(torch.arange(len(second)), second.u, second.image)])
        for group in distinct_modes(Fit.concatenate(found)):
            modes[int(group.rows[0])] = group
        best = torch.stack([modes[i].u[0] for i in rows])  # type: ignore[union-attr]
        self.batches.freeze(torch.tensor(rows), best)

    def _fit(self, rows: list[int], starts: list[Tensor], stop: Stop | None = None) -> Fit:
        owner = torch.tensor(rows)
        return fit(self.likelihood, owner, torch.stack(starts), stop=stop, batches=self.batches)

    def _pilot(self, row: int) -> Tensor:
        """Masks by the network's predictive image; returns the pilot's log posteriors."""
        first = self._masked_pilot if self.mask_neighbours else self._log_target
        return first(row, self.pilot_u[row])

    def _masked_pilot(self, row: int, u: Tensor) -> Tensor:
        some = u[:_PREDICTIVE]
        images = self.batches.render(torch.full((len(some),), row), some)
        spread = images.std(0) if len(some) > 1 else 0.0
        middle = self.coordinates.embed(u).median(0).values
        self._set_mask(row, images.mean(0), spread, middle)
        seen = self.likelihood.log_likelihood_of(row, images) + self.coordinates.log_prior(some)
        seen = torch.where((some.abs() <= W_MAX).all(-1), seen, -torch.inf)
        return torch.cat([seen, self._log_target(row, u[_PREDICTIVE:])])

    def _mask_by_mode(self, row: int, modes: Fit | None) -> bool:
        """Masks anew by the best mode's image; returns whether that changed anything."""
        if modes is None or not self.mask_neighbours or not bool(modes.converged[0]):
            return False
        return self._set_mask(row, modes.image[0], 0.0, self.coordinates.embed(modes.u[0]))

    def _set_mask(self, row: int, image: Tensor, spread: Tensor | float, w: Tensor) -> bool:
        given = self.given_mask[row]
        mask = given | find_neighbours(self.likelihood, row, given, image, spread, w)
        changed = bool((mask != self.likelihood.stamps.mask[row]).any())
        self.likelihood.stamps.mask[row] = mask
        return changed

    def _log_target(self, row: int, u: Tensor) -> Tensor:
        return self.batches.log_posterior(row, u)


def is_misfit(likelihood: Likelihood, modes: Fit) -> Bool[Tensor, " m"]:
    """Returns which galaxies their best models do not fit: chi-square above 1.2 a pixel.

    Args:
        likelihood: Galaxies.
        modes: Fits of them.
    """
    chi2 = likelihood.residual(modes.rows, modes.image).chi2
    return chi2 > MISFIT * likelihood.num_pixels[modes.rows]


def choose_starts(
    u: Float[Tensor, "s f"], log_posterior: Float[Tensor, " s"], count: int
) -> Float[Tensor, "k f"]:
    """Returns the best draw and further good ones that lie apart from it.

    A further start is the best draw at least two standard deviations of all draws (in the
    Euclidean sense, over coordinates) from every start before it; fewer are returned if there is
    none.

    Args:
        u: Draws, with shape (S, F).
        log_posterior: Their log posterior, with shape (S,); -inf is allowed.
        count: Largest number of starts.
    """
    scale = u.std(0).clamp_min(1e-12) if len(u) > 1 else torch.ones_like(u[0])
    order = log_posterior.argsort(descending=True)
    chosen = [u[order[0]]]
    while len(chosen) < count:
        distance = torch.stack([((u[order] - c) / scale).norm(dim=-1) for c in chosen]).amin(0)
        far = order[distance > 2.0]
        far = far[torch.isfinite(log_posterior[far])]
        if far.numel() == 0:
            break
        chosen.append(u[far[0]])
    return torch.stack(chosen)


def distinct_modes(found: Fit, *, separation: float = 2.0, depth: float = 12.0) -> list[Fit]:
    """Groups fits by galaxy and drops repetitions and modes without mass.

    Args:
        found: Fits of one likelihood.
        separation: Two optima closer than this, in sigmas of the better one, are one mode.
        depth: A mode is dropped if its Laplace evidence is below the best one's by more than
            this factor, in ln.

    Returns:
        One set of modes per galaxy that occurs, by rising row, best first.
    """
    mass = found.log_mass()
    groups = []
    for row in found.rows.unique().tolist():
        members = (found.rows == row).nonzero()[:, 0]
        members = members[mass[members].argsort(descending=True)]
        kept: list[int] = []
        for i in members.tolist():
            if kept and mass[i] < mass[kept[0]] - depth:
                continue
            if all(_distance(found, i, k) > separation for k in kept):
                kept.append(i)
        groups.append(found[torch.tensor(kept)])
    return groups


def _distance(found: Fit, i: int, k: int) -> float:
    """Mahalanobis distance of optimum i from optimum k, whose covariance counts."""
    delta = found.u[i] - found.u[k]
    return float((delta @ torch.linalg.solve(found.covariance[k], delta)).clamp_min(0.0).sqrt())


def laplace_widths(
    likelihood: Likelihood, start: Float[Tensor, "b f"]
) -> tuple[Float[Tensor, "b f"], Float[Tensor, "b f"], Bool[Tensor, " b"]]:
    """Returns the Gauss-Newton posterior's means and widths, for comparison with a network's.

    Args:
        likelihood: Galaxies.
        start: One start per galaxy in coordinates (the truth, in a test), with shape (B, F).

    Returns:
        Optimum (B, F), standard deviations (B, F), and whether each search converged (B,).
    """
    found = fit(likelihood, torch.arange(len(likelihood)), start)
    return found.u, found.covariance.diagonal(dim1=-2, dim2=-1).sqrt(), found.converged


def mixture_at(modes: Fit, *, widened: bool) -> StudentMixture:
    """Returns Student-t components at the modes, shared out by their Laplace evidence.

    Args:
        modes: Modes of one galaxy.
        widened: Add, with a share of 0.1, components three times as wide.
    """
    shares = torch.softmax(modes.log_mass(), 0).clamp_min(0.05)
    shares = shares / shares.sum()
    means, tril = modes.u, torch.linalg.cholesky(modes.covariance)
    if widened:
        shares = torch.cat([0.9 * shares, 0.1 * shares])
        means, tril = torch.cat([means, means]), torch.cat([tril, 3.0 * tril])
    return StudentMixture(shares, means, tril)


def sampler_at(
    coordinates: Coordinates,
    modes: Fit,
    seed: int,
    budget: Budget,
    prior_draws: int = PRIOR_DRAWS,
) -> TargetSampler:
    """Returns a sampler that draws from the modes' mixture, with the prior as its defensive part.

    Args:
        coordinates: Hypothesis.
        modes: Modes of one galaxy.
        seed: Of its random numbers.
        budget: How many draws it may cost.
        prior_draws: Draws of the prior that there are.
    """
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(prior_draws, coordinates.dim, generator=generator, dtype=torch.float64)
    density = coordinates.log_prior(base)
    sampler = TargetSampler(base, density, density[:0], seed, budget)
    sampler.set_mixture(mixture_at(modes, widened=True))
    return sampler
