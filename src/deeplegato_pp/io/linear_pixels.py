"""Pixels that are no linear fluxes: asinh magnitudes made linear, magnitudes refused."""

import math

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.io.flux_units import read_unit
from deeplegato_pp.io.header_keywords import Header, header_number

ASINH_SLOPE = 2.5 / math.log(10)
"""Magnitudes per e-fold, by which Pan-STARRS divides its stored pixels."""


def asinh_scaling(header: Header) -> tuple[float, float] | None:
    """Returns BSOFTEN and BOFFSET of an image that is stored as asinh magnitudes, or None."""
    softening = header_number(header, "BSOFTEN")
    if softening is None or softening <= 0:
        return None
    return softening, header_number(header, "BOFFSET") or 0.0


def linear(pixels: Array, scaling: tuple[float, float] | None) -> Array:
    """Returns pixels as linear fluxes.

    Args:
        pixels: As stored, with shape (H, W).
        scaling: From :func:`asinh_scaling`; None: they are linear.

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
    """Refuses an image whose unit is a magnitude or another logarithm.

    Raises:
        InputError: If it is.
    """
    unit = read_unit(header.get("BUNIT"))
    if unit.kind == "magnitude" and asinh_scaling(header) is None:
        raise InputError(
            f"{what} is in {unit.text}, expected fluxes: magnitudes cannot be added up. Convert "
            "its pixels to fluxes, 10**(-0.4 m), and remove BUNIT."
        )
