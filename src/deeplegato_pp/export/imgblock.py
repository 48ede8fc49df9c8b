"""GALFIT's image block: original, model and residual in one FITS file, and their numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplegato_pp._version import __version__
from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.posterior.residuals import residual_image
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.io.files import check_output, written_whole
from deeplegato_pp.observation.galfit import Frame
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.scene.parameters import NAMES, NUM_PARAMETERS
from deeplegato_pp.scene.render.renderer import render_sersic

SUFFIXES = (".fits", ".fit")


def write_imgblock(
    posterior: Posterior,
    path: str | Path,
    frame: Frame | None = None,
    fixed: tuple[str, ...] = (),
) -> None:
    """Writes one galaxy as GALFIT writes its image block.

    Extensions 1 to 3 are the image, the model and the residual on the image's pixels, 4 the galaxy
    alone. The header of 2 holds GALFIT's keywords: ``1_XC`` and ``1_YC`` (1-based, in the file),
    ``1_MAG``, ``1_RE`` in pixels, ``1_N``, ``1_AR``, ``1_PA``, the sky's, each ``value +/- error``
    or, of what was held fixed, ``[value]``; then CHISQ, NDOF, NFREE, NFIX and CHI2NU. The values
    are those of the model shown (the best draw, or the mean of a galaxy that was not refined), the
    errors the posterior's standard deviations.

    Args:
        posterior: Of a single galaxy.
        path: FITS file to be; an existing one is replaced.
        frame: Where the stamp lies in its file; None: it is the file.
        fixed: Names of the parameters that were held fixed.

    Raises:
        InputError: If the posterior is of several galaxies, the galaxy was not measured, or the
            file cannot be written.
    """
    from astropy.io import fits

    path = check_output(path, SUFFIXES, "image block")
    residuals = residual_image(posterior)
    measurement = posterior.measurements[0]
    observation = measurement.observation
    if observation is None:
        raise InputError(f"{path}: the galaxy has no observation. Measure it from an image.")
    frame = frame or Frame.whole(observation)
    values = torch.from_numpy(residuals.parameters)
    galaxy = render_native(values, observation)[frame.window]
    sky = frame.sky + residuals.sky
    original = observation.image[frame.window] + frame.sky
    model = galaxy + sky
    extensions = {
        "ORIGINAL": original,
        "MODEL": model,
        "RESIDUAL": original - model,
        "SERSIC": galaxy,
    }
    header = _header(posterior, values.numpy(), frame, residuals.sky, fixed)
    hdus = [fits.PrimaryHDU()]
    for name, pixels in extensions.items():
        hdus.append(fits.ImageHDU(pixels.astype(np.float32), name=name))
        if observation.wcs is not None:
            hdus[-1].header.update(_window_wcs(observation.wcs, frame).to_header())
    for keyword, (value, comment) in header.items():
        hdus[2].header[keyword] = (value, comment)
    with written_whole(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def render_native(values: torch.Tensor, observation: Observation) -> Array:
    """Returns the noiseless galaxy on all pixels of an observation.

    Args:
        values: The seven parameters in the user's units, with shape (7,).
        observation: What was observed.

    Returns:
        With shape (H, W). [image units]
    """
    height, width = observation.shape
    size = max(height, width)
    left, bottom = (size - width) // 2, (size - height) // 2
    magnitude, radius, n, q, angle, x, y = (float(v) for v in values)
    numbers = (
        10.0 ** (-0.4 * (magnitude - observation.zero_point)),
        radius / observation.pixel_scale,
        n,
        q,
        angle,
        x + (width - 1) / 2 + left - (size - 1) / 2,
        y + (height - 1) / 2 + bottom - (size - 1) / 2,
    )
    flux, radius_, n_, q_, angle_, x_, y_ = (
        torch.tensor([v], dtype=torch.float64) for v in numbers
    )
    image = render_sersic(
        flux,
        radius_,
        n_,
        q_,
        angle_,
        x_,
        y_,
        torch.from_numpy(np.asarray(observation.psf, dtype=np.float64)),
        size,
        oversampling=observation.psf_oversampling,
        psf_includes_pixel=observation.psf_includes_pixel,
    )[0].numpy()
    return np.asarray(image[bottom : bottom + height, left : left + width])


def _window_wcs(wcs: Any, frame: Frame) -> Any:
    moved = wcs.deepcopy()
    rows, columns = frame.window
    moved.wcs.crpix = moved.wcs.crpix - np.array([columns.start, rows.start])
    return moved


def _header(
    posterior: Posterior, values: Array, frame: Frame, sky: float, fixed: tuple[str, ...]
) -> dict[str, tuple[Any, str]]:
    """Returns the keywords of GALFIT's model header, each with its comment."""
    m = posterior.measurements[0]
    observation, prepared = m.observation, m.prepared
    assert observation is not None  # noqa: S101  # checked by the caller, as what follows
    assert prepared is not None  # noqa: S101
    errors = dict(zip(NAMES, (s.std for s in parameter_summaries(posterior)), strict=True))
    best = dict(zip(NAMES, (float(v) for v in values), strict=True))
    # The stamp's centre in the file, 1-based.
    rows, columns = frame.window
    height, width = observation.shape
    center = {
        "center_x": (width - 1) / 2 - columns.start + frame.first[0],
        "center_y": (height - 1) / 2 - rows.start + frame.first[1],
    }
    scale = observation.pixel_scale
    shown = {
        "1_XC": ("center_x", best["center_x"] + center["center_x"], errors["center_x"], "X [pix]"),
        "1_YC": ("center_y", best["center_y"] + center["center_y"], errors["center_y"], "Y [pix]"),
        "1_MAG": ("magnitude", best["magnitude"], errors["magnitude"], "integrated [mag]"),
        "1_RE": (
            "effective_radius",
            best["effective_radius"] / scale,
            errors["effective_radius"] / scale,
            "half-light radius, major axis [pix]",
        ),
        "1_N": ("sersic_index", best["sersic_index"], errors["sersic_index"], "Sersic index"),
        "1_AR": ("axis_ratio", best["axis_ratio"], errors["axis_ratio"], "b/a"),
        "1_PA": (
            "position_angle",
            (best["position_angle"] + 90.0) % 180.0 - 90.0,
            errors["position_angle"],
            "up = 0, left = 90 [deg]",
        ),
    }
    cards: dict[str, tuple[Any, str]] = {
        k: (v, "") for k, v in (frame.cards or {"DATAIN": m.name}).items()
    }
    cards["LOGFILE"] = ("none", "")
    cards["COMP_1"] = ("sersic", "component type")
    for keyword, (name, value, error, comment) in shown.items():
        cards[keyword] = (with_error(value, None if name in fixed else error), comment)
    level, along_x, along_y = frame.sky_values
    sky_error = None if observation.sky_sigma == 0 else _sky_error(observation)
    cards["COMP_2"] = ("sky", "component type")
    cards["2_XC"] = (f"[{frame.first[0] + (columns.stop - columns.start - 1) / 2:.4f}]", "X [pix]")
    cards["2_YC"] = (f"[{frame.first[1] + (rows.stop - rows.start - 1) / 2:.4f}]", "Y [pix]")
    cards["2_SKY"] = (with_error(level + sky, sky_error), "at the region's centre")
    cards["2_DSDX"] = (f"[{along_x:.4e}]", "")
    cards["2_DSDY"] = (f"[{along_y:.4e}]", "")
    free = NUM_PARAMETERS - len(fixed)
    good = int((~(prepared.mask if m.mask is None else m.mask)).sum())
    cards["CHISQ"] = (m.chi2 * (good - free), "on the stamp that was measured")
    cards["NDOF"] = (good - free, "unmasked pixels less free parameters")
    cards["NFREE"] = (free, "the sky, which has a prior, not counted")
    cards["NFIX"] = (len(fixed), "")
    cards["CHI2NU"] = (m.chi2, "chi-square per degree of freedom")
    cards["PIXSCALE"] = (scale, "[arcsec/pix]")
    cards["METHOD"] = (m.method, "how the draws came about")
    cards["SOFTWARE"] = (f"deeplegato-pp {__version__}", "")
    return {k: (v, c) for k, (v, c) in cards.items() if not _unknown(v)}


def _unknown(value: Any) -> bool:
    """FITS has no NaN: such a card is left out."""
    return isinstance(value, float) and not math.isfinite(value)


def _sky_error(observation: Observation) -> float:
    """Error of the constant sky from its prior and the unmasked pixels. [image units]"""
    information = float((1.0 / observation.noise[~observation.mask] ** 2).sum())
    return float((information + 1.0 / observation.sky_sigma**2) ** -0.5)


def with_error(value: float, error: float | None) -> str:
    """Returns a number as GALFIT's headers hold it; None: it was held fixed.

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
