"""Neighbours to be fitted together with a galaxy: listed positions and first guesses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.errors import InputError, ShapeError
from deeplegato_pp.scene.parameters import NUM_PARAMETERS

MOST = 4
"""Maximum number of neighbours fitted with a galaxy, which makes a group of five."""

CLOSEST = 1.0
"""Minimum distance of two listed positions of different sources. [px of the image]"""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Galaxies that are fitted together with another one on its stamp.

    Args:
        values: First guesses of their seven parameters in the user's units, with centres relative
            to the centre of the galaxy's own image, with shape (K, 7).
        place: Listed position of the galaxy itself, relative to the centre of its image. [px]

    Raises:
        InputError: If there are more than four neighbours, a value is not finite, or two galaxies
            are listed at the same position.
        ShapeError: If the guesses do not have seven columns.

    Example:
        >>> guess = [[22.0, 1.0, 1.0, 0.8, 30.0, 6.0, -2.0]]
        >>> len(Neighbours(guess))
        1
    """

    values: Float[Array, "k 7"]
    place: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != NUM_PARAMETERS or not len(values):
            raise ShapeError(
                f"neighbours have seven parameters each, (K, 7), got an array of shape "
                f"{values.shape}."
            )
        object.__setattr__(self, "values", values)
        if len(values) > MOST:
            raise InputError(
                f"at most {MOST} neighbours are fitted with a galaxy, got {len(values)}. Give "
                "those that overlap with it most."
            )
        if not np.isfinite(values).all() or not np.isfinite(self.place).all():
            raise InputError(
                f"neighbours have finite parameters, got {values.tolist()} beside "
                f"{list(self.place)}."
            )
        places = np.concatenate([[self.place], values[:, 5:]])
        apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
        first, second = np.unravel_index((apart + 1e9 * np.eye(len(places))).argmin(), apart.shape)
        if apart[first, second] < CLOSEST:
            raise InputError(
                f"two galaxies of a group are listed {apart[first, second]:.2f} px apart, expected "
                f"at least {CLOSEST:g} px: they cannot be told apart. Leave one of them out."
            )

    def __len__(self) -> int:
        return len(self.values)
