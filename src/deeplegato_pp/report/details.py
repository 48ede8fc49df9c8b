"""HTML details of one galaxy: image, posterior, profile and flags."""

from __future__ import annotations

import base64
import math
from functools import cache
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.report.panels import Panels, Pixels
from deeplegato_pp.report.png import brightness_palette, encode_png, to_indices
from deeplegato_pp.report.profile import profile_svg
from deeplegato_pp.report.rows import Rows, components_of, flags_of, others_of, parameters_of

LOWEST = -3.0
"""Lower end of the images' scale. [sigma]"""

SOFTENING = 2.0
"""Value at which the images' scale changes from linear to logarithmic. [sigma]"""


@cache
def environment() -> Any:
    """Returns the Jinja2 environment of the templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("deeplegato_pp.report", "templates")
    return Environment(loader=loader, autoescape=True, undefined=_lenient(StrictUndefined))


def _lenient(strict: Any) -> Any:
    """Returns a type of undefined values that may be tested by ``if``, but not printed."""

    class Lenient(strict):  # type: ignore[misc]
        def __bool__(self) -> bool:
            return False

    return Lenient


def picture(panels: Panels) -> tuple[Array, float]:
    """Returns image, model and residual side by side as palette indices, and the peak in sigmas."""
    known = panels.image[np.isfinite(panels.image) & ~panels.mask]
    highest = float(np.percentile(known, 99.8)) if known.size else 0.0
    if panels.model is not None:
        highest = max(highest, float(panels.model.max()))
    peak = max(highest / panels.sigma, 5.0)
    nothing = np.zeros(panels.mask.shape, dtype=bool)
    strip = np.hstack(
        [
            _indices(panels, panels.image, peak, panels.mask),
            _indices(panels, panels.model, peak, nothing),
            _indices(panels, panels.residual, peak, panels.mask),
        ]
    )
    return strip, peak


def component_picture(panels: Panels, peak: float) -> Array:
    """Returns the components side by side as palette indices, with the scale of :func:`picture`."""
    nothing = np.zeros(panels.mask.shape, dtype=bool)
    return np.hstack([_indices(panels, c, peak, nothing) for c in panels.components.values()])


def _indices(panels: Panels, pixels: Array | None, peak: float, mask: Array) -> Array:
    low, high = (math.asinh(v / SOFTENING) for v in (LOWEST, peak))
    if pixels is None:
        pixels = np.full(mask.shape, np.nan)
    return to_indices(np.arcsinh(pixels / panels.sigma / SOFTENING), low, high, mask)


def content_of(rows: Rows, index: int, pixels: Pixels, source: str | None = None) -> dict[str, Any]:
    """Returns the variables of the template ``measured.html``.

    Args:
        rows: Rows of the catalogue.
        index: Index of the row.
        pixels: Source of the images.
        source: URL of the picture; None to embed the picture as a data URL.
    """
    row = rows[index]
    found = pixels.panels(row)
    content: dict[str, Any] = {
        "row": row,
        "parameters": parameters_of(row),
        "components": components_of(row),
        "flags": flags_of(row),
        "others": others_of(row, rows),
    }
    if isinstance(found, str):
        return content | {"reason": found}
    strip, peak = picture(found)
    side = found.image.shape[0]
    drawing = ""
    if found.model is not None:
        drawing = profile_svg(found, row["axis_ratio"], row["position_angle"])
    if found.components:
        content["component_names"] = list(found.components)
        content["component_source"] = data_url(component_picture(found, peak))
    return content | {
        "strip": strip,
        "source": source or data_url(strip),
        "side": side,
        "arcsec": f"{side * found.pixel_scale:.3g}",
        "peak": f"{peak:.3g}",
        "profile": drawing,
    }


def data_url(strip: Array) -> str:
    """Returns palette indices as a data URL of a PNG."""
    png = encode_png(strip, brightness_palette())
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
