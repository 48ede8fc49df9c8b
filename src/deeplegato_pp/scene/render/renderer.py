r"""Noiseless images of PSF-convolved Sérsic galaxies, computed in Fourier space.

A pixel's value is the convolved surface brightness at its centre (the PSF is the effective PSF,
which includes the pixel). In Fourier space an elliptical Sérsic profile is its Hankel transform,

.. math:: G(k) = F\, T_n(R_e \sqrt{u^2 + q^2 v^2})\, \mathrm{PSF}(k)\, e^{-2 \pi i k \cdot x_0},

with (u, v) = k along the major and minor axis. The inverse FFT on L pixels contains periodic copies
of the galaxy; their wings are subtracted (`scene.render.wings`). The required L and the number of
nodes for the wings depend on the galaxy: `choose_plans` selects the cheapest sufficient plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.scene.render.fourier import Band, psf_band, shift_phases, to_stamp, with_width
from deeplegato_pp.scene.render.hankel_tables import load_tables
from deeplegato_pp.scene.render.reach import needed_reach
from deeplegato_pp.scene.render.sersic_profile import check_sersic_index
from deeplegato_pp.scene.render.wings import Galaxies, Plan, psf_moments, wings, wings_matter

_CHUNK_PIXELS = 2**19
"""Number of Fourier pixels processed at a time on a CPU: arrays of a few MB fit in the cache."""


_STEPS = 4
"""Number of rings of frequencies between truncations, where galaxies differ."""

Bands = dict[int, Band]
"""Transforms of a PSF by the length of the period."""

FARTHEST = 0.61
"""Largest offset of a galaxy from the stamp's centre, in units of the stamp's side; beyond it, the
periodic copy would come too close to the opposite edge."""

COMPACT = Plan(1.25, 17, 2)
EXTENDED = Plan(1.5, 17, 2)
WIDE = Plan(2.0, 33, 3)
HUGE = Plan(3.0, 25, 3)
PLANS = (COMPACT, EXTENDED, WIDE, HUGE)


def choose_plans(radius: Tensor, axis_ratio: Tensor, size: int) -> Tensor:
    """Returns, per galaxy, the index of the cheapest sufficient plan in :data:`PLANS`.

    Thin discs are the hardest case: along its major axis, a copy adds a narrow ray across the
    stamp, whose width scales with q R_e. On a 128 px stamp the limits keep the error below 1e-5 of
    the peak pixel for R_e up to 40 px, q from 0.1 and n up to 8 (below 8e-5 on a 64 px stamp, for
    which the PSF is relatively twice as wide); `benchmarks/render_accuracy.py` measures the error
    by class.

    Args:
        radius: Major-axis half-light radius, with shape (B,). [px]
        axis_ratio: b/a, with shape (B,).
        size: Side of the stamp. [px]
    """
    extent = radius / size
    thin = extent / axis_ratio**2
    plan = torch.zeros_like(radius, dtype=torch.long)
    plan += (extent > 0.16) | (thin > 1.2)
    plan += (extent > 0.32) | (thin > 3.0)
    plan += (extent > 0.32) | (thin > 12.0)
    return plan


def render_sersic(
    flux: Float[Tensor, " b"],
    radius: Float[Tensor, " b"],
    sersic_index: Float[Tensor, " b"],
    axis_ratio: Float[Tensor, " b"],
    position_angle: Float[Tensor, " b"],
    x: Float[Tensor, " b"],
    y: Float[Tensor, " b"],
    psf: Float[Tensor, "*b py px"],
    size: int,
    *,
    oversampling: int = 1,
    psf_includes_pixel: bool = True,
    psf_index: Int[Tensor, " b"] | None = None,
    plan: Plan | None = None,
    negligible: float | Float[Tensor, " b"] = 0.0,
    bands: Bands | None = None,
    by_width: bool = False,
) -> Float[Tensor, "b size size"]:
    """Renders Sérsic galaxies on square stamps.

    Dtype and device are those of the parameters. Differentiable in all parameters, including n.

    Args:
        flux: Total flux, with shape (B,).
        radius: Major-axis half-light radius, with shape (B,). [px]
        sersic_index: n, with shape (B,). [0.25 to 10]
        axis_ratio: b/a, with shape (B,).
        position_angle: Counter-clockwise from +y, with shape (B,). [deg]
        x: Column of the centre from the stamp's centre, with shape (B,). [px]
        y: Row of the centre from the stamp's centre, with shape (B,). [px]
        psf: One PSF (Py, Px), one per galaxy (B, Py, Px), or a few that galaxies share (see
            `psf_index`), odd-sided; used as given.
        size: Side of the stamp. [px]
        oversampling: PSF samples per pixel.
        psf_includes_pixel: Whether the PSF includes the detector's pixel; if not, a box of one
            pixel is convolved.
        psf_index: Index of each galaxy's PSF, with shape (B,); one PSF per galaxy if None. Shared
            PSFs are transformed once.
        plan: Render every galaxy with this plan instead of choosing one per galaxy.
        negligible: Allowed error per pixel, one number or one per galaxy: fainter light of periodic
            copies is not subtracted (below 1e-6 of the peak pixel it never is), and frequencies
            that add less are neglected. [flux per pixel]
        bands: Cache for the transforms of shared PSFs: pass an empty dictionary, and pass it again
            with the same PSFs, oversampling and dtype.
        by_width: Render the derivatives with respect to ln(PSF width) instead. Those of the
            periodic copies, which are smooth, are not subtracted.

    Returns:
        Images, with shape (B, size, size). [flux per pixel]

    Raises:
        ShapeError: If the PSF is not two- or three-dimensional, odd-sided and matching.
        RangeError: If n lies outside the tables, or a centre far outside the stamp.
    """
    check_sersic_index(sersic_index)
    batch = radius.shape[0]
    _check_psf(psf, batch, psf_index)
    _check_centres(x, y, size)
    psf = psf.to(radius.dtype)
    if psf_index is None and psf.dim() == 3:
        psf_index, bands = torch.arange(batch, device=psf.device), None
    options = (size, oversampling, psf_includes_pixel, bands, by_width)
    galaxies = Galaxies(flux, radius, sersic_index, axis_ratio, position_angle, x, y)
    if plan is not None:
        return _render_plan(galaxies, psf, psf_index, negligible, *options, plan)
    chosen = choose_plans(radius.detach(), axis_ratio.detach(), size)
    present = chosen.unique().tolist()
    if len(present) == 1:
        return _render_plan(galaxies, psf, psf_index, negligible, *options, PLANS[present[0]])
    parts, rows = [], []
    for number in present:
        row = (chosen == number).nonzero()[:, 0]
        index = None if psf_index is None else psf_index[row]
        part, light = galaxies.at(row), rows_of(negligible, row)
        parts.append(_render_plan(part, psf, index, light, *options, PLANS[number]))
        rows.append(row)
    return torch.cat(parts)[torch.argsort(torch.cat(rows))]


def rows_of(value: float | Tensor, rows: Tensor | slice) -> float | Tensor:
    """Returns a number unchanged, and the selected rows of a tensor with one value per galaxy."""
    return value[rows] if isinstance(value, Tensor) else value


def _used(psf: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the PSFs in use, and indices into them."""
    used, inverse = index.unique(return_inverse=True)
    return psf[used], inverse


def _check_psf(psf: Tensor, batch: int, index: Tensor | None) -> None:
    own = index is None and psf.dim() == 3 and psf.shape[0] != batch
    if psf.dim() not in (2, 3) or own or (index is not None and psf.dim() == 2):
        raise ShapeError(
            f"psf has shape (Py, Px) or ({batch}, Py, Px), or with psf_index (P, Py, Px), got "
            f"{tuple(psf.shape)}."
        )
    if index is not None and index.shape != (batch,):
        raise ShapeError(f"psf_index has shape ({batch},), got {tuple(index.shape)}.")
    if psf.shape[-1] % 2 == 0 or psf.shape[-2] % 2 == 0:
        raise ShapeError(
            f"psf must be odd-sided, with its centre on a sample, got {tuple(psf.shape[-2:])}. "
            "Shift an even one by half a sample (`psf_even='shift'`)."
        )


def _check_centres(x: Tensor, y: Tensor, size: int) -> None:
    farthest = torch.maximum(x.detach().abs(), y.detach().abs())
    outside = ~(farthest <= FARTHEST * size)
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise RangeError(
            f"A centre must lie within {FARTHEST:g} stamp sides ({FARTHEST * size:g} px) of the "
            f"stamp's centre, got ({float(x[row]):g}, {float(y[row]):g}) px in row {row}. "
            "Render a larger stamp."
        )


def _render_plan(
    galaxies: Galaxies,
    psf: Tensor,
    index: Tensor | None,
    negligible: float | Tensor,
    size: int,
    s: int,
    pixel: bool,
    bands: Bands | None,
    by_width: bool,
    plan: Plan,
) -> Tensor:
    """Renders galaxies with one plan, in parts that fit in the cache."""
    length = period_length(size, psf.shape[-2:], s, plan)
    if bands is None:
        bands = {}
        if index is not None:
            psf, index = _used(psf, index)
    band = band_of(bands, psf, length, s, by_width)
    moments = psf_moments(psf, s, pixel)
    parts, order = [], []
    for rows, near in by_reach(galaxies, band, index, negligible):
        chunk = max(1, _CHUNK_PIXELS // (len(near.ky) * len(near.kx)))
        for part_rows in rows.split(64 * chunk if psf.is_cuda else chunk):
            part = galaxies.at(part_rows)
            own = near if index is None else near.at(index[part_rows])
            image = _periodic_image(part, own, size, pixel)
            if not by_width:
                seen = moments if index is None else moments[index[part_rows]]
                light = rows_of(negligible, part_rows)
                image = _without_wings(image, part, seen, size, length, light, plan)
            parts.append(image)
            order.append(part_rows)
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts)[torch.argsort(torch.cat(order))]


def band_of(bands: Bands, psf: Tensor, length: int, s: int, by_width: bool = False) -> Band:
    """Returns PSF transforms, with derivatives with respect to the PSF's width if requested.

    Args:
        bands: Cache of transforms; new ones are added.
        psf: The PSFs.
        length: Pixels per period.
        s: PSF samples per pixel.
        by_width: Whether to include the derivatives.
    """
    if length not in bands:
        bands[length] = psf_band(psf, length, s)
    if by_width and bands[length].width is None:
        bands[length] = with_width(bands[length], psf)
    return bands[length] if by_width else replace(bands[length], width=None)


def by_reach(
    galaxies: Galaxies, band: Band, index: Tensor | None, negligible: float | Tensor
) -> Iterator[tuple[Tensor, Band]]:
    """Yields rows of galaxies with the part of the band that they need.

    Each galaxy is truncated individually, so that its image does not depend on the others.

    Args:
        galaxies: B galaxies.
        band: Band of the PSFs.
        index: Index of each galaxy's PSF; None if there is one PSF.
        negligible: Light that may be neglected in a pixel; 0 keeps the whole band.
    """
    everything = torch.arange(len(galaxies.flux), device=galaxies.flux.device)
    if not isinstance(negligible, Tensor) and negligible == 0.0:
        yield everything, band
        return
    own = band if index is None else replace(band, ring_sums=band.ring_sums[index])
    reach = needed_reach(galaxies, own, negligible, 1 if index is None else _STEPS)
    for last in reach.unique().tolist():
        yield everything[reach == last], band.within(last)


def _without_wings(
    image: Tensor,
    galaxies: Galaxies,
    moments: Tensor,
    size: int,
    length: int,
    negligible: float | Tensor,
    plan: Plan,
) -> Tensor:
    """Subtracts the light of periodic copies from those images in which it matters."""
    matters = wings_matter(galaxies, moments, size, length, negligible)
    if bool(matters.all()):
        return image - wings(galaxies, moments, size, length, plan)
    if not bool(matters.any()):
        return image
    rows = matters.nonzero()[:, 0]
    seen = moments if moments.dim() == 1 else moments[rows]
    return image.index_add(0, rows, -wings(galaxies.at(rows), seen, size, length, plan))


@lru_cache(maxsize=256)
def _fast_length(minimum: int) -> int:
    """Returns the smallest even number >= minimum whose only prime factors are 2, 3 and 5."""
    length = minimum + minimum % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


def period_length(size: int, psf_shape: tuple[int, ...], oversampling: int, plan: Plan) -> int:
    """Returns the side L of the periodic square, from the plan or from the size of the PSF."""
    reach = math.ceil(max(psf_shape) / (2 * oversampling))
    shortest = max(size + 24, size // 2 + reach + 16, 2 * reach)
    return _fast_length(max(math.ceil(plan.period * size), shortest))


def _periodic_image(galaxies: Galaxies, band: Band, size: int, pixel: bool) -> Tensor:
    """Returns the inverse FFT of the model, or of its PSF-width derivative if the band has one."""
    flux, radius, n, q, angle, x, y = galaxies
    hankel = load_tables().hankel
    kx, ky = band.kx, band.ky[:, None]
    kk = [c[:, None, None] for c in transform_form(radius, q, angle)]
    k2 = kk[0] * kx**2 + ky * (kk[1] * kx + kk[2] * ky)
    tiny = torch.finfo(radius.dtype).tiny
    profile = hankel.evaluate(hankel.rows(n), 0.5 * k2.clamp_min(tiny).log())
    if not pixel:
        profile = profile * torch.sinc(kx) * torch.sinc(ky)
    # Stamp pixel i is sample i of the period; the galaxy's centre is at (size - 1)/2 + offset.
    middle = (size - 1) / 2
    columns, rows = shift_phases(band, middle + x, middle + y, flux)
    # A real times a complex array is three times faster than two real products.
    transfer = band.transfer if band.width is None else band.width
    spectrum = torch.view_as_complex(torch.view_as_real(transfer) * profile[..., None])
    return to_stamp(spectrum * columns[:, None, :] * rows[:, :, None], band, size)


def transform_form(radius: Tensor, q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the quadratic form of (R_e |k|)^2, with the minor axis shortened by q."""
    t = torch.deg2rad(angle + 90.0)
    cos, sin = t.cos(), t.sin()
    major, minor = radius**2, (radius * q) ** 2
    return (
        major * cos**2 + minor * sin**2,
        2.0 * cos * sin * (major - minor),
        major * sin**2 + minor * cos**2,
    )
