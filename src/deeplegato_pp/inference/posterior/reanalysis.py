"""A refined posterior under another prior, noise or gain: the same draws, weighed anew."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from deeplegato_pp.errors import InputError, RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.base import PosteriorBase
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.posterior.measurement import Measurement
from deeplegato_pp.inference.posterior.reweighting import Prior, prior_ratio, reweight
from deeplegato_pp.scene import images as instrument
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, StampBatch

EXACT = ("importance", "adapted", "mcmc")
"""Methods whose draws carry exact weights."""

_VERDICTS = Flag.LOW_ESS | Flag.HIGH_KHAT


P = TypeVar("P", bound=PosteriorBase)


def reweight_posterior(
    posterior: P,
    prior: Prior | None = None,
    *,
    noise_factor: float = 1.0,
    gain: float | None = None,
    ess: float = 100.0,
) -> P:
    """Returns exactly refined galaxies under another prior, noise or gain, from their draws.

    Nothing is sampled anew: effective size and k-hat are judged again, and where the draws do
    not carry the change the flags ``low_ess`` and ``high_khat`` say so.

    Args:
        posterior: What :meth:`Predictor.refine` returned, by the exact method.
        prior: In the user's units: ranges by name (``(lower, upper)``, or with ``"linear"``
            or ``"log"`` as a third), a :class:`~deeplegato_pp.scene.prior.PriorBox`, or a function
            from parameters (S, 7) to normalised log-densities (S,). It must lie within the
            prior refined under.
        noise_factor: Multiplies the noise map; the draws are rendered anew.
        gain: Electrons per image unit, in place of the observation's.
        ess: Effective size below which ``low_ess`` is set.

    Raises:
        InputError: If a galaxy's draws are not exact, or nothing is to be changed.
        RangeError: If a number is not positive, or the prior reaches too far.
    """
    if prior is None and noise_factor == 1.0 and gain is None:
        raise InputError("nothing to change: give a prior, a noise_factor or a gain.")
    for name, value in (("noise_factor", noise_factor), ("gain", gain), ("ess", ess)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RangeError(f"{name} must be positive and finite, got {value}.")
    rows = []
    for row in posterior:
        m = row.measurements[0]
        if not m.measured:
            rows.append(replace(row, single=False))
            continue
        if m.method not in EXACT or row.batch_log_weights is None:
            raise InputError(
                f"{m.name or 'a galaxy'} has {m.method} draws, which carry no exact weights. "
                "Refine them first, by the exact method."
            )
        rows.append(_reweight_row(row, m, prior, noise_factor, gain, ess))
    joined = type(posterior).concatenate(rows)
    return joined[0] if posterior.single else joined


def _reweight_row(
    row: P,
    m: Measurement,
    prior: Prior | None,
    noise_factor: float,
    gain: float | None,
    ess: float,
) -> P:
    assert row.batch_log_weights is not None  # noqa: S101  # checked by the caller
    assert m.box is not None  # noqa: S101  # it was measured
    used = torch.isfinite(row.batch_log_weights[0])
    w = row.batch_w[0, used]
    ratio = torch.zeros(len(w), dtype=torch.float64)
    notes: list[str] = []
    chi2, p_value = m.chi2, m.p_value
    if prior is not None:
        ratio = ratio + prior_ratio(row.batch_samples[0, used], m.box, prior)
        notes.append("reweighted to another prior")
    if noise_factor != 1.0 or gain is not None:
        old, new = _likelihood(row, m, 1.0, None), _likelihood(row, m, noise_factor, gain)
        ratio = ratio + new.log_likelihood_row(0, w) - old.log_likelihood_row(0, w)
        notes.append(_noise_note(noise_factor, gain))
        log_weights = row.batch_log_weights[0, used] + ratio
        density = row.batch_log_prob[0, used] - m.box.log_jacobian(w)
        chi2, p_value = _goodness(new, w, log_weights, log_weights + density)
    galaxy = RefinedGalaxy(
        w=w,
        log_proposal=row.batch_log_prob[0, used],
        log_likelihood=torch.full_like(ratio, math.nan),
        log_weights=row.batch_log_weights[0, used],
        method=m.method,
        log_evidence=m.log_evidence,
        log_evidence_error=m.log_evidence_error,
        ess=m.ess,
    )
    result = reweight(galaxy, ratio, ess)
    independent = m.ess / len(w) if m.method == "mcmc" else 1.0
    size = independent * result.ess
    flags = Flag.without(m.flags, _VERDICTS) | result.flags | (Flag.LOW_ESS if size < ess else 0)
    judged = replace(
        m,
        flags=int(flags),
        ess=size,
        khat=result.khat,
        log_evidence=result.log_evidence,
        log_evidence_error=result.log_evidence_error,
        rivals=None,
        notes=(*m.notes, *notes),
        chi2=chi2,
        p_value=p_value,
    )
    log_weights = row.batch_log_weights.clone()
    log_weights[0, used] = result.log_weights
    moved = replace(row, measurements=[judged], batch_log_weights=log_weights, single=False)
    return _in_box(moved, prior) if isinstance(prior, PriorBox) else moved


def _in_box(row: P, box: PriorBox) -> P:
    """The same draws in the coordinates of a narrower box; those outside weigh nothing."""
    edges = torch.tensor([getattr(box, name) for name in NAMES], dtype=torch.float64)
    w = box.to_normal(row.batch_samples.clamp(edges[:, 0], edges[:, 1]))
    return replace(row, batch_w=w, measurements=[replace(row.measurements[0], box=box)])


def _likelihood(
    row: PosteriorBase, m: Measurement, factor: float, gain: float | None
) -> Likelihood:
    """The likelihood of one galaxy, its noise map multiplied and its gain exchanged."""
    prepared = m.prepared
    assert prepared is not None  # noqa: S101  # it was refined
    s = row.stamps
    mask = s.mask if m.mask is None else torch.from_numpy(np.array(m.mask))[None]
    own = s.gain if gain is None else torch.full_like(s.gain, gain * prepared.scale)
    correlation = torch.full_like(s.noise_correlation, m.noise_correlation)
    stamps = StampBatch(s.image, s.sigma * factor, mask, s.psf, own, s.sky_sigma, correlation)
    return Likelihood(
        stamps,
        [torch.from_numpy(np.asarray(prepared.psf, dtype=np.float64))],
        [prepared.psf_oversampling],
        [prepared.psf_includes_pixel],
        _reference_box(m),
        model_error=m.model_error,
    )


def _reference_box(m: Measurement) -> PriorBox:
    """The prior's box at the reference instrument, from that in the user's units."""
    prepared, box = m.prepared, m.box
    assert prepared is not None  # noqa: S101
    assert box is not None  # noqa: S101
    (x_low, x_high), (y_low, y_high) = box.center_x, box.center_y
    low = prepared.center_from_user(x_low, y_low)
    high = prepared.center_from_user(x_high, y_high)
    factor = REFERENCE_PIXEL_SCALE / prepared.pixel_scale
    return replace(
        box.shifted(magnitude=-instrument.magnitude_shift(prepared), radius_factor=factor),
        center_x=(low[0], high[0]),
        center_y=(low[1], high[1]),
    )


def _noise_note(factor: float, gain: float | None) -> str:
    parts = [f"noise times {factor:g}"] if factor != 1.0 else []
    parts += [f"gain {gain:g} e-/unit"] if gain is not None else []
    return f"reweighted to {' and '.join(parts)}"


def _goodness(
    likelihood: Likelihood, w: Tensor, log_weights: Tensor, log_posterior: Tensor
) -> tuple[float, float]:
    """Chi-square of the best draw and p-value of eight draws, under the new noise."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.softmax(log_weights, 0)
    some = torch.multinomial(weights, 8, replacement=True, generator=generator)
    draws = torch.cat([w[log_posterior.argmax()][None], w[some]])
    chi2 = likelihood.chi_square(0, draws)
    pixels = likelihood.num_pixels[0].cpu().double()
    reduced = chi2[0] / (pixels - w.shape[1]).clamp_min(1.0)
    half = (
        0.5 / likelihood.stamps.noise_correlation[0]
    )  # correlated pixels are fewer than they look
    return float(reduced), float(torch.special.gammaincc(half * pixels, half * chi2[1:]).mean())
