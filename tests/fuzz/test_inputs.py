"""Odd headers, arrays, lists and command lines: a clear error, a failed row, or the right answer.

Some seconds by default; `make test-slow` draws for about an hour.
"""

from __future__ import annotations

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.catalog.sources import from_columns, read_sources
from deeplegato_pp.cli.app import main
from deeplegato_pp.config.schema import load_config
from deeplegato_pp.errors import DeepLegatoError
from deeplegato_pp.io.fits import read_image
from fake_model import TRUTH, FakeModel

pytestmark = pytest.mark.filterwarnings("ignore")  # numpy and astropy warn of odd numbers

SIDE = 16
FEW, MANY = 25, 20_000
QUICK = settings(
    max_examples=FEW,
    deadline=None,
    derandomize=True,  # the same draws in every run: what they find is kept as a plain test
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, max_examples=MANY, derandomize=False)

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.0, -0.0, 1e-300, 1e300, 5e-324, 1.0, math.nan]),
)
CARDS = st.sampled_from(
    ["PIXSCALE", "MAGZERO", "GAIN", "EXPTIME", "BUNIT", "BSCALE", "CD1_1", "CDELT1", "CTYPE1"]
)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=SIDE),
)


def predictor() -> Predictor:
    model = FakeModel(TRUTH)
    model.image_size = SIDE
    return Predictor(model, "cpu")


def check_array(image, noise, options) -> None:
    try:
        made = Observation.from_array(image, noise=noise, psf_fwhm=3.0, **options)
    except DeepLegatoError:
        return
    assert np.isfinite(made.image[~made.mask]).all()
    row = predictor().posterior([made], 5).rows()[0]
    assert row["reason"] or math.isfinite(row["magnitude"])


OPTIONS = st.dictionaries(st.sampled_from(["gain", "pixel_scale", "zero_point"]), NUMBERS)


@QUICK
@given(ARRAYS, st.one_of(NUMBERS, ARRAYS), OPTIONS)
def test_arrays(image, noise, options):
    check_array(image, noise, options)


@pytest.mark.slow
@LONG
@given(ARRAYS, st.one_of(NUMBERS, ARRAYS), OPTIONS)
def test_many_arrays(image, noise, options):
    check_array(image, noise, options)


def a_file() -> bytes:
    header = fits.Header({"PIXSCALE": 0.25, "MAGZERO": 30.5})
    noise = fits.ImageHDU(np.ones((SIDE, SIDE), np.float32), name="UNCERT")
    content = io.BytesIO()
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    fits.HDUList([fits.PrimaryHDU(image, header), noise]).writeto(content)
    return content.getvalue()


FILE = a_file()
DAMAGE = st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), max_size=12)


def check_damage(path: Path, damage, end: int, card: str, value) -> None:
    content = bytearray(FILE)
    for place, byte in damage:
        content[place] = byte
    at = bytes(content).find(b"PIXSCALE")
    if at >= 0:
        content[at : at + 80] = f"{card:8}= {value!s:>20.20}".ljust(80).encode("ascii", "replace")
    path.write_bytes(content[: len(content) - end])
    with contextlib.suppress(DeepLegatoError):
        read_image(path)
    with contextlib.suppress(DeepLegatoError):
        Observation.from_fits(path)


@QUICK
@given(DAMAGE, st.integers(0, len(FILE)), CARDS, NUMBERS)
def test_damaged_files(tmp_path_factory, damage, end, card, value):
    check_damage(tmp_path_factory.getbasetemp() / "a.fits", damage, end, card, value)


@pytest.mark.slow
@LONG
@given(DAMAGE, st.integers(0, len(FILE)), CARDS, NUMBERS)
def test_many_damaged_files(tmp_path_factory, damage, end, card, value):
    check_damage(tmp_path_factory.getbasetemp() / "a.fits", damage, end, card, value)


LISTS = st.dictionaries(
    st.sampled_from(["id", "x", "y", "ra", "dec", "file", "psf", "odd"]),
    st.lists(st.one_of(NUMBERS, st.text(max_size=4), st.none()), max_size=3),
)


@QUICK
@given(LISTS, st.binary(max_size=200))
def test_lists_of_sources(tmp_path_factory, columns, content):
    with contextlib.suppress(DeepLegatoError):
        from_columns(columns, "the list")
    path = tmp_path_factory.getbasetemp() / "list.csv"
    path.write_bytes(content)
    with contextlib.suppress(DeepLegatoError):
        read_sources(path)


@QUICK
@given(st.lists(st.text(max_size=40), max_size=3), st.text(max_size=80))
def test_configurations(tmp_path_factory, overrides, text):
    with contextlib.suppress(DeepLegatoError):
        load_config(None, overrides)
    path = tmp_path_factory.getbasetemp() / "c.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(DeepLegatoError):
        load_config(path)


WORDS = st.one_of(
    st.sampled_from(
        ["predict", "simulate", "catalog", "info", "-o", "t.fits", "--seed", "-1", "--samples"]
    ),
    st.text(max_size=6),
)


@settings(QUICK, max_examples=8)
@given(st.lists(WORDS, max_size=6))
def test_command_lines(tmp_path_factory, words):
    with contextlib.chdir(tmp_path_factory.mktemp("cli")), contextlib.redirect_stdout(None):
        status = main(["predict", "gone.fits", *words])
    assert status == 2 or "--help" in words
