"""How far out in frequency a galaxy's image has anything to show.

A PSF cut off at the edge of its array reaches to the highest frequencies, and a galaxy under it
does not: its own transform falls steeply. What lies beyond a square of frequencies changes no pixel
by more than the sum of its sizes, which is bounded here galaxy by galaxy.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.scene.render.fourier import Band
from deeplegato_pp.scene.render.hankel_tables import load_tables
from deeplegato_pp.scene.render.wings import Galaxies

_GRANTED = 10.0
"""Bound on the light of frequencies left out, over that of copies which is negligible: they come
with all phases, so that the light itself is a tenth of the bound or less."""


def needed_reach(
    galaxies: Galaxies, band: Band, negligible: float | Float[Tensor, " b"], steps: int = 1
) -> Int[Tensor, " b"]:
    """Returns, per galaxy, the last row and column of a band that show in its image, (B,).

    The transform of a profile is at most that of a round one as small as its minor axis.

    Args:
        galaxies: B galaxies.
        band: Of one PSF or of one per galaxy.
        negligible: Light that may be missing in a pixel, a number or one per galaxy. [flux]
        steps: Rings between the ends to choose from: fewer of them are fewer classes to render.
    """
    flux, radius, n, q, *_ = (column.detach() for column in galaxies)
    edges, sums = band.ring_edges, band.ring_sums
    k = edges[:-1].to(radius) / band.length
    hankel = load_tables().hankel
    smallest = (radius * q)[:, None] * k
    bound = hankel.evaluate(hankel.rows(n), smallest.clamp_min(1e-30).log())
    # Cubics may fall a little below zero; a profile's transform does not rise again.
    bound = bound.abs().flip(1).cummax(1).values.flip(1)
    beyond = (bound * sums.to(bound)).flip(1).cumsum(1).flip(1) * (flux / band.length**2)[:, None]
    limit = negligible[:, None] if isinstance(negligible, Tensor) else negligible
    first = (beyond > _GRANTED * limit).sum(1).clamp_min(1)  # the first ring that need not be there
    return edges[(-(-first // steps) * steps).clamp_max(len(edges) - 1)] - 1
