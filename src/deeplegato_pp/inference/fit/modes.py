"""Posterior modes of galaxies: searches from the network's draws, with neighbours masked."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.inference.fit.curvature import use_full_curvature
from deeplegato_pp.inference.fit.fit import Fit, Stop, fit
from deeplegato_pp.inference.fit.neighbours import find_neighbours
from deeplegato_pp.inference.fit.psf_share import fit_less
from deeplegato_pp.inference.sampling.importance import (
    StudentMixture,
    effective_sample_size,
    split_counts,
)
from deeplegato_pp.inference.sampling.sampler import Budget, TargetSampler
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.components import Coordinates, SersicCoordinates
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import W_MAX

_PREDICTIVE = 12
"""Number of draws that define mean and scatter of the network's predictive image."""

_SAME_MODE = 1.0
"""Distance from a known mode, in its sigmas, at which a further search ends."""

_NEGLIGIBLE = 30.0
"""Draws whose log posterior is lower than the mode's by more than this carry no weight, under more
or less of the PSF's error alike: their values are not computed anew."""

_GAUSSIAN = 1e6
"""Degrees of freedom at which a Student-t is a Gaussian."""

PRIOR_DRAWS = 2000
"""Number of prior draws as defensive part of proposals without a network density."""

MISFIT = 1.2
"""Chi-square per pixel above which Fisher information is not used for a mode's covariance."""


class ModeFinder:
    """Evaluates some of the network's draws, masks neighbours, and searches from the best draws.

    Neighbours are masked twice: with the network's predictive image and its scatter, and then, if
    the search converged, with the mode's own image, until the mask does not change. PSF-width
    templates are those of the best mode, or of the pilot draws' mean if no mode is sought.

    With `hold_structure`, the parts of the PSF-width errors that are fitted are measured at the
    modes (see `fit.psf_share`), and the searches go on from there.

    Args:
        likelihood: Galaxies; not modified.
        coordinates: Coordinates of the galaxies.
        pilot_u: Draws of the network to start from, in those coordinates, with shape (B, P, F).
        log_q: Log-density of those draws, with shape (B, P); None if unknown (fixed parameters).
        starts: Number of searches per galaxy.
        mask_neighbours: Whether neighbours are masked.
        budget: Maximum number of pixels rendered per galaxy.
        hold_structure: Whether structure is kept from being fitted by the PSF's width.

    Attributes:
        batches: Renders of the galaxies, including those of the search.
        likelihood: Galaxies, with detected neighbours masked.
        evidence_loss: By how much ln Z of each galaxy is smaller than with the whole errors of the
            PSFs' widths, with shape (B,).
        peak_loss: The same of ln of the posterior density at the best mode, with shape (B,).
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
        hold_structure: bool = False,
    ) -> None:
        self.likelihood, self.coordinates = likelihood.replace(), coordinates
        self.batches = Batches(self.likelihood, budget=budget)
        self.pilot_u, self.log_q = pilot_u, log_q
        self.count, self.mask_neighbours = starts, mask_neighbours
        self.given_mask = self.likelihood.stamps.mask.clone()
        self.hold_structure = hold_structure
        self.evidence_loss, self.peak_loss = torch.zeros(2, len(likelihood), dtype=torch.float64)

    def find(self) -> tuple[list[Fit | None], list[Tensor]]:
        """Returns each galaxy's modes (None if the draws suffice) and pilot log posteriors."""
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
        if self.hold_structure and self.likelihood.psf_is_uncertain:
            for i in self._fit_less_of_psf(modes):
                if float(pilot[i].max()) > float(modes[i].log_posterior[0]) - _NEGLIGIBLE:  # type: ignore[union-attr]
                    pilot[i] = self._log_target(i, self.pilot_u[i, : len(pilot[i])])
        return [None if m is None else self._sharpen(m) for m in modes], pilot

    def _fit_less_of_psf(self, modes: list[Fit | None]) -> list[int]:
        """Fits only as much of the PSF's error as structure allows; returns changed galaxies."""
        affordable = [m for i, m in enumerate(modes) if m is not None and self.batches.left(i) > 0]
        changed = [m for m in affordable if fit_less(self.likelihood, m[:1])]
        rows = [int(m.rows[0]) for m in changed]
        if rows:
            self._search(rows, {i: m.u for i, m in zip(rows, changed, strict=True)}, modes)
        for i, whole in zip(rows, changed, strict=True):
            part = modes[i]
            assert part is not None  # noqa: S101  # it was searched
            self.evidence_loss[i] = whole.log_evidence() - part.log_evidence()
            self.peak_loss[i] = whole.log_posterior[0] - part.log_posterior[0]
        return rows

    def _sharpen(self, modes: Fit) -> Fit:
        """Uses the posterior's own curvature for galaxies that the best model does not fit."""
        row = int(modes.rows[0])
        if self.batches.left(row) <= 0 or not bool(is_misfit(self.likelihood, modes[:1])):
            return modes
        return use_full_curvature(self.batches, modes)

    def _needs_modes(self, row: int, pilot: Tensor) -> bool:
        return self.log_q is None or self._efficiency(row, pilot) < 0.4

    def _efficiency(self, row: int, pilot: Tensor) -> float:
        """Returns the sampling efficiency of the network's draws for the posterior."""
        assert self.log_q is not None  # noqa: S101  # asked only where the density is known
        size = float(effective_sample_size(pilot - self.log_q[row, : len(pilot)]))
        # A single draw always has an effective sample size of one.
        return (size - 1.0) / max(len(pilot) - 1, 1)

    def _search(self, rows: list[int], starts: dict[int, Tensor], modes: list[Fit | None]) -> None:
        """Searches from the first starts, then from the others, stopping near known modes."""
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
        """Masks with the network's predictive image; returns the pilot's log posteriors."""
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
        """Masks with the best mode's image; returns whether the mask changed."""
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
    """Returns which galaxies the best model does not fit: chi-square above 1.2 per pixel.

    Args:
        likelihood: Galaxies.
        modes: Fits of the galaxies.
    """
    chi2 = likelihood.residual(modes.rows, modes.image).chi2
    return chi2 > MISFIT * likelihood.num_pixels[modes.rows]


def choose_starts(
    u: Float[Tensor, "s f"], log_posterior: Float[Tensor, " s"], count: int
) -> Float[Tensor, "k f"]:
    """Returns the best draw, and further good draws that lie apart from it.

    Each further start is the best draw that is at least two standard deviations of all draws (in
    Euclidean distance over coordinates) from every earlier start; there may be fewer than `count`.

    Args:
        u: Draws, with shape (S, F).
        log_posterior: Their log posterior, with shape (S,); -inf is allowed.
        count: Maximum number of starts.
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
    """Groups fits by galaxy and drops repeated modes and modes of negligible mass.

    Args:
        found: Fits of one likelihood.
        separation: Optima closer than this, in sigmas of the better one, are the same mode.
        depth: Modes whose ln evidence (Laplace) is lower than the best one's by more than this are
            dropped.

    Returns:
        One set of modes per galaxy with fits, in order of the galaxies' index, best mode first.
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
    """Returns the Mahalanobis distance of optimum i from optimum k, under the covariance of k."""
    delta = found.u[i] - found.u[k]
    return float((delta @ torch.linalg.solve(found.covariance[k], delta)).clamp_min(0.0).sqrt())


def laplace_widths(
    likelihood: Likelihood, start: Float[Tensor, "b f"]
) -> tuple[Float[Tensor, "b f"], Float[Tensor, "b f"], Bool[Tensor, " b"]]:
    """Computes means and widths of the Gauss-Newton posterior, for comparison with a network's.

    Args:
        likelihood: Galaxies.
        start: One start per galaxy in coordinates (in tests, the truth), with shape (B, F).

    Returns:
        Optimum (B, F), standard deviations (B, F), and whether each search converged (B,).
    """
    found = fit(likelihood, torch.arange(len(likelihood)), start)
    return found.u, found.covariance.diagonal(dim1=-2, dim2=-1).sqrt(), found.converged


def mixture_at(modes: Fit, *, widened: bool) -> StudentMixture:
    """Builds a mixture of Student-t components at the modes, weighted by Laplace evidence.

    Args:
        modes: Modes of one galaxy.
        widened: Whether to add components three times as wide, with a total weight of 0.1.
    """
    shares = torch.softmax(modes.log_mass(), 0).clamp_min(0.05)
    shares = shares / shares.sum()
    means, tril = modes.u, torch.linalg.cholesky(modes.covariance)
    if widened:
        shares = torch.cat([0.9 * shares, 0.1 * shares])
        means, tril = torch.cat([means, means]), torch.cat([tril, 3.0 * tril])
    return StudentMixture(shares, means, tril)


def gaussian_draws(
    modes: Fit, number: int, generator: torch.Generator
) -> tuple[Float[Tensor, "s f"], StudentMixture]:
    """Draws from Gaussians at the modes, in proportion to their Laplace evidence.

    Args:
        modes: Modes of one galaxy.
        number: Number of draws S.
        generator: Random generator.

    Returns:
        The draws, with shape (S, F), and the mixture from which they come.
    """
    # Draws have equal weights, so the share of a minor mode is not raised.
    shares = torch.softmax(modes.log_mass(), 0)
    gaussian = replace(mixture_at(modes, widened=False), weights=shares, dof=_GAUSSIAN)
    counts = split_counts(gaussian.weights, number)
    owner = torch.repeat_interleave(torch.arange(gaussian.size), torch.tensor(counts))
    shape = (number, modes.u.shape[-1], 1)
    normal = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return gaussian.means[owner] + (gaussian.scale_tril[owner] @ normal)[..., 0], gaussian


def sampler_at(
    coordinates: Coordinates,
    modes: Fit,
    seed: int,
    budget: Budget,
    prior_draws: int = PRIOR_DRAWS,
) -> TargetSampler:
    """Builds a sampler that draws from the modes' mixture, with the prior as defensive part.

    Args:
        coordinates: Hypothesis.
        modes: Modes of one galaxy.
        seed: Random seed.
        budget: Maximum number of draws.
        prior_draws: Number of prior draws already made.
    """
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(prior_draws, coordinates.dim, generator=generator, dtype=torch.float64)
    density = coordinates.log_prior(base)
    sampler = TargetSampler(base, density, density[:0], seed, budget)
    sampler.set_mixture(mixture_at(modes, widened=True))
    return sampler
