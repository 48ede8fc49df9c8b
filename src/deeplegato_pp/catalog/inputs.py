"""What is given of the images: files and numbers, one for all images or one for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deeplegato_pp.catalog.mosaics import (
    Mosaic,
    array_plane,
    open_companion,
    open_mosaic,
)
from deeplegato_pp.errors import InputError
from deeplegato_pp.io import fits_extensions


@dataclass(frozen=True)
class Inputs:
    """Where pixels come from, and what is known about them; picklable if made of paths.

    Of `images`, `noise`, `mask`, `segmentation`, `background` and `psf` there are none, one, or
    one per image; a number among the noise serves for the whole image.

    Attributes:
        images: FITS files, or arrays.
        extension: Of the images in their files.
        psf: See :func:`~deeplegato_pp.catalog.psf_maps.open_psf_map`.
        psf_fwhm: FWHM of a Moffat in place of a PSF. [px]
        psf_oversampling: Samples of the PSF per pixel; a PSFEx model states its own.
        psf_includes_pixel: Whether the detector's pixel is in the PSF.
        psf_even: What to do with an even-sized PSF.
        noise: Files, arrays or numbers.
        noise_type: What `noise` is given as.
        gain: Electrons per image unit; declares the noise to be the background's alone.
        sky_sigma: Standard deviation of the sky left in the image. [image units]
        noise_correlation: Variance of the noise of sums over many pixels, over that of independent
            ones; ``"measure"`` finds it on each stamp.
        mask: Files or arrays, non-zero = ignore.
        mask_bits: The bits that mean *ignore*.
        segmentation: Files or arrays: the number of the source that a pixel belongs to.
        background: Files or arrays to be subtracted. [image units]
        pixel_scale: [arcsec/px]
        zero_point: AB magnitude of one image unit.
        wcs: Celestial WCS of images that are arrays.
    """

    images: tuple[Any, ...] = ()
    extension: Any = None
    psf: tuple[Any, ...] = ()
    psf_fwhm: float | None = None
    psf_oversampling: int = 1
    psf_includes_pixel: bool = True
    psf_even: Any = "refuse"
    noise: tuple[Any, ...] = ()
    noise_type: str = "sigma"
    gain: float | None = None
    sky_sigma: float | None = None
    noise_correlation: float | Literal["measure"] = 1.0
    mask: tuple[Any, ...] = ()
    mask_bits: int | None = None
    segmentation: tuple[Any, ...] = ()
    background: tuple[Any, ...] = ()
    pixel_scale: float | None = None
    zero_point: float | None = None
    wcs: Any = None

    def __post_init__(self) -> None:
        for what in ("psf", "noise", "mask", "segmentation", "background"):
            given = len(getattr(self, what))
            if self.images and given not in (0, 1, len(self.images)):
                raise InputError(
                    f"{given} of {what} for {len(self.images)} images. Give one for all, or one "
                    "per image in their order."
                )
        if self.psf and self.psf_fwhm is not None:
            raise InputError("psf and psf_fwhm were both given, expected one. Leave one out.")

    def of(self, what: str, i: int) -> Any:
        """Returns what belongs to the i-th image, or None."""
        given = getattr(self, what)
        return None if not given else given[i if len(given) > 1 else 0]

    def mosaic(self, i: int) -> Mosaic:
        """Opens the i-th image with its companions, reading headers only."""
        image = self.images[i]
        if isinstance(image, str | Path):
            mosaic = open_mosaic(image, self.extension)
        else:
            mosaic = Mosaic("image", array_plane(image, "the image"), wcs=self.wcs)
            if self.wcs is not None:
                from astropy.wcs.utils import proj_plane_pixel_scales

                scales = 3600.0 * np.asarray(proj_plane_pixel_scales(self.wcs), dtype=float)
                mosaic = replace(mosaic, pixel_scale=float(np.sqrt(scales[0] * scales[1])))
        noise = self.of("noise", i)
        if noise is not None:
            number = isinstance(noise, int | float)
            plane = (
                None
                if number
                else open_companion(noise, tuple(fits_extensions.NOISE_NAMES), "noise")
            )
            mosaic = replace(mosaic, noise=None, noise_type=self.noise_type)
            mosaic = mosaic.with_planes(noise=plane)
        if self.of("mask", i) is not None:
            mosaic = replace(mosaic, mask_bits=None).with_planes(
                mask=open_companion(self.of("mask", i), fits_extensions.MASK_NAMES, "mask")
            )
        if self.mask_bits is not None:
            mosaic = replace(mosaic, mask_bits=self.mask_bits)
        names = {"segmentation": ("SEGMENTATION", "SEG"), "background": ("BACKGROUND",)}
        planes = {
            what: open_companion(self.of(what, i), names[what], what)
            for what in names
            if self.of(what, i) is not None
        }
        mosaic = mosaic.with_planes(**planes)
        for what in ("pixel_scale", "zero_point"):
            if getattr(self, what) is not None:
                mosaic = replace(mosaic, **{what: getattr(self, what)})
        return mosaic
