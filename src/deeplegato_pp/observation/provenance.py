"""One-line description of what was taken from a file, and from where."""

from deeplegato_pp.io.header_keywords import Taken
from deeplegato_pp.observation.effective_psf import REFERENCE_FWHM


def provenance_line(
    zero_point: Taken,
    pixel_scale: Taken,
    psf: str,
    oversampling: int | None,
    noise: str,
    mask: str = "",
) -> str:
    """Returns the line shown on the terminal for an image.

    Args:
        zero_point: Adopted zero point.
        pixel_scale: Adopted pixel scale. [arcsec/px]
        psf: Source of the PSF; empty without a PSF.
        oversampling: Samples of the PSF per pixel; None if it varies over the image.
        noise: Type and source of the noise, or how it was estimated.
        mask: Source of the mask; empty without a mask.

    Example:
        >>> provenance_line(Taken(26.45, "ZP"), Taken(0.06, "WCS"), "OVERDIST", 3, "ERR")
        'zero point 26.45 (ZP), 0.06 arcsec/px (WCS), PSF 3x oversampled (OVERDIST), noise ERR'
    """
    parts = [
        "zero point unknown"
        if zero_point.value is None
        else f"zero point {zero_point.value:.2f} ({zero_point.source})",
        "pixel scale unknown"
        if pixel_scale.value is None
        else f"{pixel_scale.value:.4g} arcsec/px ({pixel_scale.source})",
    ]
    if not psf:
        parts.append(f"no PSF (a Moffat of {REFERENCE_FWHM:g} px FWHM)")
    elif oversampling is None or oversampling == 1:
        parts.append(f"PSF ({psf})")
    else:
        parts.append(f"PSF {oversampling}x oversampled ({psf})")
    parts.append(f"noise {noise}")
    if mask:
        parts.append(f"mask ({mask})")
    return ", ".join(parts)
