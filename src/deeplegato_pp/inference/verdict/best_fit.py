"""Best-fitting models within posteriors, at which residuals are judged, for many galaxies.

The network's mean is not the optimum: for a bright galaxy its posterior is a hundred times wider
than that of the pixels, so the model at its mean may deviate by hundreds of sigma even if nothing
is wrong. A mean that does not fit is therefore first moved, within the posterior, to the best fit
(`inference.fit` with the posterior as prior, and a model error of 1 %), where the residual is
judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.inference.fit.background import block_sums
from deeplegato_pp.inference.fit.fit import GaussianPrior, Stop, fit
from deeplegato_pp.inference.fit.neighbours import INNER_RADIUS
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.correlated_noise import block_scatter, independent_share
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.render.sersic_profile import ellipse_form

MODEL_FLOOR = 0.01
"""Relative model error that is tolerated: no galaxy is a Sérsic profile to a per cent."""

MISFITS = ("core", "blocks", "patches", "sky")
"""Names of the misfit statistics, see :class:`Goodness`."""

SKY_FLOOR = 0.05
"""Sky offset that is tolerated, however well it is said to be known. [sigma]"""

BLOCKS = (4, 16)
"""Sides of the blocks over which residuals are summed. [px]"""

_GOOD_ENOUGH = 2.5
"""Means with all misfits below this are not moved. [standard deviations]"""

_STOP = Stop(tolerance=0.3, iterations=8, derivatives=2, longest_step=4.0)
"""Stopping criteria: half a sigma is sufficient. Derivatives are computed at most twice and updated
by secants in between."""

_SINGLE_PRECISION = 1e4
"""Brightest pixel up to which models are rendered in float32. [background sigma]"""


class BestFits:
    """Galaxies' models, moved from the posterior means to the best fits.

    Rows are indices of galaxies, with shape (R,); results are in their order. Every galaxy must be
    evaluated first.

    Args:
        w: Equally weighted draws of each galaxy, in the likelihood's coordinates.
        likelihood: Likelihood of the galaxies.

    Attributes:
        likelihood: The same with a relative model error of at least 1 %.
        good: True for unmasked pixels, with shape (B, N, N), like all images.
        data: Images. [background sigma]
        center: Means of the posteriors, with shape (B, F).
        width: Standard deviations of the posteriors, with shape (B, F).
        w: Coordinates of the models, with shape (B, F).
        model: Images of the models. [background sigma]
        weight: Inverse of the variance under the models; 0 where masked.
        residual: (data - model - templates)/sigma, including the model error in sigma; 0 where
            masked.
        sky_deviation: Deviation of the best skies from zero, in standard deviations under their
            priors, with shape (B,).
        batches: Renders of the galaxies.
    """

    def __init__(self, w: Sequence[Tensor], likelihood: Likelihood) -> None:
        floor = math.hypot(likelihood.model_error, MODEL_FLOOR)
        self.likelihood = likelihood.replace(model_error=floor)
        self.coordinates = likelihood.coordinates
        self.good, self.data = ~likelihood.stamps.mask, likelihood.stamps.image
        self.center = torch.stack([draws.double().mean(0) for draws in w])
        covariance = torch.stack([torch.cov(draws.double().T, correction=0) for draws in w])
        covariance = covariance + 1e-12 * torch.eye(self.dim, dtype=torch.float64)
        self.factor = torch.linalg.cholesky(covariance)
        self.width = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        batch = len(likelihood)
        self.batches = Batches(self.likelihood, _SINGLE_PRECISION)
        self.w = torch.zeros_like(self.center)
        self.model, self.weight, self.residual = self.data.new_zeros(3, *self.data.shape)
        self.sky_deviation = self.data.new_zeros(batch)
        self.form = self.data.new_zeros(batch, 5)
        lags = likelihood.stamps.full_lags
        self.stated = torch.stack([block_scatter(lags, side) for side in BLOCKS], 1)
        self.independent = torch.stack([independent_share(lags, side) for side in (1, *BLOCKS)], 1)

    @property
    def dim(self) -> int:
        """Number of free coordinates F."""
        return self.coordinates.dim

    # --- the models -------------------------------------------------------------------------

    def evaluate(self, rows: Tensor, w: Float[Tensor, "r f"]) -> None:
        """Renders galaxies at points, which become their models."""
        self._take(rows, w, self.batches.render(rows, w))

    def _take(self, rows: Tensor, w: Tensor, model: Tensor) -> None:
        found = self.likelihood.residual(rows, model)
        self.w[rows], self.model[rows] = w, model
        self.weight[rows], self.residual[rows] = found.weight, found.in_sigma
        spread = found.sky_spread(SKY_FLOOR)
        self.sky_deviation[rows] = torch.where(found.sky != 0, found.sky.abs() / spread, 0.0)
        _, radius, _, q, angle, x, y = self.coordinates.profiles(w.clamp(-7.9, 7.9))[0]
        self.form[rows] = torch.stack([radius, q, angle, x, y], -1)

    # --- towards the best -------------------------------------------------------------------

    def improve(self, rows: Tensor) -> None:
        """Moves galaxies' models, within their posteriors, to where they fit well or best."""
        if not len(rows):
            return

        def fits_well(which: Tensor, w: Tensor, model: Tensor) -> Tensor:
            self._take(rows[which], w, model)
            return self.fit_well(rows[which])

        found = fit(
            self.likelihood,
            rows,
            self.w[rows],
            prior=GaussianPrior(self.center[rows], self.factor[rows]),
            stop=replace(_STOP, satisfied=fits_well),
            batches=self.batches,
        )
        self.batches.freeze(rows, found.u)
        self._take(rows, found.u, found.image)

    # --- statistics -------------------------------------------------------------------------

    def fit_well(self, rows: Tensor) -> Bool[Tensor, " r"]:
        """Returns whether galaxies' models fit well enough, so that they need not be moved."""
        return (self.misfits(rows, torch.ones(len(rows), 2)) < _GOOD_ENOUGH).all(-1)

    def misfits(self, rows: Tensor, granted: Float[Tensor, "r 2"]) -> Float[Tensor, "r 4"]:
        """Computes excess chi-squares, given ratios of actual to stated noise of pixels and blocks.

        Correlated noise scatters more in blocks, and counts as fewer independent values. Columns
        are in the order of :data:`MISFITS`.
        """
        residual = self.residual[rows]
        pixels, blocks = granted[:, 0, None, None], granted[:, 1].to(self.stated)
        found = [_excess(residual / pixels, self.inside(rows), self.independent[rows, 0])]
        for i, where in enumerate((self.inside(rows, 2.0), self.good[rows])):
            stated = self.stated[rows, i]
            scatter = torch.maximum(blocks, stated)[:, None, None]
            sums, used = block_sums(residual * where, where, BLOCKS[i])
            found.append(_excess(sums / scatter, used, self.independent[rows, 1 + i]))
        return torch.stack([*found, self.sky_deviation[rows]], -1)

    def inside(self, rows: Tensor, scale: float = 1.0) -> Bool[Tensor, "r n n"]:
        """Returns unmasked pixels in the galaxies' own ellipses, optionally scaled."""
        radius, q, angle, x, y = self.form[rows].unbind(-1)
        size = self.data.shape[-1]
        grid = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        dx, dy = (grid - x[:, None])[:, None, :], (grid - y[:, None])[:, :, None]
        form = ellipse_form(scale * (INNER_RADIUS * radius + 2.0), q, angle)
        xx, xy, yy = (c[:, None, None] for c in form)
        return self.good[rows] & (xx * dx**2 + xy * dx * dy + yy * dy**2 < 1.0)


def _excess(
    values: Float[Tensor, "r *n"], used: Bool[Tensor, "r *n"], independent: Float[Tensor, " r"]
) -> Float[Tensor, " r"]:
    """Converts sums of squares to equivalent normal deviates from their expectation.

    Uses the cube-root approximation of Wilson & Hilferty (1931), valid for few degrees of freedom.

    Args:
        values: Values of unit variance, with shape (R, *).
        used: True for values to include.
        independent: Number of independent values divided by the number of values, with shape (R,).
    """
    count = used.flatten(1).sum(-1)
    ratio = torch.where(used, values**2, 0.0).flatten(1).sum(-1) / count
    spread = 2.0 / (9.0 * count * independent)
    excess = (ratio ** (1.0 / 3.0) - (1.0 - spread)) / spread.sqrt()
    return torch.where(count > 0, excess, 0.0)
