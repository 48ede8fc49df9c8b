r"""Noiseless images of PSF-convolved Sérsic galaxies, exact in Fourier space.

A pixel's value is the convolved surface brightness at its centre (the PSF is the effective one,
so the pixel is in it). In Fourier space an elliptical Sérsic profile is its Hankel transform,

.. math:: G(k) = F\, T_n(R_e \sqrt{u^2 + q^2 v^2})\, \mathrm{PSF}(k)\, e^{-2 \pi i k \cdot x_0},

with (u, v) = k along the major and minor axis. The inverse FFT on L pixels shows the galaxy's
periodic copies too; their wings are subtracted (`wings`). How large L must be, and how finely
the wings must be sampled, depends on the galaxy: `choose_plans` spends only where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.data.sersic_profile import (
    check_sersic_index,
    compute_bn,
    ellipse_form,
    log_central_brightness,
    power_of_square,
)
from deeplegato_pp.data.tables import load_tables
from deeplegato_pp.errors import ShapeError

_CHUNK_PIXELS = 2**19
"""Fourier pixels worked on at a time on a CPU: a few MB an array, so that they stay in cache."""


@dataclass(frozen=True)
class Plan:
    """How one class of galaxies is rendered.

    Attributes:
        period: Side L of the periodic square over the stamp's side.
        nodes: Chebyshev nodes per axis on which the copies' wings are evaluated.
        rings: Rings of copies evaluated one by one; the rest enters as a uniform term.
    """

    period: float
    nodes: int
    rings: int


COMPACT = Plan(1.25, 17, 2)
EXTENDED = Plan(1.5, 17, 2)
WIDE = Plan(2.0, 33, 3)
HUGE = Plan(3.0, 25, 3)
PLANS = (COMPACT, EXTENDED, WIDE, HUGE)


def choose_plans(radius: Tensor, axis_ratio: Tensor, size: int) -> Tensor:
    """Returns, per galaxy, the index of the cheapest plan in :data:`PLANS` that is good enough.

    Thin discs are the hard ones: along their major axis a copy throws a narrow ray across the
    stamp, whose width goes with q R_e. The limits keep the error below 2e-5 of the peak pixel
    against period 5 on a grid of R_e 0.5-40 px (at 128 px), q 0.1-1, n 0.3-8, two angles;
    `benchmarks/render_accuracy.py` shows the error by class.

    Args:
        radius: Major-axis half-light radius, with shape (B,). [px]
        axis_ratio: b/a, with shape (B,).
        size: Side of the stamp. [px]
    """
    extent = radius / size
    thin = extent / axis_ratio**2
    plan = torch.zeros_like(radius, dtype=torch.long)
    plan += (extent > 0.16) | (thin > 1.7)
    plan += (extent > 0.32) | (thin > 6.2)
    plan += extent > 0.32
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
    plan: Plan | None = None,
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
        psf: One PSF (Py, Px) or one per galaxy (B, Py, Px), odd-sided, used as given.
        size: Side of the stamp. [px]
        oversampling: PSF samples per pixel.
        psf_includes_pixel: Whether the detector's pixel is in the PSF already; if not, a box of
            one pixel is convolved in.
        plan: Render every galaxy by this plan instead of by its own class.

    Returns:
        Images, with shape (B, size, size). [flux per pixel]

    Raises:
        ShapeError: If the PSF is not two- or three-dimensional, odd-sided and matching.
        RangeError: If n lies outside the tables.
    """
    check_sersic_index(sersic_index)
    _check_psf(psf, radius.shape[0])
    psf = psf.to(radius.dtype)
    options = (size, oversampling, psf_includes_pixel)
    columns = (flux, radius, sersic_index, axis_ratio, position_angle, x, y)
    if plan is not None:
        return _render_chunks(columns, psf, *options, plan)
    chosen = choose_plans(radius.detach(), axis_ratio.detach(), size)
    present = chosen.unique().tolist()
    if len(present) == 1:
        return _render_chunks(columns, psf, *options, PLANS[present[0]])
    parts, rows = [], []
    for index in present:
        row = (chosen == index).nonzero()[:, 0]
        part_psf = psf if psf.dim() == 2 else psf[row]
        parts.append(_render_chunks([c[row] for c in columns], part_psf, *options, PLANS[index]))
        rows.append(row)
    return torch.cat(parts)[torch.argsort(torch.cat(rows))]


def _check_psf(psf: Tensor, batch: int) -> None:
    if psf.dim() not in (2, 3) or (psf.dim() == 3 and psf.shape[0] != batch):
        raise ShapeError(
            f"psf has shape (Py, Px) or ({batch}, Py, Px), got {tuple(psf.shape)}."
        )
    if psf.shape[-1] % 2 == 0 or psf.shape[-2] % 2 == 0:
        raise ShapeError(
            f"psf must be odd-sided, with its centre on a sample, got {tuple(psf.shape[-2:])}. "
            "Shift an even one by half a sample (`psf_even='shift'`)."
        )


def _render_chunks(columns, psf: Tensor, size: int, s: int, pixel: bool, plan: Plan) -> Tensor:  # type: ignore[no-untyped-def]
    """Renders galaxies of one plan, a cache-sized number at a time."""
    length = period_length(size, psf.shape[-2:], s, plan)
    per_galaxy = length * s * (length * s // 2 + 1)
    chunk = max(1, _CHUNK_PIXELS // per_galaxy)
    if columns[0].is_cuda:
        chunk *= 64
    batch = columns[0].shape[0]
    shared = _psf_transform(psf, length * s) if psf.dim() == 2 else None
    parts = []
    for rows in _slices(batch, chunk):
        part = [c[rows] for c in columns]
        transfer = shared if shared is not None else _psf_transform(psf[rows], length * s)
        image = _periodic_image(part, transfer, size, length, s, pixel)
        parts.append(image - wings(*part, size, length, plan))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _slices(total: int, chunk: int) -> Iterator[slice]:
    for start in range(0, total, chunk):
        yield slice(start, min(start + chunk, total))


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
    return _fast_length(max(math.ceil(plan.period * size), size + 24, size // 2 + reach + 16))


def _psf_transform(psf: Tensor, length: int) -> Tensor:
    """Returns the half-plane transform of a PSF whose centre sits on sample (0, 0)."""
    py, px = psf.shape[-2:]
    if max(py, px) > length:
        raise ShapeError(f"A PSF of {py} x {px} samples does not fit the period {length}.")
    padded = torch.nn.functional.pad(psf, (0, length - px, 0, length - py))
    return torch.fft.rfft2(torch.roll(padded, (-(py // 2), -(px // 2)), (-2, -1)))


def _periodic_image(columns, transfer: Tensor, size: int, length: int, s: int, pixel: bool) -> Tensor:  # type: ignore[no-untyped-def]
    """Inverse FFT of the model on an s-times finer grid, sampled at the pixels' centres."""
    flux, radius, n, q, angle, x, y = columns
    fine = length * s
    options = {"dtype": radius.dtype, "device": radius.device}
    ky = torch.fft.fftfreq(fine, 1.0 / s, **options)
    kx = torch.fft.rfftfreq(fine, 1.0 / s, **options)
    hankel = load_tables().hankel
    kk = _transform_form(radius, q, angle)
    k2 = kk[0][:, None, None] * kx**2 + ky[:, None] * (
        kk[1][:, None, None] * kx + kk[2][:, None, None] * ky[:, None]
    )
    tiny = torch.finfo(radius.dtype).tiny
    profile = hankel.evaluate(hankel.rows(n), 0.5 * k2.clamp_min(tiny).log())
    if pixel is False:
        profile = profile * torch.sinc(kx) * torch.sinc(ky)[:, None]
    # Stamp pixel i sits at sample i of the period; the galaxy at (size - 1)/2 + offset.
    x0, y0 = (size - 1) / 2 + x, (size - 1) / 2 + y
    phase_x = torch.polar(torch.ones_like(kx)[None].expand(len(x), -1), -2 * math.pi * kx * x0[:, None])
    phase_y = torch.polar(
        (flux * s * s)[:, None].expand(-1, fine), -2 * math.pi * ky * y0[:, None]
    )
    spectrum = (transfer * profile) * (phase_y[:, :, None] * phase_x[:, None, :])
    image = torch.fft.irfft2(spectrum, s=(fine, fine))
    return image[:, : size * s : s, : size * s : s]


def _transform_form(radius: Tensor, q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quadratic form of (R_e |k|)^2, with the minor axis shortened by q."""
    t = torch.deg2rad(angle + 90.0)
    cos, sin = t.cos(), t.sin()
    major, minor = radius**2, (radius * q) ** 2
    return (
        major * cos**2 + minor * sin**2,
        2.0 * cos * sin * (major - minor),
        major * sin**2 + minor * cos**2,
    )


def wings(
    flux: Tensor,
    radius: Tensor,
    sersic_index: Tensor,
    axis_ratio: Tensor,
    position_angle: Tensor,
    x: Tensor,
    y: Tensor,
    size: int,
    length: int,
    plan: Plan,
) -> Float[Tensor, "b size size"]:
    """Returns the light that the galaxy's periodic copies shed on the stamp.

    The nearest rings of copies are evaluated on Chebyshev nodes and interpolated (the wings are
    smooth across the stamp, so this converges geometrically); all further ones, together, are
    uniform: the light outside the rings' square over the period's area. The PSF is left out: it
    does not change a profile that varies slowly over its width.
    """
    bn = compute_bn(sersic_index)
    log_i0 = log_central_brightness(sersic_index, radius, axis_ratio, bn) + flux.log()
    nodes, upsample = _chebyshev(plan.nodes, size, radius.dtype, radius.device)
    m = plan.rings
    shifts = [
        (i, j) for i in range(-m, m + 1) for j in range(-m, m + 1) if (i, j) != (0, 0)
    ]
    shift = length * torch.tensor(shifts, dtype=radius.dtype, device=radius.device)
    dx = nodes - (x[:, None, None] + shift[:, 0, None])  # (B, copies, nodes)
    dy = nodes - (y[:, None, None] + shift[:, 1, None])
    xx, xy, yy = (c[:, None, None, None] for c in ellipse_form(radius, axis_ratio, position_angle))
    r2 = xx * dx[:, :, None, :] ** 2 + dy[..., None] * (xy * dx[:, :, None, :] + yy * dy[..., None])
    root = power_of_square(r2, sersic_index[:, None, None, None])
    light = (log_i0[:, None, None, None] - bn[:, None, None, None] * root).exp().sum(1)
    rest = _light_outside(radius, sersic_index, axis_ratio, position_angle, (m + 0.5) * length)
    uniform = flux * rest / length**2
    return upsample @ light @ upsample.T + uniform[:, None, None]


def _light_outside(radius: Tensor, n: Tensor, q: Tensor, angle: Tensor, half: float) -> Tensor:
    """Fraction of a galaxy's light outside a centred square of half-side `half` px."""
    phi = (torch.arange(64, dtype=radius.dtype, device=radius.device) + 0.5) * (math.pi / 64)
    t = torch.deg2rad(angle + 90.0)[:, None]
    u, v = phi.cos(), q[:, None] * phi.sin()
    reach = torch.maximum((u * t.cos() - v * t.sin()).abs(), (u * t.sin() + v * t.cos()).abs())
    outside = load_tables().outside
    return outside.evaluate(outside.rows(n), (half / (reach * radius[:, None])).log()).mean(1)


@lru_cache(maxsize=64)
def _chebyshev(
    nodes: int, size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns Chebyshev nodes over the stamp [px from its centre] and the matrix to its pixels."""
    k = torch.arange(nodes, dtype=torch.float64)
    t = torch.cos((2 * k + 1) * math.pi / (2 * nodes))
    half = (size - 1) / 2
    pixels = torch.arange(size, dtype=torch.float64) / half - 1 if half else torch.zeros(1).double()
    order = torch.arange(nodes, dtype=torch.float64)
    at_pixels = torch.cos(order * torch.arccos(pixels.clamp(-1, 1))[:, None])
    at_nodes = torch.cos(order * torch.arccos(t)[:, None])
    matrix = at_pixels @ torch.linalg.inv(at_nodes)
    return (half * t).to(device, dtype), matrix.to(device, dtype)
