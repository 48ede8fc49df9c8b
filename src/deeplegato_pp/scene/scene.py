"""Scenes: sums of several components, with parameters free, fixed or tied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.scene.blocks import Block
from deeplegato_pp.scene.components import Component, PointSource
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.table import Table


@dataclass(frozen=True)
class _Placed:
    """A block of one component, with its columns in the scene."""

    block: Block
    columns: tuple[int, ...]
    names: tuple[str, ...]


class Scene:
    """A sum of components, with coordinates u whose prior is N(0, I).

    Parameters are named ``component_parameter`` (``bulge_magnitude``); those of a single component
    keep their own names. A fixed parameter keeps its value, a tied parameter equals another one,
    and all others are free with the priors of their components. Axis ratio and position angle share
    two coordinates: they are fixed or tied together.

    Args:
        components: Components by name.
        fixed: Values by parameter, at the reference instrument.
        ties: Maps each tied parameter to the one that it follows; both must have the same prior.

    Raises:
        RangeError: If a name is unknown, a value lies outside its prior, a parameter is tied to one
            that is not free or has another prior, only one of a pair is fixed, nothing is free, or
            two point sources share one position.

    Example:
        >>> from deeplegato_pp.scene.components import PointSource, Sersic
        >>> from deeplegato_pp.scene.prior import PriorBox
        >>> box = PriorBox()
        >>> centre = {f"point_{c}": f"host_{c}" for c in ("center_x", "center_y")}
        >>> scene = Scene({"host": Sersic(box), "point": PointSource(box)}, ties=centre)
        >>> scene.dim, scene.free.names[-1]
        (8, 'point_magnitude')
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        *,
        fixed: Mapping[str, float] | None = None,
        ties: Mapping[str, str] | None = None,
    ) -> None:
        if not components:
            raise RangeError("a scene has at least one component, got none.")
        self.components = dict(components)
        self.fixed, self.ties = dict(fixed or {}), dict(ties or {})
        tables = [
            c.table.prefixed(name) if len(self.components) > 1 else c.table
            for name, c in self.components.items()
        ]
        self.table = sum(tables[1:], tables[0])
        self._placed = tuple(self._place(tables))
        self._check_names()
        self._template = torch.zeros(len(self.table), dtype=torch.float64)
        self._sources: dict[int, int] = {}
        free = [column for placed in self._placed for column in self._free_columns(placed)]
        if not free:
            raise RangeError("every parameter is fixed or tied: nothing is left to infer.")
        if not set(self._sources.values()) <= set(free):
            loose = next(t for t, s in self.ties.items() if self.table.index(s) not in free)
            raise RangeError(
                f"{loose} is tied to {self.ties[loose]}, which is not free itself. Tie it to a "
                "free parameter, or fix it."
            )
        self._check_points()
        self._free = free
        self.dim = len(free)

    def _place(self, tables: list[Table]) -> list[_Placed]:
        placed, start = [], 0
        for component, table in zip(self.components.values(), tables, strict=True):
            for block, columns in component.blocks:
                names = tuple(table.names[c] for c in columns)
                placed.append(_Placed(block, tuple(start + c for c in columns), names))
            start += len(table)
        return placed

    def _check_names(self) -> None:
        for name in (*self.fixed, *self.ties, *self.ties.values()):
            self.table.index(name)
        both = sorted(set(self.fixed) & set(self.ties))
        if both:
            raise RangeError(f"{both[0]} is both fixed and tied. Choose one.")

    def _check_points(self) -> None:
        """Raises `RangeError` for point sources at one position, which are degenerate."""
        places: dict[tuple[object, ...], str] = {}
        for name, component in self.components.items():
            if not isinstance(component, PointSource) or len(self.components) == 1:
                continue
            centre = [f"{name}_{axis}" for axis in ("center_x", "center_y")]
            place = tuple(self.fixed.get(c, self.ties.get(c, c)) for c in centre)
            if place in places:
                raise RangeError(
                    f"{places[place]} and {name} are point sources at one place: their light "
                    "cannot be told apart. Leave one of them out, or free a centre."
                )
            places[place] = name

    def _free_columns(self, placed: _Placed) -> tuple[int, ...]:
        """Returns the free columns of a block (all or none), and stores fixed and tied ones."""
        fixed = [name in self.fixed for name in placed.names]
        tied = [name in self.ties for name in placed.names]
        if not any(fixed) and not any(tied):
            return placed.columns
        if all(fixed):
            values = [float(self.fixed[name]) for name in placed.names]
            self._template[list(placed.columns)] = self._coordinates(placed, values)
        elif all(tied):
            self._tie(placed)
        else:
            raise RangeError(
                f"{' and '.join(placed.names)} share their coordinates: fix or tie both or neither."
            )
        return ()

    def _coordinates(self, placed: _Placed, values: list[float]) -> Tensor:
        p = torch.tensor(values, dtype=torch.float64)
        w = placed.block.to_normal(p)
        back = placed.block.to_physical(w)
        # Values outside the prior come back as the nearest edge.
        for name, value, found in zip(placed.names, values, back.tolist(), strict=True):
            parameter = self.table.parameters[self.table.index(name)]
            if parameter.period is None and not math.isclose(
                value, found, rel_tol=1e-6, abs_tol=1e-9
            ):
                raise RangeError(
                    f"{name} is fixed to {f'{value:g} {parameter.unit}'.strip()}, outside its "
                    "prior. Fix it to another value, or widen the prior box."
                )
        return w

    def _tie(self, placed: _Placed) -> None:
        targets = [self.table.index(self.ties[name]) for name in placed.names]
        other = next(p for p in self._placed if targets[0] in p.columns)
        if list(other.columns) != targets or other.block != placed.block:
            raise RangeError(
                f"{' and '.join(placed.names)} cannot follow "
                f"{' and '.join(self.ties[name] for name in placed.names)}: their priors differ. "
                "Tie parameters of the same kind and box."
            )
        self._sources |= dict(zip(placed.columns, targets, strict=True))

    # --- coordinates --------------------------------------------------------------------------

    @property
    def free(self) -> Table:
        """The free parameters, in the order of the coordinates."""
        return Table(tuple(self.table.parameters[i] for i in self._free))

    def embed(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b p"]:
        """Returns the coordinates of all parameters, with fixed and tied ones inserted."""
        if u.shape[-1] != self.dim:
            raise ShapeError(f"coordinates have {self.dim} columns, got {tuple(u.shape)}.")
        w = self._template.to(u.device).expand(*u.shape[:-1], len(self.table)).clone()
        w[..., self._free] = u.double()
        for column, source in self._sources.items():
            w[..., column] = w[..., source]
        return w

    def to_physical(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b p"]:
        """Returns the values of all parameters at the reference instrument, with shape (*, P)."""
        w = self.embed(u)
        values = torch.empty_like(w)
        for placed in self._placed:
            columns = list(placed.columns)
            values[..., columns] = placed.block.to_physical(w[..., columns])
        return values

    def to_coordinates(self, values: Float[Tensor, "*b p"]) -> Float[Tensor, "*b f"]:
        """Returns the free coordinates of given values, with shape (*, F); ties are not checked.

        Values outside the prior map to its edge.
        """
        w = torch.empty_like(values, dtype=torch.float64)
        for placed in self._placed:
            columns = list(placed.columns)
            w[..., columns] = placed.block.to_normal(values[..., columns])
        return w[..., self._free]

    def log_prior(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns the normalised prior density in u, with shape (*,)."""
        return -0.5 * (u.double() ** 2).sum(-1) - 0.5 * self.dim * math.log(2.0 * math.pi)

    def log_jacobian(self, u: Float[Tensor, "*b f"]) -> Float[Tensor, "*b"]:
        """Returns ln |det du/dp| of the free parameters, with shape (*,)."""
        w, values = self.embed(u), self.to_physical(u)
        parts = []
        for placed in self._placed:
            if placed.columns[0] in self._free:
                columns = list(placed.columns)
                parts.append(placed.block.log_jacobian(w[..., columns], values[..., columns]))
        return torch.stack(parts).sum(0)

    # --- images -------------------------------------------------------------------------------

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns of every profile, in detector units, (C, 7, S)."""
        values, parts, start = self.to_physical(u), [], 0
        for component in self.components.values():
            stop = start + len(component.table)
            parts.append(component.columns(values[:, start:stop]))
            start = stop
        return torch.cat(parts)

    def images(
        self,
        u: Float[Tensor, "s f"],
        psf: Float[Tensor, "py px"],
        size: int,
        dtype: torch.dtype = torch.float64,
        **options: Any,
    ) -> Float[Tensor, "s n n"]:
        """Returns noiseless images, with shape (S, N, N), in background sigmas per pixel.

        All profiles are rendered in one batch.

        Args:
            u: Coordinates, with shape (S, F).
            psf: Effective PSF, odd-sided.
            size: Side of the stamp. [px]
            dtype: Dtype of the rendering.
            **options: Further arguments of `render_sersic`.
        """
        columns = self.profiles(u).to(dtype)
        number = len(columns)
        flux, radius, n, q, angle, x, y = columns.transpose(0, 1).flatten(1)
        images = render_sersic(flux, radius, n, q, angle, x, y, psf, size, **options)
        return images.unflatten(0, (number, -1)).sum(0)
