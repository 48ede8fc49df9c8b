"""Highest frequencies that contribute to a galaxy's image.

A PSF truncated at the edge of its array has power at the highest frequencies, but the transform of
a galaxy falls steeply. Neglecting frequencies beyond a square changes each pixel by at most the sum
of their amplitudes, which is bounded here for each galaxy.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.scene.render.fourier import Band
from deeplegato_pp.scene.render.hankel_tables import load_tables
from deeplegato_pp.scene.render.wings import Galaxies

_GRANTED = 10.0
"""Bound on the neglected light, relative to the negligible light of copies. Phases are random, so
the neglected light itself is a tenth of the bound or less."""


def needed_reach(
    galaxies: Galaxies, band: Band, negligible: float | Float[Tensor, " b"], steps: int = 1
) -> Int[Tensor, " b"]:
    """Returns the last row and column of a band that contribute to each image, with shape (B,).

    The transform of a profile is bounded by that of a round profile with its minor axis' radius.

    Args:
        galaxies: B galaxies.
        band: Band of one PSF, or of one PSF per galaxy.
        negligible: Light that may be neglected in a pixel, one number or one per galaxy. [flux]
        steps: Number of rings between candidates; larger steps give fewer classes to render.
    """
    flux, radius, n, q, *_ = (column.detach() for column in galaxies)
    edges, sums = band.ring_edges, band.ring_sums
    k = edges[:-1].to(radius) / band.length
    hankel = load_tables().hankel
    smallest = (radius * q)[:, None] * k
    bound = hankel.evaluate(hankel.rows(n), smallest.clamp_min(1e-30).log())
    # Interpolation may give values slightly below zero; the true transform is monotonic.
    bound = bound.abs().flip(1).cummax(1).values.flip(1)
    beyond = (bound * sums.to(bound)).flip(1).cumsum(1).flip(1) * (flux / band.length**2)[:, None]
    limit = negligible[:, None] if isinstance(negligible, Tensor) else negligible
    first = (beyond > _GRANTED * limit).sum(1).clamp_min(1)  # the first ring that is not needed
    return edges[(-(-first // steps) * steps).clamp_max(len(edges) - 1)] - 1
