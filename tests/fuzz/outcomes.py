"""What became of an odd input: a clear error, a failed row, a flagged one, or a plain result.

Anything else is raised: an exception that is none of the package's own, or a wrong result.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.catalog.sources import from_columns, read_sources
from deeplegato_pp.cli.app import main
from deeplegato_pp.config.schema import load_config
from deeplegato_pp.errors import DeepLegatoError
from fake_model import TRUTH, FakeModel

SIDE = 16
ALL = ERROR, FAILED, FLAGGED, RIGHT = "clear error", "failed row", "flagged row", "right"


def predictor(*ignored: Any, **options: Any) -> Predictor:
    """A predictor with the fake network, whatever network is asked for."""
    model = FakeModel(TRUTH)
    model.image_size = SIDE
    return Predictor(model, "cpu")


def a_file() -> bytes:
    """A FITS file of an image and its noise."""
    header = fits.Header({"PIXSCALE": 0.25, "MAGZERO": 30.5})
    noise = fits.ImageHDU(np.ones((SIDE, SIDE), np.float32), name="UNCERT")
    content = io.BytesIO()
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(image, header), noise]).writeto(content)
    return content.getvalue()


FILE = a_file()


def of_row(row: dict[str, Any]) -> str:
    """Judges a row: it says why it failed, or holds numbers."""
    if row["reason"]:
        assert row["quality"] == "bad"
        assert not row["reason"].startswith("unexpected")
        return FAILED
    assert math.isfinite(row["magnitude"])
    return RIGHT if row["quality"] == "good" else FLAGGED


def of_observation(made: Observation) -> str:
    """Measures what could be made of an input."""
    assert np.isfinite(made.image[~made.mask]).all()
    assert (made.noise[~made.mask] > 0).all()
    return of_row(predictor().posterior([made], 5).rows()[0])


def of_arrays(image: Any, noise: Any, options: dict[str, Any]) -> str:
    """An image, a noise, and numbers beside them."""
    try:
        made = Observation.from_array(image, noise=noise, psf_fwhm=3.0, **options)
    except DeepLegatoError:
        return ERROR
    return of_observation(made)


def of_damaged_file(
    path: Path, damage: list[tuple[int, int]], end: int, card: str, value: Any
) -> str:
    """A file with bytes replaced, cut short, one card replaced."""
    content = bytearray(FILE)
    for place, byte in damage:
        content[place] = byte
    at = bytes(content).find(b"PIXSCALE")
    if at >= 0:
        content[at : at + 80] = f"{card:8}= {value!s:>20.20}".ljust(80).encode("ascii", "replace")
    path.write_bytes(content[: len(content) - end])
    try:
        made = Observation.from_fits(path)
    except DeepLegatoError:
        return ERROR
    return of_observation(made)


def of_columns(columns: dict[str, Any]) -> str:
    """A list of sources in memory."""
    try:
        from_columns(columns, "the list")
    except DeepLegatoError:
        return ERROR
    return RIGHT


def of_list(path: Path, content: bytes) -> str:
    """A list of sources in a file."""
    path.write_bytes(content)
    try:
        read_sources(path)
    except DeepLegatoError:
        return ERROR
    return RIGHT


def of_overrides(overrides: list[str]) -> str:
    """Settings as they are typed."""
    try:
        load_config(None, overrides)
    except DeepLegatoError:
        return ERROR
    return RIGHT


def of_configuration(path: Path, text: str) -> str:
    """A configuration file."""
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        load_config(path)
    except DeepLegatoError:
        return ERROR
    return RIGHT


def of_call(folder: Path, words: list[str]) -> str:
    """A command line, in a folder of its own that holds `a.fits`."""
    (folder / "a.fits").write_bytes(FILE)
    out, err = io.StringIO(), io.StringIO()
    streams = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
    with contextlib.chdir(folder), streams[0], streams[1]:
        status = main(words)
    lines = err.getvalue().splitlines()
    assert all(line.startswith("deeplegato: ") for line in lines), lines
    assert (folder / "a.fits").read_bytes() == FILE
    if status == 2:
        assert lines or "failed" in out.getvalue()
        return ERROR
    assert status == 0
    return RIGHT
