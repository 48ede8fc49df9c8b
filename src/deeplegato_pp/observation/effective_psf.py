"""PSF images: FWHM, centring, even grids, binning, and Moffat profiles.

Pure functions over arrays (Py, Px). A PSF's own grid is ``oversampling`` times finer than the
image's; its centre is the array's, ``((Px - 1) / 2, (Py - 1) / 2)``.
"""

import math
from dataclasses import dataclass

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_positive, check_positive_integer, check_within

MOFFAT_BETA = 4.765
"""Beta of the Moffat profile closest to atmospheric turbulence (Trujillo et al. 2001)."""

REFERENCE_FWHM = 3.0
"""FWHM of the reference PSF [px]: 0.75 arcsec at the reference scale of 0.25 arcsec/px."""

WELL_SAMPLED_FWHM = 2.5
"""FWHM [px] below which a PSF must be oversampled to be rendered without aliasing."""


FWHM_RANGE = (0.1, 100.0)
"""Range of FWHM for Moffat PSFs; the narrowest has 25 samples per pixel. [px]"""

LARGEST_SIDE = 2047
"""Maximum side of a PSF: images are computed on as many samples. [samples]"""

LARGEST_OVERSAMPLING = 32
"""Maximum samples per pixel: the fine grid of a stamp of 128 px then has a side of 4,096."""

FINE_ENOUGH = 4
"""Number of samples per pixel up to which a PSF is rendered with all its samples."""

MOST_SAMPLES = 8
"""Maximum number of samples per pixel with which PSFs are rendered."""

LOST = 1e-4
"""Fraction of a PSF's peak that may be lost by thinning."""


def moffat_psf(fwhm: float, beta: float = MOFFAT_BETA) -> tuple[Array, int]:
    """Computes a circular Moffat PSF whose *effective* FWHM, pixel included, is ``fwhm``.

    It is sampled at points, not averaged over pixels: the FWHM measured on stars in an image
    includes the pixel already. Narrow PSFs are oversampled.

    Args:
        fwhm: Full width at half maximum. [px, > 0]
        beta: Slope of the wings.

    Returns:
        PSF of sum 1, with shape (P, P) and P odd, and its oversampling. The array reaches 5 FWHM
        from the centre, beyond which lies less than 1e-4 of the light (beta = 4.765).

    Raises:
        RangeError: If ``fwhm`` is out of range: the array has a side of 10 FWHM, with as many
            samples per pixel as a narrow PSF needs.

    References:
        | The effects of seeing on Sersic profiles - II. The Moffat PSF (Trujillo et al., 2001)
        | https://arxiv.org/abs/astro-ph/0109067
    """
    fwhm = check_within(check_positive(fwhm, "psf_fwhm", "px"), *FWHM_RANGE, "psf_fwhm", "px")
    oversampling = 1 if fwhm >= WELL_SAMPLED_FWHM else math.ceil(WELL_SAMPLED_FWHM / fwhm)
    fine = fwhm * oversampling
    half = math.ceil(5 * fine)
    axis = np.arange(-half, half + 1, dtype=np.float64)
    alpha = fine / (2 * math.sqrt(2 ** (1 / beta) - 1))
    psf = (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -beta
    return psf / psf.sum(), oversampling


def psf_fwhm(psf: Array, oversampling: int = 1) -> float:
    """Measures the FWHM of a PSF image, in pixels of the galaxy's image.

    The core is upsampled in Fourier space; the FWHM is the diameter of the circle with the area
    above half maximum (for an elliptical PSF, the geometric mean of the two widths). For Gaussians
    and Moffats (beta 3) at any sub-pixel position, it is accurate to 0.6 % for a FWHM above 3
    samples, 3 % at 2.5 and 9 % at 2. Below that, aliasing makes it too large, by up to 50 % at 1.2
    samples, where the samples no longer determine the width.

    Args:
        psf: Image of the PSF, with shape (Py, Px).
        oversampling: Samples of the PSF per pixel of the image.
    """
    core = _core(np.asarray(psf, dtype=np.float64))
    coarse = _half_maximum_diameter(core)
    factor = int(np.clip(math.ceil(48 / max(coarse, 1.0)), 2, 32))
    return _half_maximum_diameter(_upsample(core, factor)) / factor / oversampling


def coarse_fwhm(psf: Array, oversampling: int = 1) -> float:
    """Measures the FWHM of a PSF image to about one sample, in pixels of the galaxy's image.

    Args:
        psf: Image of the PSF, with shape (Py, Px).
        oversampling: Samples of the PSF per pixel of the image.
    """
    return _half_maximum_diameter(psf) / oversampling


def psf_centroid(psf: Array) -> tuple[float, float]:
    """Measures the (x, y) of a PSF's core relative to the centre of its array, in samples.

    Uses first moments within 1.5 coarse FWHM of the maximum, with the window moved iteratively to
    the result, so that the far wings, with their noise and truncation, do not contribute.
    """
    psf = np.asarray(psf, dtype=np.float64)
    radius = max(1.5 * _half_maximum_diameter(psf), 1.5)
    rows, columns = np.indices(psf.shape, dtype=np.float64)
    y, x = (float(i) for i in np.unravel_index(int(psf.argmax()), psf.shape))
    for _ in range(20):
        # The window's edge is smooth, so that the centroid is a smooth function of its position.
        distance = np.hypot(columns - x, rows - y)
        weight = np.clip(psf, 0, None) * np.clip(radius + 0.5 - distance, 0, 1)
        new_x = float((weight * columns).sum() / weight.sum())
        new_y = float((weight * rows).sum() / weight.sum())
        moved = math.hypot(new_x - x, new_y - y)
        x, y = new_x, new_y
        if moved < 1e-4:
            break
    return x - (psf.shape[1] - 1) / 2, y - (psf.shape[0] - 1) / 2


def odd_psf(psf: Array) -> Array:
    """Moves an even-sized PSF to an odd grid, one sample longer along each even axis.

    If the light is centred midway between the two central samples, it is shifted by half a sample,
    exactly, with a Fourier phase; if it is centred on one of them (``N/2``, as for FFTs and GALFIT,
    or ``N/2 - 1``), a row or column of zeros is added on the short side. The sum is preserved.

    Args:
        psf: Image of the PSF, with shape (Py, Px).

    Returns:
        The PSF, with odd sizes, its light about the central sample.
    """
    x, y = psf_centroid(psf)
    for axis, centroid in ((0, y), (1, x)):
        if psf.shape[axis] % 2 == 1:
            continue
        before = 1 if centroid < -0.25 else 0
        padding = [(0, 0), (0, 0)]
        padding[axis] = (before, 1 - before)
        psf = np.pad(psf, padding)
        if abs(centroid) <= 0.25:
            psf = _fourier_shift(psf, 0.5, axis)
    return psf


def bin_psf(psf: Array, oversampling: int, bin_factor: int) -> Array:
    """Computes the effective PSF of pixels binned k by k, on the grid of the unbinned PSF.

    A binned pixel is the sum of k x k native pixels, so its effective PSF is the native effective
    PSF convolved with k x k points spaced by one native pixel, with k * oversampling samples per
    binned pixel. For even ``k * oversampling`` and odd oversampling, the points fall between
    samples; the convolution is therefore done in Fourier space, where half-sample shifts are exact.
    Nothing is re-centred.

    Args:
        psf: PSF that includes the native pixel, with shape (Py, Px), both odd.
        oversampling: Samples of the PSF per native pixel.
        bin_factor: Native pixels per binned pixel, along each axis.

    Returns:
        PSF of the same sum, with ``oversampling * bin_factor`` samples per binned pixel, with shape
        (Py + m, Px + m), both odd.
    """
    oversampling = check_positive_integer(oversampling, "psf_oversampling")
    bin_factor = check_positive_integer(bin_factor, "bin")
    if bin_factor == 1:
        return np.array(psf)
    between = (bin_factor - 1) * oversampling % 2 == 1
    margin = math.ceil((bin_factor - 1) * oversampling / 2) + (16 if between else 0)
    padded = np.pad(psf, margin)
    spectrum = np.fft.fft2(padded)
    for axis in (0, 1):
        frequency = np.fft.fftfreq(padded.shape[axis]) * oversampling
        offsets = np.arange(bin_factor) - (bin_factor - 1) / 2
        comb = np.cos(2 * np.pi * frequency[:, None] * offsets).mean(axis=1)
        spectrum *= comb[:, None] if axis == 0 else comb[None, :]
    binned: Array = np.fft.ifft2(spectrum).real
    return binned


def thinned_psf(psf: Array, oversampling: int) -> tuple[Array, int]:
    """Returns a PSF with the fewest sufficient samples per pixel, and their number.

    Frequencies beyond those of a coarser grid are removed, in Fourier space, if their amplitudes
    sum to less than ``LOST`` of the total, so that no sample changes by more than this fraction of
    the peak; or if more than ``MOST_SAMPLES`` per pixel would be needed. A PSF with at most
    ``FINE_ENOUGH`` samples per pixel is unchanged.

    Args:
        psf: Image of the PSF, with shape (Py, Px), both odd.
        oversampling: Its samples per pixel.

    Returns:
        PSF with the same sum and odd sides, and its number of samples per pixel.
    """
    if oversampling <= FINE_ENOUGH:
        return psf, oversampling
    sides = [-(-size // oversampling) for size in psf.shape]  # [px]
    fine = [oversampling * side for side in sides]
    padded = np.pad(psf, [(0, n - size) for n, size in zip(fine, psf.shape, strict=True)])
    spectrum = np.fft.fft2(np.roll(padded, [-(size // 2) for size in psf.shape], (0, 1)))
    ky, kx = (np.abs(np.fft.fftfreq(n, 1.0 / oversampling)) for n in fine)  # [cycles per px]
    reach, size = np.maximum(ky[:, None], kx), np.abs(spectrum)
    total = size.sum()
    samples = FINE_ENOUGH
    while samples < MOST_SAMPLES and size[reach > samples / 2].sum() > LOST * total:
        samples += 1
    if samples >= oversampling:
        return psf, oversampling
    rows, columns = (np.rint(np.fft.fftfreq(samples * s, 1.0 / (samples * s))) for s in sides)
    kept = spectrum[np.ix_(rows.astype(int), columns.astype(int))]
    image = np.fft.fftshift(np.fft.ifft2(kept).real)
    odd: Array = image[1 - image.shape[0] % 2 :, 1 - image.shape[1] % 2 :]
    return odd * (psf.sum() / odd.sum()), samples


FLATTEST, STEEPEST = 1.5, 100.0
"""Limits of beta for the Moffat extrapolation: wings of r^-3, and almost Gaussian ones."""


@dataclass(frozen=True)
class Wings:
    """Light of a PSF beyond its array, extrapolated as a Moffat.

    Attributes:
        fraction: Its fraction of the PSF's total light.
        density: Surface brightness at the radius `at`, relative to the total light. [1/sample^2]
        at: Radius in the outer part of the array. [samples]
        scale2: Square of the Moffat's scale. [samples^2]
        beta: Beta of the Moffat.
        half: Half of the array's sides, (y, x). [samples]
    """

    fraction: float
    density: float
    at: float
    scale2: float
    beta: float
    half: tuple[float, float]

    def image(self, size: int, oversampling: int) -> Array:
        """Returns the light per pixel on an odd-sided grid of pixels, 0 within the array.

        Args:
            size: Side of the image, odd. [px]
            oversampling: Samples of the PSF per pixel.
        """
        axis = oversampling * (np.arange(size) - (size - 1) / 2)
        y, x = axis[:, None], axis[None, :]
        ratio = (self.scale2 + x**2 + y**2) / (self.scale2 + self.at**2)
        beyond = (np.abs(y) > self.half[0]) | (np.abs(x) > self.half[1])
        light: Array = np.where(beyond, oversampling**2 * self.density * ratio**-self.beta, 0.0)
        return light


def missing_light(psf: Array) -> float:
    """Estimates the fraction of a PSF's light that lies beyond its array, see :func:`wings`."""
    found = wings(psf)
    return 0.0 if found is None else found.fraction


def wings(psf: Array) -> Wings | None:
    """Extrapolates a PSF's light beyond its array from its own wings; None if it has none.

    The profile beyond half the distance to the nearest edge is extrapolated as a Moffat with the
    PSF's FWHM, with wings no flatter than r^-3. For Moffats (beta 2.2 to 4.8) on arrays of 3 to 13
    FWHM the light is within 15 % of the truth, or 0.001; a background in the array counts as wings.

    Args:
        psf: Image of the PSF, with shape (Py, Px), centred on the array.
    """
    half_y, half_x = (0.5 * size for size in psf.shape)
    y, x = (np.arange(size) - (size - 1) / 2 for size in psf.shape)
    radius = np.hypot(x, y[:, None])
    reach = min(half_x, half_y)
    outer = (radius >= 0.5 * reach) & (radius <= reach)
    near, far = outer & (radius < 0.8 * reach), outer & (radius >= 0.8 * reach)
    if not (near.any() and far.any()) or psf[far].mean() <= 0:
        return None
    distance = np.exp([np.log(radius[part]).mean() for part in (near, far)])
    light = np.array([psf[near].mean(), psf[far].mean()])
    drop = math.log(max(light[0] / light[1], 1.0))
    core = 0.5 * _half_maximum_diameter(psf)
    beta = FLATTEST
    for _ in range(30):
        scale2 = core**2 / (2.0 ** (1.0 / beta) - 1.0)
        beta = drop / math.log((scale2 + distance[1] ** 2) / (scale2 + distance[0] ** 2))
        beta = min(max(beta, FLATTEST), STEEPEST)
    scale2 = core**2 / (2.0 ** (1.0 / beta) - 1.0)
    angle = (np.arange(360) + 0.5) * (2 * math.pi / 360)
    edge = np.minimum(half_x / np.abs(np.cos(angle)), half_y / np.abs(np.sin(angle)))
    # Integral of the profile beyond the edge, over all directions.
    ratio = (scale2 + edge**2) / (scale2 + distance[1] ** 2)
    tails = (scale2 + edge**2) * ratio**-beta
    beyond = float(light[1] * math.pi * tails.mean() / (beta - 1.0))
    total = beyond + float(psf.sum())
    return Wings(
        beyond / total,
        float(light[1]) / total,
        float(distance[1]),
        float(scale2),
        float(beta),
        (half_y, half_x),
    )


def negative_fraction(psf: Array) -> float:
    """Returns the light in negative samples divided by the total, as a positive number."""
    return float(-np.clip(psf, None, 0).sum() / psf.sum())


def _core(psf: Array) -> Array:
    """Cuts out the core about the maximum, with at least 3 coarse FWHM on each side if possible."""
    half = max(8, math.ceil(3 * _half_maximum_diameter(psf)))
    y, x = np.unravel_index(int(psf.argmax()), psf.shape)
    return psf[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1]


def _half_maximum_diameter(psf: Array) -> float:
    """Returns the diameter of the circle with the area above half maximum, in samples."""
    return 2 * math.sqrt(np.count_nonzero(psf >= 0.5 * psf.max()) / math.pi)


def _upsample(image: Array, factor: int) -> Array:
    """Interpolates by zero-padding the spectrum; zeros around the image separate its edges."""
    # Odd sizes, so that there is no Nyquist frequency.
    fine: Array = np.pad(image, [(0, 3 - size % 2) for size in image.shape])
    for axis, size in enumerate(fine.shape):
        spectrum = np.fft.rfft(fine, axis=axis)
        fine = factor * np.fft.irfft(spectrum, n=size * factor, axis=axis)
    return fine


def _fourier_shift(image: Array, shift: float, axis: int) -> Array:
    """Shifts an odd axis by ``shift`` samples towards higher indices."""
    frequency = np.fft.fftfreq(image.shape[axis])
    phase = np.exp(-2j * np.pi * frequency * shift)
    phase = phase[:, None] if axis == 0 else phase[None, :]
    shifted: Array = np.fft.ifft(np.fft.fft(image, axis=axis) * phase, axis=axis).real
    return shifted
