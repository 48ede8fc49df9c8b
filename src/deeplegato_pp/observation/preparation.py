"""Preparation of stamps from observations: cropping, padding, binning and conversion of units.

Detector units are pixels of the prepared stamp and background sigmas: one unit of flux is the
median noise of the stamp's unmasked pixels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_finite, check_not_all_masked, check_positive_integer
from deeplegato_pp.errors import RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.correlation import NoiseCorrelation
from deeplegato_pp.observation.effective_psf import bin_psf, thinned_psf
from deeplegato_pp.observation.effective_psf import psf_fwhm as psf_fwhm
from deeplegato_pp.observation.observation import Observation


@dataclass(frozen=True, eq=False)
class PreparedStamp:
    """A square stamp in detector units, with the conversion to the user's pixels.

    Attributes:
        image: Image divided by ``scale``, with shape (S, S); 0 where masked. [background sigma]
        noise: Noise divided by ``scale``, with shape (S, S); 1 where masked. [background sigma]
        mask: True for pixels to ignore, with shape (S, S).
        scale: Median noise of the unmasked pixels. [image units per detector unit]
        gain: Electrons per detector unit; infinite if the observation has none (fixed variance).
        sky_sigma: Prior standard deviation of the sky offset per (binned) pixel.
            [background sigma]
        noise_correlation: Variance of sums over many pixels relative to independent pixels.
        correlation: Noise correlation at each lag; None for the Gaussian family.
        psf: PSF of sum 1, with shape (Py, Px), both odd.
        psf_oversampling: Samples of the PSF per pixel of the stamp.
        psf_includes_pixel: Whether the PSF includes the stamp's pixel; if not, a box of
            ``psf_oversampling`` x ``psf_oversampling`` samples must be convolved.
        psf_error: Relative error of the PSF's width.
        pixel_scale: Pixel scale of the stamp. [arcsec/px]
        zero_point: AB magnitude of one *image* unit (not detector unit).
        bin: Image pixels per stamp pixel, along each axis.
        offset_x: Centre of the stamp minus centre of the image, along columns. [image px]
        offset_y: The same along rows. [image px]
        flags: Flags of the observation and of the preparation.
    """

    image: Array
    noise: Array
    mask: Array
    scale: float
    gain: float
    sky_sigma: float
    noise_correlation: float
    correlation: NoiseCorrelation | None
    psf: Array
    psf_oversampling: int
    psf_includes_pixel: bool
    psf_error: float
    pixel_scale: float
    zero_point: float
    bin: int
    offset_x: float
    offset_y: float
    flags: int

    @property
    def psf_fwhm(self) -> float:
        """FWHM of the PSF array, in pixels of the stamp.

        It excludes the detector's pixel if ``psf_includes_pixel`` is False.
        """
        return psf_fwhm(self.psf, self.psf_oversampling)

    def center_to_user(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Maps centres from the stamp to the user's image.

        Args:
            x: Along columns, from the stamp's centre; a number or any array. [px of the stamp]
            y: The same along rows.

        Returns:
            (x, y) from the centre of the user's image. [user's px]
        """
        return self.offset_x + self.bin * x, self.offset_y + self.bin * y

    def center_from_user(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Maps centres from the user's image to the stamp; inverse of ``center_to_user``."""
        return (x - self.offset_x) / self.bin, (y - self.offset_y) / self.bin

    def radius_to_user(self, radius: Any) -> Any:
        """Maps lengths from pixels of the stamp to the user's pixels."""
        return radius * self.bin

    def radius_from_user(self, radius: Any) -> Any:
        """Maps lengths from the user's pixels to pixels of the stamp."""
        return radius / self.bin


def prepare(
    observation: Observation,
    size: int = 128,
    bin: int = 1,
    center: tuple[float, float] | None = None,
) -> PreparedStamp:
    """Crops, pads, bins and scales an observation to a square stamp.

    The image is first cropped or padded with masked pixels to ``size * bin`` pixels, then summed
    bin x bin. A binned pixel is masked if more than half of its pixels are; otherwise its sum and
    noise are scaled to the full number of pixels (in a likelihood with gain, the Poisson noise of
    the source remains that of a complete pixel, which is too small by at most a factor 2). The
    noise of sums of correlated pixels is increased, and its correlation reduced, accordingly.

    The binned PSF is exact and not re-centred. A PSF that includes the native pixel is convolved
    with the sum over bin x bin native pixels (``effective_psf.bin_psf``) and then includes the
    binned pixel. A PSF without the pixel is unchanged: it has ``bin`` times as many samples per
    binned pixel, and the box still to be convolved is wider by the same factor, which is
    equivalent. Of either, no more samples are kept than it needs (``effective_psf.thinned_psf``).

    Args:
        observation: The observation; not modified.
        size: Pixels per side of the stamp.
        bin: Image pixels per stamp pixel, along each axis.
        center: (x, y), 0-based, of the point of the image to centre on; None for its centre. It is
            met to half a pixel; the remainder goes into the stamp's offset. [image px]

    Returns:
        The stamp in detector units.

    Raises:
        RangeError: If ``size`` or ``bin`` is not a whole number >= 1, or ``center`` is outside
            the image.
        InputError: If no unmasked pixel is left in the stamp.
    """
    size = check_positive_integer(size, "size")
    factor = check_positive_integer(bin, "bin")
    side = size * factor
    height, width = observation.shape
    x, y = _checked_center(center, width, height)
    left, bottom = _start(x, side), _start(y, side)

    image = _window(observation.image, bottom, left, side, 0.0)
    variance = _window(observation.noise, bottom, left, side, 1.0) ** 2
    mask = _window(observation.mask, bottom, left, side, True)
    image, variance, mask = _bin_pixels(image, variance, mask, factor)
    correlation, total = observation.correlation, observation.noise_correlation
    if factor > 1 and total != 1.0:
        single = NoiseCorrelation.gaussian(total) if correlation is None else correlation
        variance = variance * np.where(mask, 1.0, single.block_variance(factor))
        correlation = single.binned(factor)
        total = max(correlation.total, 1.0)
    check_not_all_masked(mask)
    noise = np.sqrt(variance)
    scale = float(np.median(noise[~mask]))

    psf, includes_pixel = observation.psf, observation.psf_includes_pixel
    if includes_pixel:
        psf = bin_psf(psf, observation.psf_oversampling, factor)
    psf, samples = thinned_psf(psf, observation.psf_oversampling * factor)
    flags = observation.flags
    flags |= Flag.PADDED if min(height, width) < side else 0
    flags |= Flag.CROPPED if max(height, width) > side else 0
    flags |= Flag.BINNED if factor > 1 else 0
    return PreparedStamp(
        image=np.where(mask, 0.0, image / scale),
        noise=np.where(mask, 1.0, noise / scale),
        mask=mask,
        scale=scale,
        gain=math.inf if observation.gain is None else observation.gain * scale,
        sky_sigma=factor**2 * observation.sky_sigma / scale,
        noise_correlation=total,
        correlation=correlation,
        psf=np.array(psf),
        psf_oversampling=samples,
        psf_includes_pixel=includes_pixel,
        psf_error=observation.psf_error,
        pixel_scale=observation.pixel_scale * factor,
        zero_point=observation.zero_point,
        bin=factor,
        offset_x=left + (side - 1) / 2 - (width - 1) / 2,
        offset_y=bottom + (side - 1) / 2 - (height - 1) / 2,
        flags=int(flags),
    )


def _checked_center(
    center: tuple[float, float] | None, width: int, height: int
) -> tuple[float, float]:
    if center is None:
        return (width - 1) / 2, (height - 1) / 2
    x, y = (check_finite(value, "center") for value in center)
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise RangeError(
            f"center must lie in the image, x in [-0.5, {width - 0.5}] and y in "
            f"[-0.5, {height - 0.5}] (0-based pixels), got ({x:g}, {y:g})."
        )
    return x, y


def _start(center: float, side: int) -> int:
    """Returns the first of ``side`` pixels about ``center``; the lower of two equivalent ones."""
    return math.ceil(center - (side - 1) / 2 - 0.5)


def _window(array: Array, bottom: int, left: int, side: int, fill: float | bool) -> Array:
    """Cuts side x side pixels; pixels beyond the array get ``fill``."""
    window = np.full((side, side), fill, dtype=array.dtype)
    overlap = [
        (max(start, 0), min(start + side, length))
        for start, length in zip((bottom, left), array.shape, strict=True)
    ]
    if all(first < last for first, last in overlap):
        (y0, y1), (x0, x1) = overlap
        window[y0 - bottom : y1 - bottom, x0 - left : x1 - left] = array[y0:y1, x0:x1]
    return window


def _bin_pixels(
    image: Array, variance: Array, mask: Array, factor: int
) -> tuple[Array, Array, Array]:
    """Sums factor x factor pixels; see ``prepare`` for the treatment of masked pixels."""
    if factor == 1:
        return image, variance, mask
    good = ~mask
    count = _block_sum(good.astype(np.float64), factor)
    scale_up = factor**2 / np.maximum(count, 1)
    binned = _block_sum(np.where(good, image, 0.0), factor) * scale_up
    spread = _block_sum(np.where(good, variance, 0.0), factor) * scale_up**2
    masked = count < factor**2 / 2
    return binned, np.where(masked, 1.0, spread), masked


def _block_sum(array: Array, factor: int) -> Array:
    blocks = array.shape[0] // factor, factor, array.shape[1] // factor, factor
    total: Array = array.reshape(blocks).sum(axis=(1, 3))
    return total
