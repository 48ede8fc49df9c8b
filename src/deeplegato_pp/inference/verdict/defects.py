"""What residuals and pixels say of the image itself: neighbours, saturation, wrong noise."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import avg_pool2d

from deeplegato_pp.inference.fit.neighbours import THRESHOLD
from deeplegato_pp.observation.preparation import PreparedStamp

BLOCK = 4
"""Side of the blocks in which faint, extended light and correlated noise show. [px]"""

PIXEL_TOLERANCE, BLOCK_TOLERANCE = 0.10, 0.30
"""Relative errors of a noise map that are not flagged: pipelines reach no better."""

SIGNIFICANT = 5.0
"""Standard errors by which a noise map must be wrong."""

MAD_TO_SIGMA = 1.482602218505602

_FEWEST = 64
"""Background pixels (or blocks) needed to judge the noise."""

_SATURATED_AREA = 4
_SATURATED_SNR = 10.0
_SATURATED_RANGE = 3.0


def block_sums(
    residual: Float[Tensor, "*b n n"], good: Bool[Tensor, "*b n n"], side: int
) -> tuple[Tensor, Tensor]:
    """Returns sums over blocks in units of their own noise, and which are mostly unmasked.

    Args:
        residual: In sigma, 0 where masked, with shape (*, N, N).
        good: Unmasked pixels, with shape (*, N, N).
        side: Of a block. [px]
    """
    share = avg_pool2d(good.double().unsqueeze(-3), side).squeeze(-3)
    sums = avg_pool2d(residual.unsqueeze(-3), side).squeeze(-3) * side
    return sums / share.clamp_min(1e-9).sqrt(), share > 0.5


def has_neighbour(
    residual: Float[Tensor, "n n"],
    good: Bool[Tensor, "n n"],
    inside: Bool[Tensor, "n n"],
    scatter: tuple[float, float] = (1.0, 1.0),
) -> bool:
    """Returns whether there is light outside the galaxy that the model does not have.

    Two adjacent pixels, or one block of 4 x 4, more than 5 sigma above the model: a star or a
    compact galaxy, or a faint extended one.

    Args:
        residual: In sigma, 0 where masked, with shape (N, N).
        good: Unmasked pixels, with shape (N, N).
        inside: The galaxy's own pixels, with shape (N, N).
        scatter: Noise of pixels and of blocks over that of the noise map.
    """
    bright = ((residual > THRESHOLD * scatter[0]) & good & ~inside).numpy()
    labels, count = ndimage.label(bright, structure=np.ones((3, 3)))
    if count and int(np.bincount(labels.ravel())[1:].max()) >= 2:
        return True
    sums, used = block_sums(torch.where(inside, 0.0, residual), good & ~inside, BLOCK)
    return bool((sums[used] > THRESHOLD * scatter[1]).any())


def is_saturated(prepared: PreparedStamp, model: Float[Tensor, "n n"]) -> bool:
    """Returns whether the galaxy's core has a flat top.

    Four or more adjacent pixels agree with the brightest one to a tenth of their noise, each ten
    sigma bright, where the model varies by more than three sigma. [noise: shot noise included]

    Args:
        prepared: The stamp.
        model: The model's image, with shape (N, N). [background sigma]
    """
    image = np.where(prepared.mask, -np.inf, prepared.image)
    peak = float(image.max())
    noise = np.sqrt(np.asarray(prepared.noise) ** 2 + np.maximum(image, 0.0) / prepared.gain)
    top = (peak - image < 0.1 * noise) & (image > _SATURATED_SNR * noise)
    labels, _ = ndimage.label(top, structure=np.ones((3, 3)))
    group = labels == labels[np.unravel_index(int(image.argmax()), image.shape)]
    if not top.any() or int((group & top).sum()) < _SATURATED_AREA:
        return False
    expected = model.numpy()[group & top]
    return bool(expected.max() - expected.min() > _SATURATED_RANGE * noise[group & top].min())


def is_blank(prepared: PreparedStamp) -> bool:
    """Returns whether more than half of the unmasked pixels hold one and the same value."""
    values = np.sort(prepared.image[~prepared.mask])
    half = len(values) // 2
    # A value that fills more than half of a sorted list is its own neighbour half the list away.
    return bool((values[: len(values) - half] == values[half:]).any())


def noise_ratios(
    residual: Float[Tensor, "n n"], background: Bool[Tensor, "n n"]
) -> tuple[float, float]:
    """Returns the background's scatter over that of the noise map, by pixels and by 4 x 4 blocks.

    Robust (median absolute deviation), so that neighbours do not count. Pixels and blocks agree
    for white noise; correlated noise scatters more in blocks. NaN where there are too few.

    Args:
        residual: In sigma, with shape (N, N).
        background: Pixels without light of the galaxy, with shape (N, N).
    """
    sums, used = block_sums(torch.where(background, residual, 0.0), background, BLOCK)
    return _scatter(residual[background]), _scatter(sums[used])


def noise_remarks(ratios: tuple[float, float], pixels: int) -> list[str]:
    """Returns in words how a noise map is wrong; empty if it is right.

    Args:
        ratios: From :func:`noise_ratios`.
        pixels: Number of background pixels.
    """
    tolerances = (PIXEL_TOLERANCE, BLOCK_TOLERANCE)
    counts = (pixels, max(pixels // BLOCK**2, 1))
    words = ("pixels scatter", "blocks of 4 x 4 pixels scatter")
    remarks = []
    for ratio, count, tolerance, what in zip(ratios, counts, tolerances, words, strict=True):
        if math.isnan(ratio):
            continue
        # The median absolute deviation of n normal numbers is good to 1.17/sqrt(2 n).
        error = max(tolerance, SIGNIFICANT * 1.17 / math.sqrt(2.0 * count))
        if abs(ratio - 1.0) > error:
            remarks.append(f"the background's {what} {ratio:.2f} times as much as the noise map")
    return remarks


def _scatter(values: Tensor) -> float:
    if len(values) < _FEWEST:
        return math.nan
    return MAD_TO_SIGMA * float((values - values.median()).abs().median())
