"""Background noise and foreign light in residual images."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool2d

from deeplegato_pp.inference.fit.neighbours import THRESHOLD
from deeplegato_pp.observation.noise_maps import MAD_TO_SIGMA

BLOCK = 4
"""Side of the blocks in which faint, extended light and correlated noise are detected. [px]"""

FAINT = 0.5
"""Pixels in which the model is fainter than this are background. [sigma]"""

PIXEL_TOLERANCE, BLOCK_TOLERANCE = 0.10, 0.30
"""Relative error of a noise map that is tolerated; pipelines are not more accurate."""

SIGNIFICANT = 5.0
"""Significance, in standard errors, at which a noise map counts as wrong."""

_GROWTH = 2
"""Number of pixels by which detected foreign light is dilated."""

_FEWEST = 64
"""Minimum number of background pixels (or blocks) for a noise estimate."""


def block_sums(
    residual: Float[Tensor, "*b n n"], good: Bool[Tensor, "*b n n"], side: int
) -> tuple[Tensor, Tensor]:
    """Computes block sums in units of their noise, and whether blocks are mostly unmasked.

    Args:
        residual: Residual in sigma, 0 where masked, with shape (*, N, N).
        good: True for unmasked pixels, with shape (*, N, N).
        side: Side of a block. [px]
    """
    share = avg_pool2d(good.double().unsqueeze(-3), side).squeeze(-3)
    sums = avg_pool2d(residual.unsqueeze(-3), side).squeeze(-3) * side
    return sums / share.clamp_min(1e-9).sqrt(), share > 0.5


def foreign_light(
    residual: Float[Tensor, "n n"],
    good: Bool[Tensor, "n n"],
    inside: Bool[Tensor, "n n"],
    scatter: tuple[float, float] = (1.0, 1.0),
) -> Bool[Tensor, "n n"]:
    """Returns the pixels outside the galaxy with light that is not in the model.

    Detects two or more adjacent pixels, or blocks of 4 x 4, more than 5 sigma above the model: a
    star, a compact galaxy, or a faint extended one.

    Args:
        residual: Residual in sigma, 0 where masked, with shape (N, N).
        good: True for unmasked pixels, with shape (N, N).
        inside: Pixels of the galaxy itself, with shape (N, N).
        scatter: Noise of pixels and of blocks relative to the noise map.
    """
    bright = ((residual > THRESHOLD * scatter[0]) & good & ~inside).numpy()
    labels, count = ndimage.label(bright, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    found = torch.from_numpy(sizes >= 2)[torch.from_numpy(labels).long()]
    sums, used = block_sums(torch.where(inside, 0.0, residual), good & ~inside, BLOCK)
    blocks = used & (sums > THRESHOLD * scatter[1])
    whole = blocks.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    edge = (0, found.shape[1] - whole.shape[1], 0, found.shape[0] - whole.shape[0])
    return found | (torch.nn.functional.pad(whole, edge) & good & ~inside)


def noise_ratios(
    residual: Float[Tensor, "n n"], background: Bool[Tensor, "n n"]
) -> tuple[float, float]:
    """Computes the ratio of background scatter to noise map, for pixels and for 4 x 4 blocks.

    Uses the median absolute deviation, which is robust against neighbours. The two ratios agree
    for white noise; correlated noise gives a larger ratio in blocks. NaN if there are too few.

    Args:
        residual: Residual in sigma, with shape (N, N).
        background: True for pixels without light of the galaxy, with shape (N, N).
    """
    sums, used = block_sums(torch.where(background, residual, 0.0), background, BLOCK)
    return _scatter(residual[background]), _scatter(sums[used])


def noise_differs(ratios: tuple[float, float], pixels: int) -> tuple[bool, bool]:
    """Returns whether the noise map is wrong, for pixels and for blocks.

    Args:
        ratios: From :func:`noise_ratios`.
        pixels: Number of background pixels.
    """
    counts = (pixels, max(pixels // BLOCK**2, 1))
    # The relative error of the MAD of n normal numbers is 1.17/sqrt(2 n).
    errors = (
        max(tolerance, SIGNIFICANT * 1.17 / math.sqrt(2.0 * max(count, 1)))
        for count, tolerance in zip(counts, (PIXEL_TOLERANCE, BLOCK_TOLERANCE), strict=True)
    )
    by_pixel, by_block = (abs(r - 1.0) > e for r, e in zip(ratios, errors, strict=True))
    return by_pixel, by_block  # comparisons with NaN are False


def measured_noise(
    residual: Float[Tensor, "n n"], background: Bool[Tensor, "n n"], stated: float
) -> float:
    """Computes the ratio of background noise to noise map; 1 unless the map is wrong.

    Returns the larger ratio of pixels and blocks, because parameters depend on many pixels. It is
    below 1 only if both are.

    Args:
        residual: Residual in sigma, with shape (N, N).
        background: True for pixels without light of the galaxy, with shape (N, N).
        stated: Ratio for blocks that is expected from the stated noise correlation.
    """
    pixels, blocks = noise_ratios(residual, background)
    ratios = (pixels, blocks / stated)
    if not any(noise_differs(ratios, int(background.sum()))):
        return 1.0
    return max(r for r in ratios if not math.isnan(r))


def pull_of_light(
    derivatives: Float[Tensor, "d n n"],
    residual: Float[Tensor, "n n"],
    variance: Float[Tensor, "n n"],
    good: Bool[Tensor, "n n"],
    light: Bool[Tensor, "n n"],
) -> Float[Tensor, " d"]:
    """Computes the shift of the optimum if some pixels were masked, to first order.

    Args:
        derivatives: Derivatives of the noiseless image with respect to coordinates with prior
            N(0, I).
        residual: Data minus model and fitted sky.
        variance: Variance of the likelihood.
        good: True for unmasked pixels.
        light: Pixels in question; they are dilated by two pixels.

    References:
        | Detection of influential observation in linear regression (Cook, 1977)
    """
    grown = ndimage.binary_dilation(light.numpy(), np.ones((3, 3)), iterations=_GROWTH)
    chosen = torch.from_numpy(grown) & good
    rest = (good & ~chosen).flatten()
    g = derivatives.flatten(1)
    weight = torch.where(good, 1.0 / variance, 0.0).flatten()
    return _shift(g, weight * rest, weight * residual.flatten() * chosen.flatten())


def pull_of_image(
    derivatives: Float[Tensor, "d n n"],
    weighted: Float[Tensor, "n n"],
    variance: Float[Tensor, "n n"],
    good: Bool[Tensor, "n n"],
    templates: Float[Tensor, "k n n"],
) -> Float[Tensor, " d"]:
    """Computes the shift of the optimum by an image added to the data, to first order.

    Args:
        derivatives: Derivatives of the noiseless image with respect to coordinates with prior
            N(0, I).
        weighted: Added image, divided by the variance.
        variance: Variance of the likelihood.
        good: True for unmasked pixels.
        templates: Sky and PSF-width templates, whose amplitudes move too; prior N(0, I).
    """
    g = torch.cat([derivatives, templates.to(derivatives)]).flatten(1)
    weight, weighted = (torch.where(good, image, 0.0) for image in (1.0 / variance, weighted))
    return _shift(g, weight.flatten(), weighted.flatten())[: len(derivatives)]


def _shift(
    g: Float[Tensor, "d p"], weight: Float[Tensor, " p"], weighted: Float[Tensor, " p"]
) -> Float[Tensor, " d"]:
    """Solves the normal equations with prior N(0, I) for weighted data."""
    information = (g * weight) @ g.T + torch.eye(len(g)).to(g)
    return torch.linalg.solve(information, g @ weighted)


def _scatter(values: Tensor) -> float:
    if len(values) < _FEWEST:
        return math.nan
    return MAD_TO_SIGMA * float((values - values.median()).abs().median())
