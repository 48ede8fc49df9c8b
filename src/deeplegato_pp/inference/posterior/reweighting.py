"""An exact posterior under another prior, noise or gain, from the draws already made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import NumericalError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import INDEX, NAMES, PARAMETERS
from deeplegato_pp.scene.prior import PriorBox

Range = Sequence[float | str]
"""A new prior's range: (lower, upper), or (lower, upper, "linear" or "log")."""

Prior = PriorBox | Mapping[str, Range] | Callable[[Tensor], Tensor]
"""A new prior, see :func:`prior_ratio`."""

_VERDICTS = int(Flag.LOW_ESS | Flag.HIGH_KHAT)


def reweight(
    galaxy: RefinedGalaxy, log_ratio: Float[Tensor, " s"], ess_wanted: float = 100.0
) -> RefinedGalaxy:
    """Returns a galaxy whose weights are multiplied by a ratio, judged anew.

    The effective size and k-hat say whether the draws carry the change; where they do not, the
    flags `low_ess` and `high_khat` are set and the galaxy is to be refined under the new prior.

    Args:
        galaxy: Exact posterior of one galaxy.
        log_ratio: Log of new over old density (normalised, for the evidence to stay one), (S,).
        ess_wanted: Effective size below which `low_ess` is set.

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
        added = 1.0 / result.ess - 1.0 / max(galaxy.ess, 1.0)
        result.log_evidence_error = math.sqrt(galaxy.log_evidence_error**2 + max(added, 0.0))
    return result


def prior_ratio(physical: Float[Tensor, "s 7"], old: PriorBox, new: Prior) -> Float[Tensor, " s"]:
    """Returns the log of the new prior's density over the old box's, at physical parameters.

    Args:
        physical: Draws in the old box's units, with shape (S, 7).
        old: Box under which they were made.
        new: A box inside the old one; or ranges by name, ``(lower, upper)`` or
            ``(lower, upper, scale)`` with the scale ``"linear"`` or ``"log"`` in which the new
            prior is flat (the parameter's own if left out; names left out keep their prior); or a
            function from physical parameters (S, 7) to the new prior's normalised log-density per
            unit of each parameter (S,).

    Raises:
        RangeError: If a new range reaches beyond the old one, where there are no draws, or a name
            or scale is unknown.
        ShapeError: If the function does not return one number per draw.
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
    """Log of new over old prior, parameter by parameter: under both they are independent."""
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
    """Returns lower bound, upper bound and scale of a new range, or says what is wrong with it."""
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
    """Log-density of a prior flat in the parameter or in its logarithm, inside its range."""
    if scale == "log":
        return -value.log() - math.log(math.log(upper / lower))
    return torch.full_like(value, -math.log(upper - lower))


def _log_density(box: PriorBox, physical: Tensor) -> Tensor:
    """The box's prior per mag, arcsec, degree, ..., at draws a rounding error may put outside."""
    lower = torch.tensor([getattr(box, name)[0] for name in NAMES], dtype=torch.float64)
    upper = torch.tensor([getattr(box, name)[1] for name in NAMES], dtype=torch.float64)
    w = box.to_normal(physical.double().clamp(lower, upper))
    return box.log_prior(w) + box.log_jacobian(w)


def reweight_to(
    galaxy: RefinedGalaxy, likelihood: Likelihood, row: int, ess_wanted: float = 100.0
) -> RefinedGalaxy:
    """Returns a galaxy under another likelihood (noise, gain, mask, PSF), its draws rendered anew.

    Args:
        galaxy: Exact posterior of one galaxy.
        likelihood: The new data and noise, with the same prior and coordinates.
        row: Which galaxy of it.
        ess_wanted: Effective size below which `low_ess` is set.
    """
    u = likelihood.coordinates.project(galaxy.w)  # type: ignore[attr-defined]
    log_l = likelihood.log_likelihood_row(row, u)
    change = log_l - galaxy.log_likelihood
    # A draw without density before has none after: -inf - (-inf) is no number.
    change = torch.where(torch.isfinite(galaxy.log_weights), change, 0.0)
    result = reweight(galaxy, change, ess_wanted)
    result.log_likelihood = log_l
    return result
