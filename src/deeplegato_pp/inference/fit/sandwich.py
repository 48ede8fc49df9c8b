r"""Error bars that hold where the model does not: the sandwich covariance of a posterior's mode.

A likelihood of independent pixels takes each of them for news, while the residuals of a real galaxy
(arms, clumps, another profile, an imperfect PSF) are coherent over many pixels. The mode stays what
it is; its covariance comes from how the score, the gradient of ln L, scatters among pieces of the
sky larger than that coherence:

.. math:: S = H^{-1} (J + 1) H^{-1}, \qquad J = \sum_b s_b s_b^T,

with :math:`H = F + 1` the Fisher information and the prior's precision in the coordinates in which
the prior is N(0, I), and :math:`s_b` the score of block b. If the noise is all that there is to the
residuals, J is its own :math:`J_0` but for the scatter of some sixty blocks, and S is the usual
covariance. Everything here is a pure function of images at the mode: nothing is rendered.

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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.inference.fit.blocks import SECTORS
from deeplegato_pp.scene.templates import Templates
from deeplegato_pp.scene.whitening import Whitening

SHRINKAGE = 60.0
"""Blocks that the noise's own scatter of the score counts for, where nothing contradicts it."""

BLOCKS_PER_PARAMETER = 2
"""Fewest blocks with pixels, per parameter, from which structure is judged."""

PIXELS_PER_PARAMETER = 10
"""Fewest unmasked pixels, per parameter, from which structure is judged."""

_LARGEST_LEVERAGE = 0.9
"""Share of a direction's information in one block beyond which its score is not scaled up more."""


@dataclass(frozen=True)
class ModeImages:
    """What is known of galaxies at the modes of their posteriors.

    Attributes:
        derivatives: Of the noiseless image with the coordinates w, with shape (B, D, N, N).
        residual: Data less model and fitted templates, with shape (B, N, N).
        variance: Of the likelihood, V, with shape (B, N, N).
        noise_variance: Of the stated noise alone, V_0, with shape (B, N, N).
        variance_slope: dV/dI, 0 where the variance is fixed, with shape (B, N, N).
        mask: True where a pixel is ignored, with shape (B, N, N).
        templates: Sky and error of the PSF's width, B sets.
        whitening: Of correlated noise, B rows; None where pixels are independent.
    """

    derivatives: Float[Tensor, "b d n n"]
    residual: Float[Tensor, "b n n"]
    variance: Float[Tensor, "b n n"]
    noise_variance: Float[Tensor, "b n n"]
    variance_slope: Float[Tensor, "b n n"]
    mask: Bool[Tensor, "b n n"]
    templates: Templates
    whitening: Whitening | None = None


@dataclass(frozen=True)
class Scores:
    """Sums over pixels that a sandwich is made of.

    The templates' amplitudes (constant sky, error of the PSF's width) are parameters like others
    here, the last T of the D, with the prior N(0, I) that the coordinates w have: what a block says
    of them counts for and against what it says of w.

    Attributes:
        fisher: F, the information of the pixels, with shape (B, D, D).
        noise: J_0, the score's variance if the stated noise were all, with shape (B, D, D).
        blocks: Score of each block, with shape (B, K, D); 0 of one without pixels.
        block_fisher: Information of each block, with shape (B, K, D, D).
        used: Whether a block has pixels, with shape (B, K).
        pixels: Unmasked pixels, with shape (B,).
        amplitudes: T.
    """

    fisher: Float[Tensor, "b d d"]
    noise: Float[Tensor, "b d d"]
    blocks: Float[Tensor, "b k d"]
    block_fisher: Float[Tensor, "b k d d"]
    used: Bool[Tensor, "b k"]
    pixels: Int[Tensor, " b"]
    amplitudes: int

    def marginal(self, precision: Float[Tensor, "b d d"]) -> Float[Tensor, "b p p"]:
        """Returns the precision of the coordinates alone, the amplitudes integrated out."""
        own, mixed, theirs = self._parts(precision)
        return own - mixed @ torch.linalg.solve(theirs, mixed.mT)

    def scatter_of_coordinates(
        self, scatter: Float[Tensor, "b d d"], precision: Float[Tensor, "b d d"]
    ) -> Float[Tensor, "b p p"]:
        """Returns what scatter of all scores, and the amplitudes' prior, is for the coordinates.

        Args:
            scatter: J, with shape (B, D, D).
            precision: H, with shape (B, D, D).
        """
        _, mixed, theirs = self._parts(precision)
        follow = torch.linalg.solve(theirs, mixed.mT)  # how the amplitudes follow
        own, with_them, of_them = self._parts(scatter)
        crossed = with_them @ follow
        identity = torch.eye(self.amplitudes).to(scatter)
        return own - crossed - crossed.mT + follow.mT @ (of_them + identity) @ follow

    def _parts(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = matrix.shape[-1] - self.amplitudes
        return matrix[..., :n, :n], matrix[..., :n, n:], matrix[..., n:, n:]


@dataclass(frozen=True)
class Sandwich:
    """Covariances of galaxies' modes, and the map that gives draws the honest one.

    Attributes:
        fisher: F, with shape (B, D, D).
        precision: H, with shape (B, D, D).
        score_noise: J_0, with shape (B, D, D).
        score_scatter: J as used: shrunk and floored, with shape (B, D, D).
        covariance: S = H^-1 (J + 1) H^-1, with shape (B, D, D).
        noise_covariance: H^-1 (J_0 + 1) H^-1, with shape (B, D, D).
        transform: A, which moves draws of covariance H^-1 about their mean to covariance S, with
            shape (B, D, D); the identity where structure could not be judged.
        inflation: Widths of S over those of the noise alone, by coordinate, with shape (B, D).
        blocks: Blocks with pixels, with shape (B,).
        judged: Whether there were pixels and blocks enough, with shape (B,). Where not, S is the
            noise's own covariance.
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
        """Returns the same in coordinates that are `scale` times those of this one, (D,)."""
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


def block_scores(images: ModeImages, blocks: Int[Tensor, "b n n"]) -> Scores:
    r"""Returns the score of each block of pixels, its variance under the noise, and F.

    A pixel's part in the score is :math:`G [r/V + \tfrac12 (r^2/V - 1) V'/V]`, r the residual less
    the fitted templates: of the coordinates it is the derivative of the likelihood with templates
    marginalised. Under correlated noise the first term is the product of G and r made ones of
    independent pixels, so that blocks have no noise in common, and the second has
    :math:`r\,(C^{-1} r)` for :math:`r^2/V`. In :math:`J_0` the ratio of the stated to the
    likelihood's variance is then taken to change little over the noise's correlation length.

    Args:
        images: At the modes.
        blocks: Block of each pixel, from 0, with shape (B, N, N).
    """
    batch = len(images.derivatives)
    good = (~images.mask).flatten(1)
    shape = images.derivatives.shape[-2:]

    def pixels(image: Tensor, hidden: float) -> Tensor:
        return torch.where(good, image.double().flatten(1), hidden)

    variance = pixels(images.variance, 1.0)
    residual = pixels(images.residual, 0.0)
    ratio = pixels(images.noise_variance, 0.0) / variance
    slope = pixels(images.variance_slope, 0.0) / variance
    slopes = torch.where(good[:, None], images.derivatives.double().flatten(2), 0.0)
    templates = torch.where(good[:, None], images.templates.images.to(slopes).flatten(2), 0.0)
    g = torch.cat([slopes, templates], 1)
    of_variance = torch.cat([slopes, torch.zeros_like(templates)], 1)
    root = (good / variance.sqrt())[:, None]

    def whiten(image: Tensor, transposed: bool = False) -> Tensor:
        if images.whitening is None:
            return image
        apply = images.whitening.transposed if transposed else images.whitening
        return apply(image.unflatten(-1, shape)).flatten(-2)

    white, white_residual = whiten(root * g), whiten(root * residual[:, None])
    pulled = (root * whiten(white_residual, transposed=True))[:, 0]
    excess = 0.5 * good * slope**2  # information in the variance's own change
    fisher = white @ white.mT + (of_variance * excess[:, None]) @ of_variance.mT
    noise = (white * ratio[:, None]) @ white.mT
    noise = noise + (of_variance * (excess * ratio**2)[:, None]) @ of_variance.mT

    change = 0.5 * good * (residual * pulled - 1.0) * slope
    per_pixel = white * white_residual + of_variance * change[:, None]
    dim = g.shape[1]
    number = int(blocks.max()) + 1
    index = blocks.flatten(1)
    scores = g.new_zeros(batch, dim, number)
    scores.scatter_add_(2, index[:, None].expand(-1, dim, -1), per_pixel)
    pairs = torch.triu_indices(dim, dim, device=g.device)
    products = white[:, pairs[0]] * white[:, pairs[1]]
    products += of_variance[:, pairs[0]] * (of_variance * excess[:, None])[:, pairs[1]]
    sums = g.new_zeros(batch, len(pairs[0]), number)
    sums.scatter_add_(2, index[:, None].expand(-1, len(pairs[0]), -1), products)
    block_fisher = g.new_zeros(batch, number, dim, dim)
    block_fisher[:, :, pairs[0], pairs[1]] = sums.mT
    block_fisher[:, :, pairs[1], pairs[0]] = sums.mT
    used = g.new_zeros(batch, number).scatter_add_(1, index, good.to(g)) > 0
    return Scores(fisher, noise, scores.mT, block_fisher, used, good.sum(1), templates.shape[1])


def summed(parts: Sequence[Scores]) -> Scores:
    """Returns the scores of blocks seen in several bands: the sums of the bands'.

    Args:
        parts: By band; a number means the same piece of sky in each.
    """
    number = max(p.used.shape[1] for p in parts)
    own = parts[0].fisher.shape[-1] - parts[0].amplitudes
    total = own + sum(p.amplitudes for p in parts)
    found, first = [], own
    for p in parts:
        # Each band has amplitudes of its own.
        place = torch.tensor([*range(own), *range(first, first + p.amplitudes)])
        first += p.amplitudes
        wide = p.fisher.new_zeros(len(place), total)
        wide[torch.arange(len(place)), place] = 1.0
        found.append(_placed(p, wide, number))
    return Scores(
        torch.stack([p.fisher for p in found]).sum(0),
        torch.stack([p.noise for p in found]).sum(0),
        torch.stack([p.blocks for p in found]).sum(0),
        torch.stack([p.block_fisher for p in found]).sum(0),
        torch.stack([p.used for p in found]).any(0),
        torch.stack([p.pixels for p in found]).sum(0),
        total - own,
    )


def _placed(scores: Scores, wide: Float[Tensor, "d e"], number: int) -> Scores:
    """Scores among more parameters and blocks, of which those that are not theirs are zero."""

    def padded(array: Tensor) -> Tensor:
        missing = number - array.shape[1]
        return torch.cat([array, array.new_zeros(len(array), missing, *array.shape[2:])], 1)

    return replace(
        scores,
        fisher=wide.T @ scores.fisher @ wide,
        noise=wide.T @ scores.noise @ wide,
        blocks=padded(scores.blocks @ wide),
        block_fisher=padded(wide.T @ scores.block_fisher @ wide),
        used=padded(scores.used),
    )


def join_opposite(scores: Scores, sectors: int) -> Scores:
    """Returns scores in which opposite sectors of a ring are one block.

    Arms, bars and rings look the same after half a turn: what they do to the scores of opposite
    sectors adds up in size, flux and shape.

    Args:
        scores: Of blocks numbered ring times `sectors` plus sector.
        sectors: Sectors of a ring, an even number.
    """
    missing = -scores.used.shape[1] % sectors

    def joined(array: Tensor) -> Tensor:
        shape = array.shape[2:]
        padded = torch.cat([array, array.new_zeros(len(array), missing, *shape)], 1)
        halves = padded.reshape(len(array), -1, 2, sectors // 2, *shape)
        return halves.sum(2).flatten(1, 2)

    return replace(
        scores,
        blocks=joined(scores.blocks),
        block_fisher=joined(scores.block_fisher),
        used=joined(scores.used.long()) > 0,
    )


def leverage_corrected(scores: Scores, precision: Float[Tensor, "b d d"]) -> Float[Tensor, "b k d"]:
    r"""Returns block scores as large as they would be had the block no part in the fit.

    Under the right model a block's score at the mode varies by :math:`F_b - F_b H^{-1} F_b`, not
    :math:`F_b`, since the mode follows the block's noise. Each is multiplied by
    :math:`(1 - F_b H^{-1})^{-1/2}`, in the basis in which that is symmetric.

    Args:
        scores: Of the blocks.
        precision: H, with shape (B, D, D).
    """
    root = torch.linalg.cholesky(precision)
    inverse = torch.linalg.inv(root)
    share = inverse[:, None] @ scores.block_fisher @ inverse.mT[:, None]
    value, vectors = torch.linalg.eigh(share)
    scale = (1.0 - value.clamp(0.0, _LARGEST_LEVERAGE)).rsqrt()
    white = torch.einsum("bij,bkj->bki", inverse, scores.blocks)
    turned = torch.einsum("bkji,bkj->bki", vectors, white) * scale
    return torch.einsum("bij,bkjl,bkl->bki", root, vectors, turned)


def shrunk_scatter(
    blocks: Float[Tensor, "b k d"],
    noise: Float[Tensor, "b d d"],
    strength: float = SHRINKAGE,
) -> Float[Tensor, "b d d"]:
    r"""Returns the scatter of block scores, drawn towards the noise's own where that explains it.

    With scores whitened by :math:`M = J_0 + 1` (directions that the prior decides do not count),
    :math:`B_\mathrm{eff} = (\sum |s|^2)^2 / \sum |s|^4`, :math:`d = \mathrm{tr}\,M^{-1} J_0` and
    :math:`\rho = \mathrm{tr}(M^{-1} J)/d`, the excess in its own standard deviations is
    :math:`x = \max(\rho - 1, 0) / \sqrt{2/(d B_\mathrm{eff})}`, and the noise counts for
    :math:`k = \mathrm{strength}/(1 + x^2)` blocks.

    Args:
        blocks: Scores of the blocks, with shape (B, K, D).
        noise: J_0, with shape (B, D, D).
        strength: Blocks that J_0 counts for where nothing contradicts it; 0 does not shrink.

    Returns:
        J, with shape (B, D, D).
    """
    scatter = blocks.mT @ blocks
    if strength == 0:
        return scatter
    identity = torch.eye(noise.shape[-1]).to(noise)
    tril = torch.linalg.cholesky(noise + identity)
    white = torch.linalg.solve_triangular(tril, blocks.mT, upper=False)
    length2 = (white**2).sum(1)
    total = length2.sum(1)
    effective = total**2 / (length2**2).sum(1).clamp_min(1e-300)
    measured = torch.linalg.solve(noise + identity, noise).diagonal(dim1=-2, dim2=-1).sum(-1)
    measured = measured.clamp_min(1e-12)
    excess = (total / measured - 1.0).clamp_min(0.0) / (2.0 / (measured * effective)).sqrt()
    count = strength / (1.0 + excess**2)
    share = (count / (effective + count))[:, None, None]
    return (1.0 - share) * scatter + share * noise


def larger(first: Float[Tensor, "b d d"], second: Float[Tensor, "b d d"]) -> Float[Tensor, "b d d"]:
    """Returns, of two covariances, one that is at least as large as either in every direction.

    It is the larger of the two in each of the directions in which both are diagonal.

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
    r"""Returns the maps that turn draws of one covariance into draws of another.

    :math:`A = L (L^{-1} S L^{-T})^{1/2} L^{-1}` with :math:`L L^T` the covariance: the one nearest
    to the identity in its own units, and the same for any L.

    Args:
        covariance: Of the draws, with shape (B, D, D).
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
    """Returns the honest covariances of galaxies' modes, and the noise's own beside them.

    J is the larger, in every direction, of the scatter among blocks and among opposite blocks
    joined, and of J_0.

    Args:
        images: At the modes, in coordinates in which the prior is N(0, I).
        blocks: Block of each pixel, with shape (B, N, N): see `blocks.polar_blocks`.
        sectors: Sectors of a ring by which blocks are numbered.
        precision: H, the curvature of the log posterior, with shape (B, D, D), where that is known
            better than by F + 1.
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
    """Returns the sandwich of blocks whose scores are known; see :func:`sandwich`.

    Args:
        scores: Of the blocks.
        sectors: As there, as what follows.
        precision: H.
        shrinkage: See :func:`shrunk_scatter`.
        parameters: Parameters that one image tells, for which there must be blocks enough; all if
            None.
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
    count = scores.used.sum(1)
    judged = (count >= BLOCKS_PER_PARAMETER * parameters) & (
        scores.pixels >= PIXELS_PER_PARAMETER * parameters
    )
    j0 = scores.scatter_of_coordinates(scores.noise, full)
    j = j0
    for part in (scores, join_opposite(scores, sectors)):
        scatter = shrunk_scatter(leverage_corrected(part, full), scores.noise, shrinkage)
        found = scores.scatter_of_coordinates(scatter, full)
        # H stands on both sides of a covariance, so it is J + 1 that decides which is larger.
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
    """The prior's precision of the amplitudes alone."""
    found = identity.clone()
    found[:dim] = 0.0
    return found
