"""GALFIT's image block: original, model and residual in one FITS file, with fit parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError
from deeplegato_pp.export import galfit_header
from deeplegato_pp.export.galfit_header import part_image, parts_of
from deeplegato_pp.inference.posterior.parts import Part
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.posterior.residuals import Residuals, residual_image
from deeplegato_pp.io.files import check_output, written_whole
from deeplegato_pp.observation.galfit import Frame
from deeplegato_pp.observation.observation import Observation

SUFFIXES = (".fits", ".fit")


def write_imgblock(
    posterior: Posterior,
    path: str | Path,
    frame: Frame | None = None,
    fixed: tuple[str, ...] = (),
) -> None:
    """Writes one galaxy in the format of GALFIT's image block.

    Extensions 1 to 3 are the image, the model and the residual on the image's pixels, 4 and
    following each component alone. The header of 2 contains GALFIT's keywords: ``1_XC`` and
    ``1_YC`` (1-based, in the file), ``1_MAG``, ``1_RE`` in pixels, ``1_N``, ``1_AR``, ``1_PA``,
    those of a second component, the sky's, each as ``value +/- error`` or, if fixed, ``[value]``;
    then CHISQ, NDOF, NFREE, NFIX and CHI2NU. The values are those of the model image: for a single
    profile the best draw (the mean of an unrefined galaxy), for several components the posterior
    means. The errors are the posterior's standard deviations.

    Args:
        posterior: Posterior of a single galaxy.
        path: Output FITS file; an existing one is replaced.
        frame: Position of the stamp in its file; None if the stamp is the file.
        fixed: Names of fixed parameters.

    Raises:
        InputError: If the posterior is of several galaxies, the galaxy was not measured, or the
            file cannot be written.
    """
    from astropy.io import fits

    path = check_output(path, SUFFIXES, "image block")
    residuals = residual_image(posterior)
    observation = posterior.measurements[0].observation
    if observation is None:
        raise InputError(f"{path}: the galaxy has no observation. Measure it from an image.")
    frame = frame or Frame.whole(observation)
    parts = parts_of(posterior, residuals, fixed)
    images = [part_image(part, observation) for part in parts]
    galaxy = np.sum(images, axis=0)
    offset = residuals.sky if len(parts) == 1 else best_sky(galaxy, observation)
    original = observation.image[frame.window] + frame.sky
    model = galaxy[frame.window] + frame.sky + offset
    extensions = {"ORIGINAL": original, "MODEL": model, "RESIDUAL": original - model}
    extensions |= {p.name.upper(): i[frame.window] for p, i in zip(parts, images, strict=True)}
    header = _header(posterior, parts, frame, offset, residuals, galaxy)
    hdus = [fits.PrimaryHDU()]
    for name, pixels in extensions.items():
        hdus.append(fits.ImageHDU(pixels.astype(np.float32), name=name))
        if observation.wcs is not None:
            hdus[-1].header.update(_window_wcs(observation.wcs, frame).to_header())
    for keyword, (value, comment) in header.items():
        hdus[2].header[keyword] = (value, comment)
    with written_whole(path) as temporary:
        fits.HDUList(hdus).writeto(temporary, overwrite=True)


def variance_of(galaxy: Array, observation: Observation) -> Array:
    """Returns the variance of each pixel under a model, with shape (H, W). [image units squared]"""
    variance = np.asarray(observation.noise, dtype=np.float64) ** 2
    if observation.gain is None:
        return variance
    return np.asarray(variance + np.maximum(galaxy, 0.0) / observation.gain)


def best_sky(galaxy: Array, observation: Observation) -> float:
    """Returns the best-fitting constant sky for a model, under its prior. [image units]"""
    if observation.sky_sigma == 0:
        return 0.0
    good = ~observation.mask
    weight = 1.0 / variance_of(galaxy, observation)[good]
    rest = (observation.image - galaxy)[good]
    return float((weight * rest).sum() / (weight.sum() + observation.sky_sigma**-2))


def _window_wcs(wcs: Any, frame: Frame) -> Any:
    moved = wcs.deepcopy()
    rows, columns = frame.window
    moved.wcs.crpix = moved.wcs.crpix - np.array([columns.start, rows.start])
    return moved


def _header(
    posterior: Posterior,
    parts: list[Part],
    frame: Frame,
    sky: float,
    residuals: Residuals,
    galaxy: Array,
) -> dict[str, tuple[Any, str]]:
    """Returns the keywords of GALFIT's model header, with comments."""
    m = posterior.measurements[0]
    observation = m.observation
    assert observation is not None  # noqa: S101  # checked by the caller
    cards: dict[str, tuple[Any, str]] = {
        k: (v, "") for k, v in (frame.cards or {"DATAIN": m.name}).items()
    }
    cards["LOGFILE"] = ("none", "")
    cards |= galfit_header.component_cards(parts, observation, frame)
    cards |= galfit_header.sky_cards(len(parts) + 1, observation, frame, sky)
    errors = {(i, n): e for i, p in enumerate(parts) for n, e in p.errors.items()}
    # Components share one centre, which is free or fixed once.
    own = {key: e for key, e in errors.items() if key[0] == 0 or not key[1].startswith("center")}
    free = sum(e is not None for e in own.values())
    good = int((~residuals.mask).sum())
    reduced, where = m.chi2, "on the stamp that was measured"
    if len(parts) > 1:
        unmasked = ~observation.mask
        squares = (observation.image - galaxy - sky) ** 2 / variance_of(galaxy, observation)
        good, where = int(unmasked.sum()), "on the image"
        reduced = float(squares[unmasked].sum()) / (good - free)
    cards["CHISQ"] = (reduced * (good - free), where)
    cards["NDOF"] = (good - free, "unmasked pixels less free parameters")
    cards["NFREE"] = (free, "the sky, which has a prior, not counted")
    cards["NFIX"] = (len(own) - free, "")
    cards["CHI2NU"] = (reduced, "chi-square per degree of freedom")
    cards |= galfit_header.software_cards(observation.pixel_scale, m.method)
    return {k: (v, c) for k, (v, c) in cards.items() if not _unknown(v)}


def _unknown(value: Any) -> bool:
    """Returns whether a value is NaN, which FITS cannot store: such cards are omitted."""
    return isinstance(value, float) and not math.isfinite(value)
