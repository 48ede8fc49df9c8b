"""Quality flags of a result, from draws, image, stamp and model card.

The quality level of each flag (``good``, ``caution``, ``bad``) is defined in
:mod:`~deeplegato_pp.flags`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.background import foreign_light
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.verdict.defects import is_blank, is_saturated
from deeplegato_pp.inference.verdict.goodness import Goodness, goodness
from deeplegato_pp.inference.verdict.psf_limits import psf_limits
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    NAMES,
    POSITION_ANGLE,
    RADIUS,
)
from deeplegato_pp.scene.prior import PriorBox

FAR_OUT = 3.0
"""|w| beyond which a posterior is at the prior's edge for any width (0.1 % from the edge)."""

PIXEL_FWHM_SQUARED = 8.0 * math.log(2.0) / 12.0
"""Increase of the squared FWHM by averaging over a pixel of variance 1/12. [px^2]"""

OUTER_PART = 0.08
"""Fraction of the prior next to an edge in which a posterior can be truncated by it."""

LEANING = 1.5
"""Mean distance from an edge, in standard deviations, below which a posterior is truncated by it.

It is 1 for an exponential fall-off from the edge, 1.3 for half of a normal distribution, and 1.7
for a distribution that is flat up to the edge: below 1.5 the likelihood peaks at the edge or
beyond.
"""

RESOLVED = 4.0
"""R_e relative to the narrowest trained FWHM above which a narrower PSF makes no difference."""

IMPROBABLE = 0.001
"""p-value below which an image is a poor fit, or unfamiliar: one good galaxy in a thousand."""

GROSS_FRACTION = 0.10
"""Fraction of a galaxy's light missed by the model above which the misfit is gross."""

FAR_STEP = 4.0
"""Distance of the best model from the mean that contradicts a posterior. [its sigma]

For seven normal coordinates, one lies beyond it in 0.04 % of galaxies.
"""

FEWEST_DRAWS = 50
"""Minimum number of draws for judging that distance."""

UNSEEN = 3.0
"""Minimum detection: square root of the reduction in chi-square relative to an empty stamp."""

FLAGS = (
    Flag.EDGE_OF_PRIOR
    | Flag.MASKED_CORE
    | Flag.OUTSIDE_TRAINING
    | Flag.POOR_FIT
    | Flag.GROSS_MISFIT
    | Flag.MEAN_OFF
    | Flag.NEIGHBOUR
    | Flag.SATURATED
    | Flag.UNDETECTED
    | Flag.NOISE_MISMATCH
    | Flag.NO_CONTRAST
    | Flag.NOISE_MEASURED
    | Flag.NEIGHBOUR_HELD
    | Flag.MISFIT_HELD
    | Flag.UNRESOLVED
    | Flag.PSF_WINGS
)
"""Flags decided by :func:`judge` and replaced by `held`; a new verdict replaces them."""


@dataclass(frozen=True)
class Verdict:
    """Quality assessment of one row.

    Attributes:
        flags: Sum of the flags among :data:`FLAGS` that are set.
        notes: Remarks on them, as text.
        chi2: Chi-square per degree of freedom at the mean.
        chi2_p: Probability of a misfit as large as the best model's, see
            :attr:`~deeplegato_pp.inference.verdict.goodness.Goodness.p_value`.
        residual_fraction: Residual light divided by the model's, in the galaxy's own pixels.
    """

    flags: int
    notes: tuple[str, ...]
    chi2: float
    chi2_p: float
    residual_fraction: float


@dataclass(frozen=True, eq=False)
class Case:
    """A posterior and its image, to be judged.

    Attributes:
        w: Equally weighted draws in the coordinates in which the prior is N(0, I).
        mean: Mean parameters in the user's units.
        prepared: The stamp.
        box: The prior in the user's units.
        fwhm: FWHM of the effective PSF. [px of the stamp]
        widening: What gives the draws honest widths; None where they are the noise's.
    """

    w: Float[Tensor, "s 7"]
    mean: Float[Tensor, "7"]
    prepared: PreparedStamp
    box: PriorBox
    fwhm: float
    widening: Widening | None = None


def judge(
    cases: Sequence[Case], likelihood: Likelihood, ranges: Mapping[str, Any] | None
) -> list[Verdict]:
    """Assesses posteriors and their images.

    Args:
        cases: Posteriors with their images.
        likelihood: Their likelihood, one row each, with the noise in force.
        ranges: See :func:`outside_training`.
    """
    means = torch.cat([c.box.to_normal(c.mean.double()[None]) for c in cases])
    project = likelihood.coordinates.project
    fits = goodness([project(c.w) for c in cases], project(means), likelihood)
    verdicts = []
    for case, fit in zip(cases, fits, strict=True):
        prepared, mean = case.prepared, case.mean
        center = prepared.center_from_user(float(mean[CENTER_X]), float(mean[CENTER_Y]))
        radius = float(mean[RADIUS]) / prepared.pixel_scale
        flags, notes = posterior_flags(case.w, center, radius, prepared, case.fwhm, ranges)
        limits, limit_notes = psf_limits(
            mean, prepared, case.fwhm, likelihood.model_error, case.widening
        )
        more, remarks = image_flags(fit, prepared, len(case.w))
        every = (*notes, *limit_notes, *remarks)
        total = int(flags | limits | more)
        verdicts.append(Verdict(total, every, fit.chi2, fit.p_value, fit.residual_fraction))
    return verdicts


def image_flags(fit: Goodness, prepared: PreparedStamp, draws: int) -> tuple[int, tuple[str, ...]]:
    """Returns the flags that follow from a posterior's residual, and remarks on them.

    Args:
        fit: Result of :func:`~deeplegato_pp.inference.verdict.goodness.goodness`.
        prepared: The stamp.
        draws: Number of draws of the posterior.
    """
    poor = fit.p_value < IMPROBABLE
    gross = (
        poor
        and fit.residual_fraction > GROSS_FRACTION
        and fit.residual_fraction > 4.0 * fit.residual_error
    )
    good = torch.from_numpy(~prepared.mask)
    found = {
        Flag.POOR_FIT: poor,
        Flag.GROSS_MISFIT: gross,
        Flag.MEAN_OFF: draws >= FEWEST_DRAWS and fit.step > FAR_STEP,
        Flag.NEIGHBOUR: bool(foreign_light(fit.residual, good, fit.inside, fit.granted).any()),
        Flag.SATURATED: is_saturated(prepared, fit.model),
        Flag.UNDETECTED: fit.detection < UNSEEN,
        Flag.NOISE_MISMATCH: bool(fit.noise),
        Flag.NO_CONTRAST: is_blank(prepared),
    }
    notes = list(fit.noise)
    if found[Flag.MEAN_OFF]:
        notes.append(f"the best model lies {fit.step:.1f} sigma from the mean")
    if gross:
        notes.append(f"the residual holds {fit.residual_fraction:.0%} of the model's light")
    return sum(int(flag) for flag, holds in found.items() if holds), tuple(notes)


def edge_parameters(w: Float[Tensor, "s 7"]) -> list[str]:
    """Returns the parameters whose posterior is truncated by an edge of the prior.

    With u the distance from an edge as a fraction of the prior, a posterior is truncated if its
    mean lies within 1.5 of its standard deviations of the edge and in the outer 8 % (an
    unconstrained parameter is not truncated), or if its mean |w| exceeds 3, for any width. A round
    galaxy is not at an edge: only the lower edge of the axis ratio counts.

    Args:
        w: Equally weighted draws in the coordinates in which the prior is N(0, I).

    Returns:
        Names, in the table's order.
    """
    found = []
    for i, name in enumerate(NAMES):
        if i == POSITION_ANGLE:
            continue
        if i == AXIS_RATIO:
            rho2 = (w[:, AXIS_RATIO] ** 2 + w[:, POSITION_ANGLE] ** 2).double()
            below, distance = (-0.5 * rho2).exp(), rho2.sqrt()
            edges = [(below, distance)]
        else:
            column = w[:, i].double()
            edges = [(torch.special.ndtr(s * column), -s * column) for s in (1.0, -1.0)]
        if any(_leans(u, out) for u, out in edges):
            found.append(name)
    return found


def _leans(u: Tensor, outward: Tensor) -> bool:
    mean = float(u.mean())
    far = float(outward.mean()) > FAR_OUT
    return far or (mean < OUTER_PART and mean < LEANING * float(u.std(correction=0)))


def core_is_masked(w_center: tuple[float, float], prepared: PreparedStamp, fwhm: float) -> bool:
    """Returns whether a pixel within half a FWHM (at least 1.5 px) of the centre is masked.

    Args:
        w_center: Column and row of the galaxy's centre from the stamp's. [px of the stamp]
        prepared: The stamp.
        fwhm: FWHM of the PSF. [px of the stamp]
    """
    size = prepared.mask.shape[0]
    axis = np.arange(size) - (size - 1) / 2
    distance2 = (axis - w_center[0]) ** 2 + (axis[:, None] - w_center[1]) ** 2
    return bool(prepared.mask[distance2 < max(1.5, 0.5 * fwhm) ** 2].any())


def outside_training(
    prepared: PreparedStamp, fwhm: float, radius: float, ranges: Mapping[str, Any] | None
) -> list[str]:
    """Returns properties of the instrument outside the ranges of the network's training.

    Args:
        prepared: The stamp.
        fwhm: FWHM of the effective PSF. [px of the stamp]
        radius: Mean R_e; for a galaxy far larger than the narrowest trained PSF, a narrower PSF is
            acceptable, as in binned stamps. [px of the stamp]
        ranges: (lower, upper) by name, as in the model's card: ``psf_fwhm`` before the pixel's
            broadening [px], ``gain`` [electrons per background sigma], ``sky_sigma`` [background
            sigma], ``noise_correlation``, and one number, ``smallest_stamp``, the visible side
            [px]; None or a missing name disables the check. A missing gain is never outside.

    Returns:
        One remark per quantity.
    """
    optical = math.sqrt(max(fwhm**2 - PIXEL_FWHM_SQUARED, 0.0))
    found = {
        "psf_fwhm": optical,
        "gain": prepared.gain,
        "sky_sigma": prepared.sky_sigma,
        "noise_correlation": prepared.noise_correlation,
    }
    remarks = []
    for name, value in found.items():
        bounds = (ranges or {}).get(name)
        if bounds is None or not math.isfinite(value):
            continue
        lower, upper = (float(b) for b in bounds)
        if name == "psf_fwhm" and value < lower < radius / RESOLVED:
            continue
        if not 0.97 * lower <= value <= 1.03 * upper:  # the FWHM is accurate to a few per cent
            remarks.append(f"{name} {value:.3g} outside the trained {lower:.3g} to {upper:.3g}")
    side, smallest = _visible_side(prepared), (ranges or {}).get("smallest_stamp")
    if smallest is not None and side < smallest:
        remarks.append(f"{side} px visible, fewer than the trained {smallest:g}")
    return remarks


def _visible_side(prepared: PreparedStamp) -> int:
    """Returns the shorter side of the rectangle about all unmasked pixels."""
    good = ~prepared.mask
    spans = [np.flatnonzero(good.any(axis)) for axis in (0, 1)]
    return min(int(span[-1] - span[0]) + 1 if len(span) else 0 for span in spans)


def posterior_flags(
    w: Float[Tensor, "s 7"],
    center: tuple[float, float],
    radius: float,
    prepared: PreparedStamp,
    fwhm: float,
    ranges: Mapping[str, Any] | None,
) -> tuple[int, tuple[str, ...]]:
    """Returns the flags that follow from draws, stamp and card, and remarks on them.

    Args:
        w: Equally weighted draws, with shape (S, 7).
        center: Column and row of the mean centre from the stamp's. [px of the stamp]
        radius: Mean R_e. [px of the stamp]
        prepared: The stamp.
        fwhm: FWHM of the effective PSF. [px of the stamp]
        ranges: See :func:`outside_training`.
    """
    flags, notes = 0, []
    edges = edge_parameters(w)
    if edges:
        flags |= Flag.EDGE_OF_PRIOR
        notes.append(f"at the edge of the prior: {', '.join(edges)}")
    outside = outside_training(prepared, fwhm, radius, ranges)
    if outside:
        flags |= Flag.OUTSIDE_TRAINING
        notes += outside
    if core_is_masked(center, prepared, fwhm):
        flags |= Flag.MASKED_CORE
    return int(flags), tuple(notes)
