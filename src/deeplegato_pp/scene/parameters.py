"""The table of the seven Sérsic parameters.

Code that needs a property of a parameter (name, symbol, unit, bounds, scale, period) reads it from
:data:`PARAMETERS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import ShapeError


@dataclass(frozen=True)
class Parameter:
    """One physical parameter: its name, unit and allowed range.

    Attributes:
        name: Name in code and tables.
        symbol: Symbol for figures, in matplotlib's mathtext.
        unit: Unit string that :mod:`astropy.units` reads ("" if dimensionless).
        lower: Default lower bound.
        upper: Default upper bound.
        scale: Prior density: ``"linear"`` (uniform) or ``"log"`` (uniform in the logarithm).
        period: Period, or None if the parameter is not circular.
        meaning: One line for the documentation.
        reason: Reason for the bounds.
    """

    name: str
    symbol: str
    unit: str
    lower: float
    upper: float
    scale: str
    period: float | None
    meaning: str
    reason: str

    @property
    def bounds(self) -> tuple[float, float]:
        """The pair (lower, upper)."""
        return (self.lower, self.upper)


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "magnitude",
        r"$m$",
        "mag",
        15.0,
        28.0,
        "linear",
        None,
        "total magnitude, integrated to infinity: zero_point - 2.5 log10(flux)",
        "at the reference instrument: flux over background sigma from 10 (lost in the noise) "
        "to 1.6e6 (detectors saturate)",
    ),
    Parameter(
        "effective_radius",
        r"$R_e$",
        "arcsec",
        0.1,
        10.0,
        "log",
        None,
        "half-light radius along the major axis, before the PSF",
        "at the reference instrument: 0.4 px, unresolved under any PSF, to 40 px, "
        "which fills a 128 px stamp",
    ),
    Parameter(
        "sersic_index",
        r"$n$",
        "",
        0.3,
        8.0,
        "log",
        None,
        "Sérsic index: 0.5 is a Gaussian, 1 an exponential disc, 4 de Vaucouleurs' law",
        "below 0.3 profiles are boxes; above 8 the light beyond any stamp exceeds that inside",
    ),
    Parameter(
        "axis_ratio",
        r"$q$",
        "",
        0.1,
        1.0,
        "linear",
        None,
        "minor over major axis, b/a",
        "the thinnest edge-on discs have b/a near 0.1",
    ),
    Parameter(
        "position_angle",
        r"$\theta$",
        "deg",
        0.0,
        180.0,
        "linear",
        180.0,
        "angle of the major axis, counter-clockwise from the image's +y axis",
        "an ellipse repeats after half a turn",
    ),
    Parameter(
        "center_x",
        r"$\Delta x$",
        "pix",
        -5.0,
        5.0,
        "linear",
        None,
        "x (column) of the centre, from the centre of the stamp",
        "a detection's centroid is good to a few pixels",
    ),
    Parameter(
        "center_y",
        r"$\Delta y$",
        "pix",
        -5.0,
        5.0,
        "linear",
        None,
        "y (row) of the centre, from the centre of the stamp",
        "a detection's centroid is good to a few pixels",
    ),
)

NAMES: tuple[str, ...] = tuple(p.name for p in PARAMETERS)
NUM_PARAMETERS = len(PARAMETERS)
INDEX: dict[str, int] = {name: i for i, name in enumerate(NAMES)}
MAGNITUDE, RADIUS, SERSIC_INDEX, AXIS_RATIO, POSITION_ANGLE, CENTER_X, CENTER_Y = range(7)


@dataclass(frozen=True)
class SersicParams:
    """Sérsic parameters of one galaxy, in physical units.

    Args:
        magnitude: Total magnitude. [mag]
        effective_radius: Half-light radius along the major axis. [arcsec]
        sersic_index: Sérsic index n.
        axis_ratio: Minor over major axis, b/a.
        position_angle: Counter-clockwise from +y. [deg]
        center_x: Column of the centre, from the stamp's centre. [px]
        center_y: Row of the centre, from the stamp's centre. [px]

    Example:
        >>> SersicParams(20.0, 1.0, 4.0, 0.7, 30.0).to_tensor().shape
        torch.Size([7])
    """

    magnitude: float
    effective_radius: float
    sersic_index: float
    axis_ratio: float
    position_angle: float
    center_x: float = 0.0
    center_y: float = 0.0

    def to_tensor(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "7"]:
        """Returns the values in the table's order."""
        return torch.tensor([getattr(self, f.name) for f in fields(self)], dtype=dtype)

    @classmethod
    def from_tensor(cls, values: Float[Tensor, "7"]) -> SersicParams:
        """Builds the parameters from a vector in the table's order.

        Raises:
            ShapeError: If there are not exactly seven values.
        """
        if values.shape != (NUM_PARAMETERS,):
            raise ShapeError(
                f"SersicParams takes 7 values, got shape {tuple(values.shape)}. "
                "Pass one row of a (B, 7) tensor."
            )
        return cls(*values.tolist())


def signal_to_noise(
    flux: Tensor, radius: Tensor, axis_ratio: Tensor, fwhm: Tensor, sigma: Tensor | float = 1.0
) -> Tensor:
    r"""Returns the signal-to-noise ratio inside the half-light ellipse broadened by the PSF.

    .. math:: S/N = \frac{F/2}{\sigma_b \sqrt{2 \pi (R_e^2 q + \mathrm{FWHM}^2/4)}}

    Every S/N that the package reports uses this formula. Source noise is neglected.

    Args:
        flux: Total flux, with shape (*,). [units of sigma x px^2]
        radius: Half-light radius along the major axis. [px]
        axis_ratio: b/a.
        fwhm: Full width at half maximum of the PSF. [px]
        sigma: Background noise per pixel.

    Example:
        >>> one = torch.tensor(1.0)
        >>> round(float(signal_to_noise(1000 * one, 4 * one, one, 3 * one)), 1)
        46.7
    """
    area = 2.0 * math.pi * (radius**2 * axis_ratio + fwhm**2 / 4.0)
    return 0.5 * flux / (sigma * area.sqrt())


SNR_CLASSES: tuple[float, ...] = (0.0, 3.0, 10.0, 30.0, 100.0, 500.0, math.inf)
"""Edges of the S/N classes used in tables and figures."""
