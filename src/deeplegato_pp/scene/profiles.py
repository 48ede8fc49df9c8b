"""The Sérsic law on a grid, for one galaxy or many."""

from __future__ import annotations

from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.scene.parameters import SersicParams
from deeplegato_pp.scene.render import sersic_profile
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT


@overload
def generate_sersic_profile(
    flux: SersicParams, *, size: int = 128, pixel_scale: float = ..., zero_point: float = ...
) -> Tensor: ...


@overload
def generate_sersic_profile(
    flux: Tensor,
    effective_radius: Tensor,
    sersic_index: Tensor,
    axis_ratio: Tensor,
    position_angle: Tensor,
    x: Tensor,
    y: Tensor,
) -> Tensor: ...


def generate_sersic_profile(
    flux: Tensor | SersicParams,
    *columns: Any,
    size: int = 128,
    pixel_scale: float = REFERENCE_PIXEL_SCALE,
    zero_point: float = REFERENCE_ZERO_POINT,
    **named: Any,
) -> Tensor:
    r"""Evaluates the Sérsic law :math:`I(r) = I_0 \exp(-b_n (r/R_e)^{1/n})` on a grid.

    This is the formula itself, for checks and wide grids. It is *not* averaged over pixels, which
    matters by tens of per cent at the cusp (n > 2) and for thin discs: use the renderer for images.

    With one galaxy, ``generate_sersic_profile(SersicParams(...), size=128)``, the grid consists of
    pixels. With columns, many galaxies are evaluated on any grid:
    ``generate_sersic_profile(flux, effective_radius, sersic_index, axis_ratio, position_angle,
    x, y)``.

    Args:
        flux: Parameters of one galaxy; or total fluxes, with shape (B,).
        *columns: With fluxes only: major-axis half-light radii [px], Sérsic indices, axis ratios
            b/a, position angles counter-clockwise from +y [deg], each with shape (B,); then x and
            y, columns and rows of the grid relative to the galaxies' centre, of any shape. [px]
        size: With one galaxy: side of the grid; its centre is the origin of the position. [px]
        pixel_scale: With one galaxy: pixel scale. [arcsec/px]
        zero_point: With one galaxy: magnitude of one image unit.
        **named: Columns by the names above.

    Returns:
        Surface brightness, with shape (size, size), or (B, *grid). [flux per px^2]

    Raises:
        RangeError: If an index lies outside the tables, or the size is not positive.

    Example:
        >>> image = generate_sersic_profile(SersicParams(20.0, 1.0, 1.0, 0.7, 30.0), size=65)
        >>> image.shape, bool(image[32, 32] == image.max())
        (torch.Size([65, 65]), True)
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> r = torch.tensor([0.0, 10.0], dtype=torch.float64)
        >>> i = generate_sersic_profile(one, 10 * one, one, one, 0 * one, 0 * r, r)
        >>> round(float((i[0, 0] / i[0, 1]).log()), 4)  # b_1
        1.6783
    """
    if isinstance(flux, SersicParams):
        return _one_galaxy(flux, size, pixel_scale, zero_point, *columns, **named)
    return sersic_profile.generate_sersic_profile(flux, *columns, **named)


def _one_galaxy(
    params: SersicParams, size: int, pixel_scale: float, zero_point: float
) -> Float[Tensor, "n n"]:
    """Returns one galaxy's surface brightness at the pixel centres, with shape (N, N)."""
    axis = torch.arange(check_positive_integer(size, "size"), dtype=torch.float64)
    axis = axis - (size - 1) / 2
    y, x = torch.meshgrid(axis - params.center_y, axis - params.center_x, indexing="ij")
    total = 10.0 ** (-0.4 * (params.magnitude - zero_point))
    shape = (params.sersic_index, params.axis_ratio, params.position_angle)
    values = [total, params.effective_radius / pixel_scale, *shape]
    flux, radius, n, q, angle = torch.tensor(values, dtype=torch.float64)[:, None]
    return sersic_profile.generate_sersic_profile(flux, radius, n, q, angle, x, y)[0]
