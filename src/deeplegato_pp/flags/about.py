"""Description of one flag."""

from dataclasses import dataclass

LEVELS = ("bad", "caution", "good")
"""Qualities that a flag can give to a row, worst first."""


@dataclass(frozen=True)
class About:
    """Description of one flag.

    Attributes:
        meaning: What the flag states, in one line.
        decision: Criterion by which it is set.
        level: Quality of a row with this flag, one of :data:`LEVELS`; ``good`` for information
            that gives no reason to doubt the numbers.
        remedy: What the user can do, or empty.
    """

    meaning: str
    decision: str
    level: str = "good"
    remedy: str = ""
