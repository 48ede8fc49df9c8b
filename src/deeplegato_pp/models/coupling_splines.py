"""Fast coupling splines for many points of few galaxies, as in sampling from posteriors.

zuko's transforms evaluate each coupling's network twice for the inverse with density, have short
rows of bins, and process large arrays repeatedly. Here each network is evaluated once, its part
that depends only on the galaxy is computed once per galaxy, bins precede points in memory, and
points are processed in blocks that fit into the cache of a core. This is about five times as fast,
with results equal to zuko's up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

BOUND = 5.0
"""Half-width of the splines' domain, outside of which they are the identity (as in zuko)."""

LOG_SLOPE = math.log(1e-3)
"""Logarithm of the smallest slope (as in zuko)."""

BLOCK = 2048
"""Number of points processed together on a CPU."""


def push(
    couplings: Any,
    embedding: Float[Tensor, "b c"],
    points: Float[Tensor, "b s d"],
    *,
    inverse: bool,
) -> tuple[Float[Tensor, "b s d"], Float[Tensor, "b s"]]:
    """Transforms points by a flow of coupling splines.

    Args:
        couplings: Layers of the flow in the order from data to noise: zuko's
            ``GeneralCouplingTransform`` with ``MonotonicRQSTransform``.
        embedding: Context of the flow, per galaxy.
        points: Points of each galaxy: data, or noise if `inverse`.
        inverse: Whether to transform from noise to data.

    Returns:
        Transformed points, with shape (B, S, D), and the logarithm of the absolute determinant of
        the Jacobian, with shape (B, S).

    References:
        | Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    """
    layers = [_Coupling.of(c, embedding) for c in couplings]
    if inverse:
        layers.reverse()
    galaxies, number = points.shape[:2]
    # (D, B, S): the points of each coordinate are contiguous
    columns = points.permute(2, 0, 1)
    whole = points.device.type != "cpu" or galaxies * number <= BLOCK
    together = galaxies if whole else max(1, BLOCK // number)
    long = galaxies * number if whole else BLOCK
    ends, logs = [], []
    for i in range(0, galaxies, together):
        rows = slice(i, i + together)
        parts = [
            _through(layers, rows, part, inverse) for part in columns[:, rows].split(long, dim=2)
        ]
        ends.append(torch.cat([end for end, _ in parts], 2))
        logs.append(torch.cat([log for _, log in parts], 1))
    return torch.cat(ends, 1).permute(1, 2, 0), torch.cat(logs, 0)


@dataclass(frozen=True)
class _Coupling:
    """One layer: unchanged coordinates, transformed coordinates, and the network.

    Attributes:
        kept: Unchanged coordinates, on which the transform depends.
        moved: Transformed coordinates.
        bins: Number of bins of each spline.
        weight: Weight of the network's first layer for the unchanged coordinates.
        bias: Bias of the first layer plus the galaxies' contributions, with shape (H, B).
        layers: Remaining layers.
    """

    kept: Tensor
    moved: Tensor
    bins: int
    weight: Float[Tensor, "h k"]
    bias: Float[Tensor, "h b"]
    layers: list[Any]

    @classmethod
    def of(cls, coupling: Any, embedding: Tensor) -> _Coupling:
        kept, moved = coupling.mask.nonzero()[:, 0], (~coupling.mask).nonzero()[:, 0]
        first, *others = [layer for layer in coupling.hyper if hasattr(layer, "weight")]
        weight, given = first.weight.split([len(kept), embedding.shape[1]], dim=1)
        bias = torch.addmm(first.bias[:, None], given, embedding.T)
        return cls(kept, moved, coupling.shapes[0][0], weight, bias, others)

    def parameters(self, kept: Tensor, rows: slice) -> Float[Tensor, "m p r"]:
        """Returns the splines' raw parameters, with shape (moved, 3 K - 1, points)."""
        hidden = relu(torch.tensordot(self.weight, kept, 1) + self.bias[:, rows, None]).flatten(1)
        for layer in self.layers[:-1]:
            hidden = relu(torch.addmm(layer.bias[:, None], layer.weight, hidden))
        last = self.layers[-1]
        raw = torch.addmm(last.bias[:, None], last.weight, hidden)
        return raw.unflatten(0, (len(self.moved), 3 * self.bins - 1))


def _through(
    layers: list[_Coupling], rows: slice, columns: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Transforms one block, with shape (D, B, S), by all layers."""
    shape = columns.shape[1:]
    total = columns.new_zeros(shape)
    for layer in layers:
        raw = layer.parameters(columns[layer.kept], rows)
        moved, log = rational_quadratic(
            raw, columns[layer.moved].flatten(1), layer.bins, inverse=inverse
        )
        columns = columns.index_copy(0, layer.moved, moved.unflatten(1, shape))
        total = total + log.sum(0).view(shape)
    return columns, total


def rational_quadratic(
    raw: Float[Tensor, "m p r"], values: Float[Tensor, "m r"], bins: int, *, inverse: bool
) -> tuple[Float[Tensor, "m r"], Float[Tensor, "m r"]]:
    """Evaluates monotonic rational-quadratic splines.

    Args:
        raw: Unconstrained widths (K), heights (K) and inner slopes (K - 1) for each value.
        values: Values at which they are evaluated.
        bins: Number K of bins.
        inverse: Whether to evaluate the inverse functions.

    Returns:
        Transformed values and logarithms of the derivatives, both with the shape of `values`.
    """
    sides = [_soft(raw[:, i * bins : (i + 1) * bins], 2.0).exp() for i in (0, 1)]
    knots = [side.cumsum(1) for side in sides]
    own = 1 if inverse else 0
    # Position of the value among its axis's knots, in units of their unnormalised sums.
    place = (values / (2.0 * BOUND) + 0.5) * knots[own][:, -1]
    inside = (place > 0) & (place <= knots[own][:, -1])
    k = (knots[own][:, :-1] < place[:, None]).sum(1, keepdim=True)
    unit_x, unit_y = (2.0 * BOUND / knot[:, -1] for knot in knots)
    side_x, side_y = (side.gather(1, k)[:, 0] for side in sides)
    right_x, right_y = (knot.gather(1, k)[:, 0] for knot in knots)
    width, height = side_x * unit_x, side_y * unit_y
    x0, y0 = (right_x - side_x) * unit_x - BOUND, (right_y - side_y) * unit_y - BOUND
    # The slope is 1 at both ends of the domain, where the identity continues.
    inner = raw[:, 2 * bins :]
    before = _soft(inner.gather(1, (k - 1).clamp(min=0))[:, 0], 1.0)
    after = _soft(inner.gather(1, k.clamp(max=bins - 2))[:, 0], 1.0)
    d0 = torch.where(k[:, 0] > 0, before, 0.0).exp()
    d1 = torch.where(k[:, 0] < bins - 1, after, 0.0).exp()
    mean = height / width
    bend = d0 + d1 - 2.0 * mean
    if inverse:
        rise = torch.where(inside, values - y0, 0.0)
        a = height * (mean - d0) + rise * bend
        b = height * d0 - rise * bend
        c = -mean * rise
        z = 2.0 * c / (-b - (b**2 - 4.0 * a * c).clamp(min=0.0).sqrt())
    else:
        z = torch.where(inside, values - x0, 0.0) / width
    rest = z * (1.0 - z)
    below = mean + bend * rest
    image = x0 + z * width if inverse else y0 + height * (mean * z**2 + d0 * rest) / below
    slope = mean**2 * (2.0 * mean * rest + d0 * (1.0 - z) ** 2 + d1 * z**2) / below**2
    log = torch.where(inside, slope, 1.0).log()
    return torch.where(inside, image, values), -log if inverse else log


def _soft(raw: Tensor, factor: float) -> Tensor:
    """Limits raw parameters to bounds set by the smallest slope."""
    return raw / (1.0 + (raw * (factor / LOG_SLOPE)).abs())
