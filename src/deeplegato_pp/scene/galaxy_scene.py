"""Hypotheses for one galaxy: one profile, bulge and disc, two profiles, host and point source."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.components import Component, Coordinates, Sersic
from deeplegato_pp.scene.composites import Composite, SersicPoint, TwoSersics
from deeplegato_pp.scene.parameters import RADIUS, SERSIC_INDEX
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.scene import Scene

SCENES = ("sersic", "sersic+point", "bulge+disc", "sersic+sersic")
"""Names of the hypotheses."""

BULGE_INDEX, DISC_INDEX = 4.0, 1.0
"""Sérsic indices of the classical bulge (de Vaucouleurs) and disc (exponential)."""

_TWO_STARTS = (
    # flux fraction, outer radius / single radius, ratio of radii, inner index, outer index
    (0.3, 1.2, 0.25, 4.0, 1.0),
    (0.6, 1.8, 0.3, 2.0, 1.0),
    (0.1, 1.1, 0.12, 1.0, 1.0),
    (0.5, 2.5, 0.2, 4.0, 0.5),
)

_POINT_STARTS = (
    # flux fraction, radius / single radius, index / single index
    (0.05, 1.1, 0.9),
    (0.3, 1.5, 0.5),
    (0.8, 3.0, 0.3),
)


class GalaxyScene(Coordinates):
    """One galaxy under a named hypothesis.

    Args:
        name: One of :data:`SCENES`; ``bulge+disc`` has the indices 4 and 1.
        box: Prior box at the reference instrument.

    Raises:
        ConfigError: If the name is unknown.

    Example:
        >>> [GalaxyScene(name, PriorBox()).dim for name in SCENES]
        [7, 8, 10, 12]
    """

    def __init__(self, name: str, box: PriorBox) -> None:
        fixed: dict[str, float] = {}
        component: Component
        if name == "sersic":
            component = Sersic(box)
        elif name == "sersic+point":
            component = SersicPoint(box)
        elif name == "bulge+disc":
            component = TwoSersics(box, "bulge", "disc")
            fixed = {"bulge_sersic_index": BULGE_INDEX, "disc_sersic_index": DISC_INDEX}
        elif name == "sersic+sersic":
            component = TwoSersics(box)
        else:
            raise ConfigError(f"unknown scene {name!r}, expected one of {', '.join(SCENES)}.")
        self.name, self.box, self.component = name, box, component
        self.scene = Scene({"galaxy": component}, fixed=fixed)
        self.dim = self.scene.dim

    def in_box(self, box: PriorBox) -> GalaxyScene:
        """Returns the same hypothesis with another prior box."""
        return GalaxyScene(self.name, box)

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns of all parts, in detector units, with shape (C, 7, S)."""
        return self.scene.profiles(u)

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the first of :meth:`starts`."""
        return self.starts(w)[..., 0, :]

    def starts(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b k f"]:
        """Returns starting points of the search, given the coordinates of a single profile.

        The light is split in several ways, so that the search can find more than one mode.

        Args:
            w: Coordinates of a single profile, with shape (*, 7).
        """
        single = self.box.to_physical(w)
        if isinstance(self.component, TwoSersics):
            values = [self._two(single, *start) for start in _TWO_STARTS]
        elif isinstance(self.component, SersicPoint):
            values = [self._point(single, *start) for start in _POINT_STARTS]
        else:
            return w[..., None, :]
        return self.scene.to_coordinates(torch.stack(values, -2))

    def _two(
        self, single: Tensor, share: float, radius: float, ratio: float, n1: float, n2: float
    ) -> Tensor:
        m, r, _, q, angle, x, y = single.unbind(-1)
        one = torch.ones_like(m)
        outer = self._inside(RADIUS, radius * r)
        inner_q = 0.5 * (q + 1.0)
        size = (m, share * one, outer, ratio * one)
        return torch.stack([*size, n1 * one, inner_q, angle, n2 * one, q, angle, x, y], -1)

    def _point(self, single: Tensor, share: float, radius: float, index: float) -> Tensor:
        m, r, n, q, angle, x, y = single.unbind(-1)
        host = [self._inside(RADIUS, radius * r), self._inside(SERSIC_INDEX, index * n)]
        return torch.stack([m, share * torch.ones_like(m), *host, q, angle, x, y], -1)

    def _inside(self, parameter: int, values: Tensor) -> Tensor:
        bounds = (self.box.effective_radius, self.box.sersic_index)[parameter - RADIUS]
        return values.clamp(*bounds)

    def parts(self, u: Float[Tensor, "s f"]) -> dict[str, Float[Tensor, "s p"]]:
        """Returns the parameters of every part at the reference instrument.

        They have shape (S, 7) for a profile and (S, 3) for a point source (magnitude and centre).
        A single profile is called ``galaxy``.
        """
        values = self.scene.to_physical(u)
        if isinstance(self.component, Composite):
            return self.component.expand(values)
        return {"galaxy": values}

    def share(self, u: Float[Tensor, "s f"]) -> tuple[str, Float[Tensor, " s"]] | None:
        """Returns name and values of the first part's flux fraction; None for a single part."""
        if not isinstance(self.component, Composite):
            return None
        name = self.component.table.names[1]
        return name, self.scene.to_physical(u)[..., 1]
