"""Container of weighted posterior draws for one galaxy or many, with one record per galaxy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.attributes import GalaxyAttributes
from deeplegato_pp.inference.posterior.measurement import Measurement
from deeplegato_pp.scene.parameters import NUM_PARAMETERS
from deeplegato_pp.scene.stamps import PSF_GRID, StampBatch
from deeplegato_pp.stats import weighted as statistics


@dataclass(frozen=True, eq=False)
class PosteriorBase(GalaxyAttributes):
    """Posterior draws of one galaxy or of many: arrays, records and sequence methods.

    The functions behind :class:`~deeplegato_pp.inference.Posterior` (summaries, residuals,
    reweighting, tables, figures) take this class, to avoid circular imports.

    For a single galaxy (`single`), arrays have no batch axis and lists are replaced by their only
    entry. A galaxy that could not be measured keeps its row: its draws are NaN, its flags include
    ``FAILED``, and its reason is given.

    Args:
        batch_samples: Draws in the user's physical units, with shape (B, S, 7), float64, CPU.
        batch_w: The same draws in coordinates with prior N(0, I), with shape (B, S, 7).
        batch_log_prob: Log-density of the proposal at the draws, in physical units (per mag,
            arcsec, ...), with shape (B, S).
        measurements: Measurement records, one per galaxy.
        stamps: Input stamps of the network, in detector units, one row per galaxy.
        batch_log_weights: Logarithms of unnormalised weights, with shape (B, S), -inf in padding;
            None for equal weights.
        single: Whether this is one galaxy, without batch axis.
        batch_noise_w: Draws under the stated noise alone, in w, with shape (B, S, 7), if `batch_w`
            holds draws moved to honest widths; None otherwise. Weights, evidence and reweighting
            refer to them: see :meth:`under_noise`.
        batch_noise_log_prob: Log-density of the proposal at those draws, with shape (B, S).

    Raises:
        ShapeError: If the shapes do not agree.
    """

    batch_samples: Float[Tensor, "b s 7"]
    batch_w: Float[Tensor, "b s 7"]
    batch_log_prob: Float[Tensor, "b s"]
    measurements: list[Measurement]
    stamps: StampBatch
    batch_log_weights: Float[Tensor, "b s"] | None = None
    single: bool = field(default=False)
    batch_noise_w: Float[Tensor, "b s 7"] | None = None
    batch_noise_log_prob: Float[Tensor, "b s"] | None = None

    def __post_init__(self) -> None:
        batch, draws = self.batch_samples.shape[:2]
        shapes = {
            "batch_samples": (self.batch_samples, (batch, draws, NUM_PARAMETERS)),
            "batch_w": (self.batch_w, (batch, draws, NUM_PARAMETERS)),
            "batch_log_prob": (self.batch_log_prob, (batch, draws)),
            "batch_log_weights": (self.batch_log_weights, (batch, draws)),
            "batch_noise_w": (self.batch_noise_w, (batch, draws, NUM_PARAMETERS)),
            "batch_noise_log_prob": (self.batch_noise_log_prob, (batch, draws)),
        }
        for name, (array, expected) in shapes.items():
            if array is not None and tuple(array.shape) != expected:
                raise ShapeError(f"{name} has shape {expected}, got {tuple(array.shape)}.")
        if not batch == len(self.measurements) == len(self.stamps):
            raise ShapeError(
                f"{batch} rows of draws, {len(self.measurements)} measurements and "
                f"{len(self.stamps)} stamps do not belong together."
            )
        if self.single and batch != 1:
            raise ShapeError(f"a single posterior has one row, got {batch}.")

    # --- arrays -------------------------------------------------------------------------------

    @property
    def samples(self) -> Tensor:
        """Draws in the user's physical units, (B, S, 7) or (S, 7), in the table's order."""
        return self.batch_samples[0] if self.single else self.batch_samples

    @property
    def w(self) -> Tensor:
        """Draws in the coordinates in which the prior is N(0, I), (B, S, 7) or (S, 7)."""
        return self.batch_w[0] if self.single else self.batch_w

    @property
    def log_prob(self) -> Tensor:
        """Log-density of the proposal at the draws, in physical units, (B, S) or (S,)."""
        return self.batch_log_prob[0] if self.single else self.batch_log_prob

    @property
    def log_weights(self) -> Tensor | None:
        """Logarithms of unnormalised weights, (B, S) or (S,); None if all are equal."""
        if self.batch_log_weights is None:
            return None
        return self.batch_log_weights[0] if self.single else self.batch_log_weights

    def under_noise(self) -> Self:
        """Returns the draws under the stated noise alone, before widening.

        Weights, evidence and `log_prob` refer to these draws. A posterior whose draws were not
        widened is returned unchanged.
        """
        if self.batch_noise_w is None or self.batch_noise_log_prob is None:
            return self
        rows = [
            samples if m.box is None else m.box.to_physical(w)
            for samples, w, m in zip(
                self.batch_samples, self.batch_noise_w, self.measurements, strict=True
            )
        ]
        return replace(
            self,
            batch_samples=torch.stack(rows),
            batch_w=self.batch_noise_w,
            batch_log_prob=self.batch_noise_log_prob,
            batch_noise_w=None,
            batch_noise_log_prob=None,
        )

    def widened(self) -> Self:
        """Returns the draws moved to the honest widths of each measurement.

        Galaxies whose ``widening`` is None keep their draws. Draws that were already moved are
        moved again from their original values, so that changed weights change their centres.
        """
        if all(m.widening is None for m in self.measurements):
            return self
        still = self.under_noise()
        rows, samples, densities = [], [], []
        for i, m in enumerate(still.measurements):
            w, density = still.batch_w[i], still.batch_log_prob[i]
            physical = still.batch_samples[i]
            if m.widening is not None and m.box is not None:
                weights = still.batch_log_weights
                moved, log_det = m.widening.move(w, None if weights is None else weights[i])
                before = m.box.log_jacobian(w, physical)
                w, physical = moved, m.box.to_physical(moved)
                density = density - before - log_det + m.box.log_jacobian(w, physical)
            rows.append(w)
            samples.append(physical)
            densities.append(density)
        return replace(
            still,
            batch_samples=torch.stack(samples),
            batch_w=torch.stack(rows),
            batch_log_prob=torch.stack(densities),
            batch_noise_w=still.batch_w,
            batch_noise_log_prob=still.batch_log_prob,
        )

    # --- as a sequence ------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.measurements)

    def __getitem__(self, index: int | slice | Sequence[int]) -> Self:
        """Returns one galaxy (an integer), or several (a slice or a list of integers)."""
        single = isinstance(index, int | np.integer)
        rows = self._rows([index] if single else index)
        pick = torch.tensor(rows, dtype=torch.long)
        weights = self.batch_log_weights
        return type(self)(
            self.batch_samples[pick],
            self.batch_w[pick],
            self.batch_log_prob[pick],
            [self.measurements[i] for i in rows],
            self.stamps[pick],
            None if weights is None else weights[pick],
            single,
            None if self.batch_noise_w is None else self.batch_noise_w[pick],
            None if self.batch_noise_log_prob is None else self.batch_noise_log_prob[pick],
        )

    def _rows(self, index: Any) -> list[int]:
        if isinstance(index, slice):
            return list(range(len(self)))[index]
        rows = [int(i) for i in index]
        for i in rows:
            if not -len(self) <= i < len(self):
                raise IndexError(f"galaxy {i} of {len(self)}")
        return [i % len(self) for i in rows]

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def failed(cls, measurement: Measurement, draws: int, image_size: int) -> Self:
        """Builds the row of a galaxy that could not be measured: NaN draws, empty stamp.

        Args:
            measurement: Name, flags and reason; ``FAILED`` is added to the flags.
            draws: Number of draws of the row.
            image_size: Side of the stamps of the other rows. [px]
        """
        unseen = torch.zeros(1, image_size, image_size)
        psf = torch.zeros(1, PSF_GRID, PSF_GRID)
        psf[:, PSF_GRID // 2, PSF_GRID // 2] = 1.0
        infinite = torch.full((1,), math.inf)
        empty = torch.ones_like(unseen, dtype=torch.bool)
        zero = torch.zeros(1)
        stamps = StampBatch(unseen, unseen + 1.0, empty, psf, infinite, zero, zero + 1.0)
        samples = torch.full((1, draws, NUM_PARAMETERS), math.nan, dtype=torch.float64)
        flagged = replace(measurement, flags=int(measurement.flags | Flag.FAILED))
        return cls(samples, samples.clone(), samples[..., 0].clone(), [flagged], stamps)

    @classmethod
    def concatenate(cls, posteriors: Sequence[Self]) -> Self:
        """Concatenates posteriors; rows with fewer draws are padded with weights of -inf.

        Raises:
            InputError: If the sequence is empty.
        """
        if not posteriors:
            raise InputError("there is no posterior to join: give at least one.")
        draws = max(p.batch_samples.shape[1] for p in posteriors)
        weighted = any(
            p.batch_log_weights is not None or p.batch_samples.shape[1] < draws for p in posteriors
        )
        moved = any(p.batch_noise_w is not None for p in posteriors)
        padded = [p._padded(draws, weighted) for p in posteriors]
        weights = [p.batch_log_weights for p in padded if p.batch_log_weights is not None]
        return cls(
            torch.cat([p.batch_samples for p in padded]),
            torch.cat([p.batch_w for p in padded]),
            torch.cat([p.batch_log_prob for p in padded]),
            [m for p in padded for m in p.measurements],
            StampBatch.concatenate([p.stamps for p in padded]),
            torch.cat(weights) if weighted else None,
            batch_noise_w=torch.cat([p._noise_draws()[0] for p in padded]) if moved else None,
            batch_noise_log_prob=torch.cat([p._noise_draws()[1] for p in padded])
            if moved
            else None,
        )

    def _noise_draws(self) -> tuple[Tensor, Tensor]:
        """Returns the draws under the stated noise, in w, and the proposal's log-density."""
        if self.batch_noise_w is None or self.batch_noise_log_prob is None:
            return self.batch_w, self.batch_log_prob
        return self.batch_noise_w, self.batch_noise_log_prob

    def _padded(self, draws: int, weighted: bool) -> Self:
        """Pads rows to `draws` draws by repeating the first draw with zero weight."""
        weights = self.batch_log_weights
        if weights is None and weighted:
            weights = torch.zeros_like(self.batch_log_prob)
        missing = draws - self.batch_samples.shape[1]
        if missing == 0 or weights is None:
            return replace(self, batch_log_weights=weights)

        def repeat(array: Tensor) -> Tensor:
            return torch.cat([array, array[:, :1].expand(-1, missing, *array.shape[2:])], 1)

        pad = torch.full((len(self), missing), -math.inf, dtype=torch.float64)
        return replace(
            self,
            batch_samples=repeat(self.batch_samples),
            batch_w=repeat(self.batch_w),
            batch_log_prob=repeat(self.batch_log_prob),
            batch_log_weights=torch.cat([weights, pad], 1),
            batch_noise_w=None if self.batch_noise_w is None else repeat(self.batch_noise_w),
            batch_noise_log_prob=None
            if self.batch_noise_log_prob is None
            else repeat(self.batch_noise_log_prob),
        )

    # --- what users read ----------------------------------------------------------------------

    def weights(self, row: int = 0) -> Float[np.ndarray, " s"] | None:
        """Returns one galaxy's weights, with sum 1 and shape (S,); None for equal weights."""
        if self.batch_log_weights is None:
            return None
        return statistics.normalised_weights(self.batch_log_weights[row].numpy())

    def draws(self, number: int, seed: int = 0) -> Tensor:
        """Returns equally weighted draws, resampled from the weighted draws.

        Unweighted draws are returned unchanged if there are enough; otherwise, and for weighted
        draws, they are resampled with repetition: `ess` is the number of independent draws.

        Args:
            number: Number of draws per galaxy.
            seed: Random seed of the resampling.

        Returns:
            Physical parameters, with shape (B, number, 7), or (number, 7) for a single galaxy.

        Raises:
            RangeError: If `number` is not positive.
        """
        picked = [s[i] for s, i in zip(self.batch_samples, self.choose(number, seed), strict=True)]
        stacked = torch.stack(picked)
        return stacked[0] if self.single else stacked

    def choose(self, number: int, seed: int = 0) -> list[Int[Tensor, " n"]]:
        """Returns the indices of equally weighted draws, one array per galaxy; see :meth:`draws`.

        Raises:
            RangeError: If `number` is not positive.
        """
        if number < 1:
            raise RangeError(f"the number of draws must be at least 1, got {number}.")
        length = self.batch_samples.shape[1]
        rows = []
        for i in range(len(self)):
            weights = self.weights(i)
            if weights is None and number <= length:
                rows.append(torch.arange(number))
                continue
            if weights is None:
                weights = np.full(length, 1.0 / length)
            generator = np.random.default_rng([seed, i])
            rows.append(torch.from_numpy(statistics.resample(weights, number, generator)))
        return rows
