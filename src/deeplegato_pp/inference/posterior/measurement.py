"""Record of one galaxy's measurement: diagnostics, settings and flags of its draws."""

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
"""Range of a prior: (lower, upper), or (lower, upper, "linear" or "log")."""


@dataclass(frozen=True)
class Hypotheses:
    """Comparison with other hypotheses; see :mod:`deeplegato_pp.inference.refine.evidence`.

    Attributes:
        star_probability: Probability of a point source rather than a galaxy, under `star_odds`.
        star_odds: Prior odds, point source to galaxy.
        star_log_evidence: ln Z of the point source.
        star_log_evidence_error: Standard error of it; NaN for Laplace's approximation.
        detection: ln Bayes factor of the better of the two against blank sky.
        flux_limit: 95 % upper limit on the flux of an undetected source; NaN if it was detected.
            [nJy]
        magnitude_limit: The same limit as a magnitude. [mag]
    """

    star_probability: float
    star_odds: float
    star_log_evidence: float
    star_log_evidence_error: float
    detection: float
    flux_limit: float = math.nan
    magnitude_limit: float = math.nan


HYPOTHESES: dict[str, tuple[str, str]] = {
    "star_probability": ("", "probability of a point source rather than a galaxy"),
    "star_odds": ("", "prior odds, point source to galaxy"),
    "star_log_evidence": ("", "natural logarithm of the point source's evidence"),
    "star_log_evidence_error": ("", "standard error of it; unknown if far below the galaxy's"),
    "detection": ("", "ln Bayes factor of galaxy or point source against blank sky"),
    "flux_limit": ("nJy", "95 % upper limit on the flux density of an undetected galaxy"),
    "magnitude_limit": ("mag", "the same limit as a magnitude (95 % lower limit)"),
}
"""Unit and meaning of the columns, in their order: the attributes of :class:`Hypotheses`."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """Diagnostics, settings and flags of one galaxy's measurement.

    Attributes:
        name: Name used in tables.
        flags: Sum of :class:`~deeplegato_pp.flags.Flag` bits.
        reason: Reason why it could not be measured, or assumptions that were made, as text.
        method: Method by which the draws were obtained: ``amortized`` (the network's own),
            ``importance``, ``adapted``, ``mcmc`` or ``laplace``; empty if it was not measured.
        ess: Effective sample size of the weighted draws; NaN without weights.
        khat: Pareto k-hat of the weights; NaN without weights.
        log_evidence: ln Z; NaN if not computed.
        log_evidence_error: Standard error of ln Z.
        chi2: Chi-square per degree of freedom (unmasked pixels minus free parameters): at the
            network's mean, or, once refined, at the best draw.
        chi2_p: Probability of a misfit as large as that of the best model within the posterior, on
            the worst of three scales, with a model error of 1 %.
        ood: Distance of the network's features from those of training images, about 1 for those;
            NaN if the model has no reference features.
        ood_p: Fraction of training images with a larger distance; NaN likewise.
        p_value: Probability of a larger chi-square under the exact posterior; NaN if not refined.
        num_modes: Number of modes found by refinement, 0 if no search was needed; NaN if not
            refined.
        hypotheses: Comparison with a point source and blank sky; None if not computed.
        mask: Pixels ignored by refinement, including neighbours, on the stamp; None for the
            stamp's own mask.
        noise_correlation: Noise correlation used for the draws, see :meth:`Predictor.refine`.
        correlation: Noise correlation at each lag; None for the Gaussian family with this total.
        model_error: Model error used for the draws.
        psf_error: PSF-width error used for the draws; None for the observation's.
        psf_share: Part of this error that is fitted, see
            :class:`~deeplegato_pp.scene.psf_width.PsfWidths`.
        psf_reference: Parameters, in the user's units, of the PSF-width template, see
            :meth:`~deeplegato_pp.scene.likelihood.Likelihood.freeze`.
        noise_factor: Factor that multiplies the stamp's noise map.
        gain: Electrons per image unit that replace the observation's; None for the stamp's own.
        fixed: Values of fixed parameters by name, at the reference instrument.
        prior: Prior to which the draws were reweighted, in the user's units: ranges by name, or a
            function from parameters to log-densities; None for the box's prior.
        widening: Widening applied to the draws, see :meth:`Posterior.widened`; None if the draws
            are those of the stated noise.
        scene: Results under hypotheses of several components; None if none were requested.
        bands: Results in several bands, of which `observation` is the first; None for one band.
        neighbours: Galaxies to be fitted together with this one; None for an isolated galaxy.
        member: Coordinates of the draws if neighbours were fitted too, at the reference
            instrument; None for an isolated galaxy.
        model: Name and version of the network.
        psf_fwhm: FWHM of the effective PSF. [px of the stamp]
        observation: The observation; None if it could not be read.
        prepared: Stamp on which the galaxy was measured; None if there is none.
        box: Prior box, in the user's units; None if it was not measured.
        notes: Remarks of the measurement, as text.
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
    hypotheses: Hypotheses | None = None
    mask: Bool[np.ndarray, "n n"] | None = None
    noise_correlation: float = 1.0
    correlation: NoiseCorrelation | None = None
    model_error: float = 0.0
    psf_error: float | None = None
    psf_share: float = 1.0
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
        """Whether the galaxy was measured, so that there are draws."""
        return not self.flags & Flag.FAILED

    @property
    def widths(self) -> str:
        """Kind of the draws' widths: ``honest`` or ``noise``; empty if it was not measured."""
        if not self.measured:
            return ""
        widening = self._widening
        return "honest" if widening is not None and widening.judged else "noise"

    @property
    def structure(self) -> float:
        """Median ratio of honest to noise widths; NaN if not computed."""
        widening = self._widening
        return math.nan if widening is None else widening.structure

    @property
    def _widening(self) -> Widening | None:
        """Returns the widening of the draws, in joint coordinates for several bands."""
        return self.widening if self.bands is None else self.bands.widening

    @property
    def quality(self) -> str:
        """Quality level ``good``, ``caution`` or ``bad``: the worst level of the flags."""
        refined = self.method not in ("", "amortized")
        return Flag.quality(self.flags, refined=refined, honest=self.widths == "honest")

    def likelihood(self) -> Likelihood:
        """Builds the likelihood of this galaxy with the noise used for the draws' weights.

        Its coordinates are those of the draws; `coordinates.project` selects the free ones.

        Raises:
            InputError: If the galaxy was not measured, or its stamp was not kept.
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
        found.psf_widths.share.fill_(self.psf_share)
        if self.psf_reference is not None:
            at = torch.tensor([self.psf_reference], dtype=torch.float64)
            rows = torch.zeros(1, dtype=torch.long)
            found.freeze(rows, found.coordinates.project(self.box.to_normal(at)))
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class Measured(Measurement):
    """Record of a galaxy that was measured, see :class:`Measurement`.

    Attributes:
        observation: The observation.
        prepared: Stamp on which the galaxy was measured.
        box: Prior box, in the user's units.
    """

    observation: Observation
    prepared: PreparedStamp
    box: PriorBox


def as_measured(m: Measurement) -> Measured:
    """Returns the record of a galaxy that was measured.

    Raises:
        InputError: If it was not.
    """
    if not isinstance(m, Measured):
        raise InputError(
            f"{m.name or 'a galaxy'} was not measured: {m.reason or 'it has no stamp'}. Leave out "
            "rows without `measured`."
        )
    return m
