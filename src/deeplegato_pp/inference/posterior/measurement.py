"""What is known of one galaxy beside its draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.band_record import BandRecord
from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.posterior.scene_record import SceneRecord
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.units import reference_box

if TYPE_CHECKING:
    from deeplegato_pp.observation.correlation import NoiseCorrelation
    from deeplegato_pp.observation.observation import Observation
    from deeplegato_pp.observation.preparation import PreparedStamp

Range = Sequence[float | str]
"""A prior's range: (lower, upper), or (lower, upper, "linear" or "log")."""


@dataclass(frozen=True)
class Rivals:
    """How one galaxy fares against its rivals; see :mod:`deeplegato_pp.inference.refine.evidence`.

    Attributes:
        star_probability: Probability of a point source, of the two, under `star_odds`.
        star_odds: Prior odds, point source to galaxy.
        star_log_evidence: ln Z of the point source.
        star_log_evidence_error: Its standard error; NaN where it is Laplace's approximation.
        detection: ln of the Bayes factor of the better of the two over blank sky.
        flux_limit: Flux below which an undetected source lies with 95 %; NaN if it was detected.
            [nJy]
        magnitude_limit: The same as a magnitude. [mag]
    """

    star_probability: float
    star_odds: float
    star_log_evidence: float
    star_log_evidence_error: float
    detection: float
    flux_limit: float = math.nan
    magnitude_limit: float = math.nan


RIVALS: dict[str, tuple[str, str]] = {
    "star_probability": ("", "probability of a point source rather than a galaxy"),
    "star_odds": ("", "its prior odds, point source to galaxy"),
    "star_log_evidence": ("", "natural logarithm of the point source's evidence"),
    "star_log_evidence_error": ("", "its standard error; unknown where far below the galaxy's"),
    "detection": ("", "ln of the Bayes factor of galaxy or point source over blank sky"),
    "flux_limit": ("nJy", "95 % upper limit on the flux density of an undetected galaxy"),
    "magnitude_limit": ("mag", "the same as a magnitude: no brighter than this, with 95 %"),
}
"""Unit and meaning of the columns, in their order: the attributes of :class:`Rivals`."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is known of one galaxy beside its draws.

    Attributes:
        name: What tables call it.
        flags: Sum of :class:`~deeplegato_pp.flags.Flag` bits.
        reason: Why it could not be measured, or what was assumed about it, in words.
        method: How the draws came about: ``amortized`` (the network's own), ``importance``,
            ``adapted``, ``mcmc`` or ``laplace``; empty if it was not measured.
        ess: Effective sample size of the weighted draws; NaN without weights.
        khat: Pareto k-hat of the weights; NaN without.
        log_evidence: NaN if not computed.
        log_evidence_error: Its standard error.
        chi2: Chi-square per degree of freedom (unmasked pixels less free parameters): of the
            network's mean, or once refined of the best draw.
        chi2_p: Chance of a misfit as large as that of the best model within the posterior, on the
            worst of three scales, a 1 % error of the model granted.
        ood: Distance of the network's features from those of training images, about 1 for those;
            NaN if the model comes without them.
        ood_p: Chance that a training image lies farther; NaN likewise.
        p_value: Chance of a larger chi-square under the exact posterior; NaN if not refined.
        num_modes: Modes that the refinement's search kept, 0 where none was needed; NaN if it was
            not run.
        rivals: How the galaxy fares against a point source and blank sky; None if not weighed.
        mask: Pixels that refining ignored, neighbours included, on the stamp; None: the stamp's
            own mask.
        noise_correlation: In force for the draws, see :meth:`Predictor.refine`.
        correlation: That at each lag; None: of the Gaussian family with this total.
        model_error: The same.
        psf_error: The same; None: the observation's.
        psf_reference: Parameters, in the user's units, at which an error of the PSF's width acts,
            see :meth:`~deeplegato_pp.scene.likelihood.Likelihood.freeze`.
        noise_factor: What multiplies the stamp's noise map.
        gain: Electrons per image unit, in place of the observation's; None: the stamp's own.
        fixed: Parameters held at a value, by name, at the reference instrument.
        prior: What the draws were reweighted to, in the user's units: ranges by name, or a
            function from parameters to log-densities; None: the box's prior.
        widening: What moved the draws to honest widths, see :meth:`Posterior.widened`; None if
            they are as the stated noise has them.
        scene: The galaxy under hypotheses of several components; None if none was asked for.
        bands: The galaxy in several bands, of which `observation` is the first; None of one band.
        neighbours: Galaxies that are to be fitted with it; None: it stands alone.
        member: What the draws are the coordinates of where neighbours were fitted too, at the
            reference instrument; None where the galaxy stood alone.
        model: Name and version of the network.
        psf_fwhm: FWHM of the effective PSF. [px of the stamp]
        observation: What was observed; None if it could not be read.
        prepared: The stamp on which it was measured; None if there is none.
        box: The prior, in the user's units; None if it was not measured.
        notes: Remarks of the measurement, in words.
    """

    name: str = ""
    flags: int = 0
    reason: str = ""
    method: str = ""
    ess: float = math.nan
    khat: float = math.nan
    log_evidence: float = math.nan
    log_evidence_error: float = math.nan
    chi2: float = math.nan
    chi2_p: float = math.nan
    ood: float = math.nan
    ood_p: float = math.nan
    p_value: float = math.nan
    num_modes: float = math.nan
    rivals: Rivals | None = None
    mask: Bool[np.ndarray, "n n"] | None = None
    noise_correlation: float = 1.0
    correlation: NoiseCorrelation | None = None
    model_error: float = 0.0
    psf_error: float | None = None
    psf_reference: tuple[float, ...] | None = None
    noise_factor: float = 1.0
    gain: float | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    prior: Mapping[str, Range] | Callable[[Tensor], Tensor] | None = None
    widening: Widening | None = None
    scene: SceneRecord | None = None
    bands: BandRecord | None = None
    neighbours: Neighbours | None = None
    member: Member | None = None
    model: str = ""
    psf_fwhm: float = math.nan
    observation: Observation | None = None
    prepared: PreparedStamp | None = None
    box: PriorBox | None = None
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether there are draws."""
        return not self.flags & Flag.FAILED

    @property
    def widths(self) -> str:
        """What the widths hold: ``honest``, ``noise``; empty if it was not measured."""
        if not self.measured:
            return ""
        widening = self._widening
        return "honest" if widening is not None and widening.judged else "noise"

    @property
    def structure(self) -> float:
        """Median inflation of honest widths over the noise's own; NaN where none were found."""
        widening = self._widening
        return math.nan if widening is None else widening.structure

    @property
    def _widening(self) -> Widening | None:
        """What moved the draws, in the coordinates of all bands where there are several."""
        return self.widening if self.bands is None else self.bands.widening

    @property
    def quality(self) -> str:
        """``good``, ``caution`` or ``bad``: the worst of what the flags make of it."""
        refined = self.method not in ("", "amortized")
        return Flag.quality(self.flags, refined=refined, honest=self.widths == "honest")

    def likelihood(self) -> Likelihood:
        """Returns the likelihood under whose noise the draws are weighed, of this one galaxy.

        Its coordinates are those of the draws, of which `coordinates.project` takes the free ones.

        Raises:
            InputError: If the galaxy was not measured, or its stamp is not kept.
        """
        if self.prepared is None or self.box is None:
            raise InputError(
                f"the likelihood of {self.name or 'a galaxy'} needs its stamp and prior box, got "
                f"{self.reason or 'none'}. Keep what Predictor.posterior returned."
            )
        box = reference_box(self.box, self.prepared)
        own = SersicCoordinates(box, self.fixed)
        given = Likelihood.of(
            [self.prepared],
            box,
            coordinates=own if self.member is None else self.member.in_box(box),
            model_error=self.model_error,
        )
        found = given.replace(
            noise_correlation=self.correlation or self.noise_correlation,
            psf_error=self.psf_error,
            noise_factor=self.noise_factor,
            gain=None if self.gain is None else self.gain * self.prepared.scale,
            mask=None if self.mask is None else torch.from_numpy(np.array(self.mask))[None],
        )
        if self.psf_reference is not None:
            at = torch.tensor([self.psf_reference], dtype=torch.float64)
            rows = torch.zeros(1, dtype=torch.long)
            found.freeze(rows, found.coordinates.project(self.box.to_normal(at)))
        return found
