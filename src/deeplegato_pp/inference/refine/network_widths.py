"""Honest widths of the network's posteriors, from the optimum of the likelihood."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.inference.fit.psf_share import fit_less
from deeplegato_pp.inference.fit.sandwich import affine_map, larger
from deeplegato_pp.inference.fit.structure import Slopes, slopes_at, widening_at
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.measurement import Measured, Measurement, as_measured
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.inference.verdict.held import held_by_widths
from deeplegato_pp.inference.verdict.psf_limits import psf_limits
from deeplegato_pp.inference.verdict.verdict import FEWEST_DRAWS, IMPROBABLE
from deeplegato_pp.scene import units
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.prior import PriorBox

logger = logging.getLogger(__name__)

BRIGHT = 30.0
"""Median S/N above which structure matters relative to the width of a network's posterior."""

BATCH = 16
"""Number of galaxies fitted together."""


def honest_network(posterior: Posterior, prior: PriorBox) -> Posterior:
    """Widens the network's posteriors to honest widths, where this matters.

    Galaxies above a median S/N of 30, and those with a poor fit, get a search for the optimum and a
    sandwich covariance, if there are at least 50 draws. In every direction the larger of two
    variances is used: the network's variance, or the squared distance of its mean from the optimum
    plus the sandwich variance at the optimum. Neighbours are not masked, so that an unmasked
    neighbour increases the errors.

    Args:
        posterior: The network's posterior.
        prior: The network's prior box, at the reference instrument.
    """
    if posterior.batch_w.shape[1] < FEWEST_DRAWS:
        return posterior
    chosen = [i for i in range(len(posterior)) if _worth_it(posterior, i)]
    found: dict[int, Widening | None] = {}
    for start in range(0, len(chosen), BATCH):
        rows = chosen[start : start + BATCH]
        found |= dict(zip(rows, _widenings(posterior, rows, prior), strict=True))
    if not any(found.values()):
        return posterior
    measurements = list(posterior.measurements)
    for i, widening in found.items():
        if widening is not None:
            unjudged = 0 if widening.judged else Flag.STRUCTURE_UNJUDGED
            m = _with_psf_limits(posterior, i, widening)
            flags = int(held_by_widths(m.flags, widening) | unjudged)
            measurements[i] = replace(m, widening=widening, flags=flags)
    return replace(posterior, measurements=measurements).widened()


def _with_psf_limits(posterior: Posterior, row: int, widening: Widening) -> Measurement:
    """Returns a galaxy's record with the flags of PSF limits updated for its honest widths."""
    m = as_measured(posterior.measurements[row])
    mean = torch.tensor([s.value for s in parameter_summaries(posterior, row)]).double()
    about = (mean, m.prepared, m.psf_fwhm, m.model_error)
    (before, said), (flags, notes) = psf_limits(*about), psf_limits(*about, widening)
    kept = (note for note in m.notes if note not in said)
    return replace(m, flags=int(Flag.without(m.flags, before) | flags), notes=(*kept, *notes))


def _worth_it(posterior: Posterior, row: int) -> bool:
    m = posterior.measurements[row]
    if not isinstance(m, Measured):
        return False
    samples = posterior.batch_samples[row]
    bright = units.median_snr(samples, m.prepared, m.psf_fwhm) > BRIGHT
    return bright or m.chi2_p < IMPROBABLE


def _widenings(posterior: Posterior, rows: list[int], prior: PriorBox) -> list[Widening | None]:
    """Computes the widenings of some rows; None for those whose search failed."""
    part = posterior[rows]
    stamps = [as_measured(m).prepared for m in part.measurements]
    likelihood = Likelihood.of(stamps, prior, model_error=MODEL_ERROR)
    mean = part.batch_w.double().mean(1)
    try:
        batches = Batches(likelihood)
        optima = fit(likelihood, torch.arange(len(rows)), mean, batches=batches)
        likelihood.freeze(optima.rows, optima.u)
        if again := fit_less(likelihood, optima):
            better = fit(likelihood, optima.rows[again], optima.u[again], batches=batches)
            order = torch.arange(len(rows))
            order[again] = len(rows) + torch.arange(len(again))
            optima = Fit.concatenate([optima, better])[order]
            likelihood.freeze(optima.rows, optima.u)
        slopes = slopes_at(batches, range(len(rows)), list(optima.u[:, None]))
        return [
            network_widening(likelihood, i, optima[i : i + 1], part.batch_w[i].double(), slopes[i])
            for i in range(len(rows))
        ]
    except (NumericalError, torch.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        if len(rows) > 1:
            return [_widenings(posterior, [i], prior)[0] for i in rows]
        logger.info("%s keeps the network's widths: %s", part.measurements[0].name, error)
        return [None]


def network_widening(
    likelihood: Likelihood,
    row: int,
    optimum: Fit,
    w: Float[Tensor, "s 7"],
    slopes: Sequence[Slopes] | None = None,
) -> Widening | None:
    """Computes the widening of a network's draws; None if the search did not converge.

    Args:
        likelihood: Galaxies.
        row: Index of the galaxy.
        optimum: Optimum of the galaxy.
        w: The network's draws.
        slopes: Image and derivatives at the optimum, if known.
    """
    if not bool(optimum.converged[0]):
        return None
    mean, covariance = w.mean(0), torch.cov(w.T)
    covariance = covariance + 1e-12 * torch.eye(len(mean)).to(covariance)
    at_optimum = widening_at(likelihood, row, optimum, mean, slopes)
    distance = mean - optimum.u[0]
    target = torch.outer(distance, distance) + at_optimum.covariance
    widest = larger(target[None], covariance[None])
    inflation = (widest[0].diagonal() / covariance.diagonal()).sqrt()
    matrix = affine_map(covariance[None], widest)
    if not at_optimum.judged:
        inflation, matrix = torch.ones_like(inflation), torch.eye(len(mean)).to(matrix)[None]
    return Widening(
        mean[None],
        torch.linalg.inv(covariance)[None],
        matrix,
        widest[0],
        inflation,
        at_optimum.blocks,
        at_optimum.judged,
        at_optimum.noise,
        at_optimum.light,
        at_optimum.wings,
        at_optimum.weights,
    )
