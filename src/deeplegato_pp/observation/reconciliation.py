"""Reconciliation of the statements in a file on scale, zero point, noise, mask and PSF, with flags.

The same functions are used for stamps and mosaics. User input takes precedence over files.
"""

import os
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from deeplegato_pp import checks
from deeplegato_pp.arrays import Array
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.io import fits_extensions
from deeplegato_pp.io.fits import Companion, FitsImage
from deeplegato_pp.io.header_keywords import Cards, Header, Taken
from deeplegato_pp.io.wcs_header import SkyCoordinates
from deeplegato_pp.observation import inputs, psf_files
from deeplegato_pp.observation.array_inputs import (
    Unpacked,
    uncertainty_type,
    unpack,
    unpack_uncertainty,
)
from deeplegato_pp.observation.mask_planes import SEGMENTATION_NAMES, MaskMeaning, mask_meaning
from deeplegato_pp.observation.noise_types import NoiseStatement, noise_statement
from deeplegato_pp.observation.photometric_calibration import reconcile_zero_point
from deeplegato_pp.observation.pixel_scales import TOLERANCE, reconcile_pixel_scale
from deeplegato_pp.observation.provenance import provenance_line


@dataclass(frozen=True, eq=False)
class Given:
    """User input; see ``Observation.from_fits``.

    Raises:
        RangeError: If the pixel scale or zero point is out of range.
    """

    psf: Any = None
    psf_fwhm: float | None = None
    psf_oversampling: int | None = None
    psf_includes_pixel: bool | None = None
    noise: Any = None
    noise_type: str | None = None
    mask: Any = None
    mask_bits: int | None = None
    pixel_scale: float | None = None
    zero_point: float | None = None
    plane: int | None = None

    def __post_init__(self) -> None:
        if self.pixel_scale is not None:
            checks.check_pixel_scale(self.pixel_scale)
        if self.zero_point is not None:
            checks.check_zero_point(self.zero_point)


@dataclass(frozen=True, eq=False)
class Reconciled:
    """Adopted components of an observation, after comparison of all statements.

    Attributes:
        pixel_scale: Pixel scale; None if unknown. [arcsec/px]
        zero_point: AB magnitude of one image unit; None if unknown.
        noise: Array or number in the image's unit, or None.
        noise_type: See ``noise_maps.NOISE_TYPES``, or None.
        mask: Mask array, or None.
        mask_bits: Sum of bits that mean *ignore*; None for all.
        psf: Image of the PSF, or None.
        psf_oversampling: Samples of the PSF per pixel, or None.
        psf_includes_pixel: Whether the PSF includes the detector's pixel, or None.
        flags: Sum of ``Flag`` bits.
        notes: Choices and disagreements.
        provenance: One line on what was taken from where.
    """

    pixel_scale: float | None = None
    zero_point: float | None = None
    noise: Any = None
    noise_type: str | None = None
    mask: Any = None
    mask_bits: int | None = None
    psf: Any = None
    psf_oversampling: int | None = None
    psf_includes_pixel: bool | None = None
    flags: int = 0
    notes: tuple[str, ...] = ()
    provenance: str = ""


def reconcile(found: FitsImage, given: Given) -> Reconciled:
    """Determines the components of an observation from one file.

    Args:
        found: Contents of the file.
        given: User input.
    """
    level = pixel_noise(found.image)
    scale, zero_point = reconcile_calibration(found.header, found.sky, given, level)
    noise = _noise_companion(found, given)
    statement = (
        NoiseStatement()
        if noise is None
        else companion_statement(noise, given.noise_type, found.header)
    )
    mask, meaning, mask_name = _mask(found, given)
    psf = _psf(found, given, scale.value)
    values: Any = given.noise
    if noise is not None:
        values = noise.pixels * statement.factor if statement.factor != 1 else noise.pixels
    noise_type = given.noise_type or statement.kind
    return Reconciled(
        scale.value,
        zero_point.value,
        values,
        noise_type,
        mask,
        meaning.bits,
        None if psf is None else psf.image,
        given.psf_oversampling if psf is None else psf.oversampling,
        given.psf_includes_pixel if psf is None else psf.includes_pixel,
        int(scale.flags | zero_point.flags | statement.flags | (0 if psf is None else psf.flags)),
        (
            *scale.notes,
            *zero_point.notes,
            *statement.notes,
            *meaning.notes,
            *(() if psf is None else psf.notes),
        ),
        provenance_line(
            zero_point,
            scale,
            psf_name(given, None if psf is None else psf.source),
            None if psf is None else psf.oversampling,
            noise_name(given.noise, noise_type, statement, noise),
            mask_name,
        ),
    )


def reconcile_arrays(parts: Unpacked, given: Given) -> Reconciled:
    """Determines the components of an observation from an image in memory.

    Args:
        parts: Contents of the image object.
        given: User input.
    """
    noise, noise_type, mask = given.noise, given.noise_type, given.mask
    if noise is None and parts.uncertainty is not None:
        noise, noise_type = parts.uncertainty, noise_type or parts.uncertainty_type
    elif uncertainty_type(noise) is not None:
        noise, noise_type = unpack_uncertainty(noise), noise_type or uncertainty_type(noise)
    else:
        noise = unpack(noise)
    flags = 0
    notes: list[str] = []
    values: Any = noise.values
    if values is not None and noise.unit and parts.unit:
        statement = noise_statement(
            Cards({"BUNIT": noise.unit}), "", None, noise_type or "sigma", parts.unit
        )
        values = np.asarray(values) * statement.factor
        flags |= statement.flags
        notes += statement.notes
    mask = parts.mask if mask is None else mask
    scale, zero_point = Taken(given.pixel_scale), Taken(given.zero_point)
    if parts.header:
        sky = SkyCoordinates(parts.wcs, None if parts.wcs is None else wcs_scale(parts.wcs))
        level = pixel_noise(np.asarray(parts.values))
        scale, zero_point = reconcile_calibration(parts.header, sky, given, level)
        flags |= scale.flags | zero_point.flags
        notes += [*scale.notes, *zero_point.notes]
    return Reconciled(
        scale.value,
        zero_point.value,
        values,
        noise_type,
        mask,
        flags=int(flags),
        notes=tuple(notes),
    )


def reconcile_calibration(
    header: Header, sky: SkyCoordinates, given: Given, noise: float | None = None
) -> tuple[Taken, Taken]:
    """Determines pixel scale and zero point, with flags and notes.

    Args:
        header: Header of the image.
        sky: WCS of the image.
        given: User input, which takes precedence.
        noise: Approximate noise per pixel; None if unknown. [image units]
    """
    scale = reconcile_pixel_scale(header, sky.scale)
    if given.pixel_scale is not None:
        notes = []
        if sky.scale is not None and abs(given.pixel_scale / sky.scale - 1) > TOLERANCE:
            notes = [f"pixel scale {given.pixel_scale:.6g} as given, the WCS has {sky.scale:.6g}"]
        scale = Taken(given.pixel_scale, "given", 0, tuple(notes))
    scale = replace(scale, flags=int(scale.flags | sky.flags), notes=(*sky.notes, *scale.notes))
    if given.zero_point is not None:
        zero_point = Taken(given.zero_point, "given")
    else:
        zero_point = reconcile_zero_point(header, scale.value, sky.scale, noise)
    return scale, zero_point


def companion_statement(companion: Companion, given: str | None, image: Header) -> NoiseStatement:
    """Returns the type of a noise map and the factor to the image's unit.

    Args:
        companion: The map with its header.
        given: Type given by the user, or None.
        image: Header of the image.
    """
    return noise_statement(
        companion.header,
        companion.name,
        companion.statement,
        given,
        str(image.get("BUNIT") or "").strip(),
        companion.file,
    )


def companion_meaning(companion: Companion, image: Header, bits: int | None) -> MaskMeaning:
    """Returns which bits of a mask mean *ignore*: as given, else from cards and instrument.

    Raises:
        InputError: If the extension's name says that it is a segmentation map.
    """
    named = companion.name.upper() in SEGMENTATION_NAMES
    checks.check_no_segmentation(companion.pixels, named and bits is None)
    if bits is not None:
        return MaskMeaning(bits, "as given")
    return mask_meaning(companion.header, image, companion.name)


def is_path(source: object) -> TypeGuard[str | os.PathLike[str]]:
    """Returns whether a source is a path, rather than an array or number."""
    return isinstance(source, str | os.PathLike)


def pixel_noise(image: Array) -> float | None:
    """Estimates the noise of an image from the robust scatter of adjacent pixels, or None.

    Args:
        image: Image, with shape (H, W).
    """
    if image.ndim != 2 or image.dtype.kind not in "iuf" or image.shape[1] < 2:
        return None
    rows = max(1, image.size // 20_000)  # a few thousand pixels suffice
    step = np.diff(image[::rows].astype(np.float64), axis=1)
    step = np.abs(step[np.isfinite(step)])
    scatter = 1.0483 * float(np.median(step)) if step.size else 0.0
    return scatter if scatter > 0 else None


def wcs_scale(wcs: Any) -> float:
    """Returns the pixel scale of a celestial WCS. [arcsec/px]"""
    from astropy.wcs.utils import proj_plane_pixel_scales

    scales = 3600.0 * np.asarray(proj_plane_pixel_scales(wcs.celestial), dtype=float)
    return float(np.sqrt(scales[0] * scales[1]))


def noise_name(
    given: Any, kind: str | None, statement: NoiseStatement, companion: Companion | None
) -> str:
    """Returns the description of the noise for the terminal."""
    if companion is not None:
        return f"{kind or 'sigma'} ({statement.source or companion.name or 'assumed'})"
    if given is None:
        return "estimated from the border"
    return f"{kind or 'sigma'} (given)"


def psf_name(given: Given, source: str | None) -> str:
    """Returns the description of the PSF's source for the terminal."""
    if given.psf_fwhm is not None:
        return f"Moffat of {given.psf_fwhm:g} px"
    if source:
        return source
    if is_path(given.psf):
        return os.path.basename(given.psf)
    return (
        "" if given.psf is None and source is None else "given" if given.psf is not None else "PSF"
    )


def _noise_companion(found: FitsImage, given: Given) -> Companion | None:
    if given.noise is None:
        return found.noise
    if is_path(given.noise):
        names = tuple(fits_extensions.NOISE_NAMES)
        return fits_io.read_companion(given.noise, names, "the noise", given.plane)
    return None


def _mask(found: FitsImage, given: Given) -> tuple[Array | None, MaskMeaning, str]:
    """Returns the mask, the bits that count, and its name."""
    companion = found.mask
    if is_path(given.mask):
        names = (*fits_extensions.MASK_NAMES, *SEGMENTATION_NAMES)
        companion = fits_io.read_companion(given.mask, names, "the mask", given.plane)
    elif given.mask is not None:
        companion = None
    mask: Any = given.mask if companion is None else companion.pixels
    meaning = MaskMeaning(given.mask_bits)
    name = "" if mask is None else "given"
    if companion is not None:
        meaning = companion_meaning(companion, found.header, given.mask_bits)
        own = companion.name if companion.name != "PRIMARY" else ""
        name = own or os.path.basename(companion.file) or "given"
    if found.no_data is not None:
        checks.check_same_shape(found.no_data, found.image.shape, "the weight map")
        ignore = inputs.boolean_mask(mask, meaning.bits, found.image.shape)
        mask, meaning = ignore | found.no_data, replace(meaning, bits=None)
    return mask, meaning, name


def _psf(found: FitsImage, given: Given, scale: float | None) -> psf_files.PSFAt | None:
    """Returns the PSF with its sampling; None without a PSF."""
    if is_path(given.psf):
        psf_map = psf_files.open_psf_file(given.psf, scale, given.psf_oversampling)
        psf = psf_files.psf_of_stamp(
            psf_map,
            found.image.shape,
            psf_files.stamp_origin(found.header),  # type: ignore[arg-type]
        )
    elif given.psf is not None:
        psf = psf_files.PSFAt(given.psf, given.psf_oversampling)
    elif given.psf_fwhm is None and found.psf is not None:
        psf = psf_files.psf_image(
            found.psf.pixels, found.psf.header, found.psf.name, scale, given.psf_oversampling
        )
    else:
        return None
    if given.psf_oversampling is not None:
        psf = replace(psf, oversampling=given.psf_oversampling)
    if given.psf_includes_pixel is not None:
        psf = replace(psf, includes_pixel=given.psf_includes_pixel)
    return psf
