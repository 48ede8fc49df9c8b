"""Posterior rows of galaxies fitted in several bands, with each band's quality of fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.fit import Fit
from deeplegato_pp.inference.fit.structure import joint_sandwich_at
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.band_record import BandRecord, band_columns
from deeplegato_pp.inference.posterior.measurement import Measured, Measurement, as_measured
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.refine.band_search import BandDraws, BandSearch, band_box
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.observation.bands import MultiBandObservation
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene import units
from deeplegato_pp.scene.bands import BandCoordinates, to_box
from deeplegato_pp.scene.joint import JointLikelihood
from deeplegato_pp.scene.parameters import MAGNITUDE, RADIUS
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE

_JUDGED = 1000
"""Number of equally weighted draws used to assess the fit of every band."""

_PREDICTIVE = 4
"""Number of draws over which p-values are averaged."""

_OF_THE_NETWORK = int(Flag.UNFAMILIAR | Flag.OUTSIDE_TRAINING | Flag.MEAN_OFF)
"""Flags of the network's draws, which are irrelevant once the search has replaced them."""


def row_of(
    galaxy: MultiBandObservation,
    network: Posterior,
    search: BandSearch,
    draws: BandDraws,
    *,
    model_error: float,
    honest: bool,
) -> Posterior:
    """Builds the posterior row of the draws, in the first band's units.

    Args:
        galaxy: Observations of the galaxy.
        network: The network's draws of each band.
        search: The search that found the modes.
        draws: Draws of the joint posterior.
        model_error: Model error as a fraction of the model image.
        honest: Whether draws are moved to honest widths.
    """
    u, log_weights = draws.u, draws.log_weights
    widening = _widening(search.likelihood, search.modes) if honest else None
    moved, log_det = (u, 0.0) if widening is None else widening.move(u, log_weights)
    rows = [as_measured(m) for m in network.measurements]
    stamps = [m.prepared for m in rows]
    best = search.modes.u[0]
    if draws.method != "laplace":
        best = u[(log_weights + draws.log_proposal).argmax()]
    equal = moved[_equally(log_weights)]
    bands = _judged_bands(galaxy, rows, search, best, equal, model_error)
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
    rows: Sequence[Measured],
    search: BandSearch,
    best: Float[Tensor, " f"],
    equal: Float[Tensor, "s f"],
    model_error: float,
) -> list[Measured]:
    """Returns each band's measurement, with the goodness of fit of the joint posterior."""
    found = []
    for k, m in enumerate(rows):
        own, band = band_box(search.coordinates, k), search.likelihood.bands[k]
        mask = band.stamps.mask[0].cpu().numpy()
        known = replace(
            m,
            name=galaxy.bands[k],
            mask=mask,
            model_error=model_error,
            box=units.user_box(own, m.prepared),
        )
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
    draws: BandDraws,
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
