"""Parsing of noise correlations: a number, lags, drizzle parameters, or to be measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_at_least_one, check_within
from deeplegato_pp.errors import FormatError, InputError
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.io.header_keywords import header_number, header_text
from deeplegato_pp.observation.correlation import LARGEST, NoiseCorrelation
from deeplegato_pp.observation.noise_correlation import measure_correlation

Known = float | Literal["measure", "drizzle"] | NoiseCorrelation
"""A number c, a keyword for the image or its header, or the correlation itself."""

GivenCorrelation = Known | Array | str | os.PathLike[str]
"""User input, see :func:`parse_noise_correlation`."""

_SQUARE = ("square", "turbo")
"""Drizzle kernels supported by :meth:`NoiseCorrelation.drizzle`."""


def parse_noise_correlation(value: GivenCorrelation) -> Known:
    """Parses a noise correlation, reading files if necessary.

    Args:
        value: One of: the variance c of sums over many pixels relative to independent pixels, from
            1 to 50; ``"measure"``; ``"drizzle"`` to read the drizzle parameters from the image's
            header, or ``"drizzle:SCALE,PIXFRAC"``; the correlation at each lag (y, x), an array of
            odd side with lag zero in the middle, or a file that holds it (FITS, .npy or text).

    Raises:
        InputError: If it is none of these.
        RangeError: If a number lies outside its range.
        FormatError: If a file is missing or cannot be read.
    """
    if isinstance(value, NoiseCorrelation):
        return value
    if isinstance(value, str):
        word = value.strip()
        if word in ("measure", "drizzle"):
            return word  # type: ignore[return-value]
        if word.startswith("drizzle:"):
            numbers = word.removeprefix("drizzle:").split(",")
            if len(numbers) != 2:
                raise InputError(
                    f"drizzle takes two numbers, SCALE,PIXFRAC, got {word!r}. Write "
                    "drizzle:0.6,0.8."
                )
            return NoiseCorrelation.drizzle(*numbers)  # type: ignore[arg-type]
        try:
            value = float(word)
        except ValueError:
            return NoiseCorrelation(_lags_in(word))
    if isinstance(value, os.PathLike):
        return NoiseCorrelation(_lags_in(value))
    if isinstance(value, np.ndarray | list | tuple):
        return NoiseCorrelation(np.asarray(value))
    number = check_at_least_one(value, "noise_correlation")
    return check_within(number, 1.0, LARGEST, "noise_correlation")


def correlation_of(
    value: GivenCorrelation, image: Array, noise: Array, mask: Array
) -> tuple[float, NoiseCorrelation | None, list[str]]:
    """Returns c, the correlation if more than c is known, and remarks.

    Args:
        value: See :func:`parse_noise_correlation`.
        image: Image, with shape (H, W), like the other arrays.
        noise: 1-sigma map of the background.
        mask: True for pixels to ignore.

    Raises:
        InputError: If it is invalid or cannot be measured.
        RangeError: If a number lies outside its range.
    """
    known = parse_noise_correlation(value)
    if known == "drizzle":
        raise InputError(
            "noise_correlation='drizzle' takes scale and pixfrac from an image's header, and there "
            "is none. Write drizzle:SCALE,PIXFRAC."
        )
    if known == "measure":
        found = measure_correlation(image, noise, mask)
        total = 1.0 if found is None else found.total
        return total, found, [f"noise correlation {total:.2f} measured on the stamp"]
    if isinstance(known, NoiseCorrelation):
        return max(known.total, 1.0), known, []
    assert isinstance(known, float)  # noqa: S101  # the words were dealt with
    return known, None, []


def drizzle_of_header(header: Mapping[str, Any], pixel_scale: float | None) -> NoiseCorrelation:
    """Returns the correlation of drizzled noise, from keywords of the image's header.

    Uses AstroDrizzle's D001ISCL, D001SCAL (or the image's own scale), D001PIXF and D001KERN, or the
    PXSCLRT and PIXFRAC of JWST's resampling.

    Args:
        header: Header of the image.
        pixel_scale: Pixel scale of the image, None if unknown. [arcsec/px]

    Raises:
        InputError: If the keywords are missing, or the kernel is not square.
    """
    kernel = (header_text(header, "D001KERN") or "square").lower()
    if kernel not in _SQUARE:
        raise InputError(
            f"noise drizzled with the kernel {kernel!r} is not known, expected square or turbo. "
            "Use noise_correlation='measure'."
        )
    native = header_number(header, "D001ISCL")
    output = header_number(header, "D001SCAL") or pixel_scale
    ratio = header_number(header, "PXSCLRT")
    if ratio is None and native and output:
        ratio = output / native
    pixfrac = header_number(header, "D001PIXF")
    pixfrac = header_number(header, "PIXFRAC") if pixfrac is None else pixfrac
    if ratio is None or pixfrac is None:
        raise InputError(
            "the header does not tell how the image was drizzled, expected D001ISCL and D001PIXF, "
            "or PXSCLRT and PIXFRAC. Write drizzle:SCALE,PIXFRAC, or use 'measure'."
        )
    return NoiseCorrelation.drizzle(ratio, pixfrac)


def _lags_in(path: str | os.PathLike[str]) -> Array:
    """Reads the array in a file of lags."""
    if not os.path.isfile(path):
        raise FormatError(
            f"noise_correlation takes a number, 'measure', 'drizzle', drizzle:SCALE,PIXFRAC or a "
            f"file of lags, got {str(path)!r}, which is no file. Check the path."
        )
    suffixes = "".join(Path(path).suffixes).lower()
    if ".fit" in suffixes or ".fz" in suffixes:
        return fits_io.read_array(path, ("CORRELATION",), "the noise's correlation")
    try:
        if suffixes.endswith(".npy"):
            lags: Array = np.load(path, allow_pickle=False)
            return lags
        return np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise FormatError(
            f"{path}: is no array of numbers ({str(error).splitlines()[0]}). Write the correlation "
            "at each lag as FITS, .npy or text."
        ) from error
