"""Conversion of user input to mask, noise and PSF of an observation, with flags and notes."""

import numpy as np
import numpy.typing as npt

from deeplegato_pp import checks
from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError, RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation import blank_pixels, effective_psf, mask_planes, noise_maps

ArrayLike = npt.ArrayLike


def boolean_mask(mask: ArrayLike | None, bits: int | None, shape: tuple[int, ...]) -> Array:
    """Returns the mask as a boolean copy; NaN counts as masked, integers keep all 64 bits.

    Args:
        mask: True or non-zero for pixels to ignore, with shape (H, W); None for no mask.
        bits: Sum of the bits that mean *ignore*; None for all, 0 for none.
        shape: Shape (H, W).

    Raises:
        InputError: If the shape is wrong, or bits were given without a mask of whole numbers.
    """
    if mask is None:
        if bits is not None:
            raise InputError(
                f"mask_bits {bits} were given without a mask to apply them to. "
                "Give the mask (mask=, --mask FILE), or leave mask_bits out."
            )
        return np.zeros(shape, dtype=bool)
    plain = np.asarray(np.ma.getdata(mask))
    whole = plain.dtype.kind in "iu"
    values = plain if whole else checks.as_real_array(mask, "mask")
    checks.check_two_dimensional(values, "mask")
    checks.check_same_shape(values, shape, "mask")
    unknown = np.ma.getmaskarray(np.ma.asarray(mask)) if whole else ~np.isfinite(values)
    if bits is None:
        return np.asarray(unknown | (np.where(unknown, 0, values) != 0))
    bits = 0 if bits == 0 else checks.check_positive_integer(bits, "mask_bits")
    if bits >= 1 << 64:
        raise RangeError(f"mask_bits must be below 2**64, got {bits}. A mask has 64 bits at most.")
    if not whole:
        values = np.where(unknown, 0.0, values)
        if not np.array_equal(values, np.rint(values)):
            raise InputError(
                "a mask used with mask_bits must hold whole numbers, got fractions. "
                "Leave mask_bits out: every non-zero pixel is masked then."
            )
    return np.asarray(unknown | ((values.astype(np.uint64) & np.uint64(bits)) != 0))


def sigma_and_mask(
    image: Array, noise: ArrayLike | None, noise_type: str, mask: Array
) -> tuple[Array, Array, int, list[str]]:
    """Converts a noise of any form to a positive 1-sigma map.

    Args:
        image: Image, with shape (H, W), NaN and infinities still in it.
        noise: One number, a map with shape (H, W), or None to estimate it from the border.
        noise_type: One of ``noise_maps.NOISE_TYPES``.
        mask: True = ignore, with shape (H, W).

    Returns:
        The 1-sigma map (masked pixels without a usable value hold the median), the mask with
        bad pixels added, flags, and notes.

    Raises:
        InputError: If the noise cannot be used or estimated, or no pixel is left.
    """
    flags, notes = 0, []
    finite = np.isfinite(image)
    if noise is None:
        checks.check_choice(noise_type, noise_maps.NOISE_TYPES, "noise_type")
        checks.check_not_all_masked(mask | ~finite)
        value = noise_maps.border_sigma(np.where(finite, image, 0.0), mask | ~finite)
        sigma, ignore = np.full(image.shape, value), np.zeros(image.shape, dtype=bool)
        flags |= Flag.NO_NOISE
        notes.append(f"noise {value:.4g} per pixel estimated from the image's border")
    else:
        values = checks.as_real_array(noise, "noise")
        if values.ndim == 0:
            if noise_type == "weight":
                raise InputError(
                    "one number cannot be a weight, which is known up to a factor only. "
                    "Give noise_type 'sigma', 'variance' or 'ivar'."
                )
            checks.check_positive(float(values), "noise")
            values = np.full(image.shape, float(values))
        checks.check_two_dimensional(values, "noise")
        checks.check_same_shape(values, image.shape, "noise")
        sigma, ignore = noise_maps.sigma_from_map(values, noise_type, image, mask)
        sentinels = noise_maps.sentinels(sigma, mask | ignore | ~finite)
        if sentinels.any():
            flags |= Flag.NOISE_SENTINELS
            notes.append(f"{int(sentinels.sum())} pixels whose noise is a placeholder were masked")
            ignore = ignore | sentinels
        if noise_type in ("sigma", "variance") and (zero := ignore & ~mask & (values == 0)).any():
            notes.append(f"{int(zero.sum())} pixels of zero noise were masked")
    mask = mask | ignore
    nonfinite = (~finite | ~np.isfinite(sigma)) & ~mask
    if nonfinite.any():
        flags |= Flag.NONFINITE_PIXELS
        notes.append(f"{int(nonfinite.sum())} pixels that are not finite were masked")
    mask = mask | nonfinite
    checks.check_not_all_masked(mask)
    checks.check_noise_positive(sigma, mask)
    checks.check_noise_size(float(np.median(sigma[~mask])))
    usable = np.isfinite(sigma) & (sigma > 0)
    return np.where(usable, sigma, np.median(sigma[~mask])), mask, int(flags), notes


def usable_psf(
    psf: ArrayLike | None, fwhm: float | None, oversampling: int, even: str
) -> tuple[Array, int, float, int, list[str]]:
    """Checks and normalises a PSF, or makes one.

    Args:
        psf: Image of the PSF, with shape (Py, Px), or None.
        fwhm: FWHM of a Moffat PSF instead, or None. [px]
        oversampling: Samples of ``psf`` per pixel and axis.
        even: ``refuse`` or ``shift`` an even-sized PSF.

    Returns:
        The PSF of sum 1, its oversampling, its sum as given, flags, and notes.

    Raises:
        InputError: If the PSF is unusable, or the arguments contradict each other.
    """
    checks.check_choice(even, ("refuse", "shift"), "psf_even")
    oversampling = checks.check_positive_integer(oversampling, "psf_oversampling")
    checks.check_within(oversampling, 1, effective_psf.LARGEST_OVERSAMPLING, "psf_oversampling")
    if psf is None:
        return _moffat_in_place(fwhm, oversampling)
    if fwhm is not None:
        raise InputError("psf and psf_fwhm were both given, expected one. Leave one of them out.")
    kernel = checks.as_real_array(psf, "the PSF")
    checks.check_two_dimensional(kernel, "the PSF")
    checks.check_not_empty(kernel, "the PSF")
    checks.check_within(max(kernel.shape), 1, effective_psf.LARGEST_SIDE, "a PSF's side", "samples")
    checks.check_psf_finite(kernel)
    checks.check_psf_sum_positive(kernel)
    flags, notes = 0, []
    if 0 in (kernel.shape[0] % 2, kernel.shape[1] % 2):
        if even == "refuse":
            checks.check_psf_odd(kernel)
        shape = kernel.shape
        kernel = effective_psf.odd_psf(kernel)
        flags |= Flag.PSF_SHIFTED
        notes.append(f"PSF {shape} moved to the odd grid {kernel.shape}")
    total = float(kernel.sum())
    kernel = kernel / total
    x, y = (value / oversampling for value in effective_psf.psf_centroid(kernel))
    if np.hypot(x, y) > 0.1:
        flags |= Flag.PSF_OFF_CENTRE
        notes.append(f"PSF is off its centre by ({x:+.2f}, {y:+.2f}) px in (x, y)")
    width = effective_psf.psf_fwhm(kernel, oversampling)
    if oversampling == 1 and width < effective_psf.WELL_SAMPLED_FWHM:
        flags |= Flag.PSF_UNDERSAMPLED
        notes.append(f"PSF of FWHM {width:.2f} px is undersampled: give an oversampled one")
    if effective_psf.negative_fraction(kernel) > 0.01:
        flags |= Flag.PSF_NEGATIVE
    missing = effective_psf.missing_light(kernel)
    if missing > 0.01:
        flags |= Flag.PSF_TRUNCATED
        notes.append(f"about {missing:.1%} of the PSF's light lies beyond its array, by its wings")
    return kernel, oversampling, total, int(flags), notes


def _moffat_in_place(
    fwhm: float | None, oversampling: int
) -> tuple[Array, int, float, int, list[str]]:
    """Returns a Moffat of the given FWHM, or the reference PSF, in the form of ``usable_psf``."""
    if oversampling != 1:
        raise InputError(
            f"psf_oversampling {oversampling} was given without a PSF to which it applies. "
            "Give the PSF (psf=, --psf FILE), or leave psf_oversampling out."
        )
    flag = Flag.NO_PSF if fwhm is None else Flag.PSF_FROM_FWHM
    fwhm = effective_psf.REFERENCE_FWHM if fwhm is None else fwhm
    kernel, made_oversampling = effective_psf.moffat_psf(fwhm)
    note = f"PSF: Moffat of FWHM {fwhm:g} px and beta {effective_psf.MOFFAT_BETA}"
    return kernel, made_oversampling, 1.0, int(flag), [note]


def without_placeholders(image: Array, mask: Array) -> tuple[Array, int, list[str]]:
    """Masks pixels that hold a placeholder instead of data.

    Args:
        image: Image, with shape (H, W), NaN and infinities still in it.
        mask: True = ignore, with shape (H, W).

    Returns:
        The mask with those pixels added, flags, and notes.
    """
    found, values = blank_pixels.placeholders(image, mask | ~np.isfinite(image))
    if not values:
        return mask, 0, []
    text = ", ".join(f"{v:g}" for v in values)
    note = f"{int(found.sum())} pixels that hold {text} instead of data were masked"
    return mask | found, int(Flag.BLANK_VALUES), [note]


def remarks_on_pixels(
    image: Array, noise: Array, mask: Array, fwhm: float
) -> tuple[int, list[str]]:
    """Returns flags and notes on the image's pixels: residual sky, a masked galaxy.

    Args:
        image: Image, with shape (H, W), finite.
        noise: 1-sigma map, with shape (H, W).
        mask: True = ignore, with shape (H, W).
        fwhm: FWHM of the PSF. [px]
    """
    flags, notes = 0, []
    if mask_planes.hides_galaxy(image, noise, mask, max(5.0, 2.0 * fwhm)):
        flags |= Flag.GALAXY_MASKED
        notes.append(
            "the mask hides most of the galaxy: is it a map of sources or of detections? Give a "
            "mask of bad pixels (mask=, --mask), or the bits that mark them (--mask-bits)"
        )
    level = blank_pixels.sky_left(image, noise, mask)
    if level is not None:
        flags |= Flag.SKY_LEFT
        notes.append(f"sky of {level:.4g} image units per pixel is left at every corner")
    return int(flags), notes
