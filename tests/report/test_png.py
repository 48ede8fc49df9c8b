from __future__ import annotations

import struct
import zlib

import numpy as np
from matplotlib.image import imread

from deeplegato_pp.report.png import MASKED, brightness_palette, encode_png, to_indices


def test_a_picture_is_read_back_with_row_0_at_the_bottom(tmp_path):
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = bytes(np.repeat(np.arange(256, dtype=np.uint8), 3))
    (tmp_path / "p.png").write_bytes(encode_png(indices, palette))
    pixels = imread(tmp_path / "p.png")[..., 0] * 255
    np.testing.assert_array_equal(np.round(pixels).astype(int), indices[::-1])


def test_the_file_keeps_its_checksums():
    content = encode_png(np.zeros((2, 3), dtype=np.uint8), brightness_palette())[8:]
    kinds = []
    while content:
        (length,) = struct.unpack(">I", content[:4])
        kinds.append(content[4:8])
        (check,) = struct.unpack(">I", content[8 + length : 12 + length])
        assert check == zlib.crc32(content[4 : 8 + length])
        content = content[12 + length :]
    assert kinds == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]


def test_brightness_grows_along_the_palette():
    colours = np.frombuffer(brightness_palette(), dtype=np.uint8).reshape(256, 3).astype(float)
    luminance = colours[:MASKED] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= 0).all()
    assert np.ptp(colours[MASKED]) == 0


def test_indices_clip_and_mask():
    values = np.array([[-10.0, 0.0, 5.0], [10.0, 99.0, np.nan]])
    mask = np.array([[False, False, True], [False, False, False]])
    assert to_indices(values, 0.0, 10.0, mask).tolist() == [[0, 0, MASKED], [254, 254, MASKED]]
