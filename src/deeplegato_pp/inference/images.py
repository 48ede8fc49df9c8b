"""Conversion of the predictor's input to observations: observations, FITS files and arrays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.scene.plain_images import plane, planes

Image = Observation | str | os.PathLike[str] | np.ndarray | Tensor
"""An observation, a self-contained FITS file, or a two-dimensional array."""


def as_observation(item: Any) -> Observation:
    """Converts one image to an observation; missing information is assumed and flagged.

    Raises:
        InputError: If the file or array is not an image.
    """
    if isinstance(item, Observation):
        return item
    if isinstance(item, str | os.PathLike):
        return Observation.from_fits(item)
    return Observation.from_array(plane(item) if isinstance(item, Tensor | np.ndarray) else item)


def is_single(images: Any) -> bool:
    """Returns whether the input is one image rather than a sequence."""
    return isinstance(images, Observation | str | os.PathLike) or getattr(images, "ndim", 0) == 2


def as_list(images: Any) -> list[Any]:
    """Returns one image or several as a list.

    Args:
        images: One image, a sequence of them, or an array (B, H, W) or (B, 1, H, W).

    Raises:
        ShapeError: If an array is not shaped like images of one channel.
        InputError: If there are no images.
    """
    if isinstance(images, Tensor | np.ndarray):
        return list(planes(images)[0])
    if not is_single(images) and not isinstance(images, Iterable):
        raise InputError(
            f"images are observations, FITS files or arrays, or a sequence of them, got a "
            f"{type(images).__name__}."
        )
    found = [images] if is_single(images) else list(images)
    if not found:
        raise InputError("there is nothing to measure: got an empty list of observations.")
    return found


def with_psf(image: Image, psf: Any) -> Image:
    """Builds an observation from a bare image and its PSF; without PSF returns the image."""
    if psf is None:
        return image
    if not isinstance(image, np.ndarray | Tensor):
        raise InputError(
            "a PSF was given beside an observation, which has one. Build the observation with it."
        )
    return Observation.from_array(plane(image), psf=plane(psf))
