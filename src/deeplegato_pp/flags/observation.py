"""Flags of the observation: image, noise, mask, PSF and the stamp made of them."""

from deeplegato_pp.flags.about import About

NO_PSF = About(
    meaning="No PSF was given: a Moffat of 3 px FWHM was used",
    decision=(
        "neither `psf` nor `psf_fwhm` given, and none in the file; a Moffat (beta 4.765) of FWHM 3 "
        "px is used"
    ),
    level="caution",
    remedy="Give the PSF (--psf) or its width (--psf-fwhm)",
)

PSF_FROM_FWHM = About(
    meaning="The PSF is a Moffat (beta 4.765) of the FWHM given",
    decision="`psf_fwhm` given in place of an image of the PSF",
)

PSF_OFF_CENTRE = About(
    meaning="The PSF is not centred: the galaxy's centre is offset by the same amount",
    decision="centroid of its core more than 0.1 px from the centre of its array",
)

PSF_UNDERSAMPLED = About(
    meaning="The PSF is undersampled: shapes near the resolution are biased",
    decision="FWHM below 2.5 px with `psf_oversampling` 1",
    level="caution",
    remedy="Give an oversampled PSF (--psf-oversampling)",
)

PSF_SHIFTED = About(
    meaning="An even-sized PSF was shifted onto an odd-sized grid",
    decision="an even axis and `psf_even='shift'`",
)

PSF_NEGATIVE = About(
    meaning="The PSF has negative pixels",
    decision="negative pixels sum to more than 1 % of the PSF's total",
    level="caution",
)

PSF_TRUNCATED = About(
    meaning="The PSF's array is too small for its wings",
    decision=(
        "extrapolated as a Moffat's, the wings contain more than 1 % of the light outside the "
        "array; the notes state the fraction, and `psf_wings` whether it matters at this S/N"
    ),
)

PSF_ELSEWHERE = About(
    meaning="The PSF varies over the image, and the stamp's position in it is unknown",
    decision="a varying PSF model, and a stamp that does not state where it was cut out",
    level="caution",
    remedy="Give the PSF at the galaxy's position (--psf)",
)

NO_NOISE = About(
    meaning="No noise was given: one value was estimated from the image's border",
    decision="no `noise` given, and none in the file; the clipped MAD of the border is used",
    level="caution",
    remedy="Give the noise (--noise)",
)

NOISE_FROM_DATA = About(
    meaning=(
        "The noise map was computed from the noisy data pixel by pixel, which biases the flux low"
    ),
    decision="variance and data correlate (> 0.5) from pixel to pixel where the light is smooth",
    level="caution",
    remedy="Give the background's noise and the gain (--noise, --gain)",
)

NOISE_OFF = About(
    meaning="The noise map is wrong by orders of magnitude: it has another type, unit or image",
    decision=(
        "the scatter from pixel to pixel where there is no light is more than 10 times the map's "
        "noise, or less than a tenth of it"
    ),
    level="bad",
    remedy="State the map's type (--noise-type), or give another (--noise)",
)

NOISE_SENTINELS = About(
    meaning="Pixels with a placeholder as noise were masked",
    decision="a noise more than 1,000 times above or below the map's median",
)

LOW_COUNTS = About(
    meaning="So few electrons per pixel that the Gaussian likelihood is an approximation",
    decision="gain given, and the background's variance below 20 electrons^2 per pixel",
)

NONFINITE_PIXELS = About(
    meaning="Pixels with NaN or infinity were masked",
    decision="image, noise or weight not finite in a pixel that the mask does not exclude",
)

BLANK_VALUES = About(
    meaning="Pixels with a placeholder instead of data were masked",
    decision=(
        "one value, 0 or more than 5 sigma below the sky, fills 10 or more pixels of an image that "
        "otherwise has no repeated value"
    ),
)

GALAXY_MASKED = About(
    meaning="The mask covers most of the galaxy",
    decision=(
        "more than half of the pixels, or of those above 3 sigma, are masked within 5 px (and 2 "
        "FWHM) of the stamp's centre"
    ),
    level="bad",
    remedy="Give a mask of defects only (--mask), or its bits (--mask-bits)",
)

SKY_LEFT = About(
    meaning="Sky remains in the image: fluxes, radii and Sérsic indices are too high or too low",
    decision=(
        "the medians of all four corners (an eighth of a side) differ from zero by more than half "
        "a sigma and 5 standard errors, with the same sign; the notes state the value"
    ),
    level="caution",
    remedy="Subtract the sky",
)

PADDED = About(
    meaning="The image is smaller than the stamp: masked pixels were added",
    decision="an axis shorter than the stamp",
)

CROPPED = About(
    meaning="The image is larger than the stamp: only its centre was used",
    decision="an axis longer than the stamp",
)

BINNED = About(
    meaning="Image and PSF were binned",
    decision="the galaxy is too large for the stamp at the original pixel scale",
)
