"""Observations: images with noise, mask, PSF and calibration, checked and flagged."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from deeplegato_pp import checks
from deeplegato_pp.arrays import Array
from deeplegato_pp.flags import Flag
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.io import fits_extensions
from deeplegato_pp.observation import (
    array_inputs,
    correlation_inputs,
    effective_psf,
    inputs,
    mask_planes,
    noise_maps,
)
from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.observation.reconciliation import Given, reconcile, reconcile_arrays

ArrayLike = npt.ArrayLike
Source = str | os.PathLike[str] | ArrayLike
"""A path to a FITS file, or an array."""

REFERENCE_PIXEL_SCALE = 0.25
"""Default pixel scale, that of the reference instrument. [arcsec/px]"""

REFERENCE_ZERO_POINT = 30.5
"""Default AB magnitude of one image unit, that of the reference instrument."""

SKY_SIGMA_FRACTION = 0.02
"""Default 1-sigma of the constant sky offset, in units of the median noise."""

PSF_ERROR = 0.02
"""Default relative error of the PSF's width, one sigma: PSFs are known to a few per cent."""

LOW_COUNTS_VARIANCE = 20.0
"""Background variance [electrons^2/px] below which Poisson skewness exceeds 0.22."""


@dataclass(frozen=True, eq=False, repr=False)
class Observation:
    """A stamp of one galaxy with noise, mask, PSF and calibration.

    Missing input is replaced by assumptions, which are flagged. Build it with ``from_array``,
    ``from_nddata`` or ``from_fits``. The arrays are copies.

    Attributes:
        image: Image, with shape (H, W); masked pixels that were not finite hold 0. [image units]
        noise: 1-sigma noise per pixel, with shape (H, W), positive everywhere: of the background
            alone if ``gain`` is given, else total. [image units]
        mask: True for pixels to ignore, with shape (H, W).
        psf: Effective PSF of sum 1, with shape (Py, Px), both odd.
        pixel_scale: Pixel scale. [arcsec/px]
        zero_point: AB magnitude of one image unit.
        sky_sigma: Prior standard deviation of a constant sky offset, which is marginalised.
            [image units]
        gain: Electrons per image unit, or None; if given, the noise is background-only.
        noise_correlation: Variance of sums over many pixels relative to independent pixels: 1, or
            more for drizzled and resampled images.
        correlation: Noise correlation at each lag; None for the Gaussian family with this total,
            see `NoiseCorrelation.gaussian`.
        psf_oversampling: Samples of the PSF per pixel and axis.
        psf_includes_pixel: Whether the PSF includes the detector's pixel.
        psf_sum: Sum of the PSF as given.
        psf_error: Relative error of the PSF's width, one sigma, which is marginalised in the
            likelihood (see ``docs/error_bars.md``); 0 for a known PSF.
        wcs: Celestial ``astropy.wcs.WCS`` of the stamp, or None.
        name: Name used in tables.
        unit: Unit of the image from its header, or empty.
        flags: Sum of ``Flag`` bits.
        notes: Assumptions, findings and replaced values, as text.
        provenance: One line on what was taken from a file, and from where.
    """

    image: Array
    noise: Array
    mask: Array
    psf: Array
    pixel_scale: float
    zero_point: float
    sky_sigma: float
    gain: float | None = None
    noise_correlation: float = 1.0
    correlation: NoiseCorrelation | None = None
    psf_oversampling: int = 1
    psf_includes_pixel: bool = True
    psf_sum: float = 1.0
    psf_error: float = PSF_ERROR
    wcs: Any = None
    name: str = ""
    unit: str = ""
    flags: int = 0
    notes: list[str] = field(default_factory=list)
    provenance: str = ""

    @classmethod
    def from_array(
        cls,
        image: ArrayLike,
        psf: ArrayLike | None = None,
        noise: ArrayLike | None = None,
        noise_type: str | None = None,
        mask: ArrayLike | None = None,
        gain: float | None = None,
        pixel_scale: float | None = None,
        zero_point: float | None = None,
        psf_fwhm: float | None = None,
        psf_oversampling: int | None = None,
        psf_includes_pixel: bool | None = None,
        psf_even: Literal["refuse", "shift"] = "refuse",
        sky_sigma: float | None = None,
        mask_bits: int | None = None,
        name: str = "",
        *,
        noise_correlation: correlation_inputs.GivenCorrelation = 1.0,
        psf_error: float | None = None,
        unit: str = "",
        wcs: Any = None,
    ) -> "Observation":
        """Builds an observation from arrays.

        Args:
            image: Image, with shape (H, W). NaN and infinity are masked, counted and flagged. The
                unit of a Quantity is used; for an NDData or CCDData also mask, uncertainty, WCS,
                PSF and metadata, unless given explicitly.
            psf: Image of the effective PSF, with shape (Py, Px), both odd.
            noise: One number, or a map with shape (H, W), of type ``noise_type``. None: the
                clipped MAD of the image's border. A Quantity is converted to the image's unit.
            noise_type: ``sigma`` (also the meaning of None), ``variance``, ``ivar`` or ``weight``
                (inverse variance up to a factor, which is determined from the image's border).
                Zero masks the pixel.
            mask: True or non-zero for pixels to ignore, with shape (H, W).
            gain: Electrons per image unit. If given, ``noise`` is background-only.
            pixel_scale: Pixel scale. None: the reference, flagged. [arcsec/px]
            zero_point: AB magnitude of one image unit. None: the reference, flagged.
            psf_fwhm: FWHM of a Moffat PSF instead of ``psf``. [px]
            psf_oversampling: Samples of ``psf`` per pixel and axis; None: 1.
            psf_includes_pixel: False for PSFs without the detector's pixel, such as WebbPSF's,
                TinyTim's and GALFIT's oversampled ones; None: True.
            psf_even: ``refuse`` or ``shift`` an even-sized PSF.
            sky_sigma: Prior standard deviation of the constant sky offset. None: 0.02 of the median
                noise. [image units]
            mask_bits: Sum of the bits of ``mask`` that mean *ignore*. None: all.
            name: Name used in tables.
            noise_correlation: For drizzled or resampled images, one of: the variance of sums over
                many pixels relative to independent pixels (R squared in Casertano et al. 2000), for
                noise smoothed by a Gaussian; ``"measure"``, to measure it where the stamp has no
                source with
                :func:`~deeplegato_pp.observation.noise_correlation.measure_correlation`, with a
                note; ``"drizzle:SCALE,PIXFRAC"``, the sides of the output pixel and of the drop
                divided by the detector pixel's; the correlation at each lag (y, x) as an array of
                odd side with lag zero in its middle, or a file that holds it.
            psf_error: Relative error of the PSF's width, one sigma, in [0, 0.5); 0 for a known PSF,
                None: 0.02.
            unit: Unit of the image.
            wcs: Celestial WCS of the stamp.

        Raises:
            InputError: If an input cannot be used (``ShapeError`` or ``RangeError`` for invalid
                shapes or values). The message says what is wrong, and how to correct it.
        """
        parts = array_inputs.unpack(image)
        known = reconcile_arrays(
            parts,
            Given(
                noise=noise,
                noise_type=noise_type,
                mask=mask,
                pixel_scale=pixel_scale,
                zero_point=zero_point,
            ),
        )
        noise, noise_type, mask = known.noise, known.noise_type, known.mask
        pixel_scale, zero_point = known.pixel_scale, known.zero_point
        psf = parts.psf if psf is None and psf_fwhm is None else psf
        unit, wcs = unit or parts.unit, parts.wcs if wcs is None else wcs
        pixels = checks.as_real_array(parts.values, "image")
        checks.check_two_dimensional(pixels, "image")
        checks.check_not_empty(pixels, "image")
        flags, notes = known.flags, list(known.notes)

        ignore = inputs.boolean_mask(mask, mask_bits, pixels.shape)
        if mask is not None and mask_bits is None:
            checks.check_no_segmentation(
                mask, mask_planes.looks_like_segmentation(np.asarray(mask))
            )
        ignore, blank_flags, blank_notes = inputs.without_placeholders(pixels, ignore)
        sigma, ignore, noise_flags, noise_notes = inputs.sigma_and_mask(
            pixels, noise, noise_type or "sigma", ignore
        )
        checks.check_not_all_masked(ignore)
        pixels = np.where(np.isfinite(pixels), pixels, 0.0)
        flags |= noise_flags | blank_flags
        notes += blank_notes + noise_notes
        total, correlation, remarks = correlation_inputs.correlation_of(
            noise_correlation, pixels, sigma, ignore
        )
        notes += remarks
        median = float(np.median(sigma[~ignore]))
        if noise_maps.noise_follows_data(pixels, sigma, ignore):
            flags |= Flag.NOISE_FROM_DATA
            notes.append("noise varies with the data pixel by pixel: fluxes are biased low")
        if noise is not None:
            ratio = noise_maps.scatter_over_noise(pixels, sigma, ignore)
            if ratio is not None:
                flags |= Flag.NOISE_OFF
                notes.append(
                    f"the image scatters by {ratio:.3g} times its noise map from pixel to pixel: "
                    "state what the map is with noise_type (--noise-type), or give another"
                )

        if gain is not None:
            gain = checks.check_positive(gain, "gain", "electrons per image unit")
            checks.check_within(gain, 1e-30, 1e30, "gain", "electrons per image unit")
            if gain * median < LOW_COUNTS_VARIANCE**0.5:
                flags |= Flag.LOW_COUNTS
        if pixel_scale is None:
            flags |= Flag.NO_PIXEL_SCALE
            pixel_scale = REFERENCE_PIXEL_SCALE
            notes.append(f"pixel scale unknown: {pixel_scale} arcsec/px assumed")
        if zero_point is None:
            flags |= Flag.NO_ZERO_POINT
            zero_point = REFERENCE_ZERO_POINT
            notes.append(f"zero point unknown: {zero_point} assumed")
        if sky_sigma is None:
            sky_sigma = SKY_SIGMA_FRACTION * median
        elif sky_sigma != 0:
            sky_sigma = checks.check_positive(sky_sigma, "sky_sigma", "image units")
            checks.check_within(sky_sigma / median, 0.0, 1e6, "sky_sigma over the noise")

        kernel, oversampling, psf_sum, psf_flags, psf_notes = inputs.usable_psf(
            psf, psf_fwhm, 1 if psf_oversampling is None else psf_oversampling, psf_even
        )
        made = psf is None
        more_flags, more_notes = inputs.remarks_on_pixels(
            pixels, sigma, ignore, effective_psf.coarse_fwhm(kernel, oversampling)
        )
        flags |= more_flags
        notes += more_notes
        return cls(
            image=pixels,
            noise=sigma,
            mask=ignore,
            psf=kernel,
            pixel_scale=checks.check_pixel_scale(pixel_scale),
            zero_point=checks.check_zero_point(zero_point),
            sky_sigma=float(sky_sigma),
            gain=gain,
            noise_correlation=total,
            correlation=correlation,
            psf_oversampling=oversampling,
            psf_includes_pixel=(
                True if made or psf_includes_pixel is None else bool(psf_includes_pixel)
            ),
            psf_sum=psf_sum,
            psf_error=PSF_ERROR if psf_error is None else checks.check_psf_error(psf_error),
            wcs=wcs,
            name=name,
            unit=unit,
            flags=int(flags | psf_flags),
            notes=notes + psf_notes,
        )

    @classmethod
    def from_nddata(cls, nddata: Any, **options: Any) -> "Observation":
        """Builds an observation from an astropy ``NDData`` or ``CCDData``.

        Its mask, uncertainty, psf, unit and WCS are used; pixel scale and zero point are read from
        its header as for a file.

        Args:
            nddata: Data of shape (H, W).
            options: Arguments of ``from_array``, which override the object's contents.

        Raises:
            InputError: As ``from_array``, or if it is not an ``NDData``.
        """
        array_inputs.check_nddata(nddata)
        return cls.from_array(nddata, **options)

    @classmethod
    def from_fits(
        cls,
        path: str | os.PathLike[str],
        psf: Source | None = None,
        noise: Source | None = None,
        noise_type: str | None = None,
        gain: float | None = None,
        mask: Source | None = None,
        mask_bits: int | None = None,
        pixel_scale: float | None = None,
        zero_point: float | None = None,
        psf_fwhm: float | None = None,
        psf_oversampling: int | None = None,
        psf_includes_pixel: bool | None = None,
        psf_even: Literal["refuse", "shift"] = "refuse",
        sky_sigma: float | None = None,
        extension: fits_extensions.Extension | None = None,
        noise_correlation: correlation_inputs.GivenCorrelation = 1.0,
        *,
        psf_error: float | None = None,
        plane: int | None = None,
    ) -> "Observation":
        """Reads an observation from one FITS file with all extensions, or from several files.

        Arguments take precedence over the contents of the file. Statements of the file on scale,
        zero point, noise, mask and PSF are compared, and contradictions are flagged; layouts and
        keywords are listed in ``docs/input.md``. GAIN in a header is not used, because it does not
        say what the noise map contains.

        Args:
            path: FITS file (also .gz, .bz2, .fz), read whole and closed.
            psf: File (an image, STPSF's four extensions, a PSFEx model, a cube or a table) or
                array, see ``from_array``.
            noise: File, array or number.
            noise_type: Type of the noise. None: as stated by its file, else sigma.
            gain: Electrons per image unit. If given, the noise is background-only.
            mask: File or array; replaces the mask in the file.
            mask_bits: Sum of the bits of the mask that mean *ignore*. None: those that mean damage
                according to the mask's own cards or its instrument, else all.
            pixel_scale: Pixel scale. None: from the WCS, else from keywords, else the reference,
                flagged. [arcsec/px]
            zero_point: AB magnitude of one image unit. None: from unit or keywords, else the
                reference, flagged.
            psf_fwhm: FWHM of a Moffat PSF instead of an image. [px]
            psf_oversampling: Samples of the PSF per pixel and axis. None: as stated by its file,
                else 1.
            psf_includes_pixel: Whether the PSF includes the detector's pixel. None: as stated by
                its file, else True.
            psf_even: ``refuse`` or ``shift`` an even-sized PSF.
            sky_sigma: Prior standard deviation of the constant sky offset. [image units]
            extension: Index, name or (name, version) of the image in its file.
            noise_correlation: See ``from_array``; ``"drizzle"`` reads scale and pixfrac from the
                image's header, if written by AstroDrizzle or JWST's pipeline.
            psf_error: See ``from_array``.
            plane: Plane of a cube, counted from 0.

        Raises:
            FormatError: If a file is missing, damaged, not FITS, or contains no image.
            InputError: As ``from_array``.
        """
        found = fits_io.read_image(path, extension, plane)
        given = Given(
            psf=psf,
            psf_fwhm=psf_fwhm,
            psf_oversampling=psf_oversampling,
            psf_includes_pixel=psf_includes_pixel,
            noise=noise,
            noise_type=noise_type,
            mask=mask,
            mask_bits=mask_bits,
            pixel_scale=pixel_scale,
            zero_point=zero_point,
            plane=plane,
        )
        known = reconcile(found, given)
        if noise_correlation == "drizzle":
            noise_correlation = correlation_inputs.drizzle_of_header(
                found.header, known.pixel_scale
            )
        observation = cls.from_array(
            found.image,
            psf=known.psf,
            noise=known.noise,
            noise_type=known.noise_type,
            mask=known.mask,
            gain=gain,
            pixel_scale=known.pixel_scale,
            zero_point=known.zero_point,
            psf_fwhm=psf_fwhm,
            psf_oversampling=known.psf_oversampling,
            psf_includes_pixel=known.psf_includes_pixel,
            psf_even=psf_even,
            sky_sigma=sky_sigma,
            mask_bits=known.mask_bits,
            name=_stem(path),
            noise_correlation=noise_correlation,
            psf_error=psf_error,
            unit=str(found.header.get("BUNIT") or "").strip(),
            wcs=found.sky.wcs,
        )
        return replace(
            observation,
            flags=int(observation.flags | known.flags),
            notes=[*found.notes, *known.notes, *observation.notes],
            provenance=known.provenance,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def median_noise(self) -> float:
        """Median noise of the unmasked pixels, in image units."""
        return float(np.median(self.noise[~self.mask]))

    @property
    def psf_fwhm(self) -> float:
        """FWHM of the PSF, in pixels of the image."""
        return effective_psf.psf_fwhm(self.psf, self.psf_oversampling)

    @property
    def flag_names(self) -> list[str]:
        """Names of the flags that are set."""
        return Flag.names(self.flags)

    def masked(self, extra: ArrayLike, flags: int = 0) -> "Observation":
        """Returns a copy with additional pixels masked, and ``flags`` set.

        Args:
            extra: True for additional pixels to ignore, with shape (H, W).
            flags: Additional flags.

        Raises:
            InputError: If the shape is wrong or no unmasked pixel is left.
        """
        mask = self.mask | inputs.boolean_mask(extra, None, self.shape)
        checks.check_not_all_masked(mask)
        return replace(self, mask=mask, flags=int(self.flags | flags))

    def __repr__(self) -> str:
        """Returns one line with name, size, calibration and flags."""
        height, width = self.shape
        return (
            f"Observation({self.name or 'unnamed'}: {width} x {height} px, "
            f"{self.pixel_scale:.4g} arcsec/px, zero point {self.zero_point:.4g}, "
            f"{int(self.mask.sum())} masked, flags {self.flag_names})"
        )


def _stem(path: str | os.PathLike[str]) -> str:
    """Returns the file's name without its FITS and compression suffixes."""
    name = Path(path).name
    for suffix in (".gz", ".bz2", ".fz", ".fits", ".fit", ".fts"):
        name = name.removesuffix(suffix)
    return name
