"""Reweighting of refined posteriors to another prior, noise or gain."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import InputError, NumericalError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.base import PosteriorBase
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.posterior.measurement import Measured, Range
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.inference.sampling.importance import effective_sample_size
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.inference.verdict.held import held_by_widths
from deeplegato_pp.scene.parameters import INDEX, NAMES, PARAMETERS
from deeplegato_pp.scene.prior import PriorBox

Prior = PriorBox | Mapping[str, Range] | Callable[[Tensor], Tensor]
"""A new prior, see :func:`prior_ratio`."""

EXACT = ("importance", "adapted", "mcmc")
"""Methods whose draws carry exact weights."""

_VERDICTS = int(Flag.LOW_ESS | Flag.HIGH_KHAT)

P = TypeVar("P", bound=PosteriorBase)


def reweight_posterior(
    posterior: P,
    prior: Prior | None = None,
    *,
    noise_factor: float = 1.0,
    gain: float | None = None,
    ess: float = 100.0,
) -> P:
    """Reweights exactly refined galaxies to another prior, noise or gain.

    Widened draws are reweighted before widening and widened again, so that a few may lie beyond a
    truncated range. No new draws are made: effective size, k-hat and goodness of fit are
    recomputed, and the flags ``low_ess`` and ``high_khat`` are set if the draws do not support the
    change. The result records the new settings, so that two successive changes are equivalent to
    both at once.

    Args:
        posterior: Result of :meth:`Predictor.refine` with the exact method, or of this function.
        prior: New prior in the user's units: ranges by name (``(lower, upper)``, or with
            ``"linear"`` or ``"log"`` as third entry; other parameters keep their prior), a
            :class:`~deeplegato_pp.scene.prior.PriorBox`, or a function from parameters (S, 7) to
            normalised log-densities (S,). It replaces the present prior and must lie within it.
        noise_factor: Factor that multiplies the present noise map; the draws are rendered again.
        gain: Electrons per image unit that replace the present gain.
        ess: Effective sample size below which ``low_ess`` is set.

    Raises:
        InputError: If a galaxy's draws are not exact, or no change is requested.
        RangeError: If a number is not positive, or the prior exceeds the present one.
    """
    if prior is None and noise_factor == 1.0 and gain is None:
        raise InputError("nothing to change: give a prior, a noise_factor or a gain.")
    for name, value in (("noise_factor", noise_factor), ("gain", gain), ("ess", ess)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RangeError(f"{name} must be positive and finite, got {value}.")
    rows = []
    for row in posterior.under_noise():
        m = row.measurements[0]
        if not isinstance(m, Measured):
            rows.append(replace(row, single=False))
            continue
        if m.bands is not None:
            raise InputError(
                f"{m.name or 'a galaxy'} was fitted in several bands, whose draws are not weighed "
                "anew. Fit it again under what is to be changed."
            )
        if m.method not in EXACT or row.batch_log_weights is None:
            raise InputError(
                f"{m.name or 'a galaxy'} has {m.method} draws, which carry no exact weights. "
                "Refine them first, by the exact method."
            )
        changed = replace(
            m if prior is None else _under_prior(m, prior),
            noise_factor=m.noise_factor * noise_factor,
            gain=m.gain if gain is None else gain,
            notes=(*m.notes, *_notes(prior, noise_factor, gain)),
        )
        rows.append(_reweight_row(replace(row, single=False), m, changed, ess))
    joined = type(posterior).concatenate(rows)
    return joined[0] if posterior.single else joined


def _notes(prior: Prior | None, factor: float, gain: float | None) -> list[str]:
    """Describes the changes as text."""
    noise = [f"noise times {factor:g}"] if factor != 1.0 else []
    noise += [f"gain {gain:g} e-/unit"] if gain is not None else []
    notes = [] if prior is None else ["reweighted to another prior"]
    return [*notes, f"reweighted to {' and '.join(noise)}"] if noise else notes


def _under_prior(m: Measured, prior: Prior) -> Measured:
    """Sets another prior, which must lie within the present one."""
    if callable(prior) and not isinstance(prior, PriorBox):
        return replace(m, prior=prior)
    ranges = {n: getattr(prior, n) for n in NAMES} if isinstance(prior, PriorBox) else dict(prior)
    present = m.prior if isinstance(m.prior, Mapping) else {}
    for name, given in ranges.items():
        if name not in NAMES:
            raise RangeError(f"Unknown parameter {name!r} in the new prior; the seven are {NAMES}.")
        low, high = (float(x) for x in present.get(name, getattr(m.box, name))[:2])
        _checked_range(name, given, PARAMETERS[INDEX[name]].scale, (low, high))
    if isinstance(prior, PriorBox):
        return replace(m, box=prior, prior=None)
    if m.prior is not None and not isinstance(m.prior, Mapping):
        raise InputError(
            "ranges by name keep the prior of what they leave out, which cannot be told from the "
            f"function in force, got {sorted(ranges)}. Give a PriorBox or another function."
        )
    return replace(m, prior={**present, **ranges})


def _prior_ratio(m: Measured, box: PriorBox, physical: Tensor) -> Tensor:
    """Returns the log of the present prior over a box's prior."""
    if m.prior is not None:
        return prior_ratio(physical, box, m.prior)
    if m.box == box:
        return torch.zeros(len(physical), dtype=torch.float64)
    return prior_ratio(physical, box, m.box)


def _reweight_row(row: P, old: Measured, new: Measured, ess: float) -> P:
    """Reweights one galaxy's draws to the settings in `new`, with new diagnostics."""
    assert row.batch_log_weights is not None  # noqa: S101  # checked by the caller
    used = torch.isfinite(row.batch_log_weights[0])
    w, samples = row.batch_w[0, used], row.batch_samples[0, used]
    log_weights, log_prob = row.batch_log_weights[0, used], row.batch_log_prob[0, used]
    ratio = torch.zeros(len(w), dtype=torch.float64)
    if (new.box, new.prior) != (old.box, old.prior):
        ratio = _prior_ratio(new, old.box, samples) - _prior_ratio(old, old.box, samples)
    if (new.noise_factor, new.gain) != (old.noise_factor, old.gain):
        before = old.likelihood()
        after = replace(new, box=old.box).likelihood()
        u = before.coordinates.project(w)
        values = before.compare_row(0, u, [before, after])
        ratio = ratio + values[1] - values[0]
    size = float(effective_sample_size(log_weights))
    galaxy = RefinedGalaxy(
        w=w,
        log_proposal=log_prob - old.box.log_jacobian(w),
        log_likelihood=torch.full_like(ratio, math.nan),
        log_weights=log_weights,
        method=old.method,
        log_evidence=old.log_evidence,
        log_evidence_error=old.log_evidence_error,
        ess=size,
    )
    result = reweight(galaxy, ratio, ess)
    independent = old.ess / size if old.method == "mcmc" else 1.0
    if new.box != old.box:
        w = _in_box(samples, new.box)
        result.w, result.log_proposal = w, log_prob - new.box.log_jacobian(w)
    if result.ess > 0:
        result.judge_fit(new.likelihood(), 0, torch.Generator().manual_seed(0))
    flags = Flag.without(old.flags, _VERDICTS) | result.flags
    judged = replace(
        new,
        flags=int(flags | (Flag.LOW_ESS if independent * result.ess < ess else 0)),
        ess=independent * result.ess,
        khat=result.khat,
        log_evidence=result.log_evidence,
        log_evidence_error=result.log_evidence_error,
        hypotheses=None,
        chi2=result.chi2,
        p_value=result.p_value,
    )
    all_weights, all_w = row.batch_log_weights.clone(), row.batch_w.clone()
    all_weights[0, used], all_w[0, used] = result.log_weights, result.w
    if bool((~used).any()):
        all_w[0, ~used] = _in_box(row.batch_samples[0, ~used], new.box)
    moved = replace(
        row, batch_w=all_w, batch_log_weights=all_weights, measurements=[judged], single=False
    )
    final = _judged_image(moved, judged, result)
    if new.box != old.box and old.widening is not None:
        center = torch.softmax(log_weights + ratio, 0) @ row.batch_w[0, used]
        widening = _widening_in_box(old.widening, old.box, new.box, center)
        final = replace(final, widening=widening)
    return replace(moved, measurements=[final]).widened()


def _widening_in_box(
    widening: Widening, old: PriorBox, new: PriorBox, center: Float[Tensor, "7"]
) -> Widening:
    """Converts the widening to the coordinates of a narrower box, linearised at the mean."""
    step = 1e-4 * torch.eye(len(center)).to(center)
    points = torch.cat([center + step, center - step, widening.modes])
    w = _in_box(old.to_physical(points), new)
    ahead, behind, modes = w.split([len(step), len(step), len(widening.modes)])
    jacobian = ((ahead - behind) / 2e-4).T
    return widening.in_coordinates(jacobian.expand(len(modes), -1, -1), modes)


def _judged_image(row: PosteriorBase, m: Measured, galaxy: RefinedGalaxy) -> Measured:
    """Recomputes the goodness of fit of a galaxy under the present noise."""
    if not galaxy.ess > 0:
        return m
    prepared = m.prepared if m.mask is None else replace(m.prepared, mask=m.mask)
    mean = torch.tensor([s.value for s in parameter_summaries(row)], dtype=torch.float64)
    equal = galaxy.resample(1000, torch.Generator().manual_seed(0))
    case = verdicts.Case(equal, mean, prepared, m.box, m.psf_fwhm, m.widening)
    (verdict,) = verdicts.judge([case], m.likelihood(), None)
    flags = Flag.without(m.flags, verdicts.FLAGS & ~Flag.OUTSIDE_TRAINING) | verdict.flags
    flags = held_by_widths(flags, m.widening, verdict.residual_fraction)
    notes = tuple(note for note in verdict.notes if note not in m.notes)
    return replace(m, flags=int(flags), chi2_p=verdict.chi2_p, notes=(*m.notes, *notes))


def _in_box(samples: Tensor, box: PriorBox) -> Tensor:
    """Converts draws to a narrower box's coordinates; zero-weight draws map to its edge."""
    edges = torch.tensor([getattr(box, name) for name in NAMES], dtype=torch.float64)
    return box.to_normal(samples.clamp(edges[:, 0], edges[:, 1]))


def reweight(
    galaxy: RefinedGalaxy, log_ratio: Float[Tensor, " s"], ess_wanted: float = 100.0
) -> RefinedGalaxy:
    """Multiplies a galaxy's weights by a ratio, and recomputes the diagnostics.

    Effective size and k-hat show whether the draws support the change; if not, the flags `low_ess`
    and `high_khat` are set, and the galaxy should be refined under the new prior.

    Args:
        galaxy: Exact posterior of one galaxy.
        log_ratio: Log of new over old density, with shape (S,); normalised, for the evidence.
        ess_wanted: Effective sample size below which `low_ess` is set.

    Raises:
        ShapeError: If there is not one ratio per draw.
        NumericalError: If a ratio is NaN or +inf.
    """
    if log_ratio.shape != galaxy.log_weights.shape:
        raise ShapeError(
            f"log_ratio must have shape {tuple(galaxy.log_weights.shape)}, one per draw, got "
            f"{tuple(log_ratio.shape)}."
        )
    ratio = log_ratio.double()
    if bool(ratio.isnan().any() or (ratio == math.inf).any()):
        raise NumericalError("log_ratio must be finite or -inf, got NaN or +inf.")
    log_weights = galaxy.log_weights + ratio
    shift = float(torch.logsumexp(log_weights, 0) - torch.logsumexp(galaxy.log_weights, 0))
    result = replace(
        galaxy,
        log_weights=log_weights,
        log_evidence=galaxy.log_evidence + shift,
        flags=Flag.without(galaxy.flags, _VERDICTS),
    )
    result.judge(ess_wanted)
    if result.ess > 0:
        # Flags are recomputed from scratch, so that two steps are equivalent to one.
        added = 1.0 / result.ess - 1.0 / max(galaxy.ess, 1.0)
        result.log_evidence_error = math.sqrt(max(galaxy.log_evidence_error**2 + added, 0.0))
    return result


def prior_ratio(physical: Float[Tensor, "s 7"], old: PriorBox, new: Prior) -> Float[Tensor, " s"]:
    """Computes the log ratio of the new prior's density to the old box's, in physical units.

    Args:
        physical: Draws in the old box's units, with shape (S, 7).
        old: Box under which the draws were made.
        new: A box inside the old one; or ranges by name, ``(lower, upper)`` or
            ``(lower, upper, scale)`` with the scale ``"linear"`` or ``"log"`` in which the new
            prior is uniform (by default the parameter's own; other parameters keep their prior); or
            a function from physical parameters (S, 7) to the new prior's normalised log-density per
            unit of each parameter (S,).

    Raises:
        RangeError: If a new range exceeds the old one, where there are no draws, or if a name or
            scale is unknown.
        ShapeError: If the function does not return one value per draw.
    """
    if isinstance(new, PriorBox):
        new = {name: getattr(new, name) for name in NAMES}
    if isinstance(new, Mapping):
        return _range_ratio(physical.double(), old, new)
    after = torch.as_tensor(new(physical)).double()
    if after.shape != physical.shape[:1]:
        raise ShapeError(
            f"a prior must return one log-density per draw ({len(physical)},), got "
            f"{tuple(after.shape)}."
        )
    return after - _log_density(old, physical)


def _range_ratio(physical: Tensor, old: PriorBox, ranges: Mapping[str, Range]) -> Tensor:
    """Returns the log ratio of new to old prior for independent parameters."""
    ratio = torch.zeros(len(physical), dtype=torch.float64)
    for name, given in ranges.items():
        if name not in NAMES:
            raise RangeError(f"Unknown parameter {name!r} in the new prior; the seven are {NAMES}.")
        p = PARAMETERS[INDEX[name]]
        lower, upper, scale = _checked_range(name, given, p.scale, getattr(old, name))
        value = physical[:, INDEX[name]]
        low, high = getattr(old, name)
        ratio += _log_flat(value, lower, upper, scale) - _log_flat(value, low, high, p.scale)
        ratio[(value < lower) | (value > upper)] = -math.inf
    return ratio


def _checked_range(
    name: str, given: Range, own_scale: str, box: tuple[float, float]
) -> tuple[float, float, str]:
    """Returns lower bound, upper bound and scale of a new range, after checking them."""
    if len(given) not in (2, 3):
        raise RangeError(f"{name} takes (lower, upper) or (lower, upper, scale), got {given!r}.")
    lower, upper = float(given[0]), float(given[1])
    scale = str(given[2]) if len(given) == 3 else own_scale
    low, high = box
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    if not lower < upper:
        raise RangeError(f"{name}: the new prior needs lower < upper, got ({lower}, {upper}).")
    if lower < low - slack or upper > high + slack:
        raise RangeError(
            f"{name}: the new prior ({lower}, {upper}) reaches beyond the one refined under "
            f"({low}, {high}), where there are no draws. Refine under the wider prior."
        )
    if scale not in ("linear", "log") or (scale == "log" and lower <= 0):
        raise RangeError(
            f"{name}: the scale must be 'linear', or 'log' with a positive range, got {scale!r} "
            f"over ({lower}, {upper})."
        )
    return lower, upper, scale


def _log_flat(value: Tensor, lower: float, upper: float, scale: str) -> Tensor:
    """Returns the log-density of a prior uniform in the parameter or its logarithm."""
    if scale == "log":
        return -value.log() - math.log(math.log(upper / lower))
    return torch.full_like(value, -math.log(upper - lower))


def _log_density(box: PriorBox, physical: Tensor) -> Tensor:
    """Returns the box's log-prior in physical units; draws are clipped against rounding."""
    lower = torch.tensor([getattr(box, name)[0] for name in NAMES], dtype=torch.float64)
    upper = torch.tensor([getattr(box, name)[1] for name in NAMES], dtype=torch.float64)
    w = box.to_normal(physical.double().clamp(lower, upper))
    return box.log_prior(w) + box.log_jacobian(w)
