"""Scores of blocks of pixels: gradients of ln L at a mode, and their scatter.

All functions are pure functions of images at the mode; nothing is rendered. The sandwich covariance
that follows from them is in `inference.fit.sandwich`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.scene.templates import Templates
from deeplegato_pp.scene.whitening import Whitening

SHRINKAGE = 60.0
"""Number of blocks that the noise's own J_0 counts for in the shrinkage, without contrary data."""

BLOCKS_PER_PARAMETER = 2
"""Minimum number of blocks with pixels, per parameter, for measuring structure."""

PIXELS_PER_PARAMETER = 10
"""Minimum number of unmasked pixels, per parameter, for measuring structure."""

_LARGEST_LEVERAGE = 0.9
"""Maximum fraction of a direction's information in one block for the leverage correction."""


@dataclass(frozen=True)
class ModeImages:
    """Images and derivatives of galaxies at the modes of their posteriors.

    Attributes:
        derivatives: Derivatives of the noiseless image with respect to w, with shape (B, D, N, N).
        residual: Data minus model and fitted templates, with shape (B, N, N).
        variance: Variance of the likelihood, V, with shape (B, N, N).
        noise_variance: Variance of the stated noise alone, V_0, with shape (B, N, N).
        variance_slope: dV/dI, 0 for a fixed variance, with shape (B, N, N).
        mask: True for pixels to ignore, with shape (B, N, N).
        templates: Templates of sky and PSF-width error, B sets.
        whitening: Whitening of correlated noise, B rows; None for independent pixels.
        amplitude_variance: Variance of the templates' amplitudes in units of that assumed in the
            fit, with shape (B, T); 1 if None.
    """

    derivatives: Float[Tensor, "b d n n"]
    residual: Float[Tensor, "b n n"]
    variance: Float[Tensor, "b n n"]
    noise_variance: Float[Tensor, "b n n"]
    variance_slope: Float[Tensor, "b n n"]
    mask: Bool[Tensor, "b n n"]
    templates: Templates
    whitening: Whitening | None = None
    amplitude_variance: Float[Tensor, "b t"] | None = None


@dataclass(frozen=True)
class Scores:
    """Sums over pixels from which a sandwich covariance is computed.

    The templates' amplitudes (constant sky, PSF-width error) are treated as parameters with prior
    N(0, I): they are the last T of the D parameters, so that their correlation with the coordinates
    w within each block is included.

    Attributes:
        fisher: Fisher information F, with shape (B, D, D).
        noise: Variance of the score under the stated noise, J_0, with shape (B, D, D).
        blocks: Score of each block, with shape (B, K, D); 0 for blocks without pixels.
        block_fisher: Information of each block, with shape (B, K, D, D).
        used: Whether a block has pixels, with shape (B, K).
        pixels: Number of unmasked pixels, with shape (B,).
        amplitude_variance: Variance of the templates' amplitudes in units of that assumed in the
            fit, with shape (B, T).
    """

    fisher: Float[Tensor, "b d d"]
    noise: Float[Tensor, "b d d"]
    blocks: Float[Tensor, "b k d"]
    block_fisher: Float[Tensor, "b k d d"]
    used: Bool[Tensor, "b k"]
    pixels: Int[Tensor, " b"]
    amplitude_variance: Float[Tensor, "b t"]

    @property
    def amplitudes(self) -> int:
        """Number of template amplitudes T."""
        return self.amplitude_variance.shape[1]

    def judged(self, parameters: int) -> Bool[Tensor, " b"]:
        """Returns whether there are enough pixels and blocks to measure structure, (B,).

        Args:
            parameters: Number of parameters constrained by one image.
        """
        blocks = self.used.sum(1) >= BLOCKS_PER_PARAMETER * parameters
        return blocks & (self.pixels >= PIXELS_PER_PARAMETER * parameters)

    def marginal(self, precision: Float[Tensor, "b d d"]) -> Float[Tensor, "b p p"]:
        """Returns the precision of the coordinates, with the amplitudes marginalised."""
        own, mixed, theirs = self._parts(precision)
        return own - mixed @ torch.linalg.solve(theirs, mixed.mT)

    def scatter_of_coordinates(
        self, scatter: Float[Tensor, "b d d"], precision: Float[Tensor, "b d d"]
    ) -> Float[Tensor, "b p p"]:
        """Returns the scatter of the coordinates' scores, with the amplitudes marginalised.

        Args:
            scatter: J, with shape (B, D, D).
            precision: H, with shape (B, D, D).
        """
        _, mixed, theirs = self._parts(precision)
        follow = torch.linalg.solve(theirs, mixed.mT)  # response of the amplitudes
        own, with_them, of_them = self._parts(scatter)
        crossed = with_them @ follow
        of_them = of_them + torch.diag_embed(self.amplitude_variance.to(scatter))
        return own - crossed - crossed.mT + follow.mT @ of_them @ follow

    def _parts(self, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = matrix.shape[-1] - self.amplitudes
        return matrix[..., :n, :n], matrix[..., :n, n:], matrix[..., n:, n:]


def block_scores(images: ModeImages, blocks: Int[Tensor, "b n n"]) -> Scores:
    r"""Computes the score of each block of pixels, its variance under the noise, and F.

    A pixel contributes :math:`G [r/V + \tfrac12 (r^2/V - 1) V'/V]` to the score, with r the
    residual after subtraction of the fitted templates; for the coordinates this is the derivative
    of the likelihood with marginalised templates. For correlated noise, the first term is the
    product of whitened G and r, so that blocks have independent noise, and the second term has
    :math:`r\,(C^{-1} r)` instead of :math:`r^2/V`. In :math:`J_0`, the ratio of the stated
    variance to the likelihood's is then assumed to vary slowly over the noise's correlation length.

    Args:
        images: Images and derivatives at the modes.
        blocks: Block number of each pixel, from 0, with shape (B, N, N).
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
    excess = 0.5 * good * slope**2  # information from the variance's dependence on the model
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
    assumed = images.amplitude_variance
    assumed = g.new_ones(templates.shape[:2]) if assumed is None else assumed
    return Scores(fisher, noise, scores.mT, block_fisher, used, good.sum(1), assumed)


def summed(parts: Sequence[Scores]) -> Scores:
    """Sums the scores of blocks over several bands.

    Args:
        parts: Scores by band; the same block number means the same part of the sky.
    """
    number = max(p.used.shape[1] for p in parts)
    own = parts[0].fisher.shape[-1] - parts[0].amplitudes
    total = own + sum(p.amplitudes for p in parts)
    found, first = [], own
    for p in parts:
        # Each band has its own amplitudes.
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
        torch.cat([p.amplitude_variance for p in parts], 1),
    )


def _placed(scores: Scores, wide: Float[Tensor, "d e"], number: int) -> Scores:
    """Embeds scores among more parameters and blocks, filling the others with zeros."""

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
    """Joins opposite sectors of each ring into one block.

    Arms, bars and rings are symmetric under a half-turn: their contributions to the scores of
    opposite sectors in size, flux and shape add up.

    Args:
        scores: Scores of blocks numbered ring times `sectors` plus sector.
        sectors: Number of sectors per ring, even.
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
    r"""Corrects block scores for the leverage of each block on the fit.

    For a correct model the variance of a block's score at the mode is
    :math:`F_b - F_b H^{-1} F_b` rather than :math:`F_b`, since the mode responds to the block's
    noise. Each score is multiplied by :math:`(1 - F_b H^{-1})^{-1/2}`, in the basis in which this
    matrix is symmetric.

    Args:
        scores: Scores of the blocks.
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
    r"""Computes the scatter of block scores, shrunk towards the noise's if that explains it.

    With scores whitened by :math:`M = J_0 + 1` (directions dominated by the prior have no weight),
    :math:`B_\mathrm{eff} = (\sum |s|^2)^2 / \sum |s|^4`, :math:`d = \mathrm{tr}\,M^{-1} J_0` and
    :math:`\rho = \mathrm{tr}(M^{-1} J)/d`, the excess in units of its standard deviation is
    :math:`x = \max(\rho - 1, 0) / \sqrt{2/(d B_\mathrm{eff})}`, and the noise counts as
    :math:`k = \mathrm{strength}/(1 + x^2)` blocks.

    Args:
        blocks: Scores of the blocks, with shape (B, K, D).
        noise: J_0, with shape (B, D, D).
        strength: Number of blocks that J_0 counts as if the data agree with it; 0 disables it.

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
