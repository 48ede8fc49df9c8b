"""Source detection with photutils: background, segmentation and deblending, in tiles.

The image is processed in overlapping tiles, so that memory does not grow with its size. A source
belongs to the tile whose inner part contains its centroid, and keeps all its pixels there; sources
are therefore neither found twice nor cut at a seam, unless they are larger than the overlap.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.catalog.mosaics import Mosaic
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.catalog.sources import from_columns
from deeplegato_pp.checks import check_positive, check_positive_integer, check_within
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.io.large_fits import fits_canvas
from deeplegato_pp.observation import inputs, noise_maps

logger = logging.getLogger(__name__)

TILE = 2048
OVERLAP = 256
"""Overlap of a tile beyond its inner part, on each side. [px]"""

LARGEST_KERNEL = 64.0
"""Maximum FWHM of the smoothing kernel, set by the tiles' overlap. [px]"""

BRIDGE = 8
"""Maximum distance of masked pixels from good ones to be interpolated before detection. [px]"""


@dataclass(frozen=True)
class Detection:
    """Settings of source detection.

    Attributes:
        threshold: Threshold on the smoothed image, in units of the unsmoothed noise, as in
            SExtractor and photutils. [sigma]
        pixels: Minimum number of connected pixels above the threshold.
        kernel: FWHM of the Gaussian smoothing kernel. [px]
        box: Side of the background meshes. [px]
        contrast: Minimum fraction of a source's light for a deblended component; 1 disables
            deblending.
    """

    threshold: float = 1.5
    pixels: int = 8
    kernel: float = 3.0
    box: int = 128
    contrast: float = 0.005

    def __post_init__(self) -> None:
        check_positive(self.threshold, "detect_threshold")
        check_positive(self.kernel, "detect_kernel", "px")
        check_positive(self.contrast, "detect_contrast")
        check_positive_integer(self.pixels, "detect_pixels")
        check_positive_integer(self.box, "detect_box")
        check_within(self.kernel, 0.1, LARGEST_KERNEL, "detect_kernel", "px")
        check_within(self.box, 3, TILE, "detect_box", "px")


def detect(
    mosaic: Mosaic,
    how: Detection,
    segmentation: Path,
    background: Path | None = None,
    noise: float | None = None,
) -> SourceList:
    """Finds the sources of a mosaic and writes their segmentation map.

    Args:
        mosaic: The image, with its noise and mask.
        how: Settings of the detection.
        segmentation: Output FITS file with the source number of each pixel, from 1, which is its
            id; 0 for background.
        background: Output FITS file of the background. [image units]
        noise: 1-sigma noise if the mosaic has no map; None for photutils' estimate.

    Returns:
        The sources, in reading order of their tiles, with their centroids.

    Raises:
        ConfigError: If photutils or its deblending dependency is not installed.
    """
    try:
        import photutils.segmentation  # noqa: F401

        if how.contrast < 1:
            import skimage.segmentation  # noqa: F401  # photutils deblends with it
    except ImportError as error:
        raise ConfigError(
            f"--detect needs {error.name}, which is not installed. Install "
            "deeplegato-pp[survey], or give --sources."
        ) from error
    from contextlib import ExitStack

    found: dict[str, list[float]] = {"x": [], "y": []}
    with ExitStack() as stack:
        labels = stack.enter_context(fits_canvas(segmentation, mosaic.shape, "int32"))
        sky = None
        if background is not None:
            sky = stack.enter_context(fits_canvas(background, mosaic.shape, "float32"))
        for tile in tiles(mosaic.shape):
            _detect_tile(mosaic, how, tile, labels, sky, noise, found)
    number = len(found["x"])
    logger.info("%s: %d sources detected", mosaic.name, number)
    columns = {"id": np.arange(1, number + 1), **{k: np.array(v) for k, v in found.items()}}
    return from_columns(columns, f"the detections in {mosaic.name}")


@dataclass(frozen=True)
class Tile:
    """A tile: its inner part [y0, y1) x [x0, x1), with margins."""

    y0: int
    y1: int
    x0: int
    x1: int
    bottom: int
    top: int
    left: int
    right: int


def tiles(shape: tuple[int, int], size: int = TILE, overlap: int = OVERLAP) -> Iterator[Tile]:
    """Yields tiles whose inner parts cover an image once."""
    height, width = shape
    for y0 in range(0, height, size):
        for x0 in range(0, width, size):
            y1, x1 = min(y0 + size, height), min(x0 + size, width)
            yield Tile(
                y0, y1, x0, x1,
                max(y0 - overlap, 0), min(y1 + overlap, height),
                max(x0 - overlap, 0), min(x1 + overlap, width),
            )  # fmt: skip


def _detect_tile(
    mosaic: Mosaic,
    how: Detection,
    tile: Tile,
    labels: Array,
    sky: Array | None,
    noise: float | None,
    found: dict[str, list[float]],
) -> None:
    window = (tile.bottom, tile.top, tile.left, tile.right)
    pixels = mosaic.image.read(*window)
    mask = ~np.isfinite(pixels)
    if mosaic.mask is not None:
        given = mosaic.mask.read(*window)
        mask |= inputs.boolean_mask(given, mosaic.mask_bits, given.shape)
    if mask.all():
        return
    pixels = np.where(mask, 0.0, pixels)
    level, sigma = _background(pixels, mask, how.box)
    inner = (slice(tile.y0 - tile.bottom, tile.y1 - tile.bottom),
             slice(tile.x0 - tile.left, tile.x1 - tile.left))  # fmt: skip
    if sky is not None:
        sky[tile.y0 : tile.y1, tile.x0 : tile.x1] = level[inner]
    if mosaic.noise is not None:
        stated = mosaic.noise.read(*window)
        stated, ignore = noise_maps.sigma_from_map(stated, mosaic.noise_type, pixels - level, mask)
        mask |= ignore | ~(stated > 0)
        sigma = np.where(mask, sigma, stated)
    elif noise is not None:
        sigma = np.full_like(pixels, noise)
    segments, x, y = _segment(*_bridged(pixels - level, mask), sigma, how)
    if segments is None:
        return
    x, y = x + tile.left, y + tile.bottom
    mine = (np.rint(x) >= tile.x0) & (np.rint(x) < tile.x1)
    mine &= (np.rint(y) >= tile.y0) & (np.rint(y) < tile.y1)
    numbers = np.zeros(len(x) + 1, dtype=np.int64)
    numbers[1:][mine] = len(found["x"]) + 1 + np.arange(int(mine.sum()))
    found["x"] += x[mine].tolist()
    found["y"] += y[mine].tolist()
    own = numbers[segments]
    target = labels[tile.bottom : tile.top, tile.left : tile.right]
    free = (target == 0) & (own > 0)
    target[free] = own[free]


def _background(pixels: Array, mask: Array, box: int) -> tuple[Array, Array]:
    """Returns background and noise per pixel; global values if all meshes are masked."""
    from astropy.stats import SigmaClip, sigma_clipped_stats
    from photutils.background import Background2D, MedianBackground

    size = min(box, *pixels.shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = Background2D(
                pixels,
                (size, size),
                mask=mask,
                filter_size=(3, 3),
                exclude_percentile=50.0,
                sigma_clip=SigmaClip(sigma=3.0),
                bkg_estimator=MedianBackground(),
            )
            return np.asarray(found.background), np.asarray(found.background_rms)
    except ValueError:  # all meshes have too many masked pixels
        _, median, sigma = sigma_clipped_stats(pixels, mask=mask, sigma=3.0)
        return np.full_like(pixels, median), np.full_like(pixels, sigma)


def _bridged(pixels: Array, mask: Array) -> tuple[Array, Array]:
    """Interpolates masked pixels near good ones; returns the image and the remaining mask.

    A hole in a source, as from a saturated core, has no peak: without this, the source would be
    shredded and its centre lost.
    """
    from astropy.convolution import Gaussian2DKernel, convolve_fft, interpolate_replace_nans

    if not mask.any():
        return pixels, mask
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filled = interpolate_replace_nans(
            np.where(mask, np.nan, pixels), Gaussian2DKernel(BRIDGE / 4), convolve=convolve_fft
        )
    return np.nan_to_num(filled), np.isnan(filled)


def _segment(
    pixels: Array, mask: Array, sigma: Array, how: Detection
) -> tuple[Array | None, Array, Array]:
    """Returns labels (H, W) counted from 1 without gaps, or None, and the sources' centroids."""
    from astropy.convolution import convolve_fft
    from photutils.segmentation import (
        SourceCatalog,
        deblend_sources,
        detect_sources,
        make_2dgaussian_kernel,
    )

    nothing = np.zeros(0)
    side = 2 * int(np.ceil(how.kernel)) + 1
    kernel = make_2dgaussian_kernel(how.kernel, size=side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        smooth = convolve_fft(
            np.where(mask, 0.0, pixels), kernel.array, normalize_kernel=False, boundary="fill"
        )
        segments = detect_sources(smooth, how.threshold * sigma, how.pixels, mask=mask)
        if segments is None:
            return None, nothing, nothing
        if how.contrast < 1:
            segments = deblend_sources(
                smooth, segments, how.pixels, contrast=how.contrast, progress_bar=False
            )
        catalogue = SourceCatalog(pixels, segments, convolved_data=smooth, mask=mask)
        x, y = np.atleast_2d(catalogue.centroid).T  # this name also exists before photutils 3
    lost = ~(np.isfinite(x) & np.isfinite(y))
    if lost.any():  # negative light: use the middle of the segment
        for k in np.flatnonzero(lost):
            rows, columns = segments.slices[k]
            y[k], x[k] = (rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2
    order = np.zeros(int(segments.max_label) + 1, dtype=np.int64)
    order[segments.labels] = np.arange(1, len(segments.labels) + 1)
    return order[segments.data], x, y
