"""Joint posterior of one galaxy in several bands.

The network measures each band separately. From its draws, a search finds the mode of every band and
masks neighbours; from the combination of the bands, another search finds the modes of the joint
posterior. Importance sampling with a Student-t at each mode gives weighted draws and the evidence;
the Laplace method draws from Gaussians at the modes instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.checks import check_model_error
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.emulator import InterpolatedTarget
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.inference.fit.modes import (
    ModeFinder,
    distinct_modes,
    gaussian_draws,
    sampler_at,
)
from deeplegato_pp.inference.fit.neighbours import find_neighbours
from deeplegato_pp.inference.fit.structure import joint_sandwich_at
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.band_record import BandRecord, band_columns
from deeplegato_pp.inference.posterior.measurement import Measurement
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.refine.engine import METHODS
from deeplegato_pp.inference.sampling.sampler import Budget, sample_targets
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.observation.bands import AlignedBand, MultiBandObservation
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene import units
from deeplegato_pp.scene.bands import STRUCTURES, BandCoordinates, BandFrame, to_box
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.joint import JointBatches, JointLikelihood
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.parameters import AXIS_RATIO, MAGNITUDE, POSITION_ANGLE, RADIUS
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE
from deeplegato_pp.stats.pareto import pareto_khat, reliable

_PILOT = 16
"""Number of the network's draws of each band from which its search starts."""

_MASKINGS = 3
"""Number of rounds of neighbour masking, each followed by a search."""

_JUDGED = 1000
"""Number of equally weighted draws used to assess the fit of every band."""

_PREDICTIVE = 4
"""Number of draws over which p-values are averaged."""

_OF_THE_NETWORK = int(Flag.UNFAMILIAR | Flag.OUTSIDE_TRAINING | Flag.MEAN_OFF)
"""Flags of the network's draws, which are irrelevant once the search has replaced them."""


@dataclass(frozen=True)
class BandOptions:
    """Settings for fits in several bands; see :meth:`Predictor.fit_bands`.

    Attributes:
        structure: One of :data:`~deeplegato_pp.scene.bands.STRUCTURES`.
        ess: Required effective sample size.
        model_error: Model error as a fraction of the model image.
        honest: Whether draws are moved to honest widths.
        method: ``"exact"`` or ``"laplace"``.

    Raises:
        ConfigError: If the structure or the method is unknown.
        RangeError: If the model's error lies outside [0, 1].
    """

    structure: str = "shared"
    ess: float = 400.0
    model_error: float = MODEL_ERROR
    honest: bool = True
    method: str = "exact"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method must be one of {METHODS}, got {self.method!r}.")
        if self.structure not in STRUCTURES:
            raise ConfigError(
                f"unknown structure {self.structure!r} of bands, expected one of "
                f"{', '.join(STRUCTURES)}."
            )
        check_model_error(self.model_error)


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


def fit_bands(
    galaxy: MultiBandObservation,
    network: Posterior,
    prior: PriorBox,
    seed: int,
    options: BandOptions,
) -> Posterior:
    """Computes the joint posterior of one galaxy in several bands.

    Args:
        galaxy: Observations of the galaxy.
        network: The network's draws of each band, in the order of `galaxy`.
        prior: Prior box of the first band at the reference instrument.
        seed: Random seed.
        options: Settings.

    Raises:
        ConfigError: If the structure is linear and the wavelengths are not usable.
        InputError: If a band was not measured by the network.
    """
    rows = network.measurements
    for band, m in zip(galaxy.bands, rows, strict=True):
        if not m.measured or m.prepared is None:
            raise InputError(f"band {band} could not be measured: {m.reason}")
    stamps = [m.prepared for m in rows if m.prepared is not None]
    frames = [frame_of(a, stamps[0], s) for a, s in zip(galaxy.aligned, stamps, strict=True)]
    coordinates = BandCoordinates(prior, frames, options.structure, galaxy.wavelengths)
    single = Likelihood.of(stamps, prior, model_error=options.model_error)
    search = _Search(single, coordinates, network.batch_w)
    seeds = units.content_seeds(network.stamps, seed)
    if options.method == "laplace":
        draws = search.gaussian(int(seeds[0]), network.batch_w.shape[1])
    else:
        draws = search.sample(int(seeds[0]), options.ess)
    return _row(galaxy, network, search, draws, options)


@dataclass(frozen=True, eq=False)
class _Draws:
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


class _Search:
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

    def gaussian(self, seed: int, number: int) -> _Draws:
        """Returns draws from Gaussians at the modes."""
        generator = torch.Generator().manual_seed(seed)
        u, gaussian = gaussian_draws(self.modes, number, generator)
        return _Draws(
            u,
            gaussian.log_prob(u),
            torch.zeros(number, dtype=torch.float64),
            "laplace",
            self.modes.log_evidence(),
            flags=0 if bool(self.modes.converged[0]) else int(Flag.LOW_ESS),
        )

    def sample(self, seed: int, ess: float) -> _Draws:
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
        return _Draws(
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


def _row(
    galaxy: MultiBandObservation,
    network: Posterior,
    search: _Search,
    draws: _Draws,
    options: BandOptions,
) -> Posterior:
    """Builds the posterior row of the draws, in the first band's units."""
    u, log_weights = draws.u, draws.log_weights
    widening = _widening(search.likelihood, search.modes) if options.honest else None
    moved, log_det = (u, 0.0) if widening is None else widening.move(u, log_weights)
    rows = network.measurements
    stamps = [m.prepared for m in rows if m.prepared is not None]
    best = search.modes.u[0]
    if draws.method != "laplace":
        best = u[(log_weights + draws.log_proposal).argmax()]
    equal = moved[_equally(log_weights)]
    bands = _judged_bands(galaxy, rows, search, best, equal, options)
    coordinates = search.coordinates
    record = BandRecord(
        galaxy.bands,
        coordinates.structure,
        search.likelihood,
        u,
        best,
        _columns(galaxy.bands, coordinates, moved, stamps),
        _columns(galaxy.bands, coordinates, u, stamps),
        torch.softmax(log_weights, 0).numpy(),
        tuple(m.flags for m in bands),
        tuple(m.chi2 for m in bands),
        len(search.modes),
        widening,
    )
    box = units.user_box(coordinates.box, stamps[0])
    w, noise_w = (to_box(coordinates.box, coordinates.values(x, 0)) for x in (moved, u))
    in_users_units = coordinates.in_box(box).log_jacobian
    density = draws.log_proposal
    honest = widening is not None
    return Posterior(
        box.to_physical(w)[None],
        w[None],
        (density - log_det + in_users_units(moved))[None],
        [replace(_joined(galaxy, bands, record, draws, equal), box=box)],
        network.stamps[0:1],
        log_weights[None],
        batch_noise_w=noise_w[None] if honest else None,
        batch_noise_log_prob=(density + in_users_units(u))[None] if honest else None,
    )


def _widening(likelihood: JointLikelihood, modes: Fit) -> Widening:
    found = [
        joint_sandwich_at(likelihood, u, covariance)
        for u, covariance in zip(modes.u, modes.covariance, strict=True)
    ]
    best = found[0]
    return Widening(
        modes.u,
        torch.cat([s.precision for s in found]),
        torch.cat([s.transform for s in found]),
        best.covariance[0],
        best.inflation[0],
        int(best.blocks[0]),
        bool(best.judged[0]),
    )


def _columns(
    names: Sequence[str],
    coordinates: BandCoordinates,
    u: Float[Tensor, "s f"],
    stamps: Sequence[PreparedStamp],
) -> dict[str, np.ndarray]:
    """Returns draws of every band's columns in user's units; lengths are the first band's."""
    factor = stamps[0].pixel_scale / REFERENCE_PIXEL_SCALE
    values = []
    for k, stamp in enumerate(stamps):
        v = coordinates.values(u, k)
        v[:, MAGNITUDE] += units.magnitude_shift(stamp)
        v[:, RADIUS] *= factor
        values.append(v.numpy())
    return band_columns(names, values, coordinates.structure)


def _equally(log_weights: Float[Tensor, " s"]) -> Tensor:
    """Returns indices of equally weighted draws."""
    weights = torch.softmax(log_weights, 0)
    generator = torch.Generator().manual_seed(0)
    return torch.multinomial(weights, _JUDGED, replacement=True, generator=generator)


def _judged_bands(
    galaxy: MultiBandObservation,
    rows: Sequence[Measurement],
    search: _Search,
    best: Float[Tensor, " f"],
    equal: Float[Tensor, "s f"],
    options: BandOptions,
) -> list[Measurement]:
    """Returns each band's measurement, with the goodness of fit of the joint posterior."""
    found = []
    for k, m in enumerate(rows):
        assert m.prepared is not None  # noqa: S101  # it was measured
        own, band = band_box(search.coordinates, k), search.likelihood.bands[k]
        mask = band.stamps.mask[0].cpu().numpy()
        known = replace(
            m,
            name=galaxy.bands[k],
            mask=mask,
            model_error=options.model_error,
            box=units.user_box(own, m.prepared),
        )
        assert known.box is not None  # noqa: S101  # just given
        w = to_box(own, search.likelihood.views[k].on_stamp(equal))
        prepared = replace(m.prepared, mask=mask)
        mean = known.box.to_physical(w.mean(0, keepdim=True))[0]
        case = verdicts.Case(w, mean, prepared, known.box, m.psf_fwhm)
        (verdict,) = verdicts.judge([case], known.likelihood(), None)
        kept = Flag.without(m.flags, verdicts.FLAGS | _OF_THE_NETWORK)
        seen = Flag.without(verdict.flags, _OF_THE_NETWORK)
        found.append(
            replace(
                known,
                flags=int(kept | seen),
                notes=_notes(m, verdict.notes, int(mask.sum() - m.prepared.mask.sum())),
                chi2=float(band.chi2(0, best[None])[0] / band.num_pixels[0]),
                chi2_p=verdict.chi2_p,
            )
        )
    return found


def _notes(m: Measurement, remarks: Sequence[str], masked: int) -> tuple[str, ...]:
    notes = [] if m.observation is None else list(m.observation.notes)
    more = [f"{masked} pixels of neighbours masked"] if masked else []
    return (*notes, *(r for r in remarks if "best model lies" not in r), *more)


def _joined(
    galaxy: MultiBandObservation,
    bands: Sequence[Measurement],
    record: BandRecord,
    draws: _Draws,
    equal: Float[Tensor, "s f"],
) -> Measurement:
    """Returns the measurement record of the galaxy in all bands together."""
    joint, flags = record.likelihood, draws.flags
    for m in bands:
        flags |= m.flags
    if not all(m.flags & Flag.UNDETECTED for m in bands):
        flags = Flag.without(flags, Flag.UNDETECTED)
    widening = record.widening
    flags |= Flag.STRUCTURE_UNJUDGED if widening is not None and not widening.judged else 0
    some = equal[:_PREDICTIVE]
    chances = [float(b.residual_row(0, some).p_value.mean()) for b in joint.bands]
    chi2 = sum(float(b.chi2(0, record.best[None])[0]) for b in joint.bands)
    notes = galaxy.notes
    notes += [f"{m.name}: {note}" for m in bands for note in m.notes]
    return replace(
        bands[0],
        name=galaxy.name,
        flags=int(flags),
        method=draws.method,
        ess=draws.ess,
        khat=draws.khat,
        log_evidence=draws.log_evidence,
        log_evidence_error=draws.log_evidence_error,
        chi2=chi2 / max(joint.num_pixels - joint.coordinates.dim, 1),
        chi2_p=_worst([m.chi2_p for m in bands]),
        p_value=_worst(chances),
        num_modes=record.num_modes,
        ood=math.nan,
        ood_p=math.nan,
        bands=record,
        notes=tuple(notes),
    )


def _worst(chances: Sequence[float]) -> float:
    """Returns the smallest of several p-values times their number (Bonferroni)."""
    return min(1.0, len(chances) * min(chances))
