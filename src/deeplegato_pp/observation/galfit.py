"""Reading of GALFIT input files: the observation, fixed parameters and the scene."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp import checks
from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import FormatError, InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.io import fits_extensions
from deeplegato_pp.io.feedme import Component, Feedme, read_feedme
from deeplegato_pp.io.header_keywords import header_number
from deeplegato_pp.observation import noise_maps
from deeplegato_pp.observation.galfit_components import (
    PROFILES,
    components_of,
    find_file,
    remarks_of,
    scene_of,
)
from deeplegato_pp.observation.observation import Observation

FREE_SKY = 0.1
"""Prior standard deviation of a free sky about its start value, in units of the noise: the largest
in the networks' training. An image of 1,000 pixels determines the sky three times better."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Position of a stamp in the original file, and the sky subtracted from it.

    Attributes:
        window: Rows and columns of the stamp that are pixels of the fitted region.
        first: Column and row of the region's first pixel in the file, 1-based.
        sky: Subtracted sky on the region's pixels, with shape (H, W). [image units]
        sky_values: Sky at the region's centre and its gradients along x and y.
        sky_free: Whether the sky was fitted.
        cards: Names of the fit's files and its numbers, by GALFIT's keywords.
    """

    window: tuple[slice, slice]
    first: tuple[int, int]
    sky: Array
    sky_values: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sky_free: bool = True
    cards: dict[str, str | float] | None = None

    @classmethod
    def whole(cls, observation: Observation) -> Frame:
        """Returns the frame of an observation that is a whole file."""
        height, width = observation.shape
        window = (slice(0, height), slice(0, width))
        return cls(window, (1, 1), np.zeros(observation.shape))


@dataclass(frozen=True, eq=False)
class GalfitInput:
    """Contents of a feedme, as far as they can be represented by a scene and a sky.

    Attributes:
        observation: Stamp about the first component's position, with the sky subtracted; its notes
            list what could not be represented.
        fixed: Fixed parameters of a single profile, in the user's units.
        frame: Conversion to the file's pixels.
        scene: ``sersic``, ``sersic+point``, ``bulge+disc`` or ``sersic+sersic``.
    """

    observation: Observation
    fixed: dict[str, float]
    frame: Frame
    scene: str = "sersic"


def read_galfit(path: str | Path, **options: Any) -> GalfitInput:
    """Reads a feedme and the files that it names.

    The image is cut to the region ``H``, about the component's position. A fixed sky is subtracted
    and assumed exact; a free sky is subtracted and gets a Gaussian prior of width ``FREE_SKY``
    times the noise about its start value. Start values other than the position are not used. The
    zero point is ``J`` with EXPTIME of the image's header, as in GALFIT.

    Args:
        path: The feedme. Its files are searched for in the working directory and beside it.
        options: Arguments of :meth:`Observation.from_array` that replace those of the feedme.

    Raises:
        FormatError: If the feedme or one of its files cannot be read.
        InputError: If it contains components that a scene and a sky cannot represent, or the
            position lies outside the image.
    """
    feedme = read_feedme(path)
    profiles, sky = components_of(feedme)
    component, scene = profiles[0], scene_of(profiles, feedme)
    image_path, extension = _image_name(feedme)
    found = fits_io.read_image(image_path, extension)
    left, right, bottom, top = _region(feedme, found.image.shape)
    x, y = (component.value("1", feedme.path, place) for place in (0, 1))
    if not (left - 0.5 <= x <= right + 0.5 and bottom - 0.5 <= y <= top + 0.5):
        raise InputError(
            f"{feedme.path}: the {component.kind} at ({x:g}, {y:g}) lies outside the region "
            f"{left} to {right}, {bottom} to {top} of {image_path}. Correct H) or its position."
        )
    region = (slice(bottom - 1, top), slice(left - 1, right))
    image = found.image[region]
    plane, values, sky_free = _sky(sky, feedme, image.shape)
    mask, noise = _mask(feedme, found.image.shape), _noise(feedme, found.image.shape)
    stamp = _about(
        (x - left, y - bottom),
        image - plane,
        np.zeros(image.shape, dtype=bool) if mask is None else mask[region],
        None if noise is None else noise[region],
    )
    psf, psf_notes = (None, []) if {"psf", "psf_fwhm"} & set(options) else _psf(feedme)
    magnitude = feedme.numbers("J", 1)
    scale = feedme.numbers("K", 2)
    reading: dict[str, Any] = {
        "image": stamp.image,
        "noise": stamp.noise,
        "mask": stamp.mask,
        "pixel_scale": None if scale is None else float(np.sqrt(scale[0] * scale[1])),
        "zero_point": None if magnitude is None else magnitude[0] + _exposure(found.header),
        "wcs": _moved(found.sky.wcs, left - 1 - stamp.left, bottom - 1 - stamp.bottom),
        "unit": str(found.header.get("BUNIT", "")).strip(),
        "name": feedme.path.stem,
    }
    if psf is not None:
        samples = _oversampling(feedme)
        # In GALFIT, an oversampled PSF excludes the pixel; one on the pixel grid includes it.
        reading |= {"psf": psf, "psf_oversampling": samples, "psf_includes_pixel": samples == 1}
    observation = Observation.from_array(**(reading | options))
    if options.get("sky_sigma") is None:
        sigma = FREE_SKY * observation.median_noise if sky_free else 0.0
        observation = replace(observation, sky_sigma=sigma)
    notes = [
        *found.notes,
        *found.sky.notes,
        *remarks_of(feedme, profiles, sky, scene),
        *psf_notes,
        *observation.notes,
    ]
    flags = observation.flags
    if noise is None and "noise" not in options:
        flags = int(flags | Flag.NO_NOISE)
        notes.append(f"noise {float(stamp.noise[0, 0]):.4g} estimated from the region's border")
    observation = replace(observation, flags=flags, notes=notes)
    cards = _cards(feedme, image_path) | {"FITSECT": f"[{left}:{right},{bottom}:{top}]"}
    frame = Frame(stamp.window, (left, bottom), plane, values, sky_free, cards)
    middle = (left + stamp.middle[0], bottom + stamp.middle[1])
    fixed = _fixed(component, feedme, observation, middle) if scene == "sersic" else {}
    return GalfitInput(observation, fixed, frame, scene)


def _exposure(header: Any) -> float:
    """Returns 2.5 log10 of the exposure time, by which GALFIT divides the image. [mag]"""
    time = header_number(header, "EXPTIME")
    return 0.0 if time is None or time <= 0 else 2.5 * float(np.log10(time))


def _cards(feedme: Feedme, image: Path) -> dict[str, str | float]:
    """Returns the header cards of GALFIT's model block for this input."""
    magnitude = feedme.numbers("J", 1)
    return {
        "DATAIN": str(image),
        "SIGMA": feedme.word("C") or "none",
        "PSF": feedme.word("D") or "none",
        "CONSTRNT": feedme.word("G") or "none",
        "MASK": feedme.word("F") or "none",
        "CONVBOX": ", ".join(feedme.controls.get("I", "").split()[:2]),
        "MAGZPT": 0.0 if magnitude is None else magnitude[0],
        "INITFILE": str(feedme.path),
    }


def _image_name(feedme: Feedme) -> tuple[Path, fits_extensions.Extension | None]:
    """Returns the image and its extension: ``galaxy.fits[1]``, ``galaxy.fits[sci,2]``."""
    name = feedme.word("A")
    if not name:
        raise FormatError(f"{feedme.path}: line A) names no image. Give the galaxy's FITS file.")
    match = re.fullmatch(r"(.*?)\[(\w+)(?:,(\d+))?\]", name)
    if match is None:
        return find_file(name, feedme), None
    path, extension, version = find_file(match[1], feedme), match[2], match[3]
    if extension.isdigit():
        return path, int(extension)
    return path, (extension.upper(), int(version)) if version else extension.upper()


def _region(feedme: Feedme, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns the first and last column and row of the region to fit, 1-based, in the image."""
    numbers = feedme.numbers("H", 4)
    height, width = shape
    if numbers is None:
        return 1, width, 1, height
    left, right, bottom, top = (int(n) for n in numbers)
    left, right, bottom, top = max(left, 1), min(right, width), max(bottom, 1), min(top, height)
    if left > right or bottom > top:
        raise InputError(
            f"{feedme.path}: the region H) {feedme.controls['H']} holds no pixel of the image of "
            f"{width} x {height} px. Expected xmin xmax ymin ymax, counted from 1."
        )
    return left, right, bottom, top


def _noise(feedme: Feedme, shape: tuple[int, ...]) -> Array | None:
    name = feedme.word("C")
    if not name:
        return None
    path = find_file(name, feedme)
    sigma = fits_io.read_array(path, tuple(fits_extensions.NOISE_NAMES), "the sigma image")
    checks.check_same_shape(sigma, shape, "the sigma image")
    return sigma


def _mask(feedme: Feedme, shape: tuple[int, ...]) -> Array | None:
    """Reads the bad pixels: a FITS image with non-zero bad pixels, or a list of x y."""
    name = feedme.word("F")
    if not name:
        return None
    path = find_file(name, feedme)
    with path.open("rb") as file:
        if file.read(6) == b"SIMPLE" or path.suffix in (".gz", ".fits"):
            bad = fits_io.read_array(path, fits_extensions.MASK_NAMES, "the bad pixel mask")
            checks.check_same_shape(bad, shape, "the bad pixel mask")
            return bad != 0
    try:
        pixels = np.loadtxt(path, ndmin=2, usecols=(0, 1)).astype(int) - 1
    except ValueError as error:
        raise FormatError(
            f"{path}: neither a FITS image nor a list of x and y ({error}). F) names one of them."
        ) from error
    mask = np.zeros(shape, dtype=bool)
    x, y = pixels.T
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    mask[y[inside], x[inside]] = True
    return mask


def _psf(feedme: Feedme) -> tuple[Array | None, list[str]]:
    """Reads the PSF on an odd grid; GALFIT centres an even one on pixel N/2 + 1."""
    name = feedme.word("D")
    if not name:
        return None, []
    psf = fits_io.read_array(find_file(name, feedme), fits_extensions.PSF_NAMES, "the PSF")
    even = [1 - side % 2 for side in psf.shape]
    if not any(even):
        return psf, []
    note = f"the PSF {psf.shape} has an even side: its first row or column was removed"
    return psf[even[0] :, even[1] :], [note]


def _oversampling(feedme: Feedme) -> int:
    numbers = feedme.numbers("E", 1)
    return 1 if numbers is None else checks.check_positive_integer(int(numbers[0]), "E)")


def _sky(
    sky: Component | None, feedme: Feedme, shape: tuple[int, ...]
) -> tuple[Array, tuple[float, float, float], bool]:
    """Returns the sky on the region's pixels, its three numbers, and whether it is free."""
    if sky is None:
        return np.zeros(shape), (0.0, 0.0, 0.0), False
    level = sky.value("1", feedme.path)
    along_x, along_y = (sky.values.get(key, (0.0,))[0] for key in ("2", "3"))
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shape)
    plane = level + along_x * columns[None, :] + along_y * rows[:, None]
    return plane, (level, along_x, along_y), sky.free["1"][0]


@dataclass(frozen=True, eq=False)
class _Stamp:
    """The region, padded with masked pixels so that the position is in its middle."""

    image: Array
    mask: Array
    noise: Array
    window: tuple[slice, slice]
    middle: tuple[int, int]
    left: int
    bottom: int


def _about(position: tuple[float, float], image: Array, mask: Array, noise: Array | None) -> _Stamp:
    """Pads a region; without a sigma image, the noise is estimated from the region's border.

    Args:
        position: Column and row of the galaxy in the region. [px]
        image: With shape (H, W).
        mask: True = ignore, with shape (H, W).
        noise: 1-sigma noise per pixel, with shape (H, W), or None.
    """
    height, width = image.shape
    column, row = round(position[0]), round(position[1])
    half_x = max(column, width - 1 - column)
    half_y = max(row, height - 1 - row)
    left, bottom = half_x - column, half_y - row
    pads = ((bottom, 2 * half_y + 1 - height - bottom), (left, 2 * half_x + 1 - width - left))
    if noise is None:
        bad = mask | ~np.isfinite(image)
        checks.check_not_all_masked(bad)
        noise = np.full(image.shape, noise_maps.border_sigma(np.where(bad, 0.0, image), bad))
    return _Stamp(
        image=np.pad(image, pads),
        mask=np.pad(mask, pads, constant_values=True),
        noise=np.pad(noise, pads, mode="edge"),
        window=(slice(bottom, bottom + height), slice(left, left + width)),
        middle=(column, row),
        left=left,
        bottom=bottom,
    )


def _moved(wcs: Any, columns: int, rows: int) -> Any:
    """Returns the WCS of a stamp whose first pixel is that pixel (0-based) of the file."""
    if wcs is None:
        return None
    moved = wcs.deepcopy()
    moved.wcs.crpix = moved.wcs.crpix - np.array([columns, rows])
    return moved


def _fixed(
    component: Component, feedme: Feedme, observation: Observation, middle: tuple[int, int]
) -> dict[str, float]:
    """Returns the parameters fixed by the feedme, in the user's units.

    Args:
        component: The profile.
        feedme: The feedme.
        observation: The stamp.
        middle: Column and row of the stamp's central pixel in the file, 1-based.
    """
    index, factor = PROFILES[component.kind]
    fixed = {} if index is None else {"sersic_index": index}
    for key in ("3", "4", "9", "10", *(("5",) if index is None else ())):
        component.value(key, feedme.path)
    if not component.free["3"][0]:
        fixed["magnitude"] = component.value("3", feedme.path)
    if not component.free["4"][0]:
        radius = component.value("4", feedme.path) * factor
        fixed["effective_radius"] = radius * observation.pixel_scale
    if index is None and not component.free["5"][0]:
        fixed["sersic_index"] = component.value("5", feedme.path)
    if not component.free["9"][0]:
        fixed["axis_ratio"] = component.value("9", feedme.path)
    if not component.free["10"][0]:
        fixed["position_angle"] = component.value("10", feedme.path) % 180.0
    for place, name in enumerate(("center_x", "center_y")):
        if not component.free["1"][place]:
            fixed[name] = component.value("1", feedme.path, place) - middle[place]
    return fixed
