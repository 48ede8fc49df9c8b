r"""Bijections between physical parameters and standard-normal coordinates, block by block.

A block is one parameter, or the axis ratio and position angle together, with its prior: a uniform
or log-uniform interval, or the shape plane. In the block's coordinates w the prior is exactly
:math:`N(0, I)`. All arithmetic is in float64, for any input dtype.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

W_MAX = 8.0
"""Largest |w| of the bijections: at Phi(-8) = 6e-16, float64 still resolves the tail."""

_TINY = math.exp(-0.5 * 2 * W_MAX**2)


class Block(ABC):
    """One or two parameters with shared coordinates, and their prior.

    Attributes:
        dim: Number of parameters, and of coordinates.
    """

    dim: int

    @abstractmethod
    def to_normal(self, p: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Returns the coordinates of physical values inside the bounds, with shape (*, dim)."""

    @abstractmethod
    def to_physical(self, w: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Returns the physical values at coordinates, with shape (*, dim); differentiable."""

    @abstractmethod
    def log_jacobian(self, w: Float[Tensor, "*b d"], p: Float[Tensor, "*b d"]) -> Tensor:
        r"""Returns :math:`\ln |\det \partial w / \partial p|`, with shape (*,).

        Args:
            w: Coordinates, with shape (*, dim).
            p: The physical values there, with shape (*, dim).
        """


@dataclass(frozen=True)
class Interval(Block):
    r"""One parameter with a prior that is uniform in its value or in its logarithm.

    :math:`w = \Phi^{-1}((x - x_0)/(x_1 - x_0))` with x the value or its logarithm. Distances are
    measured from the nearer bound, so that neither tail loses precision.

    Args:
        lower: Lower bound.
        upper: Upper bound.
        log: Whether the prior is uniform in the logarithm, which requires positive bounds.

    Example:
        >>> Interval(0.1, 10.0, log=True).to_physical(torch.zeros(1, 1))
        tensor([[1.]], dtype=torch.float64)
    """

    lower: float
    upper: float
    log: bool = False
    dim = 1

    @property
    def _edges(self) -> tuple[float, float]:
        if self.log:
            return math.log(self.lower), math.log(self.upper)
        return self.lower, self.upper

    def to_normal(self, p: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b 1"]:
        """Returns the coordinate, |w| <= 8."""
        lower, upper = self._edges
        p = p.double()
        x = p.log() if self.log else p
        return _interval_to_normal((x - lower) / (upper - lower), (upper - x) / (upper - lower))

    def to_physical(self, w: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b 1"]:
        """Returns the value; it lies inside the bounds for every finite coordinate."""
        lower, upper = self._edges
        w = w.double()
        below, above = _normal_cdf(w), _normal_cdf(-w)
        x = torch.where(w < 0, lower + below * (upper - lower), upper - above * (upper - lower))
        return (x.exp() if self.log else x).clamp(self.lower, self.upper)

    def log_jacobian(self, w: Float[Tensor, "*b 1"], p: Float[Tensor, "*b 1"]) -> Tensor:
        """Returns ln(dw/dp), with shape (*,)."""
        lower, upper = self._edges
        w = w.double()[..., 0]
        total = -math.log(upper - lower) + 0.5 * w**2 + 0.5 * math.log(2.0 * math.pi)
        return total - p[..., 0].log() if self.log else total


@dataclass(frozen=True)
class ShapePlane(Block):
    r"""Axis ratio and position angle with uniform priors, on a plane without a seam at 180 degrees.

    Uses the Box-Muller transform: with :math:`e = (1-q)/(1-q_\mathrm{min})` and
    :math:`\rho = \sqrt{-2 \ln(1-e)}`, the coordinates are
    :math:`\rho (\cos 2\theta, \sin 2\theta)`.

    Args:
        smallest: Lower bound of the axis ratio; the upper one is 1.

    References:
        | A note on the generation of random normal deviates (Box & Muller, 1958)
        | https://doi.org/10.1214/aoms/1177706645
    """

    smallest: float
    dim = 2

    def to_normal(self, p: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Returns the coordinates of axis ratios and position angles [deg, any turn]."""
        q, angle = p.double().unbind(-1)
        survival = (q - self.smallest) / (1.0 - self.smallest)  # 1 - e
        rho = (-2.0 * survival.clamp_min(_TINY).log()).clamp_min(0.0).sqrt()
        phase = torch.deg2rad(2.0 * angle)
        return torch.stack([rho * phase.cos(), rho * phase.sin()], -1)

    def to_physical(self, w: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Returns axis ratios and position angles in [0, 180) degrees.

        Differentiable, except for the position angle at q = 1, where it is undefined.
        """
        wx, wy = w.double().unbind(-1)
        q = self.smallest + (1.0 - self.smallest) * (-0.5 * (wx**2 + wy**2)).exp()
        # Older releases of torch have no finite derivative of atan2 at the origin.
        wx = torch.where((wx == 0.0) & (wy == 0.0), torch.ones_like(wx), wx)
        angle = torch.rad2deg(0.5 * torch.atan2(wy, wx))
        angle = torch.remainder(angle, 180.0)  # gives 180 for angles just below 0
        return torch.stack([q, torch.where(angle < 180.0, angle, angle - 180.0)], -1)

    def log_jacobian(self, w: Float[Tensor, "*b 2"], p: Float[Tensor, "*b 2"]) -> Tensor:
        """Returns ln |det dw/dp|, with shape (*,)."""
        # N(0, I) on the plane is uniform in (q, angle), with density 1/((1 - q_min) 180) per deg.
        rho2 = (w.double() ** 2).sum(-1)
        return -math.log((1.0 - self.smallest) * 180.0) + 0.5 * rho2 + math.log(2.0 * math.pi)


def _normal_cdf(w: Tensor) -> Tensor:
    """Returns Phi(w), accurate in the lower tail, unlike `torch.special.ndtr`."""
    return 0.5 * torch.special.erfc(-w / math.sqrt(2.0))


def _interval_to_normal(below: Tensor, above: Tensor) -> Tensor:
    """Returns Phi^-1 of a fraction, given its distances from both ends of [0, 1]."""
    edge = 0.5 * math.erfc(W_MAX / math.sqrt(2.0))
    lower_half = torch.special.ndtri(below.clamp(edge, 0.5))
    upper_half = -torch.special.ndtri(above.clamp(edge, 0.5))
    return torch.where(below < above, lower_half, upper_half)
