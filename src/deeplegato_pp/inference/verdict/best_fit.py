"""The best models that posteriors allow: where to judge a residual, for many galaxies at once.

The network's mean is not the optimum: for a bright galaxy its posterior is a hundred times wider
than the pixels allow, and the model at its mean is then off by hundreds of sigma without anything
being wrong. So a mean that does not fit is first moved, within the posterior, to where it fits best
(a few Gauss-Newton steps in coordinates whitened by the posterior), and the residual is judged
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.inference.verdict.defects import block_sums
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.likelihood import NEGLIGIBLE_LIGHT
from deeplegato_pp.scene.noise import model_variance
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.renderer import Bands, render_sersic
from deeplegato_pp.scene.render.sersic_profile import ellipse_form

MODEL_FLOOR = 0.01
"""Relative error of the model that no test minds: no galaxy is a Sérsic profile to a per cent."""

MISFITS = ("core", "blocks", "patches", "sky")
"""Names of the statistics of misfit, see :class:`Goodness`."""

SKY_FLOOR = 0.05
"""Offset of the sky that no test minds, however well it is said to be known. [sigma]"""

BLOCKS = (4, 16)
"""Sides of the blocks over which residuals are added up. [px]"""

OWN_PIXELS = 1.5
"""The galaxy's own pixels lie within this ellipse, broadened by 2 px. [R_e]"""

_GOOD_ENOUGH = 2.5
"""A mean whose misfits are all below this many standard deviations is not moved."""

_STEP = 0.3
"""Step of the finite differences, in standard deviations of the posterior."""

_ROUNDS = 2
"""Jacobians computed at most; between two of them secants correct the first."""

_SECANTS = 4

_WORTH_ANOTHER = 10.0
"""By how much a round must lower twice the negative log posterior for there to be another."""

_SINGLE_PRECISION = 1e4
"""Brightest pixel up to which models are rendered in single precision. [background sigma]"""


class BestFits:
    """Galaxies' models on their way to the best ones that their posteriors allow.

    Rows are numbers of galaxies, with shape (R,); what is said of them comes in their order. Every
    galaxy has to be evaluated before anything else is asked of it.

    Args:
        w: Of each galaxy, equally weighted draws in the coordinates in which the prior is N(0, I).
        stamps: The stamps, all of one side.
        prior: The prior at the reference instrument.

    Attributes:
        good: Unmasked pixels, with shape (B, N, N), as all images. [background sigma]
        data: Images.
        sigma: Noise without the galaxy's own.
        center: Means of the posteriors, with shape (B, 7).
        width: Their standard deviations, with shape (B, 7).
        w: The models' coordinates, with shape (B, 7).
        model: The models' images.
        variance: Under the models.
        floored: That with a relative error of the model added.
        weight: Its inverse; 0 where masked.
        difference: Data minus model; 0 where masked.
        residual: (data - model - sky)/sigma, the model's error counted as noise; 0 where masked.
        renders: Images rendered, per galaxy.
    """

    def __init__(
        self, w: Sequence[Tensor], stamps: Sequence[PreparedStamp], prior: PriorBox
    ) -> None:
        self.stamps = stamps
        self.coordinates = SersicCoordinates(prior)
        self.good = ~torch.stack([torch.from_numpy(s.mask) for s in stamps])
        self.data, self.sigma = (
            torch.stack([torch.from_numpy(np.asarray(x, dtype=np.float64)) for x in images])
            for images in ([s.image for s in stamps], [s.noise for s in stamps])
        )
        options: dict[str, Any] = {"dtype": torch.float64}
        self.gain = torch.tensor([s.gain for s in stamps], **options)
        self.tau2 = torch.tensor([s.sky_sigma for s in stamps], **options) ** 2
        self.center = torch.stack([draws.double().mean(0) for draws in w])
        covariance = torch.stack([torch.cov(draws.double().T, correction=0) for draws in w])
        covariance = covariance + 1e-12 * torch.eye(7, **options)
        self.factor = torch.linalg.cholesky(covariance)
        self.width = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        self.renders = [0] * len(stamps)
        self.groups = _alike(stamps, self.data, self.good)
        self.w = torch.zeros_like(self.center)
        self.model, self.variance, self.floored = torch.zeros(3, *self.data.shape, **options)
        self.weight, self.difference, self.residual = torch.zeros(3, *self.data.shape, **options)
        self.sky = torch.zeros_like(self.tau2)
        self.form = torch.zeros(len(stamps), 5, **options)

    # --- the models -------------------------------------------------------------------------

    def render(self, rows: Tensor, w: Float[Tensor, "r 7"]) -> Float[Tensor, "r n n"]:
        """Returns galaxies' images at points; a galaxy may come more than once."""
        for row in rows.tolist():
            self.renders[row] += 1
        columns = torch.stack(self.coordinates.columns(w.clamp(-7.9, 7.9)))
        size = self.data.shape[-1]
        images = self.data.new_empty(len(rows), size, size)
        for group in self.groups:
            own = group.place[rows]
            at = (own >= 0).nonzero()[:, 0]
            if len(at):
                flux, radius, n, q, angle, x, y = columns[:, at].to(group.psf.dtype)
                images[at] = render_sersic(
                    flux,
                    radius,
                    n,
                    q,
                    angle,
                    x,
                    y,
                    group.psf,
                    size,
                    oversampling=group.oversampling,
                    psf_includes_pixel=group.includes_pixel,
                    psf_index=own[at],
                    negligible=NEGLIGIBLE_LIGHT,
                    bands=group.bands,
                ).double()
        return images

    def evaluate(self, rows: Tensor, w: Float[Tensor, "r 7"]) -> None:
        """Renders galaxies at points and takes these for their models."""
        self._take(rows, w, self.render(rows, w))

    def _take(self, rows: Tensor, w: Tensor, model: Tensor) -> None:
        good, tau2 = self.good[rows], self.tau2[rows]
        variance = model_variance(model, self.sigma[rows], self.gain[rows])
        floored = variance + (MODEL_FLOOR * model) ** 2
        weight = torch.where(good, 1.0 / floored, 0.0)
        difference = torch.where(good, self.data[rows] - model, 0.0)
        # The sky's best value under its prior.
        sky = tau2 * (weight * difference).sum((-2, -1)) / (1.0 + tau2 * weight.sum((-2, -1)))
        self.w[rows], self.model[rows], self.variance[rows] = w, model, variance
        self.floored[rows], self.weight[rows], self.difference[rows] = floored, weight, difference
        self.sky[rows] = sky
        self.residual[rows] = (difference - sky[:, None, None] * good) * weight.sqrt()
        _, radius, _, q, angle, x, y = self.coordinates.columns(w.clamp(-7.9, 7.9))
        self.form[rows] = torch.stack([radius, q, angle, x, y], -1)

    # --- towards the best -------------------------------------------------------------------

    def improve(self, rows: Tensor) -> None:
        """Gauss-Newton steps in whitened coordinates, secants in between."""
        for _ in range(_ROUNDS):
            if len(rows) == 0:
                return
            jacobian = self._jacobian(rows)
            before = self._objective(rows)
            stepping = torch.ones(len(rows), dtype=torch.bool)
            fits = torch.zeros_like(stepping)
            for _ in range(_SECANTS):
                own = stepping.nonzero()[:, 0]
                if len(own) == 0:
                    break
                stepping[own] = self._step(rows[own], jacobian, own)
                moved = stepping.nonzero()[:, 0]
                fits[moved] = self.fit_well(rows[moved])
                stepping &= ~fits
            rows = rows[~fits & (self._objective(rows) <= before - _WORTH_ANOTHER)]

    def _whitened(self, rows: Tensor) -> Float[Tensor, "r 7"]:
        offset = (self.w[rows] - self.center[rows])[..., None]
        return torch.linalg.solve_triangular(self.factor[rows], offset, upper=False)[..., 0]

    def _objective(self, rows: Tensor) -> Float[Tensor, " r"]:
        spread = torch.where(self.good[rows], (self.floored[rows] / self.sigma[rows] ** 2).log(), 0)
        squares = self.residual[rows] ** 2 + spread
        return squares.sum((-2, -1)) + (self._whitened(rows) ** 2).sum(-1)

    def _jacobian(self, rows: Tensor) -> Float[Tensor, "r 9 p"]:
        """Returns the images' derivatives along the whitened coordinates, and two rows for `_step`.

        In single precision, which is plenty for a step; memory is what it costs.
        """
        steps = torch.where(self._whitened(rows) > 0, -_STEP, _STEP)
        moved = self.w[rows][:, None] + steps[..., None] * self.factor[rows].mT
        images = self.render(rows.repeat_interleave(7), moved.flatten(0, 1)).unflatten(0, (-1, 7))
        jacobian = torch.ones(len(rows), 9, self.data[0].numel())
        jacobian[:, :7] = (images - self.model[rows][:, None]).flatten(2) / steps[..., None]
        return jacobian

    def _step(self, rows: Tensor, jacobian: Tensor, own: Tensor) -> Bool[Tensor, " r"]:
        """Takes one step, shortened if need be; corrects the Jacobians by what it did.

        Args:
            rows: Galaxies.
            jacobian: Of these and others, changed in place: seven derivatives, the residual, ones.
            own: Where theirs are.

        Returns:
            Which galaxies are nearer to their best.
        """
        jacobian[own, 7] = self.difference[rows].flatten(1).float()
        j = jacobian[own]
        products = ((j * self.weight[rows].flatten(1).float()[:, None]) @ j.mT).double()
        residual, ones = products[:, :, 7], products[:, :, 8]
        tau2 = self.tau2[rows]
        shrink = (tau2 / (1.0 + tau2 * ones[:, 8]))[:, None]  # of what the sky may take up
        slope = residual[:, :7] - shrink * ones[:, :7] * residual[:, 8:] - self._whitened(rows)
        outer = ones[:, :7, None] * ones[:, None, :7]
        curvature = products[:, :7, :7] - shrink[..., None] * outer
        step = torch.linalg.solve(curvature + torch.eye(7, dtype=torch.float64), slope)
        step = step * (4.0 / step.abs().amax(-1, keepdim=True).clamp_min(1e-9)).clamp(max=1.0)
        before, old = self._objective(rows), (self.w[rows], self.model[rows])
        better = torch.zeros(len(rows), dtype=torch.bool)
        for fraction in (1.0, 0.3):
            at = (~better).nonzero()[:, 0]
            if len(at) == 0:
                break
            left, moved = rows[at], fraction * step[at]
            self.evaluate(left, old[0][at] + (self.factor[left] @ moved[..., None])[..., 0])
            change = (self.model[left] - old[1][at]).flatten(1).float()
            along = (moved / (moved**2).sum(-1, keepdim=True).clamp_min(1e-30)).float()
            secant = change - (moved.float()[:, None] @ jacobian[own[at], :7])[:, 0]
            jacobian[own[at], :7] += along[..., None] * secant[:, None]
            better[at] = self._objective(left) < before[at]
        worse = (~better).nonzero()[:, 0]
        if len(worse):
            self._take(rows[worse], old[0][worse], old[1][worse])
        return better

    # --- statistics -------------------------------------------------------------------------

    def fit_well(self, rows: Tensor) -> Bool[Tensor, " r"]:
        """Whether galaxies' models need not be moved."""
        return (self.misfits(rows, torch.ones(len(rows), 2)) < _GOOD_ENOUGH).all(-1)

    def misfits(self, rows: Tensor, granted: Float[Tensor, "r 2"]) -> Float[Tensor, "r 4"]:
        """Excess chi-squares, the noise of pixels and blocks being so many times the map's.

        Columns in the order of :data:`MISFITS`.
        """
        residual = self.residual[rows]
        pixels, blocks = granted[:, 0, None, None], granted[:, 1, None, None]
        found = [_excess(residual / pixels, self.inside(rows))]
        for side, where in zip(BLOCKS, (self.inside(rows, 2.0), self.good[rows]), strict=True):
            found.append(_excess(*block_sums(residual * where / blocks, where, side)))
        return torch.stack([*found, self._sky_deviation(rows)], -1)

    def _sky_deviation(self, rows: Tensor) -> Float[Tensor, " r"]:
        """How many standard deviations the best skies lie from zero, their priors being right."""
        tau2 = self.tau2[rows]
        information = tau2 * self.weight[rows].sum((-2, -1))
        granted = tau2.clamp_min(SKY_FLOOR**2)
        spread = (granted * information / (1.0 + information)).sqrt()
        return torch.where(tau2 > 0, self.sky[rows].abs() / spread, 0.0)

    def inside(self, rows: Tensor, scale: float = 1.0) -> Bool[Tensor, "r n n"]:
        """Unmasked pixels in the ellipses of the galaxies' own, or so many times as large."""
        radius, q, angle, x, y = self.form[rows].unbind(-1)
        size = self.data.shape[-1]
        grid = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        dx, dy = (grid - x[:, None])[:, None, :], (grid - y[:, None])[:, :, None]
        form = ellipse_form(scale * (OWN_PIXELS * radius + 2.0), q, angle)
        xx, xy, yy = (c[:, None, None] for c in form)
        return self.good[rows] & (xx * dx**2 + xy * dx * dy + yy * dy**2 < 1.0)


@dataclass(frozen=True)
class _Group:
    """Galaxies whose images can be rendered in one call.

    Attributes:
        psf: Their PSFs, in the precision that they need.
        oversampling: PSF samples per pixel.
        includes_pixel: Whether the pixel is in the PSF already.
        place: Of every galaxy, the number of its PSF; -1 for those of other groups.
        bands: The PSFs' transforms, once they are known.
    """

    psf: Float[Tensor, "p py px"]
    oversampling: int
    includes_pixel: bool
    place: Int[Tensor, " b"]
    bands: Bands = field(default_factory=dict)


def _alike(stamps: Sequence[PreparedStamp], data: Tensor, good: Tensor) -> list[_Group]:
    """Groups galaxies by the shape and kind of their PSFs and the precision that they need."""
    brightest = torch.where(good, data, 0.0).amax((-2, -1)).tolist()
    members: dict[tuple[Any, ...], list[int]] = {}
    for i, (s, bright) in enumerate(zip(stamps, brightest, strict=True)):
        dtype = torch.float32 if bright < _SINGLE_PRECISION else torch.float64
        key = (s.psf.shape, s.psf_oversampling, s.psf_includes_pixel, dtype)
        members.setdefault(key, []).append(i)
    groups = []
    for (_, oversampling, includes_pixel, dtype), rows in members.items():
        place = torch.full((len(stamps),), -1)
        place[rows] = torch.arange(len(rows))
        psf = torch.stack([torch.from_numpy(np.asarray(stamps[i].psf)).to(dtype) for i in rows])
        groups.append(_Group(psf, oversampling, includes_pixel, place))
    return groups


def _excess(values: Float[Tensor, "r *n"], used: Bool[Tensor, "r *n"]) -> Float[Tensor, " r"]:
    """Returns the sums of squares' deviations from their expectation, as of normal variates.

    By the cube root of Wilson & Hilferty (1931), which serves few degrees of freedom too.
    """
    count = used.flatten(1).sum(-1)
    ratio = torch.where(used, values**2, 0.0).flatten(1).sum(-1) / count
    spread = 2.0 / (9.0 * count)
    excess = (ratio ** (1.0 / 3.0) - (1.0 - spread)) / spread.sqrt()
    return torch.where(count > 0, excess, 0.0)
