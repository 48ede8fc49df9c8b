"""Emulation of a galaxy's log posterior by linear combinations of a few rendered images.

Some tens of a proposal's draws are rendered so that the images of the other draws are linear
combinations of theirs (`inference.fit.span`). The accuracy is verified: ln L is compared with that
of further rendered draws, and the emulator is used only if they agree, and only for draws that are
as close to the span or too improbable to matter.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.inference.fit.span import ImageSpan, Reference, spanning
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.prior import W_MAX

TOLERANCE = 0.03
"""Largest RMS error of ln L at the relevant draws checked: random errors of 3 % in the weights,
which cost a thousandth of the effective sample size."""

WORST = 0.15
"""Largest error of ln L at any relevant draw."""

MATTERS = 12.0
"""Draws whose log posterior is farther below the best one (e^-12 of its weight) matter little: an
error of a tenth of that distance is accepted."""

NODES = 32
"""Initial number of rendered images."""

MORE_NODES = 40
"""Number of images added at a time, until all relevant draws are close to the span."""

MOST_NODES = 180
"""Maximum number of images; beyond it, all draws are rendered."""

CHECKS = 16
"""Number of draws at which the emulated ln L is compared with that of rendered images."""

_DISTANCE = 0.05
"""Initial tolerance for the distance from the span, which is of the order of the error of ln L.
[sigmas of the noise]"""

_MARGIN = 0.5
"""Emulated draws whose log posterior exceeds the best rendered one by more are rendered."""

_FEWEST = 2 * (NODES + CHECKS)
"""Minimum number of draws for emulation."""

_FEW = 24
"""Maximum number of draws off the span that are rendered instead of extending the span."""


class InterpolatedTarget:
    """The log posterior of one galaxy at a proposal's draws, with as few renders as possible.

    Args:
        batches: Renders of the galaxies.
        row: Index of the galaxy.
        u: Coordinates of an image near the best one, with shape (F,).
        image: That image, with shape (N, N).

    Attributes:
        span: Span of rendered images, once it is accurate enough.
    """

    def __init__(
        self, batches: Batches, row: int, u: Float[Tensor, " f"], image: Float[Tensor, "n n"]
    ) -> None:
        self.batches, self.likelihood, self.row = batches, batches.likelihood, row
        self.dtype = self.likelihood.needed_dtype(row)
        self.reference = Reference(self.likelihood, row, u, image)
        self.features = self.reference.own.new_empty(0, len(self.reference.own))
        self.images = image.new_empty(0, image.numel(), dtype=torch.float32)
        self.values = torch.empty(0, dtype=torch.float64)
        self.span: ImageSpan | None = None
        self.given_up = False
        self.limit, self.best = 0.0, -math.inf

    def __call__(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln L + ln prior, with shape (S,); -inf beyond |u| = 8."""
        value = torch.full((len(u),), -torch.inf, dtype=torch.float64)
        inside = (u.abs() <= W_MAX).all(-1)
        if bool(inside.any()):
            value[inside] = self._inside(u[inside])
        return value

    def _inside(self, u: Tensor) -> Tensor:
        log_prior = self.likelihood.coordinates.log_prior(u)
        if self.given_up or (self.span is None and len(u) < _FEWEST):
            return self._render(u)[0] + log_prior
        draws = _Draws(u, log_prior, self.reference.features(u))
        if self.span is None:
            nearest = (draws.features**2).sum(1).argsort()[: max(_FEWEST, len(u) // 2)]
            self._learn(draws, nearest)
        elif int((off := self._off_the_span(draws)).sum()) > _FEW:
            self._learn(draws, off.nonzero()[:, 0])
        if self.span is not None:
            off = self._off_the_span(draws) & draws.value.isnan()
            left = draws.value.isnan() & ~off
            draws.value[left] = draws.predicted[left]
        unknown = draws.value.isnan().nonzero()[:, 0]
        if len(unknown):
            draws.value[unknown] = self._render(u[unknown])[0] + log_prior[unknown]
            self.best = max(self.best, float(draws.value[unknown].max()))
        return draws.value

    def _off_the_span(self, draws: _Draws) -> Bool[Tensor, " s"]:
        """Returns which draws cannot be emulated."""
        assert self.span is not None  # noqa: S101  # asked only where there is one
        draws.predict(self.span)
        far = (draws.distance > self.limit) & draws.may_matter(self.best)
        # Predictions above every rendered value are checked by rendering.
        return far | (draws.predicted > self.best + _MARGIN)

    def _learn(self, draws: _Draws, among: Tensor) -> None:
        """Renders draws until the others can be predicted, or too many renders are needed."""
        span, goal, number = self.span, _DISTANCE, NODES
        if span is None and len(self.features):
            span = self._spanned()
        self.span = None
        while len(self.features) <= MOST_NODES and int(draws.value.isnan().sum()) >= CHECKS:
            found = spanning(
                draws.features[among], None if span is None else span.directions, number, goal
            )
            if len(found):
                self._add(draws, among[torch.tensor(found)])
            span = self._spanned()
            draws.predict(span)
            number = MORE_NODES
            matters = draws.may_matter(self.best) & draws.value.isnan()
            among = (matters & (draws.distance > goal)).nonzero()[:, 0]
            # Where no node is found, what is left of the distances is rounding.
            if len(found) and len(among) and len(self.features) + number <= MOST_NODES:
                continue
            if self._check(draws):
                self.span = span
                return
            among, goal = (matters & draws.value.isnan()).nonzero()[:, 0], 0.5 * goal
        self.given_up = len(self.features) > MOST_NODES

    def _spanned(self) -> ImageSpan:
        matter = self.best - self.values < MATTERS
        return ImageSpan.of(self.reference, self.features, self.images, matter)

    def _check(self, draws: _Draws) -> bool:
        """Compares predictions with renders at relevant draws; the rendered draws become nodes."""
        matter = draws.value.isnan() & (self.best - draws.predicted < MATTERS)
        rows = matter.nonzero()[:, 0]
        if len(rows) < CHECKS:
            rows = draws.value.isnan().nonzero()[:, 0]
            rows = rows[draws.predicted[rows].argsort(descending=True)[:CHECKS]]
        rows = rows[_spread(len(rows))[:CHECKS]]
        self._add(draws, rows)
        found = draws.value[rows]
        below = self.best - found
        seen = torch.where(below < MATTERS, draws.distance[rows], 0.0)
        self.limit = max(_DISTANCE, float(seen.max()))
        return _serves(draws.predicted[rows] - found, below)

    def _add(self, draws: _Draws, rows: Tensor) -> None:
        value, images = self._render(draws.u[rows])
        draws.value[rows] = value + draws.log_prior[rows]
        self.best = max(self.best, float(draws.value[rows].max()))
        change = (images.double() - self.reference.image).flatten(1).float()
        self.images = torch.cat([self.images, change])
        self.features = torch.cat([self.features, draws.features[rows]])
        self.values = torch.cat([self.values, draws.value[rows]])

    def _render(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ln L and images at points."""
        self.batches.count(torch.full((len(u),), self.row), u)
        with torch.no_grad():
            images = self.likelihood.render(self.row, u, self.dtype)
        return self.likelihood.log_likelihood_of(self.row, images), images


class _Draws:
    """Points with their known and predicted values.

    Attributes:
        value: Log posterior where known, NaN elsewhere.
        predicted: Log posterior of the linear combination of images.
        distance: Distance of the images from the span. [sigmas of the noise]
    """

    def __init__(self, u: Tensor, log_prior: Tensor, features: Tensor) -> None:
        self.u, self.log_prior, self.features = u, log_prior, features
        self.value = torch.full((len(u),), torch.nan, dtype=torch.float64)
        self.predicted = self.distance = self.value

    def predict(self, span: ImageSpan) -> None:
        shares, self.distance = span.shares(self.features)
        self.predicted = span.log_likelihood(shares) + self.log_prior

    def may_matter(self, best: float) -> Bool[Tensor, " s"]:
        """Returns which draws are probable enough to matter, allowing for prediction errors."""
        below = (best - self.predicted).clamp_min(0.0)
        return below - self.distance * (1.0 + (2.0 * below).sqrt()) < MATTERS


def _serves(error: Float[Tensor, " c"], below: Float[Tensor, " c"]) -> bool:
    """Returns whether errors of ln L are acceptable for draws this far below the best one."""
    near = below < MATTERS
    if not bool(near.any()):
        return False
    typical = float(error[near].square().mean().sqrt())
    worst = torch.where(near, WORST, 0.1 * below)
    return typical < TOLERANCE and bool((error.abs() < worst).all())


def _spread(count: int) -> Tensor:
    """Returns a fixed permutation of 0 to count - 1 whose neighbours lie far apart."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))
