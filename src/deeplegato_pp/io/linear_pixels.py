"""Linearisation of asinh magnitudes, and detection of magnitudes."""

import math

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.flux_units import read_unit
from deeplegato_pp.io.header_keywords import Header, header_number

ASINH_SLOPE = 2.5 / math.log(10)
"""Magnitudes per e-fold, by which stored pixels of Pan-STARRS are divided."""


def asinh_scaling(header: Header) -> tuple[float, float] | None:
    """Returns BSOFTEN and BOFFSET of an image stored as asinh magnitudes, or None."""
    softening = header_number(header, "BSOFTEN")
    if softening is None or softening <= 0:
        return None
    return softening, header_number(header, "BOFFSET") or 0.0


def linear(pixels: Array, scaling: tuple[float, float] | None) -> Array:
    """Returns pixels as linear fluxes.

    Args:
        pixels: Pixels as stored, with shape (H, W).
        scaling: Result of :func:`asinh_scaling`; None for linear pixels.

    References:
        | The Pan-STARRS1 Database and Data Products (Flewelling et al., 2020), section 5.3
        | https://arxiv.org/abs/1612.05243
    """
    if scaling is None:
        return pixels
    softening, offset = scaling
    with np.errstate(over="ignore"):
        flux: Array = offset + 2.0 * softening * np.sinh(pixels / ASINH_SLOPE)
    return flux


def check_linear(header: Header, what: str) -> None:
    """Raises an error for an image in magnitudes or another logarithmic unit.

    Raises:
        InputError: If the unit is logarithmic.
    """
    unit = read_unit(header.get("BUNIT"))
    if unit.kind == "magnitude" and asinh_scaling(header) is None:
        raise InputError(
            f"{what} is in {unit.text}, expected fluxes: magnitudes cannot be added up. Convert "
            "its pixels to fluxes, 10**(-0.4 m), and remove BUNIT."
        )
