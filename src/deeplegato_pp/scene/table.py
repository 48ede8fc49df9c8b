"""Ordered tables of the parameters of components and scenes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.parameters import PARAMETERS, Parameter


@dataclass(frozen=True)
class Table:
    """Parameters in the order of the columns of their values.

    Args:
        parameters: The parameters, with unique names.

    Raises:
        RangeError: If two parameters have the same name.

    Example:
        >>> both = SERSIC.prefixed("bulge") + POINT.prefixed("point")
        >>> len(both), both.names[-1], both.index("bulge_sersic_index")
        (10, 'point_center_y', 2)
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RangeError(
                f"every parameter of a table has its own name, got {', '.join(twice)} twice. "
                "Give the components different names."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(p.name for p in self.parameters)

    @property
    def units(self) -> tuple[str, ...]:
        """Units, in order; "" for dimensionless parameters."""
        return tuple(p.unit for p in self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __add__(self, other: Table) -> Table:
        return Table(self.parameters + other.parameters)

    def index(self, name: str) -> int:
        """Returns the column of a parameter.

        Raises:
            RangeError: If the name is unknown.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise RangeError(
                f"unknown parameter {name!r}, expected one of {', '.join(self.names)}."
            ) from None

    def prefixed(self, component: str) -> Table:
        """Returns the table with ``component_`` prepended to every name."""
        return Table(tuple(replace(p, name=f"{component}_{p.name}") for p in self.parameters))

    def only(self, names: Iterable[str]) -> Table:
        """Returns the table of the given parameters, in this table's order."""
        wanted = {self.parameters[self.index(name)].name for name in names}
        return Table(tuple(p for p in self.parameters if p.name in wanted))


SERSIC = Table(PARAMETERS)
"""Parameters of a Sérsic profile."""

POINT = SERSIC.only(("magnitude", "center_x", "center_y"))
"""Parameters of a point source."""
