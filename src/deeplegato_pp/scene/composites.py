r"""Composite components: a bulge and a disc, two free profiles, a host and a point source.

Priors are defined for the sum: the total magnitude has the prior of a single profile, the flux
fraction of one part (bulge-to-total, point-to-total) is uniform between 0 and 1, the ratio of the
two radii is log-uniform between 0.05 and 1, shapes have the prior of a single profile, and both
parts share one centre. All priors are normalised, so that evidences can be compared. The inner
profile is the smaller one, so exchanging the two parts does not create a second mode.
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
"""Smallest ratio of the inner profile's radius to the outer profile's."""

_SMALLEST_SHARE = 1e-9
"""Flux fraction used in place of zero, so that the magnitude of a part is finite."""


class Composite(Component):
    """A component that consists of several parts, each a component of its own."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Component]:
        """Returns the parts by name."""

    @abstractmethod
    def expand(self, values: Float[Tensor, "s p"]) -> dict[str, Tensor]:
        """Returns the parameters of every part: (S, 7) for a profile, (S, 3) for a point."""

    def columns(self, values: Float[Tensor, "s p"]) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns of all parts, concatenated."""
        expanded = self.expand(values)
        return torch.cat([part.columns(expanded[name]) for name, part in self.parts.items()])


class TwoSersics(Composite):
    """Two concentric Sérsic profiles, the inner one being the smaller.

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
            f"half-light radius of the {inner} profile divided by that of the {outer} profile",
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
        """Returns the inner and the outer profile."""
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
    """A Sérsic profile (the host) with a central point source.

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
        """Returns the host and the point source."""
        return self._parts

    def expand(self, values: Float[Tensor, "s 8"]) -> dict[str, Tensor]:
        """Returns the parameters of the host, (S, 7), and of the point source, (S, 3)."""
        magnitude, share, radius, n, q, angle, x, y = values.unbind(-1)
        point, host = _split(magnitude, share)
        return {
            "host": torch.stack([host, radius, n, q, angle, x, y], -1),
            "point": torch.stack([point, x, y], -1),
        }


_HOST = (RADIUS, SERSIC_INDEX, AXIS_RATIO, POSITION_ANGLE)


def _of(part: str, index: int) -> Parameter:
    """Returns a parameter of the single profile, renamed for a part."""
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
        f"flux of the {part} divided by the total flux",
        "a fraction of the total flux",
    )


def _arranged(
    columns: list[tuple[Block, tuple[Parameter, ...]]],
) -> tuple[Table, tuple[tuple[Block, tuple[int, ...]], ...]]:
    """Returns the concatenated parameter table of blocks, and the columns of each block."""
    blocks, start = [], 0
    for block, parameters in columns:
        blocks.append((block, tuple(range(start, start + len(parameters)))))
        start += len(parameters)
    return Table(tuple(p for _, ps in columns for p in ps)), tuple(blocks)


def _split(magnitude: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the magnitudes of a part with a given flux fraction, and of the rest."""
    return (
        magnitude - 2.5 * share.clamp_min(_SMALLEST_SHARE).log10(),
        magnitude - 2.5 * (1.0 - share).clamp_min(_SMALLEST_SHARE).log10(),
    )
