"""Recalibration of the quantiles of a network's posteriors with simulations.

If 10 % of the simulations' true values lie below the draws' 7 % quantile, this quantile is a better
estimate of the 10 % quantile. Draws are moved accordingly, for each parameter separately.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.diagnostics.ranks import check_ranks
from deeplegato_pp.errors import FormatError, InputError, ShapeError
from deeplegato_pp.inference.posterior.covariates import class_edges, class_of, of_posterior
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS
from deeplegato_pp.stats.circular import angular_difference, circular_mean

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.posterior import Posterior
    from deeplegato_pp.scene.prior import PriorBox


SCORES: tuple[float, ...] = tuple(0.25 * i for i in range(-12, 13))
"""Scores at which the map is stored, in Gaussian standard deviations: 0.13 % to 99.87 %."""

FEWEST_GALAXIES = 500
"""Minimum number of galaxies per class; smaller classes use the map of all galaxies."""

FEWEST_BEYOND = 10
"""Minimum number of galaxies beyond a quantile; otherwise it is extrapolated."""

SLOPES = (0.2, 5.0)
"""Bounds of the extrapolated slope; beyond them, the network should be retrained."""

METHOD = "recalibrated"
"""Method name of recalibrated draws."""


@dataclass(frozen=True, eq=False)
class Recalibration:
    r"""Monotonic maps of each parameter's posterior probabilities, by class of a covariate.

    A map converts the score z of a nominal level :math:`\Phi(z)` to the score of the draws'
    quantile below which that fraction of the true values lies.

    Attributes:
        maps: Mapped scores at `SCORES`, with shape (C, 7, K).
        edges: Edges of the C classes, ascending.
        covariate: Covariate of the classes, as named by
            :func:`~deeplegato_pp.inference.posterior.covariates.of_posterior`; "" for one class.
        galaxies: Number of simulations in each class.

    References:
        | Accurate uncertainties for deep learning using calibrated regression
        | (Kuleshov, Fenner & Ermon, 2018), https://arxiv.org/abs/1807.00263
        | Distributional conformal prediction (Chernozhukov, Wüthrich & Zhu, 2021)
        | https://arxiv.org/abs/1909.07889
    """

    maps: Float[Array, "c 7 k"]
    edges: tuple[float, ...] = (-math.inf, math.inf)
    covariate: str = ""
    galaxies: tuple[int, ...] = (0,)

    @classmethod
    def fit(
        cls,
        ranks: Float[Array, "b 7"],
        draws: int,
        covariate: str = "",
        values: Float[Array, "b"] | None = None,
        edges: tuple[float, ...] | None = None,
    ) -> Recalibration:
        """Fits the maps to simulations that the network was not trained on.

        The effect should be tested on other simulations than these.

        Args:
            ranks: Ranks from :func:`~deeplegato_pp.diagnostics.truth_ranks`, with shape (B, 7).
            draws: Number of draws per galaxy behind the ranks, S.
            covariate: Covariate of the classes, e.g. ``"snr"``; "" for one class.
            values: Covariate of each galaxy, from its posterior, with shape (B,).
            edges: Edges of the classes; if None, fixed classes for S/N, else deciles.

        Raises:
            ShapeError: If the shapes do not agree.
            InputError: If ranks do not lie in [0, 1], or only one of name and values is given.
        """
        ranks = check_ranks(ranks)
        check_positive_integer(draws, "draws")
        if ranks.ndim != 2 or ranks.shape[1] != len(NAMES):
            raise ShapeError(f"ranks must have shape (B, 7), got {ranks.shape}.")
        if bool(covariate) != (values is not None):
            raise InputError("a covariate needs both its name and its values, got one of them.")
        everything = _map_of(ranks, draws)
        if values is None:
            return cls(everything[None], galaxies=(len(ranks),))
        values = np.asarray(values, dtype=np.float64)
        if values.shape != ranks.shape[:1]:
            raise ShapeError(f"values must have shape ({len(ranks)},), got {values.shape}.")
        edges = class_edges(covariate, values) if edges is None else tuple(edges)
        number = class_of(values, edges)
        counts = np.bincount(number, minlength=len(edges) - 1)
        maps = [
            _map_of(ranks[number == i], draws) if count >= FEWEST_GALAXIES else everything
            for i, count in enumerate(counts)
        ]
        return cls(np.stack(maps), edges, covariate, tuple(counts.tolist()))

    def apply(
        self,
        samples: Float[Array, "b s 7"],
        values: Float[Array, "b"] | None = None,
        boxes: list[PriorBox] | None = None,
    ) -> Float[Array, "b s 7"]:
        """Returns draws moved to their new quantiles.

        The order of a galaxy's draws is preserved, and with it correlations. Draws stay inside the
        prior's box; angles are moved about their circular mean.

        Args:
            samples: Equally weighted draws in physical units, with shape (B, S, 7).
            values: Covariate of each galaxy, with shape (B,); not needed for one class.
            boxes: Prior box of each galaxy; None for the default box.

        Raises:
            ShapeError: If the shapes do not agree.
            InputError: If the covariate is missing.
        """
        samples = np.array(samples, dtype=np.float64)
        if samples.ndim != 3 or samples.shape[2] != len(NAMES):
            raise ShapeError(f"samples must have shape (B, S, 7), got {samples.shape}.")
        if boxes is not None and len(boxes) != len(samples):
            raise ShapeError(f"{len(samples)} galaxies came with {len(boxes)} prior boxes.")
        number = self._class_numbers(values, len(samples))
        for j, p in enumerate(PARAMETERS):
            if p.period is not None:
                center = circular_mean(samples[..., j], p.period)[:, None]
                low, high = -0.5 * p.period, 0.5 * p.period
                turned = angular_difference(samples[..., j] - center, p.period)
                moved = self._moved(turned, low, high, number, j)
                samples[..., j] = (center + moved) % p.period
                continue
            bounds = [p.bounds if boxes is None else getattr(b, p.name) for b in boxes or samples]
            low, high = np.array(bounds).T[..., None]
            if p.scale == "log":
                column = self._moved(np.log(samples[..., j]), np.log(low), np.log(high), number, j)
                samples[..., j] = np.clip(np.exp(column), low, high)
            else:
                samples[..., j] = self._moved(samples[..., j], low, high, number, j)
        return samples

    def apply_to(self, posterior: Posterior) -> Posterior:
        """Returns a network's posterior with recalibrated draws, marked in ``method``.

        The density of moved draws is unknown: their ``log_prob`` is NaN. Galaxies that were not
        measured are unchanged.

        Raises:
            InputError: If draws are not the network's own, or have weights.
        """
        rows = [i for i, m in enumerate(posterior.measurements) if m.measured]
        if any(posterior.measurements[i].method != "amortized" for i in rows) or (
            posterior.batch_log_weights is not None
        ):
            raise InputError(
                "only a network's own draws can be recalibrated, got refined or moved ones. "
                "Refined posteriors are exact and need no recalibration."
            )
        if not rows:
            return posterior
        part = posterior[rows]
        values = of_posterior(part)[self.covariate] if self.covariate else None
        boxes = [_known_box(m.box) for m in part.measurements]
        moved = torch.from_numpy(self.apply(part.batch_samples.numpy(), values, boxes))
        samples, w, log_prob = (
            t.clone()
            for t in (posterior.batch_samples, posterior.batch_w, posterior.batch_log_prob)
        )
        measurements = list(posterior.measurements)
        for row, draws, box in zip(rows, moved, boxes, strict=True):
            samples[row], w[row], log_prob[row] = draws, box.to_normal(draws), math.nan
            measurements[row] = replace(measurements[row], method=METHOD)
        return replace(
            posterior,
            batch_samples=samples,
            batch_w=w,
            batch_log_prob=log_prob,
            measurements=measurements,
        )

    # --- on disk ------------------------------------------------------------------------------

    def save(self, path: str | Path, weights: str = "") -> Path:
        """Writes the maps as JSON, atomically.

        Args:
            path: Output file.
            weights: Digest of the network's weights; empty if unknown.
        """
        content = {
            "weights": weights,
            "format": 1,
            "covariate": self.covariate,
            "edges": [e if math.isfinite(e) else None for e in self.edges],
            "galaxies": list(self.galaxies),
            "scores": list(SCORES),
            "maps": {name: self.maps[:, j].round(6).tolist() for j, name in enumerate(NAMES)},
        }
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        part.replace(path)
        return path

    @classmethod
    def load(cls, path: str | Path, weights: str = "") -> Recalibration:
        """Reads maps written by `save`.

        Args:
            path: The file.
            weights: Required digest of the weights; empty for no check.

        Raises:
            FormatError: If the file is missing or damaged, or for another version or other weights.
        """
        try:
            content = json.loads(Path(path).read_text())
            if weights and content.get("weights", "") not in ("", weights):
                raise ValueError("it was fitted to other weights")
            maps = np.stack([np.array(content["maps"][name], float) for name in NAMES], axis=1)
            edges = tuple(_edge(e, i == 0) for i, e in enumerate(content["edges"]))
            found = cls(maps, edges, str(content["covariate"]), tuple(content["galaxies"]))
            expected = (len(edges) - 1, len(NAMES), len(SCORES))
            if tuple(content["scores"]) != SCORES or maps.shape != expected:
                raise ValueError(f"maps have shape {maps.shape}, expected {expected}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{path} cannot be read as a recalibration: {error}. "
                "Make a new one with deeplegato calibrate."
            ) from error
        return found

    # --- the map ------------------------------------------------------------------------------

    def _class_numbers(self, values: Array | None, batch: int) -> Int[Array, " b"]:
        if not self.covariate:
            return np.zeros(batch, dtype=np.int64)
        if values is None or np.shape(values) != (batch,):
            raise InputError(
                f"this recalibration goes by {self.covariate}: give one value per galaxy, "
                f"shape ({batch},), got {None if values is None else np.shape(values)}."
            )
        return class_of(np.asarray(values, dtype=np.float64), self.edges)

    def _moved(
        self, draws: Float[Array, "b s"], low: Any, high: Any, number: Int[Array, "b"], j: int
    ) -> Float[Array, "b s"]:
        """Moves one parameter's draws between two bounds, in an unbounded coordinate."""
        free = ndtri(np.clip((draws - low) / (high - low), 1e-15, 1.0 - 1e-15))
        order = np.argsort(free, axis=1, kind="stable")
        ordered = np.take_along_axis(free, order, 1)
        moved = np.empty_like(free)
        for i in np.unique(number):
            moved[number == i] = _at_new_scores(ordered[number == i], self.maps[i, j])
        np.put_along_axis(free, order, moved, 1)
        return np.clip(low + (high - low) * ndtr(free), low, high)


def _map_of(ranks: Float[Array, "b 7"], draws: int) -> Float[Array, "7 k"]:
    """Returns the map of one class, extrapolated linearly where it is not measured."""
    number, scores = len(ranks), np.array(SCORES)
    found = ndtri(np.clip(np.quantile(ranks, ndtr(scores), axis=0).T, 1e-9, 1.0 - 1e-9))
    finest = -ndtri(min(1.5 / (draws + 1.0), 0.3))
    outermost = -ndtri(min(FEWEST_BEYOND / number, 0.3))
    known = (np.abs(scores) <= outermost) & (np.abs(found) <= finest)
    for row, good in zip(found, known, strict=True):
        index = np.flatnonzero(good)
        if len(index) < 2:
            row[:] = scores
            continue
        row[:] = _continued(scores, scores[index], row[index])
    return found


def _at_new_scores(ordered: Float[Array, "b s"], map_: Float[Array, " k"]) -> Float[Array, "b s"]:
    """Returns each row's quantile function at the mapped scores of its draws."""
    number = ordered.shape[1]
    if number == 1:
        return ordered
    own = ndtri((np.arange(number) + 0.5) / number)
    new = _continued(own, np.array(SCORES), map_)
    right = np.clip(np.searchsorted(own, new), 1, number - 1)
    part = np.clip((new - own[right - 1]) / (own[right] - own[right - 1]), 0.0, 1.0)
    inside = ordered[:, right - 1] * (1.0 - part) + ordered[:, right] * part
    quarter = max(1, number // 6)  # tails are extrapolated with the slope of the outer sixth
    below = (ordered[:, quarter] - ordered[:, 0]) / (own[quarter] - own[0])
    above = (ordered[:, -1] - ordered[:, -1 - quarter]) / (own[-1] - own[-1 - quarter])
    inside += below[:, None] * np.minimum(new - own[0], 0.0)
    inside += above[:, None] * np.maximum(new - own[-1], 0.0)
    return inside


def _continued(at: Array, x: Float[Array, " k"], y: Float[Array, " k"]) -> Array:
    """Interpolates y linearly; beyond the knots with the slope of the last unit."""
    inner = np.interp(at, x, y)
    first = int(np.searchsorted(x, min(x[0] + 1.0, x[-1])))
    last = int(np.searchsorted(x, max(x[-1] - 1.0, x[0])))
    low = np.clip((y[first] - y[0]) / (x[first] - x[0]), *SLOPES)
    high = np.clip((y[-1] - y[last]) / (x[-1] - x[last]), *SLOPES)
    return np.asarray(inner + low * np.minimum(at - x[0], 0.0) + high * np.maximum(at - x[-1], 0.0))


def _edge(value: Any, first: bool) -> float:
    if value is None:
        return -math.inf if first else math.inf
    return float(value)


def _known_box(box: PriorBox | None) -> PriorBox:
    if box is None:
        raise InputError("a measured galaxy lacks its prior box: it cannot be recalibrated.")
    return box
