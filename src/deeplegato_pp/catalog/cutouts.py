"""Cutouts: observations of sources from opened images, noise maps, masks and PSF maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.mosaics import Mosaic, ShiftedWCS
from deeplegato_pp.catalog.neighbours import neighbours_of, segment_at
from deeplegato_pp.catalog.positions import Position
from deeplegato_pp.catalog.psf_maps import ConstantPSF, PSFAt, PSFMap, open_psf_map
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.checks import check_no_segmentation
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.io.lazy_images import damaged_pixels, read_padded
from deeplegato_pp.isolation import raise_if_of_the_machine, reason_of
from deeplegato_pp.observation import inputs
from deeplegato_pp.observation.correlation_inputs import GivenCorrelation, drizzle_of_header
from deeplegato_pp.observation.mask_planes import looks_like_segmentation
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.psf_files import open_psf_file, psf_image


@dataclass(frozen=True, eq=False)
class Cutout:
    """Observation of one source, or the reason why there is none.

    Attributes:
        position: Position of the source.
        observation: The cutout; None if it cannot be made.
        reason: Reason why it cannot be made, or empty.
        left: Column of the cutout's first pixel in the image. [px]
        bottom: Row of the cutout's first pixel in the image. [px]
        segment: The source's own segment on the cutout; None without segmentation.
        bands: Observations in further bands, by name.
    """

    position: Position
    observation: Observation | None = None
    reason: str = ""
    left: int = 0
    bottom: int = 0
    segment: Array | None = None
    bands: Mapping[str, Observation] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class OpenedImages:
    """Opened images and PSF maps.

    Attributes:
        inputs: Inputs that were opened.
        mosaics: One mosaic per image.
        psfs: PSF map of each image; None for a Moffat.
    """

    inputs: Inputs
    mosaics: list[Mosaic]
    psfs: list[PSFMap | None]
    _usable: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_usable", lru_cache(maxsize=256)(self._usable_psf))

    def check_psfs(self) -> None:
        """Raises an error for a PSF that could not be used for any source.

        Raises:
            InputError: If it cannot be used. PSFs that vary are checked when they are evaluated.
        """
        for psf_map in self.psfs:
            if isinstance(psf_map, ConstantPSF):
                self._usable(psf_map.psf)

    @property
    def segmented(self) -> bool:
        """Whether every image has a segmentation."""
        return bool(self.mosaics) and all(m.segmentation is not None for m in self.mosaics)

    def cutout(
        self,
        sources: SourceList,
        i: int,
        position: Position,
        side: int,
        *,
        masked: bool = True,
        beside: Sequence[tuple[float, float]] = (),
    ) -> Cutout:
        """Returns the observation of one source; an error becomes its reason.

        Args:
            sources: List of sources.
            i: Index of the source.
            position: Position of the source.
            side: Side of the cutout. [px]
            masked: Whether the segments of other sources are masked.
            beside: Positions of sources whose segments are not masked. [px of the image]
        """
        if position.reason:
            return Cutout(position, reason=position.reason)
        try:
            if sources.file is not None:
                return Cutout(position, self._ready_made(sources, i))
            return self._cut(sources, i, position, side, masked, beside)
        except Exception as error:  # any error becomes this source's reason
            raise_if_of_the_machine(error)
            return Cutout(position, reason=reason_of(error))

    def _ready_made(self, sources: SourceList, i: int) -> Observation:
        """Reads a cutout file; options given for all take precedence over its contents."""
        assert sources.file is not None  # noqa: S101  # checked by the caller
        given = self.inputs
        own = "" if sources.psf is None else str(sources.psf[i])
        psf: Any = own or given.of("psf", 0)
        observation = Observation.from_fits(
            str(sources.file[i]),
            psf=psf if psf is None or isinstance(psf, str) else np.asarray(psf),
            noise=given.of("noise", 0),
            noise_type=given.noise_type,
            gain=given.gain,
            mask=given.of("mask", 0),
            mask_bits=given.mask_bits,
            pixel_scale=given.of("pixel_scale", 0),
            zero_point=given.of("zero_point", 0),
            psf_fwhm=None if own else given.psf_fwhm,
            psf_oversampling=given.psf_oversampling,
            psf_includes_pixel=given.psf_includes_pixel,
            psf_even=given.psf_even,
            sky_sigma=given.sky_sigma,
            extension=given.extension,
            noise_correlation=given.noise_correlation,
            psf_error=given.psf_error,
            plane=given.plane,
        )
        return replace(observation, name=sources.label(i))

    def _correlation(self, mosaic: Mosaic) -> GivenCorrelation:
        """Returns the noise correlation, from the mosaic's header if requested."""
        if self.inputs.noise_correlation != "drizzle":
            return self.inputs.noise_correlation
        return drizzle_of_header(mosaic.header, mosaic.pixel_scale)

    def _cut(
        self,
        sources: SourceList,
        i: int,
        position: Position,
        side: int,
        masked: bool,
        beside: Sequence[tuple[float, float]],
    ) -> Cutout:
        mosaic = self.mosaics[position.image]
        left, bottom = (math.ceil(v - (side - 1) / 2 - 0.5) for v in (position.x, position.y))
        pixels = read_padded(mosaic.image, bottom, left, side, np.nan)
        if mosaic.background is not None:
            pixels = pixels - read_padded(mosaic.background, bottom, left, side, np.nan)
        damaged = damaged_pixels(mosaic.image, bottom, left, side)
        ignore, outside = self._masks(mosaic, bottom, left, side)
        segment, others = None, np.zeros_like(ignore)
        if mosaic.segmentation is not None:
            segments = read_padded(mosaic.segmentation, bottom, left, side, 0.0)
            x, y = position.x - left, position.y - bottom
            segment = segments == segment_at(segments, x, y)
            kept = [segment_at(segments, px - left, py - bottom) for px, py in beside]
            if masked:
                others = neighbours_of(segments, x, y, kept)
        noise: Any = self.inputs.of("noise", position.image)
        if mosaic.noise is not None:
            noise = read_padded(mosaic.noise, bottom, left, side, np.nan)
        psf = self._psf(sources, i, position)
        kernel, oversampling, psf_sum, psf_flags, psf_notes = self._usable(psf)
        # The PSF is checked once for all sources; a Moffat, which is fast, is used here instead.
        observation = Observation.from_array(
            pixels,
            psf_fwhm=_STAND_IN_FWHM,
            noise=noise,
            noise_type=mosaic.noise_type if mosaic.noise is not None else self.inputs.noise_type,
            mask=ignore | others,
            gain=self.inputs.gain,
            pixel_scale=mosaic.pixel_scale,
            zero_point=mosaic.zero_point,
            sky_sigma=self.inputs.sky_sigma,
            name=sources.label(i),
            noise_correlation=self._correlation(mosaic),
            psf_error=self.inputs.psf_error,
            unit=mosaic.unit,
            wcs=None if mosaic.wcs is None else ShiftedWCS(mosaic.wcs, left, bottom),
        )
        flags = Flag.without(observation.flags, Flag.PSF_FROM_FWHM) | psf_flags
        flags |= mosaic.flags | (Flag.IMAGE_EDGE if outside else 0)
        flags |= Flag.NEIGHBOURS_MASKED if others.any() else 0
        observation = replace(
            observation,
            psf=kernel,
            psf_oversampling=oversampling,
            psf_includes_pixel=self._includes_pixel(psf),
            psf_sum=psf_sum,
            flags=int(flags),
            notes=[
                *mosaic.notes,
                *((f"{damaged} pixels on damaged tiles were masked",) if damaged else ()),
                *(n for n in observation.notes if not n.startswith("PSF")),
                *psf_notes,
                *(() if psf is None else psf.notes),
            ],
        )
        return Cutout(position, observation, "", left, bottom, segment)

    def _masks(self, mosaic: Mosaic, bottom: int, left: int, side: int) -> tuple[Array, bool]:
        """Returns the mask of a cutout, and whether it extends beyond the image."""
        height, width = mosaic.shape
        rows = np.arange(bottom, bottom + side)
        columns = np.arange(left, left + side)
        outside = ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))
        ignore = outside.copy()
        if mosaic.mask is not None:
            given = read_padded(mosaic.mask, bottom, left, side, 0.0)
            if mosaic.mask_bits is None:
                check_no_segmentation(given, looks_like_segmentation(given))
            ignore |= inputs.boolean_mask(given, mosaic.mask_bits, given.shape)
        if mosaic.weight is not None:
            ignore |= ~(read_padded(mosaic.weight, bottom, left, side, 1.0) > 0)
        return ignore, bool(outside.any())

    def _psf(self, sources: SourceList, i: int, position: Position) -> PSFAt | None:
        own = "" if sources.psf is None else str(sources.psf[i])
        if own:
            return _psf_file(
                own, self.mosaics[position.image].pixel_scale, self.inputs.psf_oversampling
            )
        found = self.psfs[position.image]
        return None if found is None else found(position.x, position.y)

    def _usable_psf(self, psf: PSFAt | None) -> tuple[Array, int, float, int, list[str]]:
        if psf is None:
            return inputs.usable_psf(None, self.inputs.psf_fwhm, 1, self.inputs.psf_even)
        oversampling = self.inputs.psf_oversampling or psf.oversampling or 1
        kernel, oversampling, total, flags, notes = inputs.usable_psf(
            psf.image, None, oversampling, self.inputs.psf_even
        )
        return kernel, oversampling, total, int(flags | psf.flags), notes

    def psf_at(self, image: int, x: float, y: float) -> tuple[Array, int, bool]:
        """Returns the PSF at a pixel, its oversampling, and whether it includes the pixel."""
        found = self.psfs[image]
        psf = None if found is None else found(x, y)
        kernel, oversampling, *_ = self._usable(psf)
        return kernel, oversampling, self._includes_pixel(psf)

    def _includes_pixel(self, psf: PSFAt | None) -> bool:
        given = self.inputs.psf_includes_pixel
        if psf is None:
            return True
        stated = True if psf.includes_pixel is None else psf.includes_pixel
        return stated if given is None else given


_STAND_IN_FWHM = 3.0


@lru_cache(maxsize=256)
def _psf_file(path: str, pixel_scale: float | None, oversampling: int | None) -> PSFAt:
    psf_map = open_psf_file(path, pixel_scale, oversampling)
    if isinstance(psf_map, ConstantPSF):
        return psf_map.psf
    raise InputError(
        f"{path}: a PSF that varies over a field, expected one image for one source. Give it for "
        "the whole mosaic (--psf), or one image per source."
    )


def _own_psf(mosaic: Mosaic, oversampling: int | None) -> PSFMap | None:
    """Returns the PSF in the mosaic's own file, with the sampling stated by its header."""
    if mosaic.psf is None:
        return None
    found = psf_image(mosaic.psf, mosaic.psf_header, "PSF", mosaic.pixel_scale, oversampling)
    return ConstantPSF(found)


def open_images(inputs: Inputs) -> OpenedImages:
    """Opens all inputs, so that errors are raised before any work.

    Raises:
        InputError: If an input cannot be used, e.g. ``FormatError`` for a damaged file.
    """
    mosaics = [inputs.mosaic(i) for i in range(len(inputs.images))]
    opened: dict[tuple[int, float | None], PSFMap] = {}
    psfs: list[PSFMap | None] = []
    for i in range(max(1, len(mosaics))):
        mosaic = mosaics[i] if mosaics else None
        scale = None if mosaic is None else mosaic.pixel_scale
        source = inputs.of("psf", i)
        if source is None and inputs.psf_fwhm is None and mosaic is not None:
            psfs.append(_own_psf(mosaic, inputs.psf_oversampling))
        elif source is None:
            psfs.append(None)
        else:
            if (id(source), scale) not in opened:
                found = open_psf_map(source, "the PSF", scale, inputs.psf_oversampling)
                opened[id(source), scale] = found
            psfs.append(opened[id(source), scale])
    scene = OpenedImages(inputs, mosaics, psfs)
    scene.check_psfs()
    return scene
