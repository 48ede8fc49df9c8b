"""Means and differences of angles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Float

from deeplegato_pp.arrays import Array

if TYPE_CHECKING:  # circular means of arrays do not need torch
    from torch import Tensor

ArrayLike = TypeVar("ArrayLike", Array, "Tensor")


def circular_mean(
    angles: Float[Array, "*b"],
    period: float,
    weights: Float[Array, "*b"] | None = None,
    axis: int = -1,
) -> Float[Array, "*c"]:
    """Returns the direction of the mean unit vector, in [0, period).

    Args:
        angles: Angles in the units of the period.
        period: Period of the angles.
        weights: Weights with sum 1 along the axis.
        axis: Axis along which to average.

    Example:
        >>> round(float(circular_mean(np.array([170.0, 20.0]), 180.0)), 6)
        5.0
    """
    phase = np.exp(2j * math.pi / period * np.asarray(angles))
    mean = phase.mean(axis=axis) if weights is None else (phase * weights).sum(axis=axis)
    direction = np.asarray(np.angle(mean) * (period / (2.0 * math.pi)) % period)
    return np.where(direction == period, 0.0, direction)  # -1e-20 % 180 rounds up to 180


def tensor_circular_mean(
    angles: Float[Tensor, "*b"], period: float | Float[Tensor, "*p"], dim: int
) -> Float[Tensor, "*c"]:
    """Returns the circular mean of a tensor, on its device; the period may vary."""
    phase = angles * (2.0 * math.pi / period)
    angle = phase.sin().mean(dim).atan2(phase.cos().mean(dim))
    return (angle * (period / (2.0 * math.pi))) % period


def angular_difference(difference: ArrayLike, period: float | ArrayLike) -> ArrayLike:
    """Returns differences of angles reduced to within half a period of zero.

    Example:
        >>> angular_difference(np.array([170.0, 20.0]), 180.0).tolist()
        [-10.0, 20.0]
    """
    return (difference + 0.5 * period) % period - 0.5 * period


def unwrap(angles: ArrayLike, center: float | ArrayLike, period: float | ArrayLike) -> ArrayLike:
    """Returns angles shifted by whole periods to within half a period of `center`.

    Example:
        >>> unwrap(np.array([175.0, 3.0]), 2.0, 180.0).tolist()
        [-5.0, 3.0]
    """
    return center + angular_difference(angles - center, period)
