"""Where a galaxy's posterior peaks: the search from the network's draws, neighbours masked."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.inference.fit.neighbours import find_neighbours
from deeplegato_pp.inference.fit.optimize import (
    Optima,
    choose_starts,
    distinct_modes,
    maximize,
    use_full_curvature,
)
from deeplegato_pp.inference.sampling.importance import StudentMixture, effective_sample_size
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import W_MAX

_PREDICTIVE = 12
"""Draws whose mean and scatter are the network's predictive image."""

_MISFIT = 1.2
"""Chi-square per pixel above which Fisher information does not tell a mode's shape."""


class ModeFinder:
    """Weighs a few of the network's draws, masks neighbours, and climbs from the best draws.

    Neighbours are masked twice: by the network's predictive image with its scatter, then, where the
    climb ended at a mode, by the mode's own image, until the mask stays as it is.

    Args:
        likelihood: Galaxies; it is left as it is.
        coordinates: Its coordinates.
        pilot_u: The network's draws to start from, in those coordinates, with shape (B, P, F).
        log_q: Their density, with shape (B, P); None where it is not known (fixed parameters).
        renders: Images rendered per galaxy so far; added to.
        starts: Searches per galaxy.
        mask_neighbours: Whether neighbours are masked.

    Attributes:
        likelihood: The galaxies, the neighbours found masked.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        coordinates: SersicCoordinates,
        pilot_u: Float[Tensor, "b p f"],
        log_q: Float[Tensor, "b p"] | None,
        renders: list[int],
        *,
        starts: int,
        mask_neighbours: bool,
    ) -> None:
        self.likelihood, self.coordinates = likelihood.replace(), coordinates
        self.pilot_u, self.log_q, self.renders = pilot_u, log_q, renders
        self.count, self.mask_neighbours = starts, mask_neighbours
        self.given_mask = likelihood.stamps.mask.clone()

    def find(self) -> tuple[list[Optima | None], list[Tensor]]:
        """Returns each galaxy's modes (None: the network needs none) and pilot log posteriors."""
        rows = list(range(len(self.likelihood)))
        pilot = [self._pilot(i) for i in rows]
        modes: list[Optima | None] = [None] * len(rows)
        searching = [i for i in rows if self._needs_modes(i, pilot[i])]
        starts = {i: choose_starts(self.pilot_u[i], pilot[i], self.count) for i in searching}
        for _ in range(3):
            if not searching:
                break
            self._search(searching, starts, modes)
            changed = [i for i in searching if self._mask_by_mode(i, modes[i])]
            for i in changed:
                pilot[i] = self._log_target(i)
                starts[i] = modes[i].u  # type: ignore[union-attr]
            searching = changed
        for i in rows:
            modes[i] = self._sharpen(i, modes[i])
        return modes, pilot

    def _sharpen(self, row: int, modes: Optima | None) -> Optima | None:
        """Gives a galaxy that its best model does not fit the posterior's own curvature."""
        if modes is None:
            return None
        chi2 = float(self.likelihood.chi2(row, modes.u[:1]))
        self.renders[row] += 1
        if chi2 < _MISFIT * float(self.likelihood.num_pixels[row]):
            return modes
        self.renders[row] += len(modes.rows) * (self.coordinates.dim + 1) ** 2
        return use_full_curvature(self.likelihood, modes)

    def _needs_modes(self, row: int, pilot: Tensor) -> bool:
        if self.log_q is None:
            return True
        log_w = pilot - self.log_q[row]
        # One draw has an effective size of one whatever it is worth.
        return float(effective_sample_size(log_w)) < 1.0 + 0.4 * (len(pilot) - 1)

    def _search(
        self, rows: list[int], starts: dict[int, Tensor], modes: list[Optima | None]
    ) -> None:
        owner = torch.cat([torch.full((len(starts[i]),), i) for i in rows])
        optima = maximize(self.likelihood, owner, torch.cat([starts[i] for i in rows]))
        for row, renders in zip(optima.rows.tolist(), optima.renders.tolist(), strict=True):
            self.renders[row] += renders
        for group in distinct_modes(optima):
            modes[int(group.rows[0])] = group

    def _pilot(self, row: int) -> Tensor:
        """Masks by the network's predictive image; returns the pilot's log posteriors."""
        if not self.mask_neighbours:
            return self._log_target(row)
        u = self.pilot_u[row]
        some, rest = u[:_PREDICTIVE], u[_PREDICTIVE:]
        images = self.likelihood.render(row, some, self.likelihood.needed_dtype(row))
        spread = images.double().std(0) if len(some) > 1 else 0.0
        middle = self.coordinates.embed(u).median(0).values
        self._set_mask(row, images.double().mean(0), spread, middle)
        self.renders[row] += len(u)
        seen = self.likelihood.log_likelihood_of(row, images) + self.coordinates.log_prior(some)
        seen = torch.where((some.abs() <= W_MAX).all(-1), seen, -torch.inf)
        return torch.cat([seen, self.likelihood.log_posterior(row, rest)])

    def _mask_by_mode(self, row: int, modes: Optima | None) -> bool:
        """Masks anew by the best mode's image; returns whether that changed anything."""
        if modes is None or not self.mask_neighbours or not bool(modes.converged[0]):
            return False
        image = self.likelihood.render(row, modes.u[:1], torch.float64)[0]
        self.renders[row] += 1
        return self._set_mask(row, image, 0.0, self.coordinates.embed(modes.u[0]))

    def _set_mask(self, row: int, image: Tensor, spread: Tensor | float, w: Tensor) -> bool:
        given = self.given_mask[row]
        mask = given | find_neighbours(self.likelihood, row, given, image, spread, w)
        changed = bool((mask != self.likelihood.stamps.mask[row]).any())
        self.likelihood.stamps.mask[row] = mask
        return changed

    def _log_target(self, row: int) -> Tensor:
        self.renders[row] += self.pilot_u.shape[1]
        return self.likelihood.log_posterior(row, self.pilot_u[row])


def mixture_at(modes: Optima, *, widened: bool) -> StudentMixture:
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
