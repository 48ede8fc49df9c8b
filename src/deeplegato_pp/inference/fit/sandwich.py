r"""Sandwich covariance of a posterior mode: error bars for misspecified models.

A likelihood of independent pixels overstates the information if the residuals of a real galaxy
(arms, clumps, another profile, an imperfect PSF) are coherent over many pixels. The mode is kept;
its covariance is computed from the scatter of the score (the gradient of ln L) among blocks of
pixels that are larger than the coherence length:

.. math:: S = H^{-1} (J + 1) H^{-1}, \qquad J = \sum_b s_b s_b^T,

with :math:`H = F + 1` the Fisher information plus the prior's precision in coordinates in which the
prior is N(0, I), and :math:`s_b` the score of block b. If the residuals are pure noise, J equals
the noise's :math:`J_0` except for the scatter of some sixty blocks, and S is the usual covariance.
All functions are pure functions of images at the mode; nothing is rendered.

References:
    | The behavior of maximum likelihood estimates under nonstandard conditions (Huber, 1967)
    | Maximum likelihood estimation of misspecified models (White, 1982), doi:10.2307/1912526
    | Window subsampling of estimating functions with application to regression models
    | (Heagerty & Lumley, 2000)
    | A note on the efficiency of sandwich covariance matrix estimation (Kauermann & Carroll, 2001)
    | The open-faced sandwich adjustment for MCMC using estimating functions (Shaby, 2014),
    | https://arxiv.org/abs/1204.3687
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.inference.fit.blocks import SECTORS
from deeplegato_pp.inference.fit.scores import (
    SHRINKAGE,
    ModeImages,
    Scores,
    block_scores,
    join_opposite,
    leverage_corrected,
    shrunk_scatter,
)


@dataclass(frozen=True)
class Sandwich:
    """Sandwich covariances of galaxies' modes, and the maps that rescale draws to them.

    Attributes:
        fisher: F, with shape (B, D, D).
        precision: H, with shape (B, D, D).
        score_noise: J_0, with shape (B, D, D).
        score_scatter: J after shrinkage and flooring, with shape (B, D, D).
        covariance: S = H^-1 (J + 1) H^-1, with shape (B, D, D).
        noise_covariance: H^-1 (J_0 + 1) H^-1, with shape (B, D, D).
        transform: Matrix A that maps draws of covariance H^-1 about their mean to covariance S,
            with shape (B, D, D); the identity where structure could not be measured.
        inflation: Ratio of the widths of S to those of the noise, by coordinate, with shape (B, D).
        blocks: Number of blocks with pixels, with shape (B,).
        judged: Whether there were enough pixels and blocks, with shape (B,). If not, S is the
            covariance of the noise.
    """

    fisher: Float[Tensor, "b d d"]
    precision: Float[Tensor, "b d d"]
    score_noise: Float[Tensor, "b d d"]
    score_scatter: Float[Tensor, "b d d"]
    covariance: Float[Tensor, "b d d"]
    noise_covariance: Float[Tensor, "b d d"]
    transform: Float[Tensor, "b d d"]
    inflation: Float[Tensor, "b d"]
    blocks: Int[Tensor, " b"]
    judged: Bool[Tensor, " b"]

    def rescaled(self, scale: Float[Tensor, " d"]) -> Sandwich:
        """Returns the sandwich in coordinates multiplied by `scale`, with shape (D,)."""
        outer = scale[:, None] * scale
        return replace(
            self,
            fisher=self.fisher / outer,
            precision=self.precision / outer,
            score_noise=self.score_noise / outer,
            score_scatter=self.score_scatter / outer,
            covariance=self.covariance * outer,
            noise_covariance=self.noise_covariance * outer,
            transform=self.transform * scale[:, None] / scale,
        )

    def holding(self, shift: Float[Tensor, "b d"]) -> Sandwich:
        """Returns covariances that hold a bias of known size too: its square is added to S.

        Args:
            shift: By how much the modes are expected to be off, with shape (B, D). Where structure
                could not be judged, nothing is added.
        """
        shift = torch.where(self.judged[:, None], shift, 0.0)
        covariance = self.covariance + shift[:, :, None] * shift[:, None, :]
        moved = affine_map(torch.linalg.inv(self.precision), covariance)
        own = self.noise_covariance.diagonal(dim1=-2, dim2=-1)
        return replace(
            self,
            covariance=covariance,
            transform=torch.where(self.judged[:, None, None], moved, self.transform),
            inflation=(covariance.diagonal(dim1=-2, dim2=-1) / own).sqrt(),
        )


def larger(first: Float[Tensor, "b d d"], second: Float[Tensor, "b d d"]) -> Float[Tensor, "b d d"]:
    """Returns an upper bound of two covariances that is as large as each in every direction.

    It takes the larger of the two in each of the directions in which both are diagonal.

    Args:
        first: With shape (B, D, D), positive semi-definite.
        second: With shape (B, D, D), positive definite.
    """
    tril = torch.linalg.cholesky(second)
    inverse = torch.linalg.inv(tril)
    white = inverse @ first @ inverse.mT
    value, vectors = torch.linalg.eigh(0.5 * (white + white.mT))
    side = tril @ vectors
    return (side * value.clamp_min(1.0)[:, None]) @ side.mT


def affine_map(
    covariance: Float[Tensor, "b d d"], target: Float[Tensor, "b d d"]
) -> Float[Tensor, "b d d"]:
    r"""Computes the maps that transform draws of one covariance to another.

    :math:`A = L (L^{-1} S L^{-T})^{1/2} L^{-1}` with :math:`L L^T` the covariance: the map nearest
    to the identity in units of the covariance, independent of the choice of L.

    Args:
        covariance: Covariance of the draws, with shape (B, D, D).
        target: S, with shape (B, D, D).
    """
    tril = torch.linalg.cholesky(covariance)
    inverse = torch.linalg.inv(tril)
    white = inverse @ target @ inverse.mT
    value, vectors = torch.linalg.eigh(0.5 * (white + white.mT))
    root = (vectors * value.clamp_min(0.0).sqrt()[:, None]) @ vectors.mT
    return tril @ root @ inverse


def sandwich(
    images: ModeImages,
    blocks: Int[Tensor, "b n n"],
    *,
    sectors: int = SECTORS,
    precision: Float[Tensor, "b d d"] | None = None,
    shrinkage: float = SHRINKAGE,
) -> Sandwich:
    """Computes the sandwich covariances of galaxies' modes, and those of the noise.

    J is an upper bound, in every direction, of the scatter among blocks, the scatter among joined
    opposite blocks, and J_0.

    Args:
        images: Images at the modes, in coordinates in which the prior is N(0, I).
        blocks: Block number of each pixel, with shape (B, N, N): see `blocks.polar_blocks`.
        sectors: Number of sectors per ring in the block numbers.
        precision: H, the curvature of the log posterior, with shape (B, D, D), if known more
            accurately than F + 1.
        shrinkage: See :func:`shrunk_scatter`.
    """
    return sandwich_of(
        block_scores(images, blocks), sectors=sectors, precision=precision, shrinkage=shrinkage
    )


def sandwich_of(
    scores: Scores,
    *,
    sectors: int = SECTORS,
    precision: Float[Tensor, "b d d"] | None = None,
    shrinkage: float = SHRINKAGE,
    parameters: int | None = None,
) -> Sandwich:
    """Computes the sandwich from block scores; see :func:`sandwich`.

    Args:
        scores: Scores of the blocks.
        sectors: See :func:`sandwich`.
        precision: See :func:`sandwich`.
        shrinkage: See :func:`shrunk_scatter`.
        parameters: Number of parameters constrained by one image, which sets the minimum number of
            blocks; all if None.
    """
    every = torch.eye(scores.fisher.shape[-1]).to(scores.fisher)
    full = scores.fisher + every
    h = scores.marginal(full)
    dim = h.shape[-1]
    identity = every[:dim, :dim]
    if precision is not None:
        full[:, :dim, :dim] += precision - h
        h = precision
    parameters = dim if parameters is None else parameters
    count, judged = scores.used.sum(1), scores.judged(parameters)
    j0 = scores.scatter_of_coordinates(scores.noise, full)
    j = j0
    for part in (scores, join_opposite(scores, sectors)):
        scatter = shrunk_scatter(leverage_corrected(part, full), scores.noise, shrinkage)
        found = scores.scatter_of_coordinates(scatter, full)
        # S is H^-1 (J + 1) H^-1, so bounds are taken of J + 1.
        j = larger(found + identity, j + identity) - identity
    j = torch.where(judged[:, None, None], j, j0)
    inverse = torch.linalg.inv(h)
    inverse = 0.5 * (inverse + inverse.mT)
    own = inverse @ (j0 + identity) @ inverse
    honest = inverse @ (j + identity) @ inverse
    moved = torch.where(judged[:, None, None], affine_map(inverse, honest), identity)
    widths = honest.diagonal(dim1=-2, dim2=-1) / own.diagonal(dim1=-2, dim2=-1)
    fisher = scores.marginal(scores.fisher + _of_amplitudes(every, dim))
    return Sandwich(fisher, h, j0, j, honest, own, moved, widths.sqrt(), count, judged)


def _of_amplitudes(identity: Float[Tensor, "d d"], dim: int) -> Float[Tensor, "d d"]:
    """Returns the prior precision of the amplitudes, zero for the coordinates."""
    found = identity.clone()
    found[:dim] = 0.0
    return found
