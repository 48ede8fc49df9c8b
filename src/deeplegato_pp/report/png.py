"""PNG files with a palette."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from deeplegato_pp.arrays import Array

MASKED = 255
"""Palette index of masked pixels."""

LEVELS = 255
"""Number of palette indices for brightness: 0 to 254."""

_BRIGHTNESS = ((0, 0, 4), (40, 17, 89), (114, 31, 129), (183, 55, 121), (241, 96, 93),
               (254, 159, 109), (252, 253, 191))  # fmt: skip
"""Anchors of the brightness palette, from dark to light, equally spaced in lightness."""

_MASK_COLOUR = (150, 150, 150)


def brightness_palette() -> bytes:
    """Returns 256 colours (R, G, B): from dark to light, and grey for masked pixels."""
    anchors = np.array(_BRIGHTNESS, dtype=float)
    place = np.linspace(0, len(anchors) - 1, LEVELS)
    colours = np.stack([np.interp(place, range(len(anchors)), c) for c in anchors.T], 1)
    return bytes(np.vstack([colours.round(), _MASK_COLOUR]).astype(np.uint8))


def to_indices(values: Array, low: float, high: float, mask: Array) -> Array:
    """Converts an image to palette indices; masked and unknown pixels are grey.

    Args:
        values: Image, with shape (H, W).
        low: Value of index 0; lower values are dark.
        high: Value of the last index.
        mask: True for grey pixels, with shape (H, W).
    """
    unknown = mask | ~np.isfinite(values)
    scaled = np.clip((np.where(unknown, low, values) - low) / (high - low), 0.0, 1.0)
    indices = np.round(scaled * (LEVELS - 1)).astype(np.uint8)
    return np.where(unknown, np.uint8(MASKED), indices)


def encode_png(indices: Array, palette: bytes) -> bytes:
    """Encodes palette indices as a PNG file, with row 0 at the bottom.

    Args:
        indices: Palette indices, with shape (H, W), uint8.
        palette: 256 colours (R, G, B).
    """
    height, width = indices.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)  # lines begin with filter type 0
    lines[:, 1:] = indices[::-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette), (b"IDAT", zlib.compress(lines.tobytes(), 6)),
              (b"IEND", b""))  # fmt: skip
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        check = zlib.crc32(kind + data)
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
    return content
