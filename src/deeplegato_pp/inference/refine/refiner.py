"""Refinement in the user's units: conversion to and from the exact engine's detector units."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deeplegato_pp.checks import check_choice, check_model_error, check_psf_error
from deeplegato_pp.errors import ConfigError, InputError, RangeError, ShapeError
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.inference.posterior.draws import RefinedDraws
from deeplegato_pp.inference.posterior.measurement import Hypotheses, Measured, as_measured
from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.posterior.scene_record import SceneRecord
from deeplegato_pp.inference.refine.centre_box import Moved, centred
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.evidence import STAR_ODDS, check_odds, compare
from deeplegato_pp.inference.refine.evidence_beside import compare_beside
from deeplegato_pp.inference.refine.options import METHODS, RefineOptions
from deeplegato_pp.inference.refine.rows import (
    as_drawn,
    hypotheses_of,
    in_force,
    refined_row,
    unrefined,
    with_scene,
)
from deeplegato_pp.inference.refine.scenes import check_scene, compare_scenes
from deeplegato_pp.inference.refine.together import refine_member
from deeplegato_pp.isolation import isolated, raise_if_of_the_machine, reason_of
from deeplegato_pp.observation.correlation_inputs import GivenCorrelation, parse_noise_correlation
from deeplegato_pp.scene import units
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.scene.units import reference_values

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

logger = logging.getLogger(__name__)

BATCH = 16
"""Number of galaxies refined together."""

Fixed = float | Sequence[float] | np.ndarray
"""Fixed value: one for all galaxies, or one per galaxy."""

POINT_PARAMETERS = {"magnitude", "center_x", "center_y"}
"""Parameters shared with a point source; if one is fixed, the two hypotheses are not compared."""


@dataclass(frozen=True)
class Refiner:
    """One call of :meth:`Predictor.refine`.

    Args:
        model: Network that made the draws.
        device: Device of the network.
        method: ``"exact"`` or ``"laplace"``.
        ess: Required effective sample size.
        fixed: Values of fixed parameters, in the user's units: a number for all galaxies, or one
            per galaxy.
        seed: Random seed; a sequence holds one per galaxy.
        star_odds: Prior odds of a point source against a galaxy; None for no comparison.
        noise_correlation: Correlation of the stamps' noise: variance of sums over many pixels
            relative to independent pixels, the correlation at each lag, a file of lags, or
            ``"drizzle:SCALE,PIXFRAC"``; None for each observation's own.
        model_error: Model error as a fraction of the model image.
        widths: ``"honest"`` or ``"noise"``.
        scene: One of :data:`~deeplegato_pp.inference.refine.scenes.CHOICES`.
        neighbours: Neighbours to be fitted with each galaxy, one entry per galaxy, None for none.
        psf_error: Relative error of the PSFs' widths; None for each observation's own.

    Raises:
        ConfigError: If the method or scene is unknown, or a scene of several components is
            requested with fixed parameters.
        InputError: If the kind of widths is unknown.
        RangeError: If `ess` or `star_odds` is not positive, `model_error` lies outside [0, 1], or a
            name in `fixed` is unknown.
    """

    model: DeepLeGAToPP
    device: torch.device
    method: str = "exact"
    ess: float = 400.0
    fixed: Mapping[str, Fixed] | None = None
    seed: int | Sequence[int] = 0
    star_odds: float | None = STAR_ODDS
    noise_correlation: GivenCorrelation | None = None
    model_error: float = MODEL_ERROR
    widths: str = "honest"
    scene: str = "sersic"
    neighbours: Sequence[Neighbours | None] | None = None
    psf_error: float | None = None

    def __post_init__(self) -> None:
        if self.noise_correlation is not None:
            known = parse_noise_correlation(self.noise_correlation)
            if isinstance(known, str):
                raise InputError(
                    f"refining takes the noise's correlation itself, got {known!r}. Give that to "
                    "the observation, or a number, lags or drizzle:SCALE,PIXFRAC here."
                )
        if self.method not in METHODS:
            raise ConfigError(f"method must be one of {METHODS}, got {self.method!r}.")
        check_choice(self.widths, WIDTHS, "widths")
        check_model_error(self.model_error)
        check_scene(self.scene, bool(self.fixed))
        if not self.ess > 0:
            raise RangeError(f"ess must be positive, got {self.ess}.")
        if self.psf_error is not None:
            check_psf_error(self.psf_error)
        if self.star_odds is not None:
            check_odds(self.star_odds)
        unknown = set(self.fixed or {}) - set(NAMES)
        if unknown:
            raise RangeError(f"Unknown parameters {sorted(unknown)}; the seven are {NAMES}.")

    def __call__(self, posterior: Posterior) -> Posterior:
        """Returns the refined posterior; see :meth:`Predictor.refine`."""
        posterior = self._beside(as_drawn(posterior))
        for m in posterior.measurements:
            if m.measured and m.method != "amortized":
                raise InputError(
                    f"{m.name or 'a galaxy'} has {m.method} draws; refining starts from the "
                    "network's own. Give what Predictor.posterior returned."
                )
        found: list[Posterior | None] = [None] * len(posterior)
        for fixed, group in self._groups(posterior):
            for start in range(0, len(group), BATCH):
                rows = group[start : start + BATCH]
                own = self.seed if isinstance(self.seed, int) else [self.seed[i] for i in rows]
                result = self._refine(posterior[rows], own, fixed)
                for row, refined in zip(rows, result, strict=True):
                    found[row] = replace(refined, single=False)
        rows_left = [
            f if f is not None else replace(posterior[i], single=False) for i, f in enumerate(found)
        ]
        joined = Posterior.concatenate(rows_left)
        return joined[0] if posterior.single else joined

    def _beside(self, posterior: Posterior) -> Posterior:
        """Attaches to each galaxy the neighbours to be fitted with it."""
        if self.neighbours is None:
            return posterior
        if len(self.neighbours) != len(posterior):
            raise ShapeError(
                f"neighbours have one entry per galaxy, {len(posterior)}, got "
                f"{len(self.neighbours)}. Give None for a galaxy that stands alone."
            )
        pairs = zip(posterior.measurements, self.neighbours, strict=True)
        return replace(posterior, measurements=[replace(m, neighbours=n) for m, n in pairs])

    def _groups(self, posterior: Posterior) -> list[tuple[dict[str, float], list[int]]]:
        """Groups measured rows by fixed values and prior at the reference instrument.

        A galaxy with neighbours has its own coordinates, and therefore a group of its own.
        """
        groups: dict[tuple[float, ...], tuple[dict[str, float], list[int]]] = {}
        values = per_galaxy(self.fixed or {}, len(posterior))
        for i, m in enumerate(posterior.measurements):
            if isinstance(m, Measured):
                fixed = reference_values(values[i], m.prepared)
                alone = () if m.neighbours is None else (float(i),)
                box = centred(self.model.prior, m.prepared)
                key = (*fixed.values(), *box.center_x, *box.center_y, *alone)
                groups.setdefault(key, (fixed, []))[1].append(i)
        return list(groups.values())

    def _refine(
        self, posterior: Posterior, seed: int | Sequence[int], fixed: dict[str, float]
    ) -> Posterior:
        """Refines galaxies with the same fixed values; failed ones keep the network's draws."""

        def together(rows: Sequence[int]) -> list[Posterior]:
            own = seed if isinstance(seed, int) else [seed[i] for i in rows]
            return self._rows(posterior[list(rows)], own, fixed)

        def failed(i: int, error: Exception) -> Posterior:
            if isinstance(error, InputError | ConfigError):
                raise error  # the request itself is invalid, for every galaxy
            return unrefined(posterior[[i]], error)

        return Posterior.concatenate(isolated(range(len(posterior)), together, failed))

    def _rows(
        self, posterior: Posterior, seed: int | Sequence[int], fixed: dict[str, float]
    ) -> list[Posterior]:
        draws = self._run(posterior, seed, fixed)
        compared = self._hypotheses(posterior, draws, seed, fixed)
        records = self._scenes(posterior, draws, seed)
        rows = []
        for i, (galaxy, hypotheses) in enumerate(zip(draws.galaxies, compared, strict=True)):
            m = in_force(as_measured(posterior.measurements[i]), draws.likelihood, i, fixed)
            row = refined_row(posterior[[i]], galaxy, m, self.model.card, hypotheses)
            noted = [with_scene(m, records[i]) for m in row.measurements]
            rows.append(replace(row, measurements=noted))
        return rows

    def _scenes(
        self, posterior: Posterior, draws: RefinedDraws, seed: int | Sequence[int]
    ) -> Sequence[SceneRecord | None]:
        """Compares each galaxy with hypotheses of several components, if requested."""
        if self.scene == "sersic":
            return [None] * len(posterior)
        stamps = [as_measured(m).prepared for m in posterior.measurements]
        seeds = units.content_seeds(posterior.stamps, seed)
        return compare_scenes(
            draws,
            stamps,
            self.scene,
            [int(s) for s in seeds],
            honest=self.widths == "honest",
            method=self.method,
        )

    def _hypotheses(
        self,
        posterior: Posterior,
        draws: RefinedDraws,
        seed: int | Sequence[int],
        fixed: dict[str, float],
    ) -> list[Hypotheses | None]:
        """Compares each galaxy with point source and blank sky, where possible."""
        star_odds = self._odds(fixed)
        if self.method != "exact" or star_odds is None:
            return [None] * len(posterior)
        seeds = units.content_seeds(posterior.stamps, seed)
        try:
            if isinstance(draws.likelihood.coordinates, Member):
                comparison = compare_beside(draws, star_odds)
            else:
                comparison = compare(draws, odds=star_odds, seeds=seeds)
        except Exception as error:
            if len(posterior) > 1:
                raise  # each galaxy is then tried alone, so that the others are not lost
            raise_if_of_the_machine(error)
            logger.info("no comparison with a point source: %s", reason_of(error))
            return [None]
        return [
            hypotheses_of(comparison, i, galaxy, draws.likelihood.box, as_measured(m).prepared)
            for i, (galaxy, m) in enumerate(
                zip(draws.galaxies, posterior.measurements, strict=True)
            )
        ]

    def _odds(self, fixed: dict[str, float]) -> float | None:
        """Returns the prior odds of a point source; None if no comparison is made."""
        return None if POINT_PARAMETERS & set(fixed) else self.star_odds

    def _run(
        self, posterior: Posterior, seed: int | Sequence[int], fixed: dict[str, float]
    ) -> RefinedDraws:
        stamps = [as_measured(m).prepared for m in posterior.measurements]
        moved = Moved(self.model.prior, centred(self.model.prior, stamps[0]))
        likelihood = Likelihood.of(stamps, moved.new, model_error=self.model_error)
        correlation = self.noise_correlation
        known = None if correlation is None else parse_noise_correlation(correlation)
        assert not isinstance(known, str)  # noqa: S101  # refused at the start
        likelihood = likelihood.replace(noise_correlation=known, psf_error=self.psf_error)
        seeds = units.content_seeds(posterior.stamps, seed)
        options = RefineOptions(star_odds=self._odds(fixed), honest=self.widths == "honest")
        jacobian = torch.stack(
            [
                as_measured(m).box.log_jacobian(w)
                for m, w in zip(posterior.measurements, posterior.batch_w, strict=True)
            ]
        )
        w, log_q = moved.to_new(posterior.batch_w, posterior.batch_log_prob - jacobian)
        neighbours = posterior.measurements[0].neighbours
        if neighbours is not None:  # a batch of one
            return refine_member(
                likelihood,
                stamps[0],
                w[0].mean(0),
                neighbours,
                draws=posterior.batch_w.shape[1],
                method=self.method,
                ess=self.ess,
                fixed=fixed or None,
                seed=int(seeds[0]),
                options=replace(options, star_odds=None),
            )
        with torch.no_grad():
            context = self.model.encode(posterior.stamps.to(self.device))

        def log_prob(rows: Tensor, w: Tensor) -> Tensor:
            old, change = moved.to_old(w)
            with torch.no_grad():
                found = self.model.log_prob(context[rows.to(self.device)], old.to(self.device))
            return found + change.to(found)

        return refine_batch(
            likelihood,
            w,
            log_q,
            log_prob,
            method=self.method,
            ess=self.ess,
            fixed=fixed or None,
            seeds=seeds,
            options=options,
        )


def per_galaxy(fixed: Mapping[str, Fixed], number: int) -> list[dict[str, float]]:
    """Returns the fixed values of each galaxy.

    Args:
        fixed: Values by name, a number for all galaxies or a sequence with one per galaxy.
        number: Number of galaxies.

    Raises:
        ShapeError: If the number of values is not the number of galaxies.

    Example:
        >>> per_galaxy({"sersic_index": 4.0, "center_x": [0.5, -0.5]}, 2)[1]
        {'sersic_index': 4.0, 'center_x': -0.5}
    """
    columns = {}
    for name, value in fixed.items():
        try:
            column = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(
                f"fixed {name} takes one number, or one per galaxy, got {value!r}."
            ) from None
        if column.shape not in ((), (number,)):
            raise ShapeError(
                f"fixed {name} takes one number, or one per galaxy ({number}), got an array of "
                f"shape {column.shape}."
            )
        columns[name] = np.broadcast_to(column, (number,))
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(number)]
