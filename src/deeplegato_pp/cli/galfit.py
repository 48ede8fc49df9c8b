"""GALFIT's files on the command line: ``--galfit`` and ``--imgblock`` of ``deeplegato predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplegato_pp.errors import InputError

if TYPE_CHECKING:
    from deeplegato_pp.cli.measuring import Measuring
    from deeplegato_pp.inference import Posterior, Predictor
    from deeplegato_pp.observation.galfit import GalfitInput

NAMED_BY_THE_FILE = {
    "psf": "D)",
    "noise": "C)",
    "mask": "F)",
    "mask_bits": "F)",
}
"""Options for files of the whole image, which a feedme also names."""

BESIDE = ("psf_fwhm", "psf_error", "gain", "sky_sigma", "pixel_scale", "zero_point")
"""Options that replace or supplement lines of a feedme."""


def galfit_input(
    path: Path | None, images: list[str] | None, reading: dict[str, Any]
) -> GalfitInput | None:
    """Returns the contents of a feedme; None if none was given.

    Args:
        path: The feedme.
        images: Images named on the command line.
        reading: Options for reading images.

    Raises:
        InputError: If neither or both are given, an option contradicts the feedme, or it cannot be
            used.
    """
    if path is None:
        if not images:
            raise InputError(
                "no image was given. Name FITS files, or a GALFIT input file with --galfit FILE."
            )
        return None
    if images:
        raise InputError(
            f"--galfit {path} names its own image, and {images[0]} was given too. Leave one out."
        )
    for name, line in NAMED_BY_THE_FILE.items():
        if reading[name] is not None:
            raise InputError(
                f"--{name.replace('_', '-')} was given beside --galfit {path}, whose line {line} "
                "says it. Change that line."
            )
    from deeplegato_pp.observation.galfit import read_galfit

    options = {name: reading[name] for name in BESIDE if reading[name] is not None}
    return read_galfit(path, noise_correlation=reading["noise_correlation"], **options)


def held_fixed(feedme: GalfitInput | None, refine: bool) -> list[str]:
    """Returns the parameters that a feedme fixes, as ``NAME=VALUE``.

    Raises:
        InputError: If parameters are fixed without refinement.
    """
    fixed = {} if feedme is None else feedme.fixed
    if fixed and not refine:
        raise InputError(
            f"the GALFIT input file holds {', '.join(fixed)} fixed, which the bare network cannot. "
            "Leave --no-refine out, or free them."
        )
    return [f"{name}={value!r}" for name, value in fixed.items()]


def scene_asked_for(feedme: GalfitInput | None, scene: str | None, refine: bool) -> str | None:
    """Returns the scene of the command line, else that of a feedme with several components.

    Raises:
        InputError: If the feedme has several components and there is no refinement.
    """
    if feedme is None or scene is not None or feedme.scene == "sersic":
        return scene
    if not refine:
        raise InputError(
            f"the GALFIT input file has two components ({feedme.scene}), and the bare network "
            "knows one. Leave --no-refine out."
        )
    return feedme.scene


def measure_galfit(
    predictor: Predictor, feedme: GalfitInput, name: str, how: Measuring
) -> tuple[Posterior, list[dict[str, Any]]]:
    """Returns the posterior and row of a feedme's galaxy; x and y refer to the whole file."""
    posterior = how.measure(predictor, [feedme.observation])
    (row,) = posterior.rows(how.covariance)
    for axis, first, window in zip(
        "xy", feedme.frame.first, feedme.frame.window[::-1], strict=True
    ):
        if row[axis] is not None:
            row[axis] += first - 1 - window.start
    return posterior, [{"file": name} | row]


def check_imgblock(path: Path | None) -> None:
    """Checks before any work that an image block can be written."""
    if path is None:
        return
    from deeplegato_pp.io.files import check_output

    check_output(path, (".fits", ".fit"), "image block")
