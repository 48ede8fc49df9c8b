r"""Noiseless images of PSF-convolved Sérsic galaxies, exact in Fourier space.

A pixel's value is the convolved surface brightness at its centre (the PSF is the effective one,
so the pixel is in it). In Fourier space an elliptical Sérsic profile is its Hankel transform,

.. math:: G(k) = F\, T_n(R_e \sqrt{u^2 + q^2 v^2})\, \mathrm{PSF}(k)\, e^{-2 \pi i k \cdot x_0},

with (u, v) = k along the major and minor axis. The inverse FFT on L pixels shows the galaxy's
periodic copies too; their wings are subtracted (`scene.render.wings`). How large L must be, and
how finely the wings must be sampled, depends on the galaxy: `choose_plans` spends only where it is
needed.
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
"""Fourier pixels worked on at a time on a CPU: a few MB an array, so that they stay in cache."""


_STEPS = 4
"""Rings of frequencies between which is chosen where galaxies differ: fewer, larger calls."""

Bands = dict[int, Band]
"""A PSF's transforms by the length of the period."""

FARTHEST = 0.61
"""Largest offset of a galaxy from the stamp's centre, over the stamp's side: farther out, its
periodic copy would come too near to the opposite edge."""

COMPACT = Plan(1.25, 17, 2)
EXTENDED = Plan(1.5, 17, 2)
WIDE = Plan(2.0, 33, 3)
HUGE = Plan(3.0, 25, 3)
PLANS = (COMPACT, EXTENDED, WIDE, HUGE)


def choose_plans(radius: Tensor, axis_ratio: Tensor, size: int) -> Tensor:
    """Returns, per galaxy, the index of the cheapest plan in :data:`PLANS` that is good enough.

    Thin discs are the hard ones: along their major axis a copy throws a narrow ray across the
    stamp, whose width goes with q R_e. On a 128 px stamp the limits keep the error below 1e-5 of
    the peak pixel for R_e up to 40 px, q from 0.1 and n up to 8 (on a 64 px stamp, where the PSF
    is twice as wide for its size, below 8e-5); `benchmarks/render_accuracy.py` shows the error by
    class.

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
    """Renders galaxies on square stamps.

    Dtype and device follow the parameters. Differentiable in all of them, n included.

    Args:
        flux: Total flux, with shape (B,).
        radius: Major-axis half-light radius, with shape (B,). [px]
        sersic_index: n, with shape (B,). [0.25 to 10]
        axis_ratio: b/a, with shape (B,).
        position_angle: Counter-clockwise from +y, with shape (B,). [deg]
        x: Column of the centre from the stamp's centre, with shape (B,). [px]
        y: Row of the centre from the stamp's centre, with shape (B,). [px]
        psf: One PSF (Py, Px), one per galaxy (B, Py, Px), or a few that galaxies share (see
            `psf_index`), odd-sided, used as given.
        size: Side of the stamp. [px]
        oversampling: PSF samples per pixel.
        psf_includes_pixel: Whether the detector's pixel is in the PSF already; if not, a box of
            one pixel is convolved in.
        psf_index: Which of the PSFs each galaxy has, with shape (B,); its own if None. PSFs that
            are shared are transformed once.
        plan: Render every galaxy by this plan instead of by its own class.
        negligible: Light that may be wrong in a pixel, a number or one per galaxy: that of
            periodic copies need not be subtracted (below 1e-6 of the peak pixel it never is), and
            frequencies that add no more than this are left out. [flux per pixel]
        bands: An empty dictionary at first, to be given again with these PSFs, oversampling and
            dtype: their transforms are then computed once. For PSFs that galaxies share.
        by_width: Render the images' derivatives with the logarithm of the PSF's width instead.
            Those of the periodic copies, which are smooth, are left in.

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
    """Returns a number as it is, and of one number per galaxy those of some rows."""
    return value[rows] if isinstance(value, Tensor) else value


def _used(psf: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the PSFs that are used, and the index among those."""
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
    """Renders galaxies of one plan, a cache-sized number at a time."""
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
    """Returns PSFs' transforms, with their derivatives with the PSF's width if these are wanted.

    Args:
        bands: Those known so far; what is not is added.
        psf: The PSFs.
        length: Pixels per period.
        s: PSF samples per pixel.
        by_width: Whether the derivatives are wanted.
    """
    if length not in bands:
        bands[length] = psf_band(psf, length, s)
    if by_width and bands[length].width is None:
        bands[length] = with_width(bands[length], psf)
    return bands[length] if by_width else replace(bands[length], width=None)


def by_reach(
    galaxies: Galaxies, band: Band, index: Tensor | None, negligible: float | Tensor
) -> Iterator[tuple[Tensor, Band]]:
    """Yields rows of galaxies together with as much of the band as they need.

    Each galaxy's own reach decides, so that its image is the same in any company.

    Args:
        galaxies: B galaxies.
        band: Of the PSFs.
        index: PSF of each galaxy; None if there is but one.
        negligible: Light that may be missing in a pixel; 0: the whole band is needed.
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
    """Subtracts the copies' light from the images of those galaxies where there is any."""
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
    """Returns the side L of the periodic square: the plan's, or what the PSF's reach asks for."""
    reach = math.ceil(max(psf_shape) / (2 * oversampling))
    shortest = max(size + 24, size // 2 + reach + 16, 2 * reach)
    return _fast_length(max(math.ceil(plan.period * size), shortest))


def _periodic_image(galaxies: Galaxies, band: Band, size: int, pixel: bool) -> Tensor:
    """Inverse FFT of the model, or of its derivative with the PSF's width if the band has one."""
    flux, radius, n, q, angle, x, y = galaxies
    hankel = load_tables().hankel
    kx, ky = band.kx, band.ky[:, None]
    kk = [c[:, None, None] for c in transform_form(radius, q, angle)]
    k2 = kk[0] * kx**2 + ky * (kk[1] * kx + kk[2] * ky)
    tiny = torch.finfo(radius.dtype).tiny
    profile = hankel.evaluate(hankel.rows(n), 0.5 * k2.clamp_min(tiny).log())
    if not pixel:
        profile = profile * torch.sinc(kx) * torch.sinc(ky)
    # Stamp pixel i sits at sample i of the period; the galaxy at (size - 1)/2 + offset.
    middle = (size - 1) / 2
    columns, rows = shift_phases(band, middle + x, middle + y, flux)
    # Real times complex is three times as fast as a product of two reals.
    transfer = band.transfer if band.width is None else band.width
    spectrum = torch.view_as_complex(torch.view_as_real(transfer) * profile[..., None])
    return to_stamp(spectrum * columns[:, None, :] * rows[:, :, None], band, size)


def transform_form(radius: Tensor, q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quadratic form of (R_e |k|)^2, with the minor axis shortened by q."""
    t = torch.deg2rad(angle + 90.0)
    cos, sin = t.cos(), t.sin()
    major, minor = radius**2, (radius * q) ** 2
    return (
        major * cos**2 + minor * sin**2,
        2.0 * cos * sin * (major - minor),
        major * sin**2 + minor * cos**2,
    )
