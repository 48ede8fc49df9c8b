"""Affine maps of draws, mode by mode, to the widths of sandwich covariances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.scene.prior import W_MAX

WIDTHS = ("honest", "noise")
"""Kinds of widths: from the scatter of residuals over the sky, or from the stated noise alone."""


@dataclass(frozen=True, eq=False)
class Widening:
    """Affine maps that transform one galaxy's draws under the noise to honest widths.

    Attributes:
        modes: Modes of the posterior in w, with shape (M, 7).
        precision: Curvature of the log posterior at each mode, with shape (M, 7, 7); used to assign
            draws to modes.
        maps: Matrix A of each mode, with shape (M, 7, 7).
        covariance: S at the best mode, with shape (7, 7).
        inflation: Ratio of honest to noise width at the best mode, by free coordinate, (F,).
        blocks: Number of pixel blocks of the best mode.
        judged: Whether there were enough blocks; if not, draws are not moved.
        noise: Ratio of background noise to noise map at the best mode; 1 unless the map is wrong.
            If larger than 1, it is included in the widths.
        light: Largest shift of the best mode by foreign light in any coordinate, in honest standard
            deviations; 0 if there is none.
        wings: Shift of the best mode by the light missing from the PSF's array, in standard
            deviations that do not include it; the covariance and the maps do.
        weights: Largest shift of the best mode in any coordinate by weights that follow the noise,
            in honest standard deviations; 0 unless the noise map was made from the data.
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
        """Median inflation of the widths; NaN if structure could not be measured."""
        return float(self.inflation.median()) if self.judged else math.nan

    def owners(self, w: Float[Tensor, "s d"]) -> Int[Tensor, " s"]:
        """Assigns each draw to the mode with the largest Gaussian density."""
        delta = w[:, None] - self.modes
        distance = torch.einsum("smi,mij,smj->sm", delta, self.precision, delta)
        log_det = torch.linalg.slogdet(self.precision).logabsdet
        return (distance - log_det).argmin(1)

    def centers(
        self, w: Float[Tensor, "s d"], log_weights: Float[Tensor, " s"] | None = None
    ) -> Float[Tensor, "m d"]:
        """Returns the weighted mean of each mode's draws; the mode itself if it has no draws.

        Args:
            w: Draws under the noise.
            log_weights: Unnormalised log weights; None for equal weights.
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
        """Returns moved draws, and ln |det A| of the map of each draw.

        Each mode's draws are moved about their own weighted mean, which is preserved. Moved draws
        are clipped at the prior's edge, |w| = 8.

        Args:
            w: Draws under the noise.
            log_weights: Unnormalised log weights; None for equal weights.
        """
        owner = self.owners(w)
        center = self.centers(w, log_weights)[owner]
        moved = center + torch.einsum("sij,sj->si", self.maps[owner], w - center)
        log_det = torch.linalg.slogdet(self.maps).logabsdet
        return moved.clamp(-W_MAX, W_MAX), log_det[owner]

    def move_back(
        self, w: Float[Tensor, "s d"], centers: Float[Tensor, "m d"]
    ) -> tuple[Float[Tensor, "s d"], Float[Tensor, " s"]]:
        """Inverts the map of the nearest mode; returns the original points and ln |det A|.

        Args:
            w: Points among the moved draws.
            centers: Result of :meth:`centers` for the draws.
        """
        owner = self.owners(w)
        center = centers[owner]
        back = torch.linalg.solve(self.maps[owner], (w - center)[..., None])[..., 0]
        log_det = torch.linalg.slogdet(self.maps).logabsdet
        return (center + back).clamp(-W_MAX, W_MAX), log_det[owner]

    def in_coordinates(self, jacobian: Float[Tensor, "m d d"], modes: Tensor) -> Widening:
        """Returns the same maps in other coordinates, linearised at the modes.

        Args:
            jacobian: Derivatives of the new coordinates with respect to the old ones at each mode,
                with shape (M, D, D).
            modes: Modes in the new coordinates, with shape (M, D).
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
