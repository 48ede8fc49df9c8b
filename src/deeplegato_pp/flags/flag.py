"""The registry of flags."""

import enum
from collections.abc import Mapping
from typing import Any

from deeplegato_pp.errors import RangeError
from deeplegato_pp.flags import calibration, catalogue, observation, result, verdict
from deeplegato_pp.flags.about import LEVELS, About


class Flag(enum.IntFlag):
    """One bit per circumstance; a result's ``flags`` is their sum, zero if there is none.

    The description of each member is kept with those of its subject (``observation``,
    ``calibration``, ``result``, ``verdict``, ``catalogue``). A bit never changes its meaning; new
    flags are appended.

    Attributes:
        meaning: What the flag states.
        decision: Criterion by which it is set.
        level: Quality of a row with this flag: ``bad``, ``caution`` or ``good``.
        remedy: What the user can do, or empty.

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

    def __new__(cls, bit: int, about: About) -> "Flag":
        """Makes the member of value ``bit`` with its description."""
        member = int.__new__(cls, bit)
        member._value_ = bit
        member.meaning = about.meaning
        member.decision = about.decision
        member.level = about.level
        member.remedy = about.remedy
        return member

    NO_PSF = 1 << 0, observation.NO_PSF
    PSF_FROM_FWHM = 1 << 1, observation.PSF_FROM_FWHM
    NO_NOISE = 1 << 2, observation.NO_NOISE
    NO_PIXEL_SCALE = 1 << 3, calibration.NO_PIXEL_SCALE
    NO_ZERO_POINT = 1 << 4, calibration.NO_ZERO_POINT
    NONFINITE_PIXELS = 1 << 5, observation.NONFINITE_PIXELS
    PSF_OFF_CENTRE = 1 << 6, observation.PSF_OFF_CENTRE
    PSF_UNDERSAMPLED = 1 << 7, observation.PSF_UNDERSAMPLED
    PSF_SHIFTED = 1 << 8, observation.PSF_SHIFTED
    PSF_NEGATIVE = 1 << 9, observation.PSF_NEGATIVE
    PSF_TRUNCATED = 1 << 10, observation.PSF_TRUNCATED
    NOISE_FROM_DATA = 1 << 11, observation.NOISE_FROM_DATA
    LOW_COUNTS = 1 << 12, observation.LOW_COUNTS
    PADDED = 1 << 13, observation.PADDED
    CROPPED = 1 << 14, observation.CROPPED
    BINNED = 1 << 15, observation.BINNED
    TOO_LARGE = 1 << 16, result.TOO_LARGE
    MASKED_CORE = 1 << 17, result.MASKED_CORE
    NEIGHBOURS_MASKED = 1 << 18, result.NEIGHBOURS_MASKED
    EDGE_OF_PRIOR = 1 << 19, result.EDGE_OF_PRIOR
    OUTSIDE_TRAINING = 1 << 20, result.OUTSIDE_TRAINING
    TENSION = 1 << 21, result.TENSION
    LOW_ESS = 1 << 22, result.LOW_ESS
    HIGH_KHAT = 1 << 23, result.HIGH_KHAT
    FAILED = 1 << 24, result.FAILED
    DUPLICATE = 1 << 25, catalogue.DUPLICATE
    IMAGE_EDGE = 1 << 26, catalogue.IMAGE_EDGE
    POOR_FIT = 1 << 27, verdict.POOR_FIT
    GROSS_MISFIT = 1 << 28, verdict.GROSS_MISFIT
    MEAN_OFF = 1 << 29, verdict.MEAN_OFF
    UNFAMILIAR = 1 << 30, verdict.UNFAMILIAR
    NEIGHBOUR = 1 << 31, verdict.NEIGHBOUR
    SATURATED = 1 << 32, verdict.SATURATED
    UNDETECTED = 1 << 33, verdict.UNDETECTED
    NOISE_MISMATCH = 1 << 34, verdict.NOISE_MISMATCH
    NO_CONTRAST = 1 << 35, verdict.NO_CONTRAST
    ZERO_POINT_CONFLICT = 1 << 36, calibration.ZERO_POINT_CONFLICT
    PIXEL_SCALE_CONFLICT = 1 << 37, calibration.PIXEL_SCALE_CONFLICT
    NOT_AB = 1 << 38, calibration.NOT_AB
    NOT_SQUARE = 1 << 39, calibration.NOT_SQUARE
    PSF_SAMPLING_CONFLICT = 1 << 40, calibration.PSF_SAMPLING_CONFLICT
    PSF_ELSEWHERE = 1 << 41, observation.PSF_ELSEWHERE
    NOISE_CONFLICT = 1 << 42, calibration.NOISE_CONFLICT
    NOISE_OFF = 1 << 43, observation.NOISE_OFF
    NOISE_SENTINELS = 1 << 44, observation.NOISE_SENTINELS
    GALAXY_MASKED = 1 << 45, observation.GALAXY_MASKED
    BLANK_VALUES = 1 << 46, observation.BLANK_VALUES
    SKY_LEFT = 1 << 47, observation.SKY_LEFT
    BUDGET = 1 << 48, result.BUDGET
    STRUCTURE_UNJUDGED = 1 << 49, result.STRUCTURE_UNJUDGED
    SAME_OBJECT = 1 << 50, catalogue.SAME_OBJECT
    FITTED_TOGETHER = 1 << 51, catalogue.FITTED_TOGETHER
    GROUP_CUT = 1 << 52, catalogue.GROUP_CUT
    OFF_SEGMENT = 1 << 53, catalogue.OFF_SEGMENT
    RUNAWAY = 1 << 54, catalogue.RUNAWAY
    SCENE_KHAT = 1 << 55, result.SCENE_KHAT
    NOISE_MEASURED = 1 << 56, verdict.NOISE_MEASURED
    NEIGHBOUR_HELD = 1 << 57, verdict.NEIGHBOUR_HELD
    UNRESOLVED = 1 << 58, result.UNRESOLVED
    PSF_WINGS = 1 << 59, verdict.PSF_WINGS
    MISFIT_HELD = 1 << 60, verdict.MISFIT_HELD
    NOISE_FROM_DATA_HELD = 1 << 61, verdict.NOISE_FROM_DATA_HELD

    @classmethod
    def names(cls, value: int) -> list[str]:
        """Returns the names in ``value`` in lower case, as in tables, in order of their bits.

        Args:
            value: Sum of flags.

        Raises:
            RangeError: If a bit is set that belongs to no flag.
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
        """Returns the quality of a row: the worst level of the flags that are set.

        Args:
            value: Sum of flags.
            refined: Whether the numbers come from the likelihood instead of the network. An image
                that is out of distribution (``UNFAMILIAR``) then counts as caution, and an
                instrument outside the training (``OUTSIDE_TRAINING``) as good, because the
                likelihood uses its PSF, noise and gain.
            honest: Whether the error bars include the structure that the model does not describe.
                A poor fit (``POOR_FIT``) then counts as good, and a gross misfit
                (``GROSS_MISFIT``) as caution if a galaxy is detected. Otherwise wrong noise
                (``NOISE_MEASURED``, ``NOISE_FROM_DATA_HELD``) and light of others
                (``NEIGHBOUR_HELD``) count as caution, and light that the model misses
                (``MISFIT_HELD``) as bad.

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
        """Returns the flags that are set with their levels, worst first.

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
            if not int(value) & int(cls.UNDETECTED):  # its structure is included in the widths
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
        """Returns the flags of a row of results with their levels, worst first.

        Args:
            row: Row with ``flags``, and with ``method`` and ``widths`` if it was measured.
        """
        refined = row.get("method") not in (None, "", "amortized")
        honest = row.get("widths") == "honest"
        return cls.levels(int(row.get("flags") or 0), refined=refined, honest=honest)

    @classmethod
    def without(cls, value: int, flags: int) -> int:
        """Returns a sum of flags without some of them.

        The complement is computed with plain integers: that of an ``IntFlag`` with attributes is
        wrong in Python 3.11.2 (and right in 3.11.7).

        Example:
            >>> Flag.without(Flag.NO_PSF | Flag.PADDED, Flag.PADDED) == Flag.NO_PSF
            True
        """
        return int(value) & ~int(flags)

    @classmethod
    def describe(cls, value: int) -> str:
        """Returns one line per flag that is set: its name and meaning."""
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
"""Flags of a file's own statements, reported next to the values taken from it."""
