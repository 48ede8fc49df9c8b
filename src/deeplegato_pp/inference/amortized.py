"""Posteriors from one pass of the network: prepared stamps to draws with diagnostics."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from deeplegato_pp.errors import InputError, NumericalError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.measurement import Measured, as_measured
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.inference.verdict import verdict as verdicts
from deeplegato_pp.inference.verdict.novelty import Novelty
from deeplegato_pp.isolation import isolated, reason_of
from deeplegato_pp.observation import binning
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import PreparedStamp, prepare
from deeplegato_pp.scene import units
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import RADIUS
from deeplegato_pp.scene.stamps import StampBatch

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

logger = logging.getLogger(__name__)


class Pending(NamedTuple):
    """A galaxy to be measured: its index in the list, and its stamp."""

    place: int
    observation: Observation
    prepared: PreparedStamp


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A galaxy's draws at one binning."""

    prepared: PreparedStamp
    stamps: StampBatch
    w: Tensor
    log_q: Tensor
    ood: float = math.nan
    ood_p: float = math.nan


@dataclass(frozen=True)
class AmortizedMeasurer:
    """One call of :meth:`Predictor.posterior`.

    Args:
        model: The network.
        device: Device of the network.
        name: Name and version of the network, for tables.
        novelty: Distribution of its features on training images; None if unknown.
    """

    model: DeepLeGAToPP
    device: torch.device
    name: str
    novelty: Novelty | None = None

    def measure(
        self,
        pending: list[Pending],
        num_samples: int,
        seed: int | Sequence[int],
        batch_size: int,
    ) -> Iterator[tuple[int, Posterior]]:
        """Yields each galaxy's index and posterior row, in the order in which they are finished.

        Galaxies too large for the stamp are binned and measured again, until they fit or cannot be
        binned further.

        Args:
            pending: Galaxies to measure.
            num_samples: Draws per galaxy.
            seed: Random seed of the draws; a sequence is indexed by the galaxy's index.
            batch_size: Number of galaxies per forward pass.
        """
        for round_ in range(binning.MAX_ROUNDS + 1):
            again = []
            for start in range(0, len(pending), batch_size):
                part = pending[start : start + batch_size]
                own = seed if isinstance(seed, int) else [seed[p.place] for p in part]
                drawn = self._draw([p.prepared for p in part], num_samples, own)
                measured: list[tuple[Pending, _Drawn]] = []
                for one, result in zip(part, drawn, strict=True):
                    if isinstance(result, Exception):
                        yield one.place, self.failed(one.observation, result, num_samples)
                        continue
                    try:
                        coarser = self._coarser(one.observation, result)
                    except Exception as error:  # any error becomes this galaxy's reason
                        yield one.place, self.failed(one.observation, error, num_samples)
                        continue
                    if coarser is not None and round_ < binning.MAX_ROUNDS:
                        again.append(one._replace(prepared=coarser))
                    else:
                        measured.append((one, result))
                yield from self._finish(measured)
            pending = again

    def _draw(
        self, prepared: list[PreparedStamp], num_samples: int, seed: int | Sequence[int]
    ) -> list[_Drawn | Exception]:
        """Draws for one batch; if it fails, each stamp is tried alone."""

        def together(rows: Sequence[int]) -> list[_Drawn | Exception]:
            seeds = seed if isinstance(seed, int) else [seed[i] for i in rows]
            return list(self._drawn([prepared[i] for i in rows], num_samples, seeds))

        return isolated(range(len(prepared)), together, lambda _, error: error)

    def _drawn(
        self, prepared: list[PreparedStamp], num_samples: int, seed: int | Sequence[int]
    ) -> list[_Drawn]:
        stamps = units.stamp_batch(prepared)
        seeds = units.content_seeds(stamps, seed)
        with torch.no_grad():
            context = self.model.encode(stamps.to(self.device))
            w, log_q = self.model.sample(context, num_samples, seeds)
        w, log_q = w.double().cpu(), log_q.double().cpu()
        ood, ood_p = self._unfamiliarity(context, len(prepared))
        return [
            _Drawn(p, stamps[slice(i, i + 1)], w[i], log_q[i], ood[i], ood_p[i])
            for i, p in enumerate(prepared)
        ]

    def _unfamiliarity(self, context: Any, number: int) -> tuple[list[float], list[float]]:
        """Returns distances of features from training images; NaN without a reference."""
        if self.novelty is None:
            return [math.nan] * number, [math.nan] * number
        score = self.novelty.score(context.features.cpu())
        return score.tolist(), self.novelty.p_value(score).tolist()

    def _median_radius(self, drawn: _Drawn) -> float:
        """Returns the posterior median R_e. [px of the stamp]"""
        box = units.user_box(self.model.prior, drawn.prepared)
        # R_e is a monotonic function of its coordinate, so medians correspond.
        middle = drawn.w.median(0, keepdim=True).values
        return float(box.to_physical(middle)[0, RADIUS]) / drawn.prepared.pixel_scale

    def _coarser(self, observation: Observation, drawn: _Drawn) -> PreparedStamp | None:
        """Returns the binned stamp on which to measure a large galaxy again, if needed."""
        current = drawn.prepared.bin
        factor = binning.next_bin(self._median_radius(drawn), current, observation.shape)
        if factor == current:
            return None
        try:
            return prepare(observation, self.model.image_size, bin=factor)
        except InputError:  # every binned pixel is masked
            return None

    def _finish(self, measured: list[tuple[Pending, _Drawn]]) -> Iterator[tuple[int, Posterior]]:
        """Builds galaxies' rows: physical units, flags, goodness of fit."""
        good = []
        for one, drawn in measured:
            if bool(torch.isfinite(drawn.w).all() and torch.isfinite(drawn.log_q).all()):
                good.append((one, drawn))
            else:
                error = NumericalError("the network's draws are not finite. Mask bad pixels.")
                yield one.place, self.failed(one.observation, error, len(drawn.w))
        if good:
            yield from isolated(
                good,
                self._rows,
                lambda pair, error: (
                    pair[0].place,
                    self.failed(pair[0].observation, error, len(pair[1].w)),
                ),
            )

    def _rows(self, good: Sequence[tuple[Pending, _Drawn]]) -> list[tuple[int, Posterior]]:
        """Builds the rows of galaxies whose draws are finite."""
        rows = [self._row(one.observation, drawn) for one, drawn in good]
        found = verdicts.judge(
            [_case(row, drawn) for row, (_, drawn) in zip(rows, good, strict=True)],
            Likelihood.of([drawn.prepared for _, drawn in good], self.model.prior),
            self.model.card.get("training_ranges"),
        )
        return [
            (one.place, replace(row, measurements=[self._judged(row, drawn, verdict)]))
            for (one, drawn), row, verdict in zip(good, rows, found, strict=True)
        ]

    def _row(self, observation: Observation, drawn: _Drawn) -> Posterior:
        """Builds the row of one galaxy, without diagnostics."""
        prepared = drawn.prepared
        box = units.user_box(self.model.prior, prepared)
        measurement = Measured(
            name=observation.name,
            flags=int(prepared.flags),
            method="amortized",
            model=self.name,
            psf_fwhm=units.effective_fwhm(prepared),
            observation=observation,
            prepared=prepared,
            box=box,
            noise_correlation=prepared.noise_correlation,
            correlation=prepared.correlation,
            psf_error=prepared.psf_error,
            psf_reference=tuple(box.to_physical(drawn.w.mean(0, keepdim=True))[0].tolist()),
        )
        samples = box.to_physical(drawn.w)
        return Posterior(
            samples[None],
            drawn.w[None],
            (drawn.log_q + box.log_jacobian(drawn.w, samples))[None],
            [measurement],
            drawn.stamps,
        )

    def _judged(self, row: Posterior, drawn: _Drawn, verdict: verdicts.Verdict) -> Measurement:
        """Adds the diagnostics that follow from a galaxy's draws."""
        measurement = row.measurements[0]
        flags = measurement.flags | verdict.flags
        radius = row.batch_samples[0][:, RADIUS] / drawn.prepared.pixel_scale
        if float(radius.median()) > binning.LARGEST_RADIUS:
            flags |= Flag.TOO_LARGE
        if drawn.ood_p < verdicts.IMPROBABLE:
            flags |= Flag.UNFAMILIAR
        return replace(
            measurement,
            flags=int(flags),
            notes=verdict.notes,
            chi2=verdict.chi2,
            chi2_p=verdict.chi2_p,
            ood=drawn.ood,
            ood_p=drawn.ood_p,
        )

    def failed(self, item: Any, error: Exception, num_samples: int) -> Posterior:
        """Returns the row of a galaxy that cannot be measured: NaN draws, with the reason."""
        observation = item if isinstance(item, Observation) else None
        name, flags = ("", 0) if observation is None else (observation.name, observation.flags)
        reason = reason_of(error)
        logger.info("%s could not be measured: %s", name or "a galaxy", reason)
        measurement = Measurement(
            name=name,
            flags=int(flags),
            reason=reason,
            model=self.name,
            observation=observation,
        )
        return Posterior.failed(measurement, num_samples, self.model.image_size)


def _case(row: Posterior, drawn: _Drawn) -> verdicts.Case:
    """Returns the posterior and image to be judged."""
    m = as_measured(row.measurements[0])
    mean = torch.tensor([s.value for s in parameter_summaries(row)], dtype=torch.float64)
    return verdicts.Case(drawn.w, mean, drawn.prepared, m.box, m.psf_fwhm)
