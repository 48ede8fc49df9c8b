"""Between the user's posterior and the exact engine, which knows detector units only."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deeplegato_pp.errors import ConfigError, InputError, NumericalError, RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference import instrument, verdicts
from deeplegato_pp.inference.exact import METHODS, refine_batch
from deeplegato_pp.inference.likelihood import ExactProblem
from deeplegato_pp.inference.posterior import Measurement, Posterior
from deeplegato_pp.inference.refined import RefinedGalaxy
from deeplegato_pp.inference.summary import parameter_summaries
from deeplegato_pp.parameters import CENTER_X, CENTER_Y, NAMES
from deeplegato_pp.stamps import REFERENCE_PIXEL_SCALE

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP
    from deeplegato_pp.preparation import PreparedStamp

logger = logging.getLogger(__name__)

BATCH = 16
"""Galaxies refined together."""

FAINT = 10.0
"""S/N below which the network's posterior is nearly as good as the exact one."""


@dataclass(frozen=True)
class Refiner:
    """One call of :meth:`Predictor.refine`.

    Args:
        model: The network that made the draws.
        device: Where it runs.
        method: ``"exact"`` or ``"laplace"``.
        ess: Effective sample size wanted.
        fixed: Parameters held at a value, in the user's units.
        seed: Of all random numbers.

    Raises:
        ConfigError: If the method is unknown.
        RangeError: If `ess` is not positive, or a name in `fixed` is unknown.
    """

    model: DeepLeGAToPP
    device: torch.device
    method: str = "exact"
    ess: float = 400.0
    fixed: Mapping[str, float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method must be one of {METHODS}, got {self.method!r}.")
        if not self.ess > 0:
            raise RangeError(f"ess must be positive, got {self.ess}.")
        unknown = set(self.fixed or {}) - set(NAMES)
        if unknown:
            raise RangeError(f"Unknown parameters {sorted(unknown)}; the seven are {NAMES}.")

    def __call__(self, posterior: Posterior) -> Posterior:
        """Returns the refined posterior; see :meth:`Predictor.refine`."""
        for m in posterior.measurements:
            if m.measured and m.method != "amortized":
                raise InputError(
                    f"{m.name or 'a galaxy'} has {m.method} draws; refining starts from the "
                    "network's own. Give what Predictor.posterior returned."
                )
        found: list[Posterior | None] = [None] * len(posterior)
        for group in self._groups(posterior):
            for start in range(0, len(group), BATCH):
                rows = group[start : start + BATCH]
                for row, refined in zip(rows, self._refine(posterior[rows]), strict=True):
                    found[row] = replace(refined, single=False)
        rows_left = [
            f if f is not None else replace(posterior[i], single=False) for i, f in enumerate(found)
        ]
        joined = Posterior.concatenate(rows_left)
        return joined[0] if posterior.single else joined

    def _groups(self, posterior: Posterior) -> list[list[int]]:
        """Measured rows, grouped by what the fixed values are at the reference instrument."""
        groups: dict[tuple[float, ...], list[int]] = {}
        for i, m in enumerate(posterior.measurements):
            if m.measured and m.prepared is not None:
                key = tuple(fixed_at_reference(self.fixed or {}, m.prepared).values())
                groups.setdefault(key, []).append(i)
        return list(groups.values())

    def _refine(self, posterior: Posterior) -> Posterior:
        """Refines galaxies with the same fixed values; one that fails keeps the network's draws."""
        try:
            galaxies = self._run(posterior)
        except NumericalError as error:
            if len(posterior) == 1:
                return _unrefined(posterior, error)
            parts = [self._refine(posterior[[i]]) for i in range(len(posterior))]
            return Posterior.concatenate(parts)
        rows = [
            _row(replace(posterior[i], single=False), galaxy, self.model.card)
            for i, galaxy in enumerate(galaxies)
        ]
        return Posterior.concatenate(rows)

    def _run(self, posterior: Posterior) -> list[RefinedGalaxy]:
        stamps = [m.prepared for m in posterior.measurements if m.prepared is not None]
        problem = ExactProblem(
            posterior.stamps,
            [torch.from_numpy(np.asarray(p.psf, dtype=np.float64)) for p in stamps],
            [p.psf_oversampling for p in stamps],
            [p.psf_includes_pixel for p in stamps],
            self.model.prior,
        )
        jacobian = torch.stack(
            [
                m.box.log_jacobian(w)
                for m, w in zip(posterior.measurements, posterior.batch_w, strict=True)
                if m.box is not None
            ]
        )
        with torch.no_grad():
            context = self.model.encode(posterior.stamps.to(self.device))

        def log_prob(rows: Tensor, w: Tensor) -> Tensor:
            with torch.no_grad():
                return self.model.log_prob(context[rows.to(self.device)], w.to(self.device))

        draws = refine_batch(
            problem,
            posterior.batch_w,
            posterior.batch_log_prob - jacobian,
            log_prob,
            method=self.method,
            ess=self.ess,
            fixed=fixed_at_reference(self.fixed or {}, stamps[0]) or None,
            seeds=instrument.content_seeds(posterior.stamps, self.seed),
        )
        return draws.galaxies


def fixed_at_reference(fixed: Mapping[str, float], prepared: PreparedStamp) -> dict[str, float]:
    """Returns fixed values, given in the user's units, at the reference instrument."""
    shift = instrument.magnitude_shift(prepared)
    factor = prepared.pixel_scale / REFERENCE_PIXEL_SCALE
    convert = {
        "magnitude": lambda v: v - shift,
        "effective_radius": lambda v: v / factor,
        "center_x": lambda v: prepared.center_from_user(v, 0.0)[0],
        "center_y": lambda v: prepared.center_from_user(0.0, v)[1],
    }
    return {k: float(convert.get(k, lambda v: v)(float(v))) for k, v in fixed.items()}


def worth_refining(posterior: Posterior) -> list[int]:
    """Returns the galaxies for which refining changes much: the rule ``auto``.

    Those of a median S/N above 10, where the network is far wider than the exact posterior, and
    those whose mean does not fit the image (chi-square more than 5 sigma too large).
    """
    rows = []
    for i, m in enumerate(posterior.measurements):
        if not m.measured or m.prepared is None or m.observation is None:
            continue
        pixels = int((~m.prepared.mask).sum())
        misfit = m.chi2 - 1.0 > 5.0 * math.sqrt(2.0 / pixels)
        if (
            misfit
            or instrument.median_snr(posterior.batch_samples[i], m.prepared, m.psf_fwhm) > FAINT
        ):
            rows.append(i)
    return rows


def _unrefined(posterior: Posterior, error: NumericalError) -> Posterior:
    """Returns the network's draws of one galaxy, marked as not refined."""
    m = posterior.measurements[0]
    logger.info("%s could not be refined: %s", m.name or "a galaxy", error)
    flags = int(m.flags | Flag.LOW_ESS)
    return replace(
        posterior, measurements=[replace(m, flags=flags, reason=f"not refined: {error}")]
    )


def _row(network: Posterior, galaxy: RefinedGalaxy, card: Mapping[str, object]) -> Posterior:
    """Returns one galaxy's refined draws in the user's units, with new verdicts."""
    m = network.measurements[0]
    assert m.box is not None  # noqa: S101  # it was measured
    assert m.prepared is not None  # noqa: S101
    w = galaxy.w
    row = Posterior(
        m.box.to_physical(w)[None],
        w[None],
        (galaxy.log_proposal + m.box.log_jacobian(w))[None],
        [m],
        network.stamps,
        galaxy.log_weights[None],
    )
    return replace(row, measurements=[_judged(row, m, m.prepared, galaxy, card)])


def _judged(
    row: Posterior,
    m: Measurement,
    prepared: PreparedStamp,
    galaxy: RefinedGalaxy,
    card: Mapping[str, object],
) -> Measurement:
    generator = torch.Generator().manual_seed(0)
    equal = galaxy.resample(1000, generator)
    mean = [s.value for s in parameter_summaries(row)]
    center = prepared.center_from_user(mean[CENTER_X], mean[CENTER_Y])
    ranges = card.get("training_ranges")
    flags, notes = verdicts.posterior_flags(
        equal, center, prepared, m.psf_fwhm, ranges if isinstance(ranges, Mapping) else None
    )
    kept = m.flags & ~(Flag.EDGE_OF_PRIOR | Flag.MASKED_CORE)
    if galaxy.masked_pixels:
        notes = (*notes, f"{galaxy.masked_pixels} pixels of neighbours masked")
    return replace(
        m,
        flags=int(kept | flags | galaxy.flags),
        method=galaxy.method,
        ess=galaxy.ess,
        khat=galaxy.khat,
        log_evidence=galaxy.log_evidence,
        log_evidence_error=galaxy.log_evidence_error,
        chi2=galaxy.chi2,
        notes=notes,
    )
