"""Components of a fit, their images, and their keywords in GALFIT's headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplegato_pp._version import __version__
from deeplegato_pp.arrays import Array
from deeplegato_pp.inference.posterior.parts import Part, parts_of_row, render_part
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.posterior.residuals import Residuals
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.observation.galfit import Frame
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.scene.parameters import NAMES


def parts_of(posterior: Posterior, residuals: Residuals, fixed: Sequence[str]) -> list[Part]:
    """Returns the components of one galaxy.

    A single profile is that of the best draw; components of a scene have their posterior means.

    Args:
        posterior: Posterior of a single galaxy.
        residuals: Its residuals.
        fixed: Names of fixed parameters of a single profile.
    """
    (row,) = posterior.rows()
    parts = parts_of_row(row)
    if len(parts) != 1:
        return parts
    stds = [s.std for s in parameter_summaries(posterior)]
    errors = {n: None if n in fixed else e for n, e in zip(NAMES, stds, strict=True)}
    values = dict(zip(NAMES, map(float, residuals.parameters), strict=True))
    return [Part("sersic", values, errors)]


def part_image(part: Part, observation: Observation) -> Array:
    """Returns the noiseless image of a component in all pixels of an observation.

    Args:
        part: The component.
        observation: The observation.

    Returns:
        Image with shape (H, W). [image units]
    """
    height, width = observation.shape
    size = max(height, width)
    left, bottom = (size - width) // 2, (size - height) // 2
    x = part.values["center_x"] + (width - 1) / 2 + left - (size - 1) / 2
    y = part.values["center_y"] + (height - 1) / 2 + bottom - (size - 1) / 2
    image = render_part(
        part,
        observation.zero_point,
        observation.pixel_scale,
        (x, y),
        np.asarray(observation.psf),
        size,
        observation.psf_oversampling,
        observation.psf_includes_pixel,
    )
    return image[bottom : bottom + height, left : left + width]


def component_cards(
    parts: Sequence[Part], observation: Observation, frame: Frame
) -> dict[str, tuple[Any, str]]:
    """Returns the keywords of the components: ``1_XC``, ``1_MAG``, ... with comments.

    Args:
        parts: The components, numbered from 1.
        observation: The observation.
        frame: Position of its stamp in the file.
    """
    rows, columns = frame.window
    height, width = observation.shape
    # centre of the stamp in the file, 1-based
    x = (width - 1) / 2 - columns.start + frame.first[0]
    y = (height - 1) / 2 - rows.start + frame.first[1]
    scale = observation.pixel_scale
    cards: dict[str, tuple[Any, str]] = {}
    for number, part in enumerate(parts, 1):
        kind = "psf" if part.is_point else "sersic"
        cards[f"COMP_{number}"] = (kind, "component type")
        wanted = [
            ("XC", "center_x", 1.0, x, "X [pix]"),
            ("YC", "center_y", 1.0, y, "Y [pix]"),
            ("MAG", "magnitude", 1.0, 0.0, "integrated [mag]"),
            ("RE", "effective_radius", 1 / scale, 0.0, "half-light radius, major axis [pix]"),
            ("N", "sersic_index", 1.0, 0.0, "Sersic index"),
            ("AR", "axis_ratio", 1.0, 0.0, "b/a"),
            ("PA", "position_angle", 1.0, 0.0, "up = 0, left = 90 [deg]"),
        ]
        for key, name, factor, offset, comment in wanted:
            if name not in part.values:
                continue
            value, error = part.values[name] * factor + offset, part.errors[name]
            if key == "PA":
                value = (value + 90.0) % 180.0 - 90.0
            text = with_error(value, None if error is None else error * factor)
            cards[f"{number}_{key}"] = (text, comment)
    return cards


def sky_cards(
    number: int, observation: Observation, frame: Frame, sky: float
) -> dict[str, tuple[Any, str]]:
    """Returns the keywords of the sky component with the given number.

    Args:
        number: Number of the component.
        observation: The observation.
        frame: Frame with the sky that was subtracted from it.
        sky: Residual constant sky found in the fit. [image units]
    """
    rows, columns = frame.window
    level, along_x, along_y = frame.sky_values
    error = None if observation.sky_sigma == 0 else sky_error(observation)
    x = frame.first[0] + (columns.stop - columns.start - 1) / 2
    y = frame.first[1] + (rows.stop - rows.start - 1) / 2
    return {
        f"COMP_{number}": ("sky", "component type"),
        f"{number}_XC": (f"[{x:.4f}]", "X [pix]"),
        f"{number}_YC": (f"[{y:.4f}]", "Y [pix]"),
        f"{number}_SKY": (with_error(level + sky, error), "at the region's centre"),
        f"{number}_DSDX": (f"[{along_x:.4e}]", ""),
        f"{number}_DSDY": (f"[{along_y:.4e}]", ""),
    }


def sky_error(observation: Observation) -> float:
    """Returns the error of the constant sky from prior and unmasked pixels. [image units]"""
    information = float((1.0 / observation.noise[~observation.mask] ** 2).sum())
    return float((information + 1.0 / observation.sky_sigma**2) ** -0.5)


def software_cards(scale: float, method: str) -> dict[str, tuple[Any, str]]:
    """Returns keywords that GALFIT's headers do not have."""
    return {
        "PIXSCALE": (scale, "[arcsec/pix]"),
        "METHOD": (method, "how the draws came about"),
        "SOFTWARE": (f"deeplegato-pp {__version__}", ""),
    }


def with_error(value: float, error: float | None) -> str:
    """Returns a number in the format of GALFIT's headers; an error of None marks a fixed value.

    Example:
        >>> with_error(48.518, 0.00321), with_error(4.0, None)
        ('48.5180 +/- 0.0032', '[4.0000]')
        >>> with_error(1.2e-5, 3.4e-7)
        '1.2000e-05 +/- 3.4000e-07'
    """
    if error is None:
        return f"[{value:.4f}]"
    if 0 < error < 5e-5:
        return f"{value:.4e} +/- {error:.4e}"
    return f"{value:.4f} +/- {error:.4f}"
