"""Detection of image defects: saturation, wrong noise maps, blank images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from deeplegato_pp.inference.fit.background import noise_differs
from deeplegato_pp.observation.preparation import PreparedStamp

_SATURATED_AREA = 4
_SATURATED_SNR = 10.0
_SATURATED_RANGE = 3.0


def is_saturated(prepared: PreparedStamp, model: Float[Tensor, "n n"]) -> bool:
    """Returns whether the galaxy's core has a flat top.

    Four or more adjacent pixels agree with the brightest one to a tenth of their noise, each ten
    sigma bright, where the model varies by more than three sigma (noise including shot noise).

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
    # A value that fills more than half of a sorted list occurs again half the list away.
    return bool((values[: len(values) - half] == values[half:]).any())


def noise_remarks(ratios: tuple[float, float], pixels: int) -> list[str]:
    """Describes how a noise map is wrong; empty if it is not.

    Args:
        ratios: Ratios from :func:`~deeplegato_pp.inference.fit.background.noise_ratios`.
        pixels: Number of background pixels.
    """
    words = ("pixels scatter", "blocks of 4 x 4 pixels scatter")
    wrong = noise_differs(ratios, pixels)
    return [
        f"the background's {what} {ratio:.2f} times as much as the noise map"
        for ratio, what, differs in zip(ratios, words, wrong, strict=True)
        if differs
    ]
