"""Bit flags: what a result must not keep to itself. One registry.

``docs/flags.md`` is written from it. A flag's bit never changes meaning; new ones are appended.
"""

import enum
from collections.abc import Mapping
from typing import Any

from deeplegato_pp.errors import RangeError

LEVELS = ("bad", "caution", "good")
"""What a flag makes of a row, the most serious first."""


class Flag(enum.IntFlag):
    """One bit per circumstance; a result's ``flags`` is their sum.

    Each member carries ``meaning``, ``decision`` (how it is decided) and ``level``: what it makes
    of the row's quality, ``bad``, ``caution``, or ``good`` for what is worth knowing but no reason
    to doubt the numbers, and ``remedy``, what to do about it. Zero means nothing to say.

    Example:
        >>> Flag.names(Flag.NO_PSF | Flag.PADDED)
        ['no_psf', 'padded']
        >>> Flag.NO_PSF.meaning
        'No PSF was given: a Moffat of 3 px FWHM was used'
    """

    meaning: str
    decision: str
    level: str
    remedy: str

    def __new__(
        cls, bit: int, meaning: str = "", decision: str = "", level: str = "good", remedy: str = ""
    ) -> "Flag":
        """Makes the member of value ``bit`` and hangs its texts on it."""
        member = int.__new__(cls, bit)
        member._value_ = bit
        member.meaning = meaning
        member.decision = decision
        member.level = level
        member.remedy = remedy
        return member

    # --- the observation ---------------------------------------------------------------------
    NO_PSF = (
        1 << 0,
        "No PSF was given: a Moffat of 3 px FWHM was used",
        "neither `psf` nor `psf_fwhm` given, and none in the file; a Moffat (beta 4.765) of FWHM "
        "3 px stands in",
        "caution",
        "Give the PSF (--psf) or its width (--psf-fwhm)",
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
        "caution",
        "Give the noise (--noise)",
    )
    NO_PIXEL_SCALE = (
        1 << 3,
        "The pixel scale is unknown: radii in arcsec are arbitrary, those in pixels hold",
        "not given, no keyword, no WCS; 0.25 arcsec/px stands in",
        "good",
        "Give it (--pixel-scale)",
    )
    NO_ZERO_POINT = (
        1 << 4,
        "The zero point is unknown: magnitudes hold up to a constant",
        "not given and no keyword or unit that tells it; 30.5 stands in",
        "good",
        "Give it (--zero-point)",
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
        "caution",
        "Give an oversampled PSF (--psf-oversampling)",
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
        "caution",
    )
    PSF_TRUNCATED = (
        1 << 10,
        "The PSF's array is too small for its wings",
        "continued as a Moffat's, the wings hold more than 1 % of the light beyond the array; the "
        "notes say how much, and `psf_wings` whether that matters at this S/N",
    )
    NOISE_FROM_DATA = (
        1 << 11,
        "The noise map was made from the noisy data pixel by pixel, which biases the flux low",
        "variance and data correlate (> 0.5) from pixel to pixel where the light is smooth",
        "caution",
        "Give the background's noise and the gain (--noise, --gain)",
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
        "The image shows too little of the galaxy: its outskirts are extrapolated",
        "posterior R_e above 16 px, and the image too small to be binned further",
        "caution",
        "Give a larger cutout",
    )
    MASKED_CORE = (
        1 << 17,
        "Pixels in the galaxy's core are masked",
        "a masked pixel within half a FWHM of the PSF, at least 1.5 px, of the mean centre",
        "caution",
        "Check the mask (--mask, --mask-bits)",
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
        "the mean lies in the outer 8 % of the prior and within 1.5 standard deviations of the "
        "bound, or in its outer 0.13 % whatever the width; of the axis ratio only the lower bound "
        "counts, of the position angle none",
        "caution",
        "Take the bound as a limit, or widen the prior",
    )
    OUTSIDE_TRAINING = (
        1 << 20,
        "The instrument lies outside what the network was trained on",
        "optical FWHM of the PSF, gain or sky sigma more than 3 % outside the ranges in the "
        "model's card, or the visible side below; a PSF too narrow only if R_e is below four times "
        "the narrowest",
        "caution",
    )
    TENSION = (
        1 << 21,
        "The network and the exact posterior disagree",
        "their means differ by more than 3 sigma in a parameter",
        "caution",
        "Trust the refined row; look at the residual (--plot)",
    )
    LOW_ESS = (
        1 << 22,
        "Too few effective samples",
        "effective sample size below the one asked for",
        "caution",
    )
    HIGH_KHAT = (
        1 << 23,
        "The importance weights are unreliable",
        "Pareto k-hat above min(0.7, 1 - 1/log10 S)",
        "bad",
        "Refine with more effort, or take the row as approximate",
    )
    FAILED = (
        1 << 24,
        "Not measured: see the reason",
        "an error stopped the measurement of this object",
        "bad",
        "See the reason",
    )

    # --- the source list of a catalogue ------------------------------------------------------
    DUPLICATE = (
        1 << 25,
        "The source list holds this source more than once",
        "same `id`, or same position to 0.1 px, as another row of the list",
    )
    IMAGE_EDGE = (
        1 << 26,
        "Part of the cutout lies outside the image: masked pixels stand in",
        "the stamp about the source reaches over an edge of the mosaic",
        "caution",
        "Give a larger image, if there is one",
    )

    # --- the verdict -------------------------------------------------------------------------
    POOR_FIT = (
        1 << 27,
        "The image is not that of a Sérsic galaxy with this PSF and noise",
        "`chi2_p` below 0.001: the best model that the posterior allows leaves too much, a 1 % "
        "error of the model granted",
        "caution",
        "Look at the residual (--plot)",
    )
    GROSS_MISFIT = (
        1 << 28,
        "The model misses a good part of the galaxy's light, or there is no galaxy",
        "`poor_fit`, and the residual within 1.5 R_e holds more than 10 % of the model's light, "
        "by 4 standard errors, beyond noise",
        "bad",
        "Look at the residual (--plot): a neighbour, or not a Sérsic galaxy",
    )
    MEAN_OFF = (
        1 << 29,
        "The pixels contradict the posterior",
        "the best model that it allows lies more than 4 of its standard deviations from its mean "
        "in a coordinate (from 50 draws on)",
        "bad",
    )
    UNFAMILIAR = (
        1 << 30,
        "The network has hardly seen an image like this in training",
        "`ood_p` below 0.001",
        "bad",
    )
    NEIGHBOUR = (
        1 << 31,
        "Light in the stamp that is not the galaxy's",
        "two adjacent pixels, or a block of 4 x 4, more than 5 sigma above the best model outside "
        "1.5 R_e",
        "caution",
        "Mask the neighbour (--mask, --segmentation)",
    )
    SATURATED = (
        1 << 32,
        "The core is saturated: it has a flat top",
        "four or more adjacent pixels of S/N 10 agree with the brightest one to a tenth of their "
        "noise, where the model varies by more than 3 sigma",
        "bad",
        "Mask the saturated pixels",
    )
    UNDETECTED = (
        1 << 33,
        "No galaxy is seen: the posterior says what may hide in the noise",
        "the model takes less than 9 off the chi-square of an empty stamp; once refined, light is "
        "not favoured 100 to 1 over blank sky",
        "caution",
    )
    NOISE_MISMATCH = (
        1 << 34,
        "The noise is not what its map says, and all errors scale with it",
        "the background's scatter, robust, differs from the map's by more than 5 standard errors "
        "and 10 % in pixels or 30 % in blocks of 4 x 4",
        "caution",
        "Check the noise map, its type and its correlation (--noise-type, --noise-correlation)",
    )
    NO_CONTRAST = (
        1 << 35,
        "Most of the image is one and the same value: it is no observation",
        "more than half of the unmasked pixels are equal",
        "bad",
    )

    # --- what the file says of itself ----------------------------------------------------------
    ZERO_POINT_CONFLICT = (
        1 << 36,
        "What the file says of its zero point disagrees, or can be read in two ways",
        "unit, keywords and exposure time give zero points more than 0.02 mag apart, or none that "
        "can be; the unit wins, then what two sources agree on; the notes have all numbers",
        "caution",
        "Compare the numbers in notes and give the right one (--zero-point)",
    )
    PIXEL_SCALE_CONFLICT = (
        1 << 37,
        "What the file says of its pixel scale disagrees",
        "WCS and keywords differ by more than 2 %, or state a scale that cannot be; the WCS wins",
        "caution",
        "Compare the numbers in notes and give the right one (--pixel-scale)",
    )
    NOT_AB = (
        1 << 38,
        "The zero point is of another system than AB: magnitudes are that system's",
        "the only zero point in the file is called Vega or ST",
        "caution",
        "Give the AB zero point (--zero-point)",
    )
    NOT_SQUARE = (
        1 << 39,
        "The pixels are not square on the sky: axis ratio and angle are those in pixels",
        "the WCS's two scales differ by more than 2 %",
        "caution",
        "Resample the image to square pixels",
    )
    PSF_SAMPLING_CONFLICT = (
        1 << 40,
        "What the PSF's file says of its sampling disagrees with the image or with itself",
        "oversampling, pixel scale of the PSF and pixel scale of the image do not fit within 2 %",
        "caution",
        "Give the right sampling (--psf-oversampling)",
    )
    PSF_ELSEWHERE = (
        1 << 41,
        "The PSF varies over the image, and where the stamp lies in it is unknown",
        "a varying PSF model beside a stamp that does not say where it was cut out",
        "caution",
        "Give the PSF at the galaxy's place (--psf)",
    )
    NOISE_CONFLICT = (
        1 << 42,
        "What the file says of its noise map disagrees: the map may be of another type or unit",
        "type (UTYPE, name of the extension), unit of the map and unit of the image do not fit",
        "caution",
        "State what the map is (--noise-type), or give it in the image's unit",
    )
    NOISE_OFF = (
        1 << 43,
        "The noise map is off by orders of magnitude: it is of another type, unit or image",
        "the scatter from pixel to pixel where there is no light is more than 10 times the map's "
        "noise, or less than a tenth of it",
        "bad",
        "State what the map is (--noise-type), or give another (--noise)",
    )
    NOISE_SENTINELS = (
        1 << 44,
        "Pixels whose noise is a placeholder were masked",
        "a noise more than 1,000 times above or below the map's median",
    )
    GALAXY_MASKED = (
        1 << 45,
        "The mask hides most of the galaxy",
        "more than half of the pixels, or of those above 3 sigma, are masked within 5 px (and "
        "2 FWHM) of the stamp's centre",
        "bad",
        "Give a mask of damage alone (--mask), or its bits (--mask-bits)",
    )
    BLANK_VALUES = (
        1 << 46,
        "Pixels that hold a placeholder instead of data were masked",
        "one value, 0 or beyond 5 sigma below the sky, fills 10 or more pixels of an image that "
        "has no value twice otherwise",
    )
    SKY_LEFT = (
        1 << 47,
        "Sky is left in the image: fluxes, radii and Sérsic indices are too high or too low",
        "the medians of all four corners (an eighth of a side) are more than half a sigma, "
        "and 5 standard errors, from zero, with one sign; the notes have the value",
        "caution",
        "Subtract the sky",
    )
    BUDGET = (
        1 << 48,
        "Refining ended at its limit of cost: the row is the best that was reached",
        "the pixels that may be rendered for a galaxy were spent, or would not do for sampling, "
        "with `low_ess` or `high_khat` left; `method` says how far it came",
        "caution",
    )

    # --- error bars ----------------------------------------------------------------------------
    STRUCTURE_UNJUDGED = (
        1 << 49,
        "The error bars are the noise's own: too little of the galaxy is seen to judge structure",
        "honest widths asked for, and fewer than 2 blocks of pixels or 10 unmasked pixels per free "
        "parameter, or derivatives that are not finite",
        "caution",
        "Give a larger stamp, or mask less of it (--mask)",
    )

    # --- catalogues ----------------------------------------------------------------------------
    SAME_OBJECT = (
        1 << 50,
        "Another listed source lies within this fit, which may hold the light of both",
        "the nearest other source of the list is closer than 1.5 half-light radii, or than the "
        "PSF's FWHM",
        "caution",
        "Fit the two together (--refine --neighbours fit), or take one of them",
    )
    FITTED_TOGETHER = (
        1 << 51,
        "Neighbours were fitted together with the galaxy, and integrated out",
        "`neighbours` given, or in a catalogue sources whose ellipses touch: those at which half a "
        "sigma per pixel is left, between one and four half-light radii",
    )
    GROUP_CUT = (
        1 << 52,
        "Sources that touch this one are not in its fit: too many do",
        "more than four sources touch it, or touch those that do more closely",
        "caution",
        "Look at the residual; give a list with fewer entries per object",
    )
    OFF_SEGMENT = (
        1 << 53,
        "The fit is another object's than the source's: it has left its segment, or dwarfs it",
        "the centre lies more than 2 px off the source's segment, or the 16 % quantile of the "
        "circularised half-light radius is above 4 times the radius of a circle of its area",
        "bad",
        "Look at the residual; mask the neighbour, or fit it too (--refine --neighbours fit)",
    )
    RUNAWAY = (
        1 << 54,
        "Refining ran away to a neighbour: the row is the network's",
        "the refined fit leaves the source's segment where the network's does not; or it is more "
        "than 3 sigma brighter than the network's with another source within 2 half-light radii",
        "caution",
        "Fit the neighbour too (--neighbours fit), or mask it (--segmentation)",
    )
    SCENE_KHAT = (
        1 << 55,
        "The importance weights of the best scene are unreliable: so are its parts and its odds",
        "`scene_khat` above 0.7",
        "caution",
        "Take its parts and odds as approximate; the single profile has weights of its own",
    )
    NOISE_MEASURED = (
        1 << 56,
        "The noise is not what was given, and the error bars hold what was measured",
        "as `noise_mismatch`, with honest widths, the background scattering 0.5 to 3 times as much "
        "as the map; where it is more the widths are those of the background's noise",
    )
    NEIGHBOUR_HELD = (
        1 << 57,
        "Light in the stamp that is not the galaxy's, and that hardly moves it",
        "as `neighbour`, with honest widths, and masking that light would move no parameter by "
        "more than half of its error",
    )

    # --- the PSF -------------------------------------------------------------------------------
    UNRESOLVED = (
        1 << 58,
        "The galaxy is unresolved: radius, Sérsic index and shape rest on the PSF and the prior",
        "mean R_e below 0.3 of the PSF's FWHM; the flux holds",
        "caution",
        "Take R_e as a limit (its 97.5 % quantile), and look at star_probability",
    )
    PSF_WINGS = (
        1 << 59,
        "The PSF's array lacks wings that matter at this S/N",
        "the light that is missing, put where the PSF's wings go on, is expected to move a "
        "parameter by more than three of the standard deviations that honest ones are without it "
        "(less is in the error bars); where there are none, R_e by more than one: a quarter of the "
        "light times the S/N, which counts up to where errors stop falling",
        "caution",
        "Give the PSF on a larger array (--psf)",
    )
    MISFIT_HELD = (
        1 << 60,
        "The model misses some of the galaxy's light, as galaxies with structure do",
        "as `gross_misfit`, refined with honest widths, and the residual within 1.5 R_e holds less "
        "than 20 % of the model's light",
    )
    NOISE_FROM_DATA_HELD = (
        1 << 61,
        "The noise map was made from the noisy data, and the error bars hold what that does",
        "as `noise_from_data`, refined with honest widths, and weights that follow the noise are "
        "expected to move no parameter by more than half of its error",
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
    def quality(cls, value: int, *, refined: bool = False, honest: bool = False) -> str:
        """Returns the verdict: the worst level among the flags that are set.

        Args:
            value: Sum of flags.
            refined: The numbers rest on the likelihood and no longer on the network: that it has
                not seen the like (``UNFAMILIAR``) is a reason for caution then, no more, and that
                it was not trained for the instrument (``OUTSIDE_TRAINING``), whose PSF, noise and
                gain the likelihood knows, is none.
            honest: The error bars hold the structure that the model leaves: it (``POOR_FIT``) is
                no reason for caution then, and if it is much (``GROSS_MISFIT``) no reason not to
                use the numbers, unless no galaxy is seen. Where they do not, wrong noise
                (``NOISE_MEASURED``, ``NOISE_FROM_DATA_HELD``) and light beside the galaxy
                (``NEIGHBOUR_HELD``) are reasons for caution, and light that the model misses
                (``MISFIT_HELD``) is one against it.

        Returns:
            ``"good"``, ``"caution"`` or ``"bad"``.

        Example:
            >>> Flag.quality(0), Flag.quality(Flag.PADDED | Flag.EDGE_OF_PRIOR)
            ('good', 'caution')
            >>> Flag.quality(Flag.UNFAMILIAR), Flag.quality(Flag.UNFAMILIAR, refined=True)
            ('bad', 'caution')
            >>> Flag.quality(Flag.POOR_FIT), Flag.quality(Flag.POOR_FIT, honest=True)
            ('caution', 'good')
            >>> Flag.quality(Flag.NOISE_MEASURED), Flag.quality(Flag.NOISE_MEASURED, honest=True)
            ('caution', 'good')
        """
        levels = cls.levels(value, refined=refined, honest=honest)
        return next(iter(levels.values()), "good")

    @classmethod
    def levels(
        cls, value: int, *, refined: bool = False, honest: bool = False
    ) -> "dict[Flag, str]":
        """Returns the flags that are set with their level in such a row, the most serious first.

        Args:
            value: Sum of flags.
            refined: See :meth:`quality`.
            honest: See :meth:`quality`.

        Example:
            >>> flags = Flag.PADDED | Flag.POOR_FIT | Flag.FAILED
            >>> [(f.name, level) for f, level in Flag.levels(flags).items()]
            [('FAILED', 'bad'), ('POOR_FIT', 'caution'), ('PADDED', 'good')]
        """
        known: dict[Flag, str] = {}
        if refined:
            known = {cls.UNFAMILIAR: "caution", cls.OUTSIDE_TRAINING: "good"}
        if honest:
            known[cls.POOR_FIT] = "good"
            if not int(value) & int(cls.UNDETECTED):  # a galaxy, whose structure is in the widths
                known[cls.GROSS_MISFIT] = "caution"
        else:
            known |= {
                cls.NOISE_MEASURED: "caution",
                cls.NEIGHBOUR_HELD: "caution",
                cls.NOISE_FROM_DATA_HELD: "caution",
                cls.MISFIT_HELD: "bad",
            }
        found = {flag: known.get(flag, flag.level) for flag in cls if int(value) & int(flag)}
        return dict(sorted(found.items(), key=lambda item: LEVELS.index(item[1])))

    @classmethod
    def levels_of_row(cls, row: Mapping[str, Any]) -> "dict[Flag, str]":
        """Returns the flags of a row of results with their level in it, the most serious first.

        Args:
            row: With ``flags``, and with ``method`` and ``widths`` where it was measured.
        """
        refined = row.get("method") not in (None, "", "amortized")
        honest = row.get("widths") == "honest"
        return cls.levels(int(row.get("flags") or 0), refined=refined, honest=honest)

    @classmethod
    def without(cls, value: int, flags: int) -> int:
        """Returns a sum of flags without some of them.

        The complement is taken of plain integers: in Python 3.11.2 that of an `IntFlag` whose
        members carry more than their bit is wrong (seen there, and right in 3.11.7).

        Example:
            >>> Flag.without(Flag.NO_PSF | Flag.PADDED, Flag.PADDED) == Flag.NO_PSF
            True
        """
        return int(value) & ~int(flags)

    @classmethod
    def describe(cls, value: int) -> str:
        """Returns one line per flag set: its name and what it means."""
        return "\n".join(f"{name}: {cls[name.upper()].meaning}" for name in cls.names(value))


STATEMENTS = int(
    Flag.ZERO_POINT_CONFLICT
    | Flag.PIXEL_SCALE_CONFLICT
    | Flag.NOT_AB
    | Flag.NOT_SQUARE
    | Flag.PSF_SAMPLING_CONFLICT
    | Flag.PSF_ELSEWHERE
    | Flag.NOISE_CONFLICT
    | Flag.NOISE_OFF
    | Flag.GALAXY_MASKED
)
"""Flags on what a file says of itself, named beside what was taken from it."""


def flags_markdown() -> str:
    """Returns the text of ``docs/flags.md``."""
    lines = [
        "# Flags and quality",
        "",
        "`flags` is the sum of the bits below; `Flag.names(value)` lists their names and "
        "`Flag.describe(value)` explains them. A flag is no error: it says what the numbers rest "
        "on. This page is written by `deeplegato_pp.flags.flags_markdown()`.",
        "",
        "**`quality`** is the worst of the last column over the flags that are set: `bad` (do not "
        "use the numbers), `caution` (use them knowing the flags), `good` if neither. Once a "
        "galaxy is refined its numbers rest on the likelihood: `unfamiliar` is a reason for "
        "caution only, and `outside_training` none. How the verdict was tested stands in "
        "[verdict](verdict.md).",
        "",
        "| bit | value | name | meaning | how it is decided | quality | what to do |",
        "|---|---|---|---|---|---|---|",
    ]
    for flag in Flag:
        bit = int(flag).bit_length() - 1
        name = str(flag.name).lower()
        lines.append(
            f"| {bit} | {int(flag)} | `{name}` | {flag.meaning} | {flag.decision} | {flag.level} | "
            f"{flag.remedy} |"
        )
    return "\n".join(lines) + "\n"
