r"""Composite components: a bulge and a disc, two free profiles, a host and a point source.

Their priors are stated for the whole: the total magnitude has the prior of a single profile, the
share of one part (bulge to total, point to total) is uniform between 0 and 1, the ratio of the two
radii is log-uniform between 0.05 and 1, shapes have the prior of a single profile, and both parts
have one centre. All are normalised, so that evidences may be compared. Since the inner profile is
the smaller one, exchanging the two parts is no second mode.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.scene.blocks import Block, Interval
from deeplegato_pp.scene.components import Component, PointSource, Sersic
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    PARAMETERS,
    POSITION_ANGLE,
    RADIUS,
    SERSIC_INDEX,
    Parameter,
)
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.table import SERSIC, Table

SMALLEST_RATIO = 0.05
"""Smallest radius of the inner profile over that of the outer one."""

_SMALLEST_SHARE = 1e-9
"""Share of the light that stands for none, so that a part's magnitude is finite."""


class Composite(Component):
    """A component made of several parts, each a component of its own."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Component]:
        """The parts by name."""

    @abstractmethod
    def expand(self, values: Float[Tensor, "s p"]) -> dict[str, Tensor]:
        """Returns the parameters of every part, (S, 7) of a profile and (S, 3) of a point."""

    def columns(self, values: Float[Tensor, "s p"]) -> Float[Tensor, "c 7 s"]:
        """Returns the columns of all parts, one after another."""
        expanded = self.expand(values)
        return torch.cat([part.columns(expanded[name]) for name, part in self.parts.items()])


class TwoSersics(Composite):
    """Two concentric Sérsic profiles, the inner one the smaller.

    Parameters: ``magnitude`` of the sum, ``<inner>_to_total``, ``<outer>_effective_radius``,
    ``radius_ratio``, index, axis ratio and position angle of each, and the centre.

    Args:
        box: Prior box at the reference instrument.
        inner: Name of the inner profile.
        outer: Name of the outer profile.
    """

    def __init__(self, box: PriorBox, inner: str = "inner", outer: str = "outer") -> None:
        self.inner, self.outer = inner, outer
        self._parts = {inner: Sersic(box), outer: Sersic(box)}
        magnitude, radius, index, shape, x, y = (block for block, _ in box.blocks)
        sersic = SERSIC.parameters
        ratio = Parameter(
            "radius_ratio",
            r"$R_1/R_2$",
            "",
            SMALLEST_RATIO,
            1.0,
            "log",
            None,
            f"half-light radius of the {inner} profile over that of the {outer} one",
            "a smaller inner profile is a point source, a larger one is the outer profile",
        )
        columns: list[tuple[Block, tuple[Parameter, ...]]] = [
            (magnitude, (sersic[MAGNITUDE],)),
            (Interval(0.0, 1.0), (_share(inner),)),
            (radius, (_of(outer, RADIUS),)),
            (Interval(SMALLEST_RATIO, 1.0, log=True), (ratio,)),
        ]
        for part in (inner, outer):
            columns.append((index, (_of(part, SERSIC_INDEX),)))
            columns.append((shape, (_of(part, AXIS_RATIO), _of(part, POSITION_ANGLE))))
        columns += [(x, (sersic[CENTER_X],)), (y, (sersic[CENTER_Y],))]
        self.table, self.blocks = _arranged(columns)

    @property
    def parts(self) -> Mapping[str, Component]:
        """The inner and the outer profile."""
        return self._parts

    def expand(self, values: Float[Tensor, "s 12"]) -> dict[str, Tensor]:
        """Returns the seven parameters of both profiles, each with shape (S, 7)."""
        magnitude, share, radius, ratio, n1, q1, angle1, n2, q2, angle2, x, y = values.unbind(-1)
        inner, outer = _split(magnitude, share)
        return {
            self.inner: torch.stack([inner, ratio * radius, n1, q1, angle1, x, y], -1),
            self.outer: torch.stack([outer, radius, n2, q2, angle2, x, y], -1),
        }


class SersicPoint(Composite):
    """A Sérsic profile (the host) with a point source at its centre.

    Parameters: ``magnitude`` of the sum, ``point_to_total``, and the host's radius, index, axis
    ratio and position angle, and the centre.

    Args:
        box: Prior box at the reference instrument.
    """

    def __init__(self, box: PriorBox) -> None:
        self._parts = {"host": Sersic(box), "point": PointSource(box)}
        columns: list[tuple[Block, tuple[Parameter, ...]]] = []
        for block, indices in box.blocks:
            inside = [_of("host", i) if i in _HOST else PARAMETERS[i] for i in indices]
            columns.append((block, tuple(inside)))
            if indices == (MAGNITUDE,):
                columns.append((Interval(0.0, 1.0), (_share("point"),)))
        self.table, self.blocks = _arranged(columns)

    @property
    def parts(self) -> Mapping[str, Component]:
        """The host and the point source."""
        return self._parts

    def expand(self, values: Float[Tensor, "s 8"]) -> dict[str, Tensor]:
        """Returns the host's parameters, with shape (S, 7), and the point's, (S, 3)."""
        magnitude, share, radius, n, q, angle, x, y = values.unbind(-1)
        point, host = _split(magnitude, share)
        return {
            "host": torch.stack([host, radius, n, q, angle, x, y], -1),
            "point": torch.stack([point, x, y], -1),
        }


_HOST = (RADIUS, SERSIC_INDEX, AXIS_RATIO, POSITION_ANGLE)


def _of(part: str, index: int) -> Parameter:
    """A parameter of the single profile, as one of a part's."""
    return replace(PARAMETERS[index], name=f"{part}_{PARAMETERS[index].name}")


def _share(part: str) -> Parameter:
    return Parameter(
        f"{part}_to_total",
        rf"$f_\mathrm{{{part}}}$",
        "",
        0.0,
        1.0,
        "linear",
        None,
        f"light of the {part} over that of the sum",
        "a share of the whole",
    )


def _arranged(
    columns: list[tuple[Block, tuple[Parameter, ...]]],
) -> tuple[Table, tuple[tuple[Block, tuple[int, ...]], ...]]:
    """The table of blocks' parameters one after another, and where each block stands in it."""
    blocks, start = [], 0
    for block, parameters in columns:
        blocks.append((block, tuple(range(start, start + len(parameters)))))
        start += len(parameters)
    return Table(tuple(p for _, ps in columns for p in ps)), tuple(blocks)


def _split(magnitude: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The magnitudes of a part with a share of the light, and of the rest."""
    return (
        magnitude - 2.5 * share.clamp_min(_SMALLEST_SHARE).log10(),
        magnitude - 2.5 * (1.0 - share).clamp_min(_SMALLEST_SHARE).log10(),
    )
