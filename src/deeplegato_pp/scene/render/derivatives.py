r"""Images of Sérsic galaxies with their derivatives, computed in Fourier space.

A shift multiplies the spectrum by :math:`e^{-2 \pi i k \cdot x_0}`, so its derivative is a factor
:math:`-2 \pi i k`. Radius, axis ratio and angle enter through the argument of the transform only
and share its slope :math:`dT_n / d\ln k`; the flux is a scale factor. An image with its derivatives
therefore costs as much as three images. The light of periodic copies is smooth and is
differentiated by finite differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.scene.render.fourier import Band, shift_phases, to_stamp
from deeplegato_pp.scene.render.hankel_tables import load_tables
from deeplegato_pp.scene.render.renderer import (
    _CHUNK_PIXELS,
    PLANS,
    Bands,
    band_of,
    by_reach,
    choose_plans,
    period_length,
    rows_of,
    transform_form,
)
from deeplegato_pp.scene.render.wings import Galaxies, Plan, psf_moments, wings, wings_matter

COLUMNS = 7
"""Columns of the renderer with respect to which derivatives are computed."""

_STEP = 1e-4
"""Finite-difference step for the wings, relative for radius and n. [px, deg for the others]"""


def render_with_derivatives(
    galaxies: Galaxies,
    psf: Float[Tensor, "p py px"],
    psf_index: Int[Tensor, " b"],
    size: int,
    *,
    oversampling: int = 1,
    psf_includes_pixel: bool = True,
    negligible: float | Float[Tensor, " b"] = 0.0,
    bands: Bands | None = None,
    by_width: bool = False,
) -> tuple[
    Float[Tensor, "b size size"],
    Float[Tensor, "b 7 size size"],
    Float[Tensor, "b size size"] | None,
]:
    """Renders images and their derivatives with respect to the renderer's seven columns.

    Args:
        galaxies: B galaxies: flux, radius, n, axis ratio, angle [deg], x and y.
        psf: PSFs, odd-sided, with shape (P, Py, Px).
        psf_index: Index of each galaxy's PSF, with shape (B,).
        size: Side of the stamp. [px]
        oversampling: PSF samples per pixel.
        psf_includes_pixel: Whether the PSF includes the detector's pixel.
        negligible: As for :func:`~deeplegato_pp.scene.render.renderer.render_sersic`.
        bands: As for `render_sersic`.
        by_width: Whether to compute derivatives with respect to ln(PSF width) too.

    Returns:
        Images (B, size, size), derivatives (B, 7, size, size) in the columns' order, and
        derivatives with respect to ln(PSF width) (B, size, size), or None if not requested.
    """
    radius = galaxies.radius
    bands = {} if bands is None else bands
    chosen = choose_plans(radius, galaxies.axis_ratio, size)
    image = radius.new_empty(len(radius), size, size)
    derivatives = radius.new_empty(len(radius), COLUMNS, size, size)
    width = torch.empty_like(image) if by_width else None
    for number in chosen.unique().tolist():
        plan = PLANS[number]
        length = period_length(size, psf.shape[-2:], oversampling, plan)
        band = band_of(bands, psf.to(radius.dtype), length, oversampling, by_width)
        moments = psf_moments(psf.to(radius.dtype), oversampling, psf_includes_pixel)
        of_plan = (chosen == number).nonzero()[:, 0]
        light = rows_of(negligible, of_plan)
        classes = by_reach(galaxies.at(of_plan), band, psf_index[of_plan], light)
        for members, near in classes:
            chunk = max(1, _CHUNK_PIXELS // (2 * len(near.ky) * len(near.kx)))
            for rows in of_plan[members].split(chunk):
                part, own = galaxies.at(rows), psf_index[rows]
                found, slopes, change = _periodic(part, near.at(own), size, psf_includes_pixel)
                light = rows_of(negligible, rows)
                _subtract_wings(found, slopes, part, moments[own], size, length, light, plan)
                image[rows], derivatives[rows] = found, slopes
                if width is not None and change is not None:
                    width[rows] = change
    return image, derivatives, width


def _periodic(
    galaxies: Galaxies, band: Band, size: int, pixel: bool
) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b 7 n n"], Float[Tensor, "b n n"] | None]:
    """Returns periodic images and derivatives; the last if the band has a width derivative."""
    flux, radius, n, q, angle, x, y = galaxies
    hankel = load_tables().hankel
    kx, ky = band.kx, band.ky[:, None]
    kk = [c[:, None, None] for c in transform_form(radius, q, angle)]
    k2 = (kk[0] * kx**2 + ky * (kk[1] * kx + kk[2] * ky)).clamp_min(torch.finfo(radius.dtype).tiny)
    profile, slope, with_n = hankel.evaluate_with_slopes(n, 0.5 * k2.log())
    middle = (size - 1) / 2
    columns, rows = shift_phases(band, middle + x, middle + y, flux)
    phases = columns[:, None, :] * rows[:, :, None]
    if not pixel:
        phases = phases * (torch.sinc(kx) * torch.sinc(ky))
    spectrum = band.transfer * phases
    t = torch.deg2rad(angle + 90.0)[:, None, None]
    cos, sin = t.cos(), t.sin()
    major, minor = kx * cos + ky * sin, ky * cos - kx * sin  # k along the axes
    scale = (radius**2)[:, None, None]
    share = slope * scale / k2  # factor that multiplies the derivatives of ln k^2 / 2
    by_q = share * q[:, None, None] * minor**2
    by_angle = share * (1.0 - q[:, None, None] ** 2) * major * minor * (math.pi / 180.0)

    def image_of(real: Tensor) -> Tensor:
        """Returns the image whose spectrum is that of a point source times a real factor."""
        parts = torch.view_as_real(spectrum) * real[..., None]
        return to_stamp(torch.view_as_complex(parts), band, size)

    image = image_of(profile)
    light = torch.view_as_complex(torch.view_as_real(spectrum) * profile[..., None])
    turn = torch.complex(torch.zeros_like(kx), -2.0 * math.pi * kx)
    width = None
    if band.width is not None:
        width = to_stamp(band.width * phases * profile, band, size)
    derivatives = torch.stack(
        [
            image / flux[:, None, None],
            image_of(slope) / radius[:, None, None],
            image_of(with_n),
            image_of(by_q),
            image_of(by_angle),
            to_stamp(light * turn, band, size),
            to_stamp(light * torch.complex(torch.zeros_like(ky), -2.0 * math.pi * ky), band, size),
        ],
        1,
    )
    return image, derivatives, width


def _subtract_wings(
    image: Tensor,
    derivatives: Tensor,
    galaxies: Galaxies,
    moments: Tensor,
    size: int,
    length: int,
    negligible: float | Tensor,
    plan: Plan,
) -> None:
    """Subtracts the light of periodic copies from images and derivatives, in place."""
    rows = wings_matter(galaxies, moments, size, length, negligible).nonzero()[:, 0]
    if not len(rows):
        return
    # In float64, because differences lose precision; the wings have few values.
    part = Galaxies(*(c[rows].double() for c in galaxies))
    seen = moments[rows].double()

    def light(which: Galaxies) -> Tensor:
        return wings(which, seen, size, length, plan)

    here = light(part)
    image[rows] -= here.to(image)
    derivatives[rows, 0] -= (here / part.flux[:, None, None]).to(image)
    for number in range(1, COLUMNS):
        derivatives[rows, number] -= _difference(light, part, here, number).to(image)


def _difference(
    light: Callable[[Galaxies], Tensor], galaxies: Galaxies, here: Tensor, number: int
) -> Tensor:
    """Returns the derivative of the wings with respect to one column, by a forward difference."""
    column = galaxies[number]
    step = _STEP * (column if number in (1, 2) else torch.ones_like(column))
    if number == 3:
        step = torch.where(column + step > 1.0, -step, step)
    moved = [*galaxies]
    moved[number] = column + step
    return (light(Galaxies(*moved)) - here) / step[:, None, None]
