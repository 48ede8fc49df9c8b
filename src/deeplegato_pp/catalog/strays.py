"""Detection of failed fits: off the source's segment, far too large, or moved to a neighbour."""

from __future__ import annotations

import math

import numpy as np

from deeplegato_pp.catalog.cutouts import Cutout
from deeplegato_pp.catalog.source_list import SourceList
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.scene.parameters import AXIS_RATIO, CENTER_X, CENTER_Y, MAGNITUDE, RADIUS

OFF = 2.0
"""Maximum distance of a centre from the nearest pixel of its segment. [px]"""

DWARFS = 4.0
"""Maximum ratio of a fit's radius to that of its segment."""

BRIGHTER = 3.0
"""Increase in brightness from the network's to the refined result, in joint standard deviations,
above which the fit has moved to a neighbour."""

SWALLOWED = 2.0
"""Distance in effective radii within which a neighbour may have attracted the fit."""

_LOW = 1
"""Index of the 16 % quantile in a summary."""


def leaves_segment(posterior: Posterior, cutout: Cutout) -> str:
    """Describes how a fit has left its source's segment; empty if it has not.

    Args:
        posterior: Posterior of the source.
        cutout: Cutout of the source, with its segment.
    """
    m = posterior.measurements[0]
    segment = cutout.segment
    if segment is None or not segment.any() or not m.measured or m.observation is None:
        return ""
    values = parameter_summaries(posterior)
    middle = 0.5 * (len(segment) - 1)
    rows, columns = np.nonzero(segment)
    x, y = middle + values[CENTER_X].value, middle + values[CENTER_Y].value
    off = float(np.hypot(columns - x, rows - y).min())
    if off > OFF:
        return f"the centre lies {off:.1f} px off the source's segment"
    edges = segment[0].any() or segment[-1].any() or segment[:, 0].any() or segment[:, -1].any()
    own = math.sqrt(segment.sum() / math.pi)
    radius = values[RADIUS].quantiles[_LOW] / m.observation.pixel_scale
    radius *= math.sqrt(values[AXIS_RATIO].value)
    if radius > DWARFS * own and not edges:
        return f"the radius of {radius:.1f} px dwarfs the segment's of {own:.1f} px"
    return ""


def nearest_distance(sources: SourceList, i: int, pixel_scale: float) -> float:
    """Returns the distance of the nearest other source in the list, infinite if unknown. [px]

    Args:
        sources: The list.
        i: Index of the source.
        pixel_scale: Pixel scale of its image. [arcsec/px]
    """
    distance = math.inf if sources.nearest_px is None else float(sources.nearest_px[i])
    if not math.isfinite(distance) and sources.nearest_arcsec is not None:
        distance = float(sources.nearest_arcsec[i]) / pixel_scale
    return distance


def ran_away(
    refined: Posterior, network: Posterior, cutout: Cutout, sources: SourceList, i: int
) -> str:
    """Describes how refinement made a source worse; empty if it did not.

    Args:
        refined: Refined posterior of the source.
        network: The network's posterior.
        cutout: Cutout of the source.
        sources: The list.
        i: Index of the source.
    """
    reason = leaves_segment(refined, cutout)
    if reason:
        return "" if leaves_segment(network, cutout) else reason
    m = refined.measurements[0]
    if m.member is not None or m.observation is None:
        return ""
    new, old = parameter_summaries(refined), parameter_summaries(network)
    scale = m.observation.pixel_scale
    distance = nearest_distance(sources, i, scale)
    gained = old[MAGNITUDE].value - new[MAGNITUDE].value
    significant = gained > BRIGHTER * math.hypot(old[MAGNITUDE].std, new[MAGNITUDE].std)
    if significant and distance < SWALLOWED * new[RADIUS].value / scale:
        return f"{gained:.2f} mag brighter than the network's, with a source {distance:.1f} px away"
    return ""
