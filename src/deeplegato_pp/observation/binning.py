"""How coarsely a galaxy is to be sampled so that it fits the stamp.

The rule. A galaxy whose posterior median R_e exceeds 16 px of the stamp is binned by the smallest
integer that brings it to 10 px or below, and measured again; since a galaxy cut by the stamp is
often found too small at first, this repeats up to four times. Binning shows the network no more of
an image that already lies within the stamp, and takes its pixels away, so it stops where the
shorter side of the image would be less than 32 binned pixels, the smallest visible side that
networks are trained on. What is still above 16 px then is flagged ``too_large``.
"""

from __future__ import annotations

import math

LARGEST_RADIUS = 16.0
"""Posterior median R_e above which a galaxy is binned. [px of the stamp]"""

GOAL_RADIUS = 10.0
"""What binning brings it to, or below. [px of the stamp]"""

SMALLEST_SIDE = 32
"""Visible side that binning leaves at least. [px of the stamp]"""

MAX_ROUNDS = 4
"""How often a galaxy is binned anew."""


def next_bin(radius: float, current: int, shape: tuple[int, int]) -> int:
    """Returns the binning at which to measure a galaxy again, or the current one if it will do.

    Args:
        radius: Posterior median R_e. [px of the stamp]
        current: Pixels of the image per pixel of the stamp.
        shape: Rows and columns of the user's image.

    Example:
        >>> next_bin(30.0, 1, (500, 500)), next_bin(12.0, 1, (500, 500))
        (3, 1)
        >>> next_bin(30.0, 1, (50, 70))  # too few pixels to bin
        1
    """
    if radius <= LARGEST_RADIUS:
        return current
    wanted = math.ceil(radius * current / GOAL_RADIUS)
    return max(current, min(wanted, min(shape) // SMALLEST_SIDE))
