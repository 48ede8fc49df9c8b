"""Radial profiles along a galaxy's ellipse, and posterior intervals, as SVG."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.report.panels import Panels

WIDTH, HEIGHT = 420, 240
"""Size of the profile's drawing. [px]"""

_MARGIN = 46
_RINGS = 18


def radial_profile(panels: Panels, axis_ratio: float, angle: float) -> list[tuple[float, ...]]:
    """Returns means in elliptical rings of widths that increase with radius.

    Args:
        panels: Images of one measured galaxy.
        axis_ratio: Axis ratio b/a of the rings.
        angle: Position angle of their major axis, counter-clockwise from +y. [deg]

    Returns:
        Per ring: radius along the major axis [arcsec], mean of the image, its error, mean of the
        model, and of each component if there are several. [image units]
    """
    if panels.model is None:
        return []
    rows, columns = np.indices(panels.image.shape, dtype=float)
    dx, dy = columns - panels.center[0], rows - panels.center[1]
    phi = math.radians(angle)
    along = -dx * math.sin(phi) + dy * math.cos(phi)
    across = dx * math.cos(phi) + dy * math.sin(phi)
    radius = np.hypot(along, across / max(axis_ratio, 0.05))
    usable = ~panels.mask & np.isfinite(panels.image)
    edges = np.geomspace(0.7, panels.image.shape[0] / 2, _RINGS)
    rings: list[tuple[float, ...]] = []
    for inner, outer in zip([0.0, *edges[:-1]], edges, strict=True):
        ring = usable & (radius >= inner) & (radius < outer)
        number = int(ring.sum())
        if number:
            error = panels.sigma / math.sqrt(number)
            where = float(radius[ring].mean()) * panels.pixel_scale
            shown = (panels.model, *panels.components.values())
            means = [float(pixels[ring].mean()) for pixels in shown]
            rings.append((where, float(panels.image[ring].mean()), error, *means))
    return rings


def profile_svg(panels: Panels, axis_ratio: float, angle: float) -> str:
    """Draws the profile as SVG: points with errors, and the model as a line.

    Each of several components is a dashed line.
    """
    rings = np.array(radial_profile(panels, axis_ratio, angle))
    if len(rings) < 2:
        return ""
    radius, image, error, model, *components = rings.T
    softening = panels.sigma / 5
    lowest = math.asinh(-0.5)
    highest = math.asinh(max(image.max(), model.max(), softening) / softening)
    start, end = math.log10(radius[0] / 1.3), math.log10(radius[-1] * 1.1)
    base = HEIGHT - _MARGIN

    def up(values: Array) -> Array:
        part = (np.arcsinh(values / softening) - lowest) / (highest - lowest)
        return np.asarray(base - part * (HEIGHT - 1.4 * _MARGIN))

    def along(values: Array) -> Array:
        part = (np.log10(values) - start) / (end - start)
        return np.asarray(_MARGIN + part * (WIDTH - 1.3 * _MARGIN))

    x = along(radius)
    zero = float(up(np.zeros(1))[0])
    # A drawing within the drawing: what leaves it, long errors of faint galaxies, is cut off.
    parts = [f'<svg width="{WIDTH}" height="{base}">', _line("zero", _MARGIN, WIDTH, zero, zero)]
    lines = [("model", "model", model)]
    for k, (name, values) in enumerate(zip(panels.components, components, strict=True)):
        lines.append((name, f"component component{k}", values))
    for k, (name, kind, values) in enumerate(lines):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, up(values), strict=True))
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
        if components:
            y = 22.0 + 15 * k
            parts.append(_line(kind, WIDTH - 96, WIDTH - 72, y, y))
            parts.append(_text(WIDTH - 66, y + 4, name, "start"))
    for place, top, bottom, y in zip(
        x, up(image + error), up(image - error), up(image), strict=True
    ):
        parts.append(_line("bar", place, place, top, bottom))
        parts.append(f'<circle class="data" cx="{place:.1f}" cy="{y:.1f}" r="2.5"/>')
    parts.append("</svg>")
    for tick in _ticks(start, end):
        place = float(along(np.array(tick)))
        parts.append(_line("zero", place, place, base, base + 4))
        parts.append(_text(place, base + 16, f"{tick:g}", "middle"))
    for tick in (0.0, 0.1, *10.0 ** np.arange(0, 6)):
        if tick * panels.sigma < image.max() and (tick != 0.1 or image.max() < 2 * panels.sigma):
            y = float(up(np.array(tick * panels.sigma)))
            parts.append(_text(_MARGIN - 6, y + 4, f"{tick:g}", "end"))
    parts.append(_text(WIDTH / 2, HEIGHT - 10, "radius along the major axis [arcsec]", "middle"))
    turned = f' transform="rotate(-90 12 {HEIGHT / 2})"'
    parts.append(_text(12, HEIGHT / 2, "brightness [σ per pixel]", "middle", turned))
    return f'<svg class="profile" viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg>'


def _ticks(start: float, end: float) -> list[float]:
    """Returns 1, 2 and 5 times the powers of ten between two decimal logarithms.

    Example:
        >>> _ticks(-0.4, 1.1)
        [0.5, 1.0, 2.0, 5.0, 10.0]
    """
    decades = range(math.floor(start), math.floor(end) + 1)
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    return [tick for tick in ticks if start <= math.log10(tick) <= end]


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{text}</text>'


def interval_svg(row: dict[str, Any], name: str, period: float | None = None) -> str:
    """Draws one column's posterior: 95 and 68 % intervals and median.

    The drawing spans 3 times the 95 % interval; bounds of the prior within it are marked.
    A circular column whose interval wraps is unwrapped about the median.
    """
    found = [row.get(f"{name}_{q}") for q in ("q025", "q16", "q50", "q84", "q975")]
    if any(v is None or not math.isfinite(v) for v in found):
        return ""
    values = [float(v) for v in found if v is not None]
    if period is not None:
        half = period / 2
        values = [(v - values[2] + half) % period - half + values[2] for v in values]
    width = max(values[4] - values[0], 1e-9)
    low, high = values[2] - 1.5 * width, values[2] + 1.5 * width
    bounds = [row.get(f"prior_{name}_{side}") for side in ("lower", "upper")]
    a, b, c, d, e = ((v - low) / (high - low) * 200 for v in values)
    parts = [
        f'<rect class="wide" x="{a:.1f}" y="8" width="{max(e - a, 1):.1f}" height="4"/>',
        f'<rect class="narrow" x="{b:.1f}" y="5" width="{max(d - b, 1):.1f}" height="10"/>',
        _line("middle", c, c, 2, 18),
    ]
    for bound in bounds:
        if bound is not None and low < bound < high:
            x = (bound - low) / (high - low) * 200
            parts.append(_line("bound", x, x, 0, 20))
    return f'<svg class="interval" viewBox="0 0 200 20">{"".join(parts)}</svg>'
