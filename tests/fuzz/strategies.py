"""Odd numbers, arrays, files, lists, settings and command lines."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fuzz.outcomes import FILE, SIDE

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.0, -0.0, 1e-300, 1e300, 5e-324, 1.0, math.nan]),
)

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int16, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=SIDE),
)
STAMPS = hnp.arrays(
    np.float64,
    (SIDE, SIDE),
    elements=st.one_of(st.floats(-5.0, 5.0), st.floats(), st.sampled_from([0.0, 1e30, -1e5])),
    fill=st.floats(-5.0, 5.0),
)
IMAGES = st.one_of(ARRAYS, STAMPS, STAMPS)
PLAIN = st.floats(0.1, 30.0)
NOISES = st.one_of(PLAIN, NUMBERS, ARRAYS, STAMPS.map(np.abs))
OPTIONS = st.dictionaries(
    st.sampled_from(["gain", "pixel_scale", "zero_point", "sky_sigma", "psf_error", "mask_bits"]),
    st.one_of(PLAIN, PLAIN, PLAIN, NUMBERS, st.none(), st.booleans(), st.text(max_size=3)),
    max_size=3,
)

DAMAGE = st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), max_size=12)
ENDS = st.one_of(st.just(0), st.integers(0, len(FILE)))
CARDS = st.sampled_from(
    ["PIXSCALE", "MAGZERO", "GAIN", "EXPTIME", "BUNIT", "BSCALE", "CD1_1", "CDELT1", "CTYPE1"]
)

LISTS = st.dictionaries(
    st.sampled_from(["id", "x", "y", "ra", "dec", "file", "psf", "odd"]),
    st.lists(st.one_of(NUMBERS, st.text(max_size=4), st.none()), max_size=3),
)
TABLES = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.lists(st.one_of(NUMBERS, st.text(max_size=5)).map(str), min_size=3, max_size=3)
    ).map(
        lambda rows: "\n".join(["id,x,y", *(",".join(row) for row in rows)]).encode(
            errors="replace"
        )
    ),
)

SETTINGS = st.one_of(
    st.text(max_size=40),
    st.tuples(
        st.sampled_from(
            ["training.batch_size", "training.learning_rate", "data.image_size", "seed", "include",
             "data.conditions.psf_fwhm", "model.npe.flow_type", "data.priors"]
        ),
        st.one_of(NUMBERS.map(str), st.sampled_from(["[3,1]", "[1", "{", "null", "true", "''"])),
    ).map("=".join),
)  # fmt: skip
SOURCES = st.one_of(
    st.text(max_size=80), st.lists(SETTINGS, max_size=3).map(lambda s: "\n".join(s))
)

_VALUES = st.one_of(
    PLAIN.map(str),
    st.integers(0, 40).map(str),
    NUMBERS.map(str),
    st.text(max_size=6),
    st.sampled_from(["a.fits", "t.ecsv", "sersic_index=2"]),
)
_NAMED = st.tuples(
    st.sampled_from(
        ["--psf-fwhm", "--gain", "--pixel-scale", "--zero-point", "--sky-sigma", "--noise",
         "--samples", "--seed", "--mask-bits", "--psf-error", "--noise-correlation", "--plane",
         "--psf-oversampling", "--extension", "--fix", "--noise-type", "--psf", "--mask", "-o"]
    ),
    _VALUES,
).map(list)  # fmt: skip
_CALL = ["predict", "a.fits", "--no-refine", "--samples", "5"]
CALLS = st.lists(st.one_of(_NAMED, _VALUES.map(lambda v: [v])), max_size=3).map(
    lambda parts: [*_CALL, *chain.from_iterable(parts)]
)
