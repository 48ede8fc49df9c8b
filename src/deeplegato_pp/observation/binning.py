"""Binning of galaxies that are too large for the stamp.

A galaxy whose posterior median R_e exceeds 16 px of the stamp is binned by the smallest integer
that reduces it to 10 px or less, and measured again. Since a galaxy truncated by the stamp is often
found too small at first, this is repeated up to four times. Binning an image that already fits in
the stamp only loses pixels, so binning stops where the shorter side of the image would have fewer
than 32 binned pixels, the smallest visible side in the networks' training. Galaxies that are still
above 16 px are flagged ``too_large``.
"""

from __future__ import annotations

import math

LARGEST_RADIUS = 16.0
"""Posterior median R_e above which a galaxy is binned. [px of the stamp]"""

GOAL_RADIUS = 10.0
"""Maximum median R_e after binning. [px of the stamp]"""

SMALLEST_SIDE = 32
"""Minimum visible side after binning. [px of the stamp]"""

MAX_ROUNDS = 4
"""Maximum number of times that a galaxy is binned."""


def next_bin(radius: float, current: int, shape: tuple[int, int]) -> int:
    """Returns the binning for the next measurement, or the current one if it is sufficient.

    Args:
        radius: Posterior median R_e. [px of the stamp]
        current: Present binning: image pixels per stamp pixel.
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
