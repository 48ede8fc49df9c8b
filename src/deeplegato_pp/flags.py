"""Bit flags: what a result must not keep to itself. One registry.

``docs/flags.md`` is written from it. A flag's bit never changes meaning; new ones are appended.
"""

import enum

from deeplegato_pp.errors import RangeError


class Flag(enum.IntFlag):
    """One bit per circumstance; a result's ``flags`` is their sum.

    Each member carries ``meaning`` and ``decision`` (how it is decided). Zero means nothing to say.

    Example:
        >>> Flag.names(Flag.NO_PSF | Flag.PADDED)
        ['no_psf', 'padded']
        >>> Flag.NO_PSF.meaning
        'No PSF was given: the reference PSF was used'
    """

    meaning: str
    decision: str

    def __new__(cls, bit: int, meaning: str = "", decision: str = "") -> "Flag":
        """Makes the member of value ``bit`` and hangs its two texts on it."""
        member = int.__new__(cls, bit)
        member._value_ = bit
        member.meaning = meaning
        member.decision = decision
        return member

    # --- the observation ---------------------------------------------------------------------
    NO_PSF = (
        1 << 0,
        "No PSF was given: the reference PSF was used",
        "neither `psf` nor `psf_fwhm` given, and none in the file; a Moffat (beta 4.765) of FWHM "
        "3 px stands in",
    )
    PSF_FROM_FWHM = (
        1 << 1,
        "The PSF is a Moffat (beta 4.765) of the FWHM given",
        "`psf_fwhm` given in place of an image of the PSF",
    )
    NO_NOISE = (
        1 << 2,
        "No noise was given: one value was estimated from the image's border",
        "no `noise`, and none in the file; the clipped MAD of the border stands in",
    )
    NO_PIXEL_SCALE = (
        1 << 3,
        "The pixel scale is unknown: radii in arcsec are arbitrary, those in pixels hold",
        "not given, no keyword, no WCS; 0.25 arcsec/px stands in",
    )
    NO_ZERO_POINT = (
        1 << 4,
        "The zero point is unknown: magnitudes hold up to a constant",
        "not given and no keyword or unit that tells it; 30.5 stands in",
    )
    NONFINITE_PIXELS = (
        1 << 5,
        "Pixels with NaN or infinity were masked",
        "image, noise or weight not finite on a pixel that the mask left in",
    )
    PSF_OFF_CENTRE = (
        1 << 6,
        "The PSF is not centred: the galaxy's centre is off by as much",
        "centroid of its core more than 0.1 px from the centre of its array",
    )
    PSF_UNDERSAMPLED = (
        1 << 7,
        "The PSF is undersampled: shapes near the resolution are biased",
        "FWHM below 2.5 px with `psf_oversampling` 1",
    )
    PSF_SHIFTED = (
        1 << 8,
        "An even-sized PSF was brought onto an odd grid",
        "an even axis and `psf_even='shift'`",
    )
    PSF_NEGATIVE = (
        1 << 9,
        "The PSF has negative light",
        "negative pixels hold more than 1 % of its sum",
    )
    PSF_TRUNCATED = (
        1 << 10,
        "The PSF's array is too small for its wings",
        "the outermost ring of pixels holds more than 1 % of its light",
    )
    NOISE_FROM_DATA = (
        1 << 11,
        "The noise map was made from the noisy data pixel by pixel, which biases the flux low",
        "variance and data correlate (> 0.5) from pixel to pixel where the light is smooth",
    )
    LOW_COUNTS = (
        1 << 12,
        "So few electrons that a Gaussian likelihood is an approximation",
        "gain given, and the background's variance is below 20 electrons^2 per pixel",
    )

    # --- the stamp that the network sees -----------------------------------------------------
    PADDED = (
        1 << 13,
        "The image is smaller than the stamp: masked pixels were added",
        "an axis shorter than the stamp",
    )
    CROPPED = (
        1 << 14,
        "The image is larger than the stamp: only its centre was used",
        "an axis longer than the stamp",
    )
    BINNED = (
        1 << 15,
        "The pixels were binned, PSF included",
        "the galaxy was found too large for the stamp at its own sampling",
    )
    TOO_LARGE = (
        1 << 16,
        "The galaxy is too large for the stamp even at the coarsest binning",
        "posterior R_e still above the limit after the last binning",
    )
    MASKED_CORE = (
        1 << 17,
        "Pixels in the galaxy's core are masked",
        "a masked pixel close to the centre found",
    )
    NEIGHBOURS_MASKED = (
        1 << 18,
        "Pixels of neighbours were masked before refining",
        "connected pixels more than 5 sigma off the predicted image, outside 1.5 R_e",
    )

    # --- the result --------------------------------------------------------------------------
    EDGE_OF_PRIOR = (
        1 << 19,
        "The posterior leans on an edge of the prior box",
        "a sizeable part of the draws lies next to a bound",
    )
    OUTSIDE_TRAINING = (
        1 << 20,
        "The instrument lies outside what the network was trained on",
        "PSF FWHM, gain, sky sigma or noise outside the trained range",
    )
    TENSION = (
        1 << 21,
        "The network and the exact posterior disagree",
        "their means differ by more than 3 sigma in a parameter",
    )
    LOW_ESS = (
        1 << 22,
        "Too few effective samples",
        "effective sample size below the one asked for",
    )
    HIGH_KHAT = (
        1 << 23,
        "The importance weights are unreliable",
        "Pareto k-hat above min(0.7, 1 - 1/log10 S)",
    )
    FAILED = (
        1 << 24,
        "Not measured: see the reason",
        "an error stopped the measurement of this object",
    )

    @classmethod
    def names(cls, value: int) -> list[str]:
        """Returns the names in ``value``, lower case as in tables, by rising bit.

        Args:
            value: Sum of flags.

        Raises:
            RangeError: If a bit is set that no flag has.
        """
        unknown = int(value) & ~sum(int(flag) for flag in cls)
        if value < 0 or unknown:
            raise RangeError(
                f"flags must be a sum of known bits, got {int(value)} (unknown part {unknown}). "
                "Was it written by a later version?"
            )
        return [str(flag.name).lower() for flag in cls if int(value) & int(flag)]

    @classmethod
    def describe(cls, value: int) -> str:
        """Returns one line per flag set: its name and what it means."""
        return "\n".join(f"{name}: {cls[name.upper()].meaning}" for name in cls.names(value))


def flags_markdown() -> str:
    """Returns the text of ``docs/flags.md``."""
    lines = [
        "# Flags",
        "",
        "`flags` is the sum of the bits below; `Flag.names(value)` lists their names and "
        "`Flag.describe(value)` explains them. A flag is no error: it says what the numbers rest "
        "on. This page is written by `deeplegato_pp.flags.flags_markdown()`.",
        "",
        "| bit | value | name | meaning | how it is decided |",
        "|---|---|---|---|---|",
    ]
    for flag in Flag:
        bit = int(flag).bit_length() - 1
        name = str(flag.name).lower()
        lines.append(f"| {bit} | {int(flag)} | `{name}` | {flag.meaning} | {flag.decision} |")
    return "\n".join(lines) + "\n"
