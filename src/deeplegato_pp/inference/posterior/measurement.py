"""What is known of one galaxy beside its draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.hypotheses import Rivals
from deeplegato_pp.scene.prior import PriorBox

if TYPE_CHECKING:
    from deeplegato_pp.observation.observation import Observation
    from deeplegato_pp.observation.preparation import PreparedStamp


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
        noise_correlation: Under which it was refined, see :meth:`Predictor.refine`.
        model_error: The same.
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
    model_error: float = 0.0
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
    def quality(self) -> str:
        """``good``, ``caution`` or ``bad``: the worst of what the flags make of it."""
        return Flag.quality(self.flags, refined=self.method not in ("", "amortized"))
