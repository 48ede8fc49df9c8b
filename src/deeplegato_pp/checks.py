"""Checks of users' input: each raises an error with expected value, given value and remedy."""

import math
import operator
import secrets
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError, RangeError, ShapeError

SMALLEST_NOISE, LARGEST_NOISE = 1e-150, 1e150
"""Range of noise values whose squares and ratios are finite in float64. [image units]"""


def as_real_array(array: Any, what: str) -> Array:
    """Returns a native float64 copy of ``array``; masked entries become NaN.

    Raises:
        InputError: If the entries are not real numbers.
    """
    plain = np.asarray(np.ma.getdata(as_plain(array)))
    if plain.dtype.kind not in "biuf":
        raise InputError(
            f"{what} must hold real numbers, got an array of type {plain.dtype}. "
            "Convert it with numpy.asarray(..., dtype=float)."
        )
    copy = np.array(plain, dtype=np.float64, order="C")
    if np.ma.isMaskedArray(array):
        copy[np.ma.getmaskarray(array)] = np.nan
    return copy


def as_plain(array: Any) -> Any:
    """Converts a tensor, on any device and with or without gradient, to a numpy array.

    Other objects are returned unchanged; bfloat16, which numpy lacks, becomes float32.
    """
    if not hasattr(array, "detach"):
        return array
    tensor = array.detach().cpu()
    return (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def check_seed(seed: Any, number: int) -> int | list[int]:
    """Returns a seed as an integer, or one integer per galaxy.

    Args:
        seed: Integer; sequence with one integer per galaxy; None for a random seed.
        number: Number of galaxies.

    Raises:
        InputError: If the seed has another type or length.
    """
    if seed is None:
        return secrets.randbits(62)
    if isinstance(seed, int | np.integer):
        return int(seed)
    try:
        seeds = [int(operator.index(s)) for s in seed] if not isinstance(seed, str) else []
    except TypeError:
        seeds = []
    if not seeds:
        raise InputError(
            f"seed must be a whole number, a sequence with one for each galaxy, or None, got "
            f"{seed!r}."
        )
    if len(seeds) != number:
        raise InputError(f"{len(seeds)} seeds for {number} observations. Give one for each.")
    return seeds


def check_two_dimensional(array: Array, what: str) -> None:
    """Checks that ``array`` has two axes."""
    if array.ndim != 2:
        raise ShapeError(
            f"{what} must be 2-D (rows, columns), got {array.ndim}-D of shape {array.shape}. "
            "Select one plane, or another extension."
        )


def check_not_empty(array: Array, what: str) -> None:
    """Checks that ``array`` has pixels."""
    if array.size == 0:
        raise ShapeError(
            f"{what} must have pixels, got shape {array.shape}. Was the cutout outside the frame?"
        )


def check_same_shape(array: Array, shape: tuple[int, ...], what: str) -> None:
    """Checks that ``array`` has the shape of the image."""
    if array.shape != shape:
        raise ShapeError(
            f"{what} must have the image's shape {shape}, got {array.shape}. "
            "Cut it out over the same pixels as the image."
        )


def check_not_all_masked(mask: Array) -> None:
    """Checks that at least one pixel is not masked."""
    if bool(mask.all()):
        raise InputError(
            f"all {mask.size} pixels are masked or not finite, expected at least one good pixel. "
            "A mask is true (or non-zero) where pixels are to be ignored: is it inverted?"
        )


def check_noise_positive(noise: Array, mask: Array) -> None:
    """Checks that the noise is positive on the unmasked pixels."""
    bad = int(np.count_nonzero(~(noise[~mask] > 0)))
    if bad:
        raise RangeError(
            f"noise must be positive on unmasked pixels, got {bad} zero or negative values among "
            f"{int((~mask).sum())}. Mask those pixels, or state what the map is with noise_type "
            "(--noise-type sigma|variance|ivar|weight)."
        )


def check_psf_odd(psf: Array) -> None:
    """Checks that both axes of the PSF are odd, so that it has a central pixel."""
    if psf.shape[0] % 2 == 0 or psf.shape[1] % 2 == 0:
        raise ShapeError(
            f"the PSF must have odd sizes, so that one pixel is its centre, got {psf.shape}. "
            "Use psf_even='shift' (--psf-even shift) to shift it by half a pixel onto an odd grid."
        )


def check_psf_finite(psf: Array) -> None:
    """Checks that the PSF has no NaN or infinity."""
    bad = int(np.count_nonzero(~np.isfinite(psf)))
    if bad:
        raise InputError(
            f"the PSF must be finite, got {bad} NaN or infinite pixels of {psf.size}. "
            "Replace them, by zero in the wings."
        )


def check_psf_sum_positive(psf: Array) -> None:
    """Checks that the PSF has a positive sum."""
    total = float(psf.sum())
    if not total > 0:
        raise RangeError(
            f"the PSF must have a positive sum, got {total:.6g}. "
            "Was a background subtracted from it, or the wrong extension read?"
        )


def check_psf_error(value: float) -> float:
    """Returns the relative error of the PSF's width as a float if it lies in [0, 0.5)."""
    number = check_finite(value, "psf_error")
    if not 0.0 <= number < 0.5:
        raise RangeError(
            f"psf_error must lie in [0, 0.5), got {value!r}: it is the relative error of the PSF's "
            "width, 0.02 for two per cent, and 0 for a PSF that is known. One known less well than "
            "by half is to be measured anew."
        )
    return number


def check_model_error(value: float) -> float:
    """Returns the model error, a fraction of the model, as a float if it lies in [0, 1]."""
    return check_within(value, 0.0, 1.0, "model_error")


def check_pixel_scale(value: float) -> float:
    """Returns a pixel scale as a float if it is plausible. [arcsec/px]"""
    number = check_positive(value, "pixel_scale", "arcsec/px")
    return check_within(number, 1e-6, 1e6, "pixel_scale", "arcsec/px")


def check_zero_point(value: float) -> float:
    """Returns a zero point, the AB magnitude of one image unit, as a float if it is plausible."""
    return check_within(value, -200.0, 200.0, "zero_point", "mag")


def check_noise_size(typical: float) -> None:
    """Checks that squares and ratios of noise values of this size are finite."""
    if not SMALLEST_NOISE <= typical <= LARGEST_NOISE:
        raise RangeError(
            f"noise must lie in [{SMALLEST_NOISE:g}, {LARGEST_NOISE:g}] image units, got a median "
            f"of {typical:g}. Give image and noise in another unit, or mask placeholders."
        )


def check_positive(value: float, what: str, unit: str = "") -> float:
    """Returns ``value`` as a float if it is finite and positive."""
    number = check_finite(value, what)
    if number <= 0:
        raise RangeError(f"{what} must be positive, got {value!r}{' ' if unit else ''}{unit}.")
    return number


def check_within(value: float, lowest: float, most: float, what: str, unit: str = "") -> float:
    """Returns ``value`` as a float if it lies between two bounds, inclusive."""
    number = check_finite(value, what)
    if not lowest <= number <= most:
        raise RangeError(
            f"{what} must lie in [{lowest:g}, {most:g}]{' ' if unit else ''}{unit}, got {value!r}."
        )
    return number


def check_at_least_one(value: float, what: str) -> float:
    """Returns ``value`` as a float if it is finite and at least 1."""
    number = check_finite(value, what)
    if number < 1:
        raise RangeError(f"{what} must be at least 1, got {value!r}.")
    return number


def check_finite(value: float, what: str) -> float:
    """Returns ``value`` as a float if it is one finite number, and not a boolean."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} must be one number, got {value!r}.") from None
    if not math.isfinite(number):
        raise RangeError(f"{what} must be finite, got {value!r}.")
    return number


def check_positive_integer(value: int, what: str) -> int:
    """Returns ``value`` as an int if it is an integer >= 1."""
    number = check_finite(value, what)
    if isinstance(value, bool) or number != int(number) or number < 1:
        raise RangeError(f"{what} must be a whole number >= 1, got {value!r}.")
    return int(number)


def check_choice(value: str, choices: tuple[str, ...], what: str) -> str:
    """Returns ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise InputError(f"{what} must be one of {', '.join(choices)}, got {value!r}.")
    return value


def check_no_segmentation(mask: Any, looks_so: bool) -> None:
    """Raises an error for a segmentation map where a mask is expected."""
    if looks_so:
        number = len(np.unique(np.asarray(mask))) - 1
        raise InputError(
            f"the mask looks like a segmentation map ({number} labels, one of them at the "
            "centre), expected True where pixels are to be ignored: the galaxy itself would be. "
            "Give the pixels of the other sources, (labels != 0) & (labels != the galaxy's), or "
            "the map as --segmentation of a catalogue."
        )
