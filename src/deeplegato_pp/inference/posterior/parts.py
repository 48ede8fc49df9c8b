"""Components described by a row of results, and their images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from deeplegato_pp.inference.posterior.scene_record import PARTS, parameter_columns
from deeplegato_pp.scene.galaxy_scene import SCENES
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.scene.render.point_source import render_points
from deeplegato_pp.scene.render.renderer import render_sersic

COLUMNS = ("best_scene", *NAMES, *parameter_columns(SCENES))
"""Columns that describe the components of a row; errors have the suffix ``_std``."""

_CENTRE = NAMES[5:]


@dataclass(frozen=True)
class Part:
    """One component of a galaxy.

    Attributes:
        name: ``sersic`` for a single profile, else ``bulge``, ``disc``, ``host``, ``point``, ...
        values: Parameters by name, in the user's units; magnitude and centre for a point source.
        errors: Their standard deviations; None for fixed parameters.
    """

    name: str
    values: dict[str, float]
    errors: dict[str, float | None]

    @property
    def is_point(self) -> bool:
        """Whether it is a point source."""
        return "effective_radius" not in self.values


def parts_of_row(row: Mapping[str, Any]) -> list[Part]:
    """Returns the components of a row's best scene, at their posterior means.

    Args:
        row: Row of a table of results, with numbers, quantities or None.

    Returns:
        The single profile, or the components; empty if the galaxy was not measured.

    Example:
        >>> row = dict.fromkeys(NAMES, 1.0) | {"best_scene": "sersic+point"}
        >>> row |= {f"host_{name}": 2.0 for name in NAMES[:5]} | {"point_magnitude": 3.0}
        >>> [(part.name, part.values["magnitude"]) for part in parts_of_row(row)]
        [('host', 2.0), ('point', 3.0)]
    """
    found = []
    for name in PARTS.get(str(row.get("best_scene") or "sersic"), ()) or ("sersic",):
        prefix = "" if name == "sersic" else f"{name}_"
        own = {n: f"{prefix}{n}" for n in (NAMES[:1] if name == "point" else NAMES[:5])}
        columns = own | {n: n for n in _CENTRE}
        values = {n: _number(row.get(column)) for n, column in columns.items()}
        if any(math.isnan(values[n]) for n in own):
            return []
        errors = {n: _number(row.get(f"{c}_std")) for n, c in columns.items()}
        known = {n: e if e > 0 else None for n, e in errors.items()}
        found.append(Part(name, values, known))
    return found


def render_part(
    part: Part,
    zero_point: float,
    pixel_scale: float,
    center: tuple[float, float],
    psf: Float[np.ndarray, "py px"],
    size: int,
    oversampling: int = 1,
    psf_includes_pixel: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Float[np.ndarray, "n n"]:
    """Returns the noiseless image of a component on a square stamp, with shape (N, N).

    Args:
        part: The component; `center` is used instead of its own centre.
        zero_point: Magnitude of one image unit.
        pixel_scale: Pixel scale. [arcsec/px]
        center: Column and row of its centre from the stamp's middle. [px]
        psf: PSF with both sides odd, with shape (Py, Px).
        size: Side N of the stamp. [px]
        oversampling: PSF samples per pixel.
        psf_includes_pixel: Whether the PSF includes the pixel response.
        dtype: Floating-point type of the computation.
    """
    v = part.values
    flux = 10.0 ** (-0.4 * (v["magnitude"] - zero_point))
    kernel = torch.from_numpy(np.array(psf)).to(dtype)
    numbers = [flux, *center]
    if not part.is_point:
        shape = [v[n] for n in ("sersic_index", "axis_ratio", "position_angle")]
        numbers = [flux, v["effective_radius"] / pixel_scale, *shape, *center]
    columns = torch.tensor(numbers, dtype=dtype)[:, None]
    options = {"oversampling": oversampling, "psf_includes_pixel": psf_includes_pixel}
    if part.is_point:
        image = render_points(*columns, kernel, size, **options)  # type: ignore[arg-type, call-arg]
    else:
        image = render_sersic(*columns, kernel, size, **options)  # type: ignore[arg-type, call-arg]
    return np.asarray(image[0].double().numpy())


def _number(value: Any) -> float:
    """Returns a cell as a number; NaN if unknown."""
    return math.nan if value is None else float(getattr(value, "value", value))
