"""Images of the PSF: measured, re-centred from even grids, binned, or made from a FWHM.

Pure functions over arrays (Py, Px). A PSF's own grid is ``oversampling`` times finer than the
image's; its centre is the array's, ``((Px - 1) / 2, (Py - 1) / 2)``.
"""

import math

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_positive, check_positive_integer, check_within

MOFFAT_BETA = 4.765
"""Slope of the Moffat profile closest to atmospheric turbulence (Trujillo et al. 2001)."""

REFERENCE_FWHM = 3.0
"""FWHM of the reference PSF [px]: 0.75 arcsec at the reference scale of 0.25 arcsec/px."""

WELL_SAMPLED_FWHM = 2.5
"""Below this FWHM [px] a PSF must be oversampled to be rendered without aliasing."""


FWHM_RANGE = (0.1, 100.0)
"""Widths of PSFs that are made: at the lower end with 25 samples a pixel. [px]"""

LARGEST_SIDE = 2047
"""Side of the largest PSF that is taken: images under it are computed on as many. [samples]"""

LARGEST_OVERSAMPLING = 32
"""Most samples of a PSF per pixel: the fine grid of a stamp of 128 px then has 4,096 to a side."""

FINE_ENOUGH = 4
"""Samples of a PSF per pixel up to which it is rendered with all of them."""

MOST_SAMPLES = 8
"""Samples per pixel beyond which no stamp's PSF is rendered, whatever it shows there."""

LOST = 1e-4
"""Part of a PSF's peak that it may lose where it is thinned."""


def moffat_psf(fwhm: float, beta: float = MOFFAT_BETA) -> tuple[Array, int]:
    """Returns a circular Moffat whose *effective* FWHM, pixel included, is ``fwhm``.

    It is sampled at points, not averaged over pixels: the FWHM that users know was measured on
    stars in the image, where the pixel is already in. Narrow ones come oversampled.

    Args:
        fwhm: Full width at half maximum. [px, > 0]
        beta: Slope of the wings.

    Returns:
        PSF of sum 1, with shape (P, P) and P odd, and its oversampling. The array reaches 5 FWHM
        from the centre, beyond which lies less than 1e-4 of the light (beta = 4.765).

    Raises:
        RangeError: If ``fwhm`` lies beyond what a PSF can be: the array has 10 FWHM to a side, and
            as many samples per pixel as a narrow one needs.

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
    """Returns the FWHM of a PSF's image, in pixels of the galaxy's image.

    The core is Fourier-upsampled, and the area above half of its maximum turned into the diameter
    of a circle: for an elliptical PSF this is the geometric mean of the two widths. Against
    Gaussians and Moffats (beta 3) sampled at any sub-pixel position it is within 0.6 % from a FWHM
    of 3 samples, 3 % at 2.5 and 9 % at 2. Below that aliasing makes it too large, by up to 50 % at
    1.2 samples, where the samples no longer tell the width.

    Args:
        psf: Image of the PSF, with shape (Py, Px).
        oversampling: Samples of the PSF per pixel of the image.
    """
    core = _core(np.asarray(psf, dtype=np.float64))
    coarse = _half_maximum_diameter(core)
    factor = int(np.clip(math.ceil(48 / max(coarse, 1.0)), 2, 32))
    return _half_maximum_diameter(_upsample(core, factor)) / factor / oversampling


def coarse_fwhm(psf: Array, oversampling: int = 1) -> float:
    """Returns the FWHM of a PSF's image to about a sample, in pixels of the galaxy's image.

    Args:
        psf: Image of the PSF, with shape (Py, Px).
        oversampling: Samples of the PSF per pixel of the image.
    """
    return _half_maximum_diameter(psf) / oversampling


def psf_centroid(psf: Array) -> tuple[float, float]:
    """Returns the (x, y) of a PSF's core relative to the centre of its array, in its own samples.

    First moments within 1.5 coarse FWHM of the maximum, the window moved onto the result until it
    rests: the far wings, where noise and truncation sit, do not take part.
    """
    psf = np.asarray(psf, dtype=np.float64)
    radius = max(1.5 * _half_maximum_diameter(psf), 1.5)
    rows, columns = np.indices(psf.shape, dtype=np.float64)
    y, x = (float(i) for i in np.unravel_index(int(psf.argmax()), psf.shape))
    for _ in range(20):
        # A window that fades over one sample, so that the centroid moves smoothly with it.
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
    """Returns an even-sized PSF on an odd grid, one sample longer along each even axis.

    Where the light sits decides: midway between the two central samples, it is shifted by half a
    sample, exactly, with a Fourier phase; on one of them (``N/2``, the habit of FFTs and GALFIT,
    or ``N/2 - 1``), a row or column of zeros on the short side does it. The sum is kept.

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
    """Returns the effective PSF of pixels summed k by k, on the grid of the unbinned PSF.

    A binned pixel is the sum of k x k native ones, so its effective PSF is the native effective
    PSF convolved with k x k points one native pixel apart, k * oversampling samples per binned
    pixel. For even ``k * oversampling`` of odd oversampling those points fall between samples: the
    convolution is therefore a product in Fourier space, in which half samples are exact. Nothing
    is re-centred.

    Args:
        psf: PSF that includes the native pixel, with shape (Py, Px), both odd.
        oversampling: Its samples per native pixel.
        bin_factor: Native pixels per binned pixel and axis.

    Returns:
        PSF of the same sum, to be read with ``oversampling * bin_factor`` samples per binned
        pixel, with shape (Py + m, Px + m), both odd.
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
    """Returns a PSF on the fewest samples per pixel that show it, and how many these are.

    What a PSF holds beyond the frequencies of a coarser grid is cut off, in Fourier space, if its
    sizes sum to less than ``LOST`` of the whole, so that no sample changes by more than this part
    of the peak; or if more than ``MOST_SAMPLES`` per pixel would be needed. One of
    ``FINE_ENOUGH`` samples or fewer stays as it is.

    Args:
        psf: Image of the PSF, with shape (Py, Px), both odd.
        oversampling: Its samples per pixel.

    Returns:
        PSF of the same sum, odd-sided, and its samples per pixel.
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
"""Limits of the index of a Moffat that continues a PSF: wings of r^-3, and a Gaussian's."""


def missing_light(psf: Array) -> float:
    """Returns the part of a PSF's light that lies beyond its array, by its own wings.

    The profile's part beyond half of the way to the nearest edge is continued as a Moffat of the
    PSF's FWHM, with wings no flatter than r^-3. Of Moffats (beta 2.2 to 4.8) on arrays of 3 to 13
    FWHM it is within 15 % of the truth, or 0.001; a background left in the array counts as wings.

    Args:
        psf: Image of the PSF, with shape (Py, Px), its centre the array's.
    """
    half_y, half_x = (0.5 * size for size in psf.shape)
    y, x = (np.arange(size) - (size - 1) / 2 for size in psf.shape)
    radius = np.hypot(x, y[:, None])
    reach = min(half_x, half_y)
    outer = (radius >= 0.5 * reach) & (radius <= reach)
    near, far = outer & (radius < 0.8 * reach), outer & (radius >= 0.8 * reach)
    if not (near.any() and far.any()) or psf[far].mean() <= 0:
        return 0.0
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
    # The profile's integral beyond the edge, over all directions.
    ratio = (scale2 + edge**2) / (scale2 + distance[1] ** 2)
    tails = (scale2 + edge**2) * ratio**-beta
    beyond = float(light[1] * math.pi * tails.mean() / (beta - 1.0))
    return beyond / (beyond + float(psf.sum()))


def negative_fraction(psf: Array) -> float:
    """Returns the light in negative samples over the total, as a positive number."""
    return float(-np.clip(psf, None, 0).sum() / psf.sum())


def _core(psf: Array) -> Array:
    """Cuts out the core about the maximum, at least 3 coarse FWHM to each side where there is."""
    half = max(8, math.ceil(3 * _half_maximum_diameter(psf)))
    y, x = np.unravel_index(int(psf.argmax()), psf.shape)
    return psf[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1]


def _half_maximum_diameter(psf: Array) -> float:
    """Diameter of the circle whose area is that above half of the maximum, in samples."""
    return 2 * math.sqrt(np.count_nonzero(psf >= 0.5 * psf.max()) / math.pi)


def _upsample(image: Array, factor: int) -> Array:
    """Interpolates by zero-padding the spectrum; zeros around keep the two edges apart."""
    # Odd sizes, so that no frequency is its own mirror.
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
