"""What can be measured: observations, and files and bare arrays that become one."""

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
"""An observation, a FITS file that holds everything, or a two-dimensional array."""


def as_observation(item: Any) -> Observation:
    """Returns an observation as it is, a file read, an array with the rest assumed and flagged.

    Raises:
        InputError: If the file or array is no image.
    """
    if isinstance(item, Observation):
        return item
    if isinstance(item, str | os.PathLike):
        return Observation.from_fits(item)
    return Observation.from_array(plane(item) if isinstance(item, Tensor | np.ndarray) else item)


def is_single(images: Any) -> bool:
    """Returns whether this is one image, and not a sequence of them."""
    return isinstance(images, Observation | str | os.PathLike) or getattr(images, "ndim", 0) == 2


def as_list(images: Any) -> list[Any]:
    """Returns one image or several as a list.

    Args:
        images: One image, a sequence of them, or an array (B, H, W) or (B, 1, H, W).

    Raises:
        ShapeError: If an array is not shaped like images of one channel.
        InputError: If there is no image.
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
    """Returns an observation of a bare image and its PSF; without PSF the image itself."""
    if psf is None:
        return image
    if not isinstance(image, np.ndarray | Tensor):
        raise InputError(
            "a PSF was given beside an observation, which has one. Build the observation with it."
        )
    return Observation.from_array(plane(image), psf=plane(psf))
