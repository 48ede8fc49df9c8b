"""Refined draws as rows of a posterior: the user's units, new verdicts, notes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.derived import AB_ZERO_FLUX
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.posterior.hypotheses import Rivals
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.inference.refine.evidence import Comparison, flux_upper_limit
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.isolation import reason_of
from deeplegato_pp.scene.prior import PriorBox

if TYPE_CHECKING:
    from deeplegato_pp.observation.preparation import PreparedStamp

logger = logging.getLogger(__name__)


def unrefined(posterior: Posterior, error: Exception) -> Posterior:
    """Returns the network's draws of one galaxy, marked as not refined."""
    m = posterior.measurements[0]
    reason = reason_of(error)
    logger.info("%s could not be refined: %s", m.name or "a galaxy", reason)
    flags = int(m.flags | Flag.LOW_ESS)
    return replace(
        posterior, measurements=[replace(m, flags=flags, reason=f"not refined: {reason}")]
    )


def rivals_of(
    comparison: Comparison, row: int, galaxy: RefinedGalaxy, box: PriorBox, prepared: PreparedStamp
) -> Rivals:
    """Returns one galaxy's comparison in the user's units, with a limit where nothing is seen."""
    limit = magnitude = math.nan
    if not bool(comparison.detected()[row]):
        flux = flux_upper_limit(galaxy.w, galaxy.log_weights, box)
        magnitude = prepared.zero_point - 2.5 * math.log10(flux * prepared.scale)
        limit = AB_ZERO_FLUX * 10.0 ** (-0.4 * magnitude)
    return Rivals(
        star_probability=float(comparison.star_probability[row]),
        star_odds=comparison.star_odds,
        star_log_evidence=float(comparison.star_log_evidence[row]),
        star_log_evidence_error=float(comparison.star_log_evidence_error[row]),
        detection=float(comparison.detection[row]),
        flux_limit=limit,
        magnitude_limit=magnitude,
    )


def refined_row(
    network: Posterior,
    galaxy: RefinedGalaxy,
    prior: PriorBox,
    card: Mapping[str, object],
    mask: Bool[np.ndarray, "n n"],
    rivals: Rivals | None,
) -> Posterior:
    """Returns one galaxy's refined draws in the user's units, with new verdicts.

    Args:
        network: The network's posterior of the galaxy.
        galaxy: Its refined draws.
        prior: The network's, at the reference instrument.
        card: Of the network, with the ranges it was trained on.
        mask: Pixels that refining ignored, with shape (N, N).
        rivals: How the galaxy fares against point source and blank sky.
    """
    m = network.measurements[0]
    assert m.box is not None  # noqa: S101  # it was measured
    assert m.prepared is not None  # noqa: S101
    w, samples = galaxy.w, m.box.to_physical(galaxy.w)
    row = Posterior(
        samples[None],
        w[None],
        (galaxy.log_proposal + m.box.log_jacobian(w, samples))[None],
        [m],
        network.stamps,
        galaxy.log_weights[None],
    )
    judged = _judged(row, m, replace(m.prepared, mask=mask), galaxy, prior, card)
    judged = replace(judged, prepared=m.prepared, mask=mask)
    return replace(row, measurements=[_with_rivals(judged, rivals)])


def with_noise(row: Posterior, correlation: float, error: float) -> Posterior:
    """Notes the noise correlation and model error under which one galaxy was refined."""
    m = row.measurements[0]
    notes = list(m.notes)
    if correlation != 1.0:
        notes.append(f"refined with a noise correlation of {correlation:g}")
    if error:
        notes.append(f"refined with a model error of {100 * error:g} %")
    noted = replace(m, noise_correlation=correlation, model_error=error, notes=tuple(notes))
    return replace(row, measurements=[noted])


def _with_rivals(m: Measurement, rivals: Rivals | None) -> Measurement:
    """Adds the comparison, which knows better than the network whether anything is there."""
    if rivals is None:
        return m
    seen = Flag.without(m.flags, Flag.UNDETECTED)
    undetected = Flag.UNDETECTED if math.isfinite(rivals.flux_limit) else 0
    return replace(m, rivals=rivals, flags=int(seen | undetected))


def _judged(
    row: Posterior,
    m: Measurement,
    prepared: PreparedStamp,
    galaxy: RefinedGalaxy,
    prior: PriorBox,
    card: Mapping[str, object],
) -> Measurement:
    assert m.box is not None  # noqa: S101  # it was measured
    equal = galaxy.resample(1000, torch.Generator().manual_seed(0))
    mean = torch.tensor([s.value for s in parameter_summaries(row)], dtype=torch.float64)
    ranges = card.get("training_ranges")
    known = dict(ranges) if isinstance(ranges, Mapping) else {}
    known.pop("noise_correlation", None)  # which the likelihood heeds, whatever the network knows
    (verdict,) = verdicts.judge(
        [verdicts.Case(equal, mean, prepared, m.box, m.psf_fwhm)], prior, known
    )
    kept, notes = Flag.without(m.flags, verdicts.FLAGS), verdict.notes
    if galaxy.masked_pixels:
        notes = (*notes, f"{galaxy.masked_pixels} pixels of neighbours masked")
    if math.isfinite(galaxy.star_log_odds):
        notes = (
            *notes,
            f"no galaxy fits: a point source is e^{galaxy.star_log_odds:.0f} times as probable or "
            "more, so no Markov chain was run",
        )
    return replace(
        m,
        flags=int(kept | verdict.flags | galaxy.flags),
        method=galaxy.method,
        ess=galaxy.ess,
        khat=galaxy.khat,
        log_evidence=galaxy.log_evidence,
        log_evidence_error=galaxy.log_evidence_error,
        chi2=galaxy.chi2,
        chi2_p=verdict.chi2_p,
        p_value=galaxy.p_value,
        num_modes=galaxy.num_modes,
        notes=notes,
    )
