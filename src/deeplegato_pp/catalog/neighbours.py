"""Masking of neighbours with a segmentation map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import RangeError

GROW = 2
"""Number of pixels by which neighbours' segments are dilated before masking."""


def segment_at(segments: Array, x: float, y: float) -> int:
    """Returns the number of a source's segment; -1 if it has none.

    It is the segment at its pixel, or else the most frequent one within 2 px.

    Args:
        segments: Segmentation map, with shape (H, W), 0 for background.
        x: Column of the source. [px of the array]
        y: Row of the source. [px of the array]

    Raises:
        RangeError: If (x, y) is not in the array.
    """
    column, row = round(x), round(y)
    if not (0 <= row < segments.shape[0] and 0 <= column < segments.shape[1]):
        raise RangeError(f"({x:.1f}, {y:.1f}) is not in a cutout of shape {segments.shape}.")
    own = segments[row, column]
    if own == 0:
        near = segments[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        labels, counts = np.unique(near[near > 0], return_counts=True)
        own = labels[counts.argmax()] if len(labels) else -1
    return int(own)


def neighbours_of(
    segments: Array, x: float, y: float, kept: Sequence[int] = (), grow: int = GROW
) -> Array:
    """Returns the pixels that belong to other sources than the one at (x, y).

    They are dilated by `grow` pixels, except into the source's own segment.

    Args:
        segments: Segmentation map, with shape (H, W), 0 for background.
        x: Column of the source. [px of the array]
        y: Row of the source. [px of the array]
        kept: Segments of other sources that are not masked.
        grow: Dilation. [px]

    Raises:
        RangeError: If (x, y) is not in the array.
    """
    own = [segment_at(segments, x, y), *kept]
    others = (segments != 0) & ~np.isin(segments, own)
    for _ in range(grow if others.any() else 0):
        wider = others.copy()
        wider[1:] |= others[:-1]
        wider[:-1] |= others[1:]
        wider[:, 1:] |= others[:, :-1]
        wider[:, :-1] |= others[:, 1:]
        others = wider
    return others & ~np.isin(segments, own)
