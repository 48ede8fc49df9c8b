"""Input images and their companions: files and values, one for all images or one for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deeplegato_pp.catalog.mosaics import (
    Mosaic,
    OpenedCompanion,
    array_plane,
    companion_of,
    open_companion,
    open_mosaic,
)
from deeplegato_pp.checks import check_psf_error
from deeplegato_pp.errors import InputError
from deeplegato_pp.io import fits_extensions
from deeplegato_pp.io.fits_extensions import Extension
from deeplegato_pp.io.lazy_images import LinearPlane
from deeplegato_pp.io.wcs_header import SkyCoordinates
from deeplegato_pp.observation.array_inputs import (
    Unpacked,
    uncertainty_type,
    unpack,
    unpack_uncertainty,
)
from deeplegato_pp.observation.correlation_inputs import (
    GivenCorrelation,
    parse_noise_correlation,
)
from deeplegato_pp.observation.mask_planes import SEGMENTATION_NAMES
from deeplegato_pp.observation.noise_types import NoiseStatement
from deeplegato_pp.observation.reconciliation import (
    Given,
    companion_statement,
    pixel_noise,
    reconcile_calibration,
    wcs_scale,
)

PER_IMAGE = (
    "psf", "noise", "mask", "segmentation", "background", "pixel_scale", "zero_point"
)  # fmt: skip
"""Options that are given once for all images, or once for each."""


@dataclass(frozen=True)
class Inputs:
    """Images and what is known about them; picklable if given as paths.

    `images`, `noise`, `mask`, `segmentation`, `background`, `psf`, `pixel_scale` and `zero_point`
    are sequences of none, one, or one entry per image; a number among the noise applies to the
    whole image.

    Attributes:
        images: FITS files, or arrays.
        extension: FITS extension of the images.
        psf: See :func:`~deeplegato_pp.catalog.psf_maps.open_psf_map`.
        psf_fwhm: FWHM of a Moffat PSF instead of an image. [px]
        psf_oversampling: Samples of the PSF per pixel; None: as stated by its file, else 1.
        psf_includes_pixel: Whether the PSF includes the detector's pixel; None: as stated by its
            file, else True.
        psf_even: ``refuse`` or ``shift`` an even-sized PSF.
        noise: Files, arrays or numbers.
        noise_type: Type of the noise; None: as stated by its file, else sigma.
        gain: Electrons per image unit; if given, the noise is background-only.
        sky_sigma: Prior standard deviation of the sky offset. [image units]
        noise_correlation: As for :meth:`Observation.from_fits`; ``"measure"`` measures it on each
            stamp, ``"drizzle"`` in each image's header.
        psf_error: Relative error of the PSFs' widths; None: 0.02.
        mask: Files or arrays, non-zero = ignore.
        mask_bits: Sum of the bits that mean *ignore*; None: those that mean damage according to the
            mask's own cards or its instrument, else all.
        segmentation: Files or arrays with the source number of each pixel.
        background: Files or arrays to be subtracted. [image units]
        pixel_scale: Pixel scales. [arcsec/px]
        zero_point: AB magnitudes of one image unit.
        wcs: Celestial WCS of images that are arrays.
        plane: Plane of a cube, counted from 0.
    """

    images: tuple[Any, ...] = ()
    extension: Extension | None = None
    psf: tuple[Any, ...] = ()
    psf_fwhm: float | None = None
    psf_oversampling: int | None = None
    psf_includes_pixel: bool | None = None
    psf_even: Literal["refuse", "shift"] = "refuse"
    noise: tuple[Any, ...] = ()
    noise_type: str | None = None
    gain: float | None = None
    sky_sigma: float | None = None
    noise_correlation: GivenCorrelation = 1.0
    psf_error: float | None = None
    mask: tuple[Any, ...] = ()
    mask_bits: int | None = None
    segmentation: tuple[Any, ...] = ()
    background: tuple[Any, ...] = ()
    pixel_scale: tuple[float, ...] = ()
    zero_point: tuple[float, ...] = ()
    wcs: Any = None
    plane: int | None = None

    def __post_init__(self) -> None:
        for what in PER_IMAGE:
            given = len(getattr(self, what))
            if self.images and given not in (0, 1, len(self.images)):
                raise InputError(
                    f"{given} of {what} for {len(self.images)} images. Give one for all, or one "
                    "per image in their order."
                )
        # Files are read once, and invalid values are refused before any work.
        known = parse_noise_correlation(self.noise_correlation)
        object.__setattr__(self, "noise_correlation", known)
        if self.psf_error is not None:
            check_psf_error(self.psf_error)
        if self.psf and self.psf_fwhm is not None:
            raise InputError("psf and psf_fwhm were both given, expected one. Leave one out.")

    def of(self, what: str, i: int) -> Any:
        """Returns the entry for the i-th image, or None."""
        given = getattr(self, what)
        return None if not given else given[i if len(given) > 1 else 0]

    def mosaic(self, i: int) -> Mosaic:
        """Opens the i-th image with its companions, reading headers only."""
        image = self.images[i]
        given = self._given(i)
        if isinstance(image, str | Path):
            mosaic = open_mosaic(image, self.extension, given)
        else:
            mosaic = self._in_memory(image, given)
        names = {"segmentation": ("SEGMENTATION", "SEG"), "background": ("BACKGROUND",)}
        planes = {
            what: open_companion(self.of(what, i), names[what], what).plane
            for what in names
            if self.of(what, i) is not None
        }
        return mosaic.with_planes(**planes)

    def _given(self, i: int) -> Given:
        """Returns the user input for the i-th image, with companions opened."""
        noise, mask = self.of("noise", i), self.of("mask", i)
        if noise is not None and not isinstance(noise, int | float):
            names = tuple(fits_extensions.NOISE_NAMES)
            noise = self._companion(noise, names, "the noise")
        if mask is not None:
            mask_names = (*fits_extensions.MASK_NAMES, *SEGMENTATION_NAMES)
            mask = self._companion(mask, mask_names, "the mask")
        return Given(
            psf=self.of("psf", i),
            psf_fwhm=self.psf_fwhm,
            psf_oversampling=self.psf_oversampling,
            psf_includes_pixel=self.psf_includes_pixel,
            noise=noise,
            noise_type=self.noise_type,
            mask=mask,
            mask_bits=self.mask_bits,
            pixel_scale=self.of("pixel_scale", i),
            zero_point=self.of("zero_point", i),
            plane=self.plane,
        )

    def _companion(self, source: Any, names: tuple[str, ...], what: str) -> OpenedCompanion:
        """Opens a noise map or mask from a file, or from memory with its unit."""
        if isinstance(source, str | Path):
            return open_companion(source, names, what, self.plane)
        kind = uncertainty_type(source)
        parts = unpack(source) if kind is None else unpack_uncertainty(source)
        return companion_of(parts, what, kind)

    def _in_memory(self, image: Any, given: Given) -> Mosaic:
        """Opens an array, Quantity or NDData with its own and the given companions."""
        parts = unpack(image)
        wcs = parts.wcs if self.wcs is None else self.wcs
        header = parts.header
        sky = SkyCoordinates(wcs, None if wcs is None else wcs_scale(wcs))
        values = array_plane(parts.values, "the image")
        level = pixel_noise(values.pixels)
        scale, zero_point = reconcile_calibration(header, sky, given, level)
        noise = given.noise
        if noise is None and parts.uncertainty is not None:
            noise = companion_of(parts.uncertainty, "the noise", parts.uncertainty_type)
        mask = given.mask
        if mask is None and parts.mask is not None:
            mask = companion_of(Unpacked(parts.mask), "the mask")
        statement = NoiseStatement(self.noise_type)
        planes: dict[str, Any] = {}
        if isinstance(noise, OpenedCompanion):
            statement = companion_statement(noise.about, self.noise_type, header)
            planes["noise"] = noise.plane
            if statement.factor != 1.0:
                planes["noise"] = LinearPlane(noise.plane, None, statement.factor)
        if isinstance(mask, OpenedCompanion):
            planes["mask"] = mask.plane
        mosaic = Mosaic(
            "image",
            values,
            noise_type=statement.kind or "sigma",
            mask_bits=self.mask_bits,
            psf=None if parts.psf is None else np.asarray(parts.psf, dtype=np.float64),
            wcs=wcs,
            pixel_scale=scale.value,
            zero_point=zero_point.value,
            unit=parts.unit,
            notes=(*scale.notes, *zero_point.notes, *statement.notes),
            flags=int(scale.flags | zero_point.flags | statement.flags),
        )
        return mosaic.with_planes(**planes)
