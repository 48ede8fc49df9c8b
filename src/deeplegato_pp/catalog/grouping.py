"""Groups of a chunk's sources: ellipses from the network's results, neighbours to be fitted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deeplegato_pp.catalog.cutouts import Cutout
from deeplegato_pp.catalog.groups import REACH, Ellipse, Grown, grow, isophote
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.measurement import Measured
from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.scene.parameters import AXIS_RATIO, CENTER_X, MAGNITUDE, RADIUS, SERSIC_INDEX

MOST_CANDIDATES = 24
"""Maximum number of nearby sources considered, nearest first."""


@dataclass(frozen=True, eq=False)
class Found:
    """Sources measured by the network.

    Attributes:
        sources: The sources.
        cutouts: Their cutouts.
        posteriors: Their posteriors, each a batch of one.
    """

    sources: SourceList
    cutouts: Sequence[Cutout]
    posteriors: Sequence[Posterior]

    def ellipses(self) -> list[Ellipse | None]:
        """Returns the sources' ellipses; None for those not measured or not detected."""
        return [ellipse_of(c, p) for c, p in zip(self.cutouts, self.posteriors, strict=True)]


def ellipse_of(cutout: Cutout, posterior: Posterior) -> Ellipse | None:
    """Returns the ellipse of one source from the network's result; None if not measured."""
    m = posterior.measurements[0]
    position = cutout.position
    unseen = m.flags & (Flag.FAILED | Flag.UNDETECTED)
    if unseen or position.image < 0 or not isinstance(m, Measured):
        return None
    values = m.box.to_physical(posterior.batch_w[0].double().mean(0)[None])[0].tolist()
    radius = values[RADIUS] / m.observation.pixel_scale
    fwhm = m.psf_fwhm * m.prepared.bin
    noise = m.prepared.scale / m.prepared.bin
    flux = 10.0 ** (-0.4 * (values[MAGNITUDE] - m.observation.zero_point)) / noise
    extent = isophote(flux, radius, values[SERSIC_INDEX], values[AXIS_RATIO])
    return Ellipse(position.image, position.x, position.y, tuple(values), radius, extent, fwhm)


def groups_of(own: Found, around: Found | None) -> list[tuple[Grown, list[Ellipse]]]:
    """Returns the group of each source, and the candidates to which it refers.

    Args:
        own: Sources of a chunk.
        around: Nearby sources of other chunks.
    """
    ellipses = own.ellipses()
    keys = [own.sources.key(i) for i in range(len(own.sources))]
    if around is not None:
        ellipses += around.ellipses()
        keys += [around.sources.key(i) for i in range(len(around.sources))]
    groups = []
    for i in range(len(own.sources)):
        found = ellipses[i]
        near: list[tuple[float, str, Ellipse]] = []
        if found is not None:
            side = _side(own.cutouts[i])
            near = [
                (math.hypot(e.x - found.x, e.y - found.y), keys[k], e)
                for k, e in enumerate(ellipses)
                if e is not None and k != i and _is_near(found, e, side)
            ]
        near.sort(key=lambda entry: entry[:2])
        candidates = [e for *_, e in near[:MOST_CANDIDATES]]
        groups.append((Grown(()) if found is None else grow(found, candidates), candidates))
    return groups


def _is_near(own: Ellipse, other: Ellipse, side: int) -> bool:
    """Returns whether a source is near another one and on its cutout."""
    dx, dy = other.x - own.x, other.y - own.y
    within = max(abs(dx), abs(dy)) < 0.5 * side - 1.0
    return own.image == other.image and within and math.hypot(dx, dy) <= REACH


def neighbours_from(cutout: Cutout, others: Sequence[Ellipse]) -> Neighbours:
    """Returns the neighbours of a source on its cutout.

    Args:
        cutout: Cutout of the source.
        others: Other members of its group.
    """
    middle = 0.5 * (_side(cutout) - 1)
    x, y = cutout.left + middle, cutout.bottom + middle
    values = np.array([e.values for e in others])
    values[:, CENTER_X:] = [(e.x - x, e.y - y) for e in others]
    return Neighbours(values, (cutout.position.x - x, cutout.position.y - y))


def _side(cutout: Cutout) -> int:
    return 0 if cutout.observation is None else int(cutout.observation.shape[1])
