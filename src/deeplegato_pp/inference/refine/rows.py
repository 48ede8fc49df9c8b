"""Conversion of refined draws to posterior rows: user's units, diagnostics and notes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.derived import AB_ZERO_FLUX
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.posterior.measurement import Hypotheses, Measured
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.inference.posterior.scene_record import SceneRecord
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.inference.refine.evidence import Comparison, flux_upper_limit
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.inference.verdict.held import held_by_widths
from deeplegato_pp.isolation import reason_of
from deeplegato_pp.observation.observation import PSF_ERROR
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.units import user_box
from deeplegato_pp.stats.pareto import GOOD_KHAT

if TYPE_CHECKING:
    from deeplegato_pp.observation.preparation import PreparedStamp

logger = logging.getLogger(__name__)


def unrefined(posterior: Posterior, error: Exception) -> Posterior:
    """Returns the network's draws of one galaxy, flagged as not refined."""
    m = posterior.measurements[0]
    reason = reason_of(error)
    logger.info("%s could not be refined: %s", m.name or "a galaxy", reason)
    flags = int(m.flags | Flag.LOW_ESS)
    return replace(
        posterior, measurements=[replace(m, flags=flags, reason=f"not refined: {reason}")]
    )


def as_drawn(posterior: Posterior) -> Posterior:
    """Returns a network's posterior as drawn, before widening."""
    measurements = [
        replace(m, widening=None, flags=Flag.without(m.flags, Flag.STRUCTURE_UNJUDGED))
        for m in posterior.measurements
    ]
    return replace(posterior.under_noise(), measurements=measurements)


def hypotheses_of(
    comparison: Comparison, row: int, galaxy: RefinedGalaxy, box: PriorBox, prepared: PreparedStamp
) -> Hypotheses:
    """Converts one galaxy's comparison to the user's units; adds a limit for non-detections."""
    limit = magnitude = math.nan
    if not bool(comparison.detected()[row]):
        flux = flux_upper_limit(galaxy.w, galaxy.log_weights, box)
        magnitude = prepared.zero_point - 2.5 * math.log10(flux * prepared.scale)
        limit = AB_ZERO_FLUX * 10.0 ** (-0.4 * magnitude)
    return Hypotheses(
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
    m: Measured,
    card: Mapping[str, object],
    hypotheses: Hypotheses | None,
) -> Posterior:
    """Converts one galaxy's refined draws to the user's units, with new diagnostics.

    Args:
        network: The network's posterior of the galaxy.
        galaxy: Refined draws of the galaxy.
        m: Measurement record, including the noise settings used (:func:`in_force`).
        card: Card of the network, with its training ranges.
        hypotheses: Comparison with point source and blank sky.
    """
    w, samples = galaxy.w, m.box.to_physical(galaxy.w)
    row = Posterior(
        samples[None],
        w[None],
        (galaxy.log_proposal + m.box.log_jacobian(w, samples))[None],
        [m],
        network.stamps,
        galaxy.log_weights[None],
    )
    judged = replace(_judged(row, m, galaxy, card), widening=galaxy.widening)
    return replace(row, measurements=[_with_hypotheses(judged, hypotheses)]).widened()


def in_force(m: Measured, likelihood: Likelihood, row: int, fixed: Mapping[str, float]) -> Measured:
    """Returns the measurement record with the settings of the likelihood that refined it.

    Args:
        m: Measurement record.
        likelihood: Likelihood of the galaxies refined together, with neighbours masked.
        row: Index of the galaxy.
        fixed: Values of fixed parameters, at the reference instrument.
    """
    member, at = likelihood.coordinates, likelihood.frozen_at(row)
    together = isinstance(member, Member)
    box = user_box(likelihood.box, m.prepared)
    reference = m.psf_reference
    if at is not None:
        w = member.embed(at[None])  # type: ignore[attr-defined]
        reference = tuple(box.to_physical(w)[0].tolist())
    return replace(
        m,
        flags=int(m.flags | (Flag.FITTED_TOGETHER if together else 0)),
        mask=likelihood.stamps.mask[row].cpu().numpy(),
        noise_correlation=float(likelihood.stamps.noise_correlation[row]),
        correlation=likelihood.stamps.correlation(row),
        model_error=likelihood.model_error,
        psf_error=float(likelihood.psf_error[row]),
        psf_share=float(likelihood.psf_widths.share[row]),
        fixed=dict(fixed),
        psf_reference=reference,
        box=box,
        member=member if isinstance(member, Member) else None,
    )


def _noise_notes(m: Measurement) -> list[str]:
    """Describes the noise correlation, model error and PSF error of the refinement as text."""
    notes = []
    if m.noise_correlation != 1.0:
        notes.append(f"refined with a noise correlation of {m.noise_correlation:g}")
    if m.model_error not in (0.0, MODEL_ERROR):
        notes.append(f"refined with a model error of {100 * m.model_error:g} %")
    if m.psf_error not in (None, 0.0, PSF_ERROR):
        notes.append(f"refined with an error of the PSF's width of {100 * m.psf_error:g} %")
    return notes


def _with_hypotheses(m: Measurement, hypotheses: Hypotheses | None) -> Measurement:
    """Adds the comparison, and replaces the network's flags on the detection."""
    if hypotheses is None:
        return m
    seen = Flag.without(m.flags, Flag.UNDETECTED)
    undetected = Flag.UNDETECTED if math.isfinite(hypotheses.flux_limit) else 0
    return replace(m, hypotheses=hypotheses, flags=int(seen | undetected))


def with_scene(m: Measurement, record: SceneRecord | None) -> Measurement:
    """Adds the comparison of scenes, with a note if the best scene's weights are poor."""
    poor = record is not None and record.khat > GOOD_KHAT
    return replace(m, scene=record, flags=int(m.flags | (Flag.SCENE_KHAT if poor else 0)))


def _judged(
    row: Posterior, m: Measured, galaxy: RefinedGalaxy, card: Mapping[str, object]
) -> Measurement:
    prepared = m.prepared if m.mask is None else replace(m.prepared, mask=m.mask)
    equal = galaxy.resample(1000, torch.Generator().manual_seed(0))
    mean = torch.tensor([s.value for s in parameter_summaries(row)], dtype=torch.float64)
    ranges = card.get("training_ranges")
    known = dict(ranges) if isinstance(ranges, Mapping) else {}
    known.pop("noise_correlation", None)  # the likelihood includes it, unlike the network
    case = verdicts.Case(equal, mean, prepared, m.box, m.psf_fwhm, galaxy.widening)
    (verdict,) = verdicts.judge([case], m.likelihood(), known)
    kept, notes = Flag.without(m.flags, verdicts.FLAGS), verdict.notes
    if galaxy.masked_pixels:
        notes = (*notes, f"{galaxy.masked_pixels} pixels of neighbours masked")
    if math.isfinite(galaxy.star_log_odds):
        notes = (
            *notes,
            f"no galaxy fits: a point source is e^{galaxy.star_log_odds:.0f} times as probable or "
            "more, so no Markov chain was run",
        )
    notes = (*notes, *_noise_notes(m))
    return replace(
        m,
        flags=held_by_widths(
            int(kept | verdict.flags | galaxy.flags), galaxy.widening, verdict.residual_fraction
        ),
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
