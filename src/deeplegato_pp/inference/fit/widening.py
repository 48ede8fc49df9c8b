"""Draws moved, mode by mode, so that they have honest widths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.scene.prior import W_MAX

WIDTHS = ("honest", "noise")
"""Kinds of widths: from how the residuals scatter over the sky, or from the stated noise alone."""


@dataclass(frozen=True, eq=False)
class Widening:
    """The affine maps that turn one galaxy's draws under the noise into draws of honest width.

    Attributes:
        modes: Modes of the posterior in w, with shape (M, 7).
        precision: Curvature of the log posterior at each, with shape (M, 7, 7); by it draws are
            told to belong to a mode.
        maps: A of each mode, with shape (M, 7, 7).
        covariance: S at the best mode, with shape (7, 7).
        inflation: Honest over the noise's own width at the best mode, by free coordinate, (F,).
        blocks: Blocks of pixels behind the best mode's.
        judged: Whether those were enough; where not, nothing is moved.
        noise: Noise of the background over that of its map, at the best mode; 1 unless the map is
            wrong. Where it is larger the widths hold it.
        light: How far light that is not the galaxy's pulls the best mode in any coordinate, in
            honest standard deviations; 0 where there is none.
        wings: How far the light that the PSF's array lacks moves the best mode, in standard
            deviations that do not hold it; the covariance and the maps do.
        weights: How far weights that follow the noise move the best mode in any coordinate, in
            honest standard deviations; 0 unless the noise map was made from the data.
    """

    modes: Float[Tensor, "m d"]
    precision: Float[Tensor, "m d d"]
    maps: Float[Tensor, "m d d"]
    covariance: Float[Tensor, "d d"]
    inflation: Float[Tensor, " f"]
    blocks: int
    judged: bool
    noise: float = 1.0
    light: float = 0.0
    wings: float = 0.0
    weights: float = 0.0

    @property
    def structure(self) -> float:
        """Median inflation of the widths; NaN if structure could not be judged."""
        return float(self.inflation.median()) if self.judged else math.nan

    def owners(self, w: Float[Tensor, "s d"]) -> Int[Tensor, " s"]:
        """Returns the mode that each draw belongs to: that of the largest Gaussian density."""
        delta = w[:, None] - self.modes
        distance = torch.einsum("smi,mij,smj->sm", delta, self.precision, delta)
        log_det = torch.linalg.slogdet(self.precision).logabsdet
        return (distance - log_det).argmin(1)

    def centers(
        self, w: Float[Tensor, "s d"], log_weights: Float[Tensor, " s"] | None = None
    ) -> Float[Tensor, "m d"]:
        """Returns the weighted mean of each mode's draws; the mode itself where it has none.

        Args:
            w: Draws under the noise.
            log_weights: Their unnormalised weights; None: all weigh the same.
        """
        owner = self.owners(w)
        log_weights = torch.zeros_like(w[:, 0]) if log_weights is None else log_weights
        found = self.modes.clone()
        for mode in range(len(self.modes)):
            own = (owner == mode) & torch.isfinite(log_weights)
            if bool(own.any()):
                found[mode] = torch.softmax(log_weights[own], 0) @ w[own]
        return found

    def move(
        self, w: Float[Tensor, "s d"], log_weights: Float[Tensor, " s"] | None = None
    ) -> tuple[Float[Tensor, "s d"], Float[Tensor, " s"]]:
        """Returns moved draws, and ln |det A| of the map that moved each.

        Every mode's draws are moved about their own weighted mean, so the means stay. Moved draws
        end at the prior's edge, |w| = 8, where the mode leans on it.

        Args:
            w: Draws under the noise.
            log_weights: Their unnormalised weights; None: all weigh the same.
        """
        owner = self.owners(w)
        center = self.centers(w, log_weights)[owner]
        moved = center + torch.einsum("sij,sj->si", self.maps[owner], w - center)
        log_det = torch.linalg.slogdet(self.maps).logabsdet
        return moved.clamp(-W_MAX, W_MAX), log_det[owner]

    def move_back(
        self, w: Float[Tensor, "s d"], centers: Float[Tensor, "m d"]
    ) -> tuple[Float[Tensor, "s d"], Float[Tensor, " s"]]:
        """Returns where points come from, by the map of the nearest mode, and its ln |det A|.

        Args:
            w: Points among the moved draws.
            centers: What :meth:`centers` returned for the draws.
        """
        owner = self.owners(w)
        center = centers[owner]
        back = torch.linalg.solve(self.maps[owner], (w - center)[..., None])[..., 0]
        log_det = torch.linalg.slogdet(self.maps).logabsdet
        return (center + back).clamp(-W_MAX, W_MAX), log_det[owner]

    def in_coordinates(self, jacobian: Float[Tensor, "m d d"], modes: Tensor) -> Widening:
        """Returns the same maps in other coordinates, linearised at the modes.

        Args:
            jacobian: Derivatives of the new coordinates with the old at each mode, (M, D, D).
            modes: The modes in the new coordinates, with shape (M, D).
        """
        inverse = torch.linalg.inv(jacobian)
        return Widening(
            modes,
            inverse.mT @ self.precision @ inverse,
            jacobian @ self.maps @ inverse,
            jacobian[0] @ self.covariance @ jacobian[0].T,
            self.inflation,
            self.blocks,
            self.judged,
            self.noise,
            self.light,
            self.wings,
            self.weights,
        )
