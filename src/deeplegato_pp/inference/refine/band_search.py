"""Modes and draws of one galaxy's joint posterior in several bands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.emulator import InterpolatedTarget
from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.fit.modes import (
    ModeFinder,
    distinct_modes,
    gaussian_draws,
    sampler_at,
)
from deeplegato_pp.inference.fit.neighbours import find_neighbours
from deeplegato_pp.inference.sampling.sampler import Budget, sample_targets
from deeplegato_pp.observation.bands import AlignedBand
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.bands import BandCoordinates, BandFrame, to_box
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.joint import JointBatches, JointLikelihood
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import AXIS_RATIO, POSITION_ANGLE
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.stats.pareto import pareto_khat, reliable

_PILOT = 16
"""Number of the network's draws of each band from which its search starts."""

_MASKINGS = 3
"""Number of rounds of neighbour masking, each followed by a search."""


def frame_of(band: AlignedBand, first: PreparedStamp, own: PreparedStamp) -> BandFrame:
    """Returns the map from the first band's prepared stamp to another band's.

    Args:
        band: Alignment of the band's image with the first band's.
        first: Prepared stamp of the first band.
        own: Prepared stamp of the band.
    """
    origin = np.array([first.offset_x, first.offset_y])
    moved = band.matrix @ origin + band.offset - np.array([own.offset_x, own.offset_y])
    (a, b), (c, d) = band.matrix * (first.bin / own.bin)
    return BandFrame.of_matrix(
        ((float(a), float(b)), (float(c), float(d))),
        (float(moved[0] / own.bin), float(moved[1] / own.bin)),
        first.pixel_scale / own.pixel_scale,
    )


@dataclass(frozen=True, eq=False)
class BandDraws:
    """Draws of a joint posterior.

    Attributes:
        u: Coordinates of the draws, with shape (S, F).
        log_proposal: Log-density of the proposal at the draws, with shape (S,).
        log_weights: Unnormalised log weights, with shape (S,).
        method: See :attr:`~deeplegato_pp.inference.posterior.draws.RefinedGalaxy.method`.
        log_evidence: ln Z.
        log_evidence_error: Standard error of ln Z; NaN for Laplace's approximation.
        ess: Effective sample size; NaN for unweighted draws, like k-hat.
        khat: Pareto k-hat of the weights.
        flags: Sum of flags.
    """

    u: Float[Tensor, "s f"]
    log_proposal: Float[Tensor, " s"]
    log_weights: Float[Tensor, " s"]
    method: str
    log_evidence: float
    log_evidence_error: float = math.nan
    ess: float = math.nan
    khat: float = math.nan
    flags: int = 0


class BandSearch:
    """Search for the modes of one galaxy's joint posterior.

    Args:
        single: Likelihood of the bands' stamps as separate galaxies.
        coordinates: Coordinates of the galaxy in all bands.
        w: The network's draws of each band, with shape (K, S, 7).

    Attributes:
        likelihood: Joint likelihood, with neighbours masked.
        modes: Modes of the joint posterior, best first.
    """

    def __init__(
        self, single: Likelihood, coordinates: BandCoordinates, w: Float[Tensor, "k s 7"]
    ) -> None:
        self.coordinates = coordinates
        own = SersicCoordinates(single.box)
        finder = ModeFinder(single, own, w[:, :_PILOT], None, starts=1, mask_neighbours=True)
        found, _ = finder.find()
        self.given = single.stamps.mask
        self.single = finder.likelihood
        modes = [m for m in found if m is not None]
        means = torch.stack([m.u[0] for m in modes])
        widths = torch.stack([m.covariance[0].diagonal() for m in modes]).sqrt()
        starts = torch.stack([self._start(means, widths), self._start(w.mean(1), w.std(1))])
        for _ in range(_MASKINGS):
            self.likelihood = self._joint()
            self.batches = JointBatches(self.likelihood)
            owner = torch.zeros(len(starts), dtype=torch.long)
            (self.modes,) = distinct_modes(
                fit(self.likelihood, owner, starts, batches=self.batches)
            )
            self.batches.freeze(owner[:1], self.modes.u[:1])
            starts = self.modes.u
            if not self._mask_by_mode():
                break

    def _joint(self) -> JointLikelihood:
        bands = [self.single.select([k]) for k in range(len(self.single))]
        return JointLikelihood(bands, self.coordinates)

    def _start(self, w: Float[Tensor, "k 7"], std: Float[Tensor, "k 7"]) -> Float[Tensor, " f"]:
        """Returns a starting point: the bands' means, weighted by their own widths."""
        box = self.single.box
        values = [
            frame.in_frame(box.to_physical(one[None]))
            for frame, one in zip(self.coordinates.frames, w, strict=True)
        ]
        precision = std.clamp_min(1e-4) ** -2
        shape = [AXIS_RATIO, POSITION_ANGLE]  # the frame's rotation mixes the two coordinates
        precision[:, shape] = precision[:, shape].mean(-1, keepdim=True)
        return self.coordinates.combine(to_box(box, torch.cat(values)), precision)

    def _mask_by_mode(self) -> bool:
        """Masks neighbours using the best mode's images; returns whether the mask changed."""
        changed = False
        for k, band in enumerate(self.likelihood.bands):
            on_stamp = self.likelihood.views[k].on_stamp(self.modes.u[:1])
            own = band.under(SersicCoordinates(band_box(self.coordinates, k)))
            w = to_box(own.box, on_stamp)[0]
            given, image = self.given[k], self.modes.image[0, k]
            mask = given | find_neighbours(own, 0, given, image, 0.0, w)
            changed |= bool((mask != self.single.stamps.mask[k]).any())
            self.single.stamps.mask[k] = mask
        return changed

    def gaussian(self, seed: int, number: int) -> BandDraws:
        """Returns draws from Gaussians at the modes."""
        generator = torch.Generator().manual_seed(seed)
        u, gaussian = gaussian_draws(self.modes, number, generator)
        return BandDraws(
            u,
            gaussian.log_prob(u),
            torch.zeros(number, dtype=torch.float64),
            "laplace",
            self.modes.log_evidence(),
            flags=0 if bool(self.modes.converged[0]) else int(Flag.LOW_ESS),
        )

    def sample(self, seed: int, ess: float) -> BandDraws:
        """Returns weighted draws of the joint posterior."""
        budget = Budget(ess=ess, max_draws=math.ceil(10 * ess))
        sampler = sampler_at(self.coordinates, self.modes, seed, budget, prior_draws=0)
        targets = [
            InterpolatedTarget(batches, 0, self.modes.u[0], self.modes.image[0, k])
            for k, batches in enumerate(self.batches.bands)
        ]

        def log_posterior(u: Tensor) -> Tensor:
            # Each band's target includes the prior, which must count once.
            again = (len(targets) - 1) * self.coordinates.log_prior(u)
            return torch.stack([target(u) for target in targets]).sum(0) - again

        sample_targets(
            [sampler],
            lambda _, draws: [log_posterior(u) for u in draws],
            lambda _, draws: [self.coordinates.log_prior(u) for u in draws],
        )
        log_weights = sampler.pool.log_weights()
        poor = Flag.LOW_ESS if sampler.ess < ess else 0
        poor |= 0 if reliable(log_weights) else Flag.HIGH_KHAT
        return BandDraws(
            sampler.pool.x,
            sampler.pool.log_mixture(),
            log_weights,
            "adapted" if sampler.adaptations else "importance",
            *sampler.pool.log_evidence(),
            ess=sampler.ess,
            khat=pareto_khat(log_weights),
            flags=int(poor),
        )


def band_box(coordinates: BandCoordinates, band: int) -> PriorBox:
    """Returns the prior box on a band's own stamp, at the reference instrument."""
    return coordinates.frames[band].box(coordinates.box)
