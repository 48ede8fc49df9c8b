"""Options shared by several commands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

import typer


class NoiseType(str, Enum):  # noqa: UP042  # StrEnum prints its value in help, this its choices
    """Type of a noise map."""

    sigma = "sigma"
    variance = "variance"
    ivar = "ivar"
    weight = "weight"


class EvenPSF(str, Enum):  # noqa: UP042
    """Treatment of an even-sized PSF."""

    refuse = "refuse"
    shift = "shift"


class RefineMethod(str, Enum):  # noqa: UP042
    """Method of the refinement."""

    exact = "exact"
    laplace = "laplace"


class RefineRule(str, Enum):  # noqa: UP042
    """Rule that selects galaxies for refinement."""

    all = "all"
    auto = "auto"


class Neighbours(str, Enum):  # noqa: UP042
    """Treatment of overlapping sources."""

    fit = "fit"
    mask = "mask"
    keep = "keep"


class Widths(str, Enum):  # noqa: UP042
    """Kind of error bars."""

    honest = "honest"
    noise = "noise"


class BandStructure(str, Enum):  # noqa: UP042
    """Dependence of R_e, n, q and position angle on the band."""

    shared = "shared"
    linear = "linear"
    free = "free"


BandNames = Annotated[
    str | None,
    typer.Option(
        "--bands",
        metavar="NAME,NAME,...",
        help="Bands of the images, in order: each galaxy is fitted in all bands together and has "
        "one row.",
    ),
]

BandStructureOption = Annotated[
    BandStructure | None,
    typer.Option(
        "--band-structure",
        help="Band dependence of R_e, n, q and position angle: shared by all bands, linear in the "
        "logarithm of the wavelength, or free in each band.",
        show_default="shared",
    ),
]

Wavelengths = Annotated[
    str | None,
    typer.Option(
        "--wavelengths",
        metavar="UM,UM,...",
        help="Wavelengths of the bands in micrometres, for a linear band structure.",
    ),
]

PSFWidth = Annotated[
    float | None,
    typer.Option(
        "--psf-fwhm",
        metavar="PX",
        help="PSF width: FWHM of a Moffat profile, used instead of a PSF image.",
    ),
]

PSFOversampling = Annotated[
    int | None,
    typer.Option(
        "--psf-oversampling",
        metavar="S",
        help="PSF sampling: samples per pixel and axis.",
        show_default="as its file states, else 1",
    ),
]

PSFIncludesPixel = Annotated[
    bool | None,
    typer.Option(
        "--psf-includes-pixel/--psf-without-pixel",
        help="Pixel response: whether the PSF includes it (WebbPSF, TinyTim: not).",
        show_default="as its file states, else it is",
    ),
]

PSFEven = Annotated[
    EvenPSF,
    typer.Option("--psf-even", help="Even-sized PSF: refuse it, or shift it by half a pixel."),
]

NoiseKind = Annotated[
    NoiseType | None,
    typer.Option(
        "--noise-type",
        help="Meaning of the noise map.",
        show_default="as its file states, else sigma",
    ),
]

Extension = Annotated[
    str | None,
    typer.Option(
        "--extension", metavar="NAME|N", help="FITS extension of the images: name or number."
    ),
]

Plane = Annotated[
    int | None,
    typer.Option("--plane", metavar="N", help="Plane of a cube, counted from 0."),
]

Gain = Annotated[
    float | None,
    typer.Option(
        "--gain",
        metavar="G",
        help="Gain: electrons per image unit. The noise map is then that of the background only.",
    ),
]

SkySigma = Annotated[
    float | None,
    typer.Option(
        "--sky-sigma",
        metavar="SIGMA",
        help="Sky error: standard deviation of the residual constant sky, in image units.",
        show_default="0.02 of the noise",
    ),
]

MaskBits = Annotated[
    int | None,
    typer.Option("--mask-bits", metavar="B", help="Mask bits of pixels to ignore, as a sum."),
]

PixelScale = Annotated[
    float | None, typer.Option("--pixel-scale", metavar="AS", help="Pixel scale: arcsec per pixel.")
]

ZeroPoint = Annotated[
    float | None,
    typer.Option("--zero-point", metavar="ZP", help="Zero point: AB magnitude of one image unit."),
]

Method = Annotated[
    RefineMethod,
    typer.Option(
        "--refine-method",
        help="Method: exact (importance sampling), or laplace (Gaussians at the modes, faster).",
    ),
]

Scene = Annotated[
    str | None,
    typer.Option(
        "--scene",
        metavar="SCENE",
        help="Components: sersic (default), sersic+point, bulge+disc, sersic+sersic, or auto, "
        "which compares the first three.",
    ),
]

Fix = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        metavar="NAME=VALUE",
        help="Fixed parameter: kept at a value in the refinement, e.g. sersic_index=4; repeatable.",
    ),
]

StarOdds = Annotated[
    float | None,
    typer.Option(
        "--star-odds",
        metavar="ODDS",
        help="Prior odds of a point source against a galaxy, used for star_probability.",
        show_default="1",
    ),
]

NoiseCorrelation = Annotated[
    str,
    typer.Option(
        "--noise-correlation",
        metavar="C|measure|drizzle[:SCALE,PIXFRAC]|FILE",
        help="Noise correlation of drizzled images: noise variance of sums over many pixels "
        "relative to independent pixels; 'measure' from pixels without sources; 'drizzle' for the "
        "header's scale and pixfrac or given ones; or a file of the correlation at each lag.",
    ),
]

ModelError = Annotated[
    float | None,
    typer.Option(
        "--model-error",
        metavar="F",
        help="Model error in the refinement, as a fraction of the model, because galaxies are not "
        "exact Sérsic profiles.",
        show_default="0.03",
    ),
]

PsfError = Annotated[
    float | None,
    typer.Option(
        "--psf-error",
        metavar="F",
        help="PSF error: relative standard error of its width; 0 for an exact PSF.",
        show_default="0.02",
    ),
]

WidthsOption = Annotated[
    Widths,
    typer.Option(
        "--widths",
        help="Error bars: of noise and structure (honest), or of the stated noise only.",
    ),
]

Covariance = Annotated[
    bool,
    typer.Option(
        "--covariance",
        help="Covariances of all pairs of parameters in the table: columns cov_<p>_<q>.",
    ),
]

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Network: a packaged model, a folder, or a hub id (owner/model).",
        show_default="default",
    ),
]


def extension_from(text: str | None) -> int | str | None:
    """Returns the name or number of an extension.

    Example:
        >>> extension_from("SCI"), extension_from("1")
        ('SCI', 1)
    """
    return int(text) if text is not None and text.lstrip("-").isdigit() else text


Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        min=-(2**63),
        max=2**63 - 1,
        help="Random seed.",
        show_default="0",
    ),
]


def check_finite_numbers(given: Mapping[str, Any]) -> None:
    """Raises an error for NaN and infinity, before any work.

    Args:
        given: Values of options by name, one or several each. Strings, files and missing values are
            ignored.

    Raises:
        RangeError: If a number is not finite.

    Example:
        >>> check_finite_numbers({"gain": 2.0, "pixel_scale": (0.2, 0.3), "noise": "rms.fits"})
    """
    for name, value in given.items():
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                from deeplegato_pp.errors import RangeError

                raise RangeError(f"--{name.replace('_', '-')} must be finite, got {number}.")


def check_psf_error(psf_error: float | None) -> None:
    """Checks the error of the PSF's width.

    Raises:
        RangeError: If it lies outside [0, 0.5).
    """
    if psf_error is not None:
        from deeplegato_pp.checks import check_psf_error as check

        check(psf_error)
