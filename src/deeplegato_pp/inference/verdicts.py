"""What a result must not keep to itself: flags that follow from draws, stamp and model card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.flags import Flag
from deeplegato_pp.parameters import (
    AXIS_RATIO,
    NAMES,
    POSITION_ANGLE,
)
from deeplegato_pp.preparation import PreparedStamp

FAR_OUT = 3.0
"""|w| beyond which a posterior is at the prior's edge whatever its width (0.1 % from the edge)."""

PIXEL_FWHM_SQUARED = 8.0 * math.log(2.0) / 12.0
"""What averaging over a pixel, of variance 1/12, adds to the square of a FWHM. [px^2]"""

OUTER_PART = 0.15
"""Part of the prior next to an edge in which a posterior can lean on it."""


def edge_parameters(w: Float[Tensor, "s 7"]) -> list[str]:
    """Returns the parameters whose posterior leans on an edge of the prior.

    With u the distance from an edge as a fraction of the prior, a posterior leans on that edge if
    its mean lies within two of its standard deviations (one that piles up there has 1, one that is
    flat up to it 1.7) and in the outer 15 %, since a parameter of which nothing is known leans on
    nothing; or if its mean |w| exceeds 3, however narrow it is. A round galaxy is at no edge: only
    the lower one of the axis ratio counts.

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
    return far or (mean < OUTER_PART and mean < 2.0 * float(u.std(correction=0)))


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
    prepared: PreparedStamp, fwhm: float, ranges: Mapping[str, Any] | None
) -> list[str]:
    """Returns what of the instrument lies outside the ranges that the network was trained on.

    Args:
        prepared: The stamp.
        fwhm: FWHM of the effective PSF. [px of the stamp]
        ranges: (lower, upper) by name, as in the model's card: ``psf_fwhm`` before the pixel's
            broadening [px], ``gain`` [electrons per background sigma], ``sky_sigma`` [background
            sigma]; None or a missing name says nothing. A gain that is not given cannot lie
            outside.

    Returns:
        One remark per quantity.
    """
    optical = math.sqrt(max(fwhm**2 - PIXEL_FWHM_SQUARED, 0.0))
    found = {"psf_fwhm": optical, "gain": prepared.gain, "sky_sigma": prepared.sky_sigma}
    remarks = []
    for name, value in found.items():
        bounds = (ranges or {}).get(name)
        if bounds is None or not math.isfinite(value):
            continue
        lower, upper = (float(b) for b in bounds)
        if not 0.97 * lower <= value <= 1.03 * upper:  # a FWHM is measured to some per cent
            remarks.append(f"{name} {value:.3g} outside the trained {lower:.3g} to {upper:.3g}")
    return remarks


def posterior_flags(
    w: Float[Tensor, "s 7"],
    center: tuple[float, float],
    prepared: PreparedStamp,
    fwhm: float,
    ranges: Mapping[str, Any] | None,
) -> tuple[int, tuple[str, ...]]:
    """Returns the flags of a measurement, and remarks on them.

    Args:
        w: Equally weighted draws, with shape (S, 7).
        center: Column and row of the mean centre from the stamp's. [px of the stamp]
        prepared: The stamp.
        fwhm: FWHM of the effective PSF. [px of the stamp]
        ranges: See :func:`outside_training`.
    """
    flags, notes = 0, []
    edges = edge_parameters(w)
    if edges:
        flags |= Flag.EDGE_OF_PRIOR
        notes.append(f"at the edge of the prior: {', '.join(edges)}")
    outside = outside_training(prepared, fwhm, ranges)
    if outside:
        flags |= Flag.OUTSIDE_TRAINING
        notes += outside
    if core_is_masked(center, prepared, fwhm):
        flags |= Flag.MASKED_CORE
    return int(flags), tuple(notes)
