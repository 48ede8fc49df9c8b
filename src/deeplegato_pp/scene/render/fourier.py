"""Fourier transforms of PSFs, and conversion of spectra to pixels.

Only frequencies at which a PSF's transform is not negligible are evaluated: this rectangle is the
PSF's band. Sampling at the pixels aliases frequencies beyond Nyquist; along columns, they are
folded before the inverse FFT, whose length then depends on the number of pixels only, whatever the
PSF's sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

BAND_FLOOR = {torch.float32: 3e-7, torch.float64: 1e-8}
"""Transform relative to its value at k = 0 below which it is set to zero.

The neglected sum is below this fraction of the flux in any pixel; in float32, the rounding error of
the transform is as large.
"""


_RINGS = 16
"""Number of square rings of frequencies at which a band can be truncated."""


@dataclass(frozen=True)
class Band:
    """A PSF's transform on half of the frequency plane, where it is not negligible.

    Attributes:
        transfer: Transform, rows from -r to r, with shape (*, 2r+1, c+1) or, where every row is
            kept, (*, fine, c+1).
        ky: Frequencies of the rows, ascending. [cycles per px]
        kx: Frequencies of the columns. [cycles per px]
        first: Index of the first row, -r.
        length: Samples per period after folding, L.
        oversampling: Samples per pixel before folding, s.
        ring_edges: Inner edges of the band's square rings, and the outer edge of the last one, with
            shape (Q + 1,). [rows or columns from the middle]
        ring_sums: Sums of |transform| over each ring, both half-planes, with shape (*, Q).
        width: Derivative of the transform with respect to ln(PSF width), in the transform's shape;
            None if not requested.
    """

    transfer: Complex[Tensor, "*b r c"]
    ky: Float[Tensor, " r"]
    kx: Float[Tensor, " c"]
    first: int
    length: int
    oversampling: int
    ring_edges: Int[Tensor, " q1"]
    ring_sums: Float[Tensor, "*b q"]
    width: Complex[Tensor, "*b r c"] | None = None

    def at(self, rows: Int[Tensor, " n"] | slice) -> Band:
        """Returns the bands of the selected PSFs."""
        return replace(
            self,
            transfer=self.transfer[rows],
            ring_sums=self.ring_sums[rows],
            width=None if self.width is None else self.width[rows],
        )

    def within(self, reach: int) -> Band:
        """Returns the band truncated beyond a given row and column.

        Below Nyquist nothing needs folding, and samples between pixels are not needed.

        Args:
            reach: Last row and column to keep, on either side of the middle.
        """
        if reach >= max(-self.first, len(self.kx) - 1):
            return self
        begin = max(-reach - self.first, 0)
        rows = slice(begin, reach - self.first + 1)
        return replace(
            self,
            transfer=self.transfer[..., rows, : reach + 1],
            width=None if self.width is None else self.width[..., rows, : reach + 1],
            ky=self.ky[rows],
            kx=self.kx[: reach + 1],
            first=self.first + begin,
            oversampling=1 if 2 * reach < self.length else self.oversampling,
        )


def psf_band(psf: Float[Tensor, "*b py px"], length: int, oversampling: int) -> Band:
    """Transforms PSFs whose centre sits on sample (0, 0) of the period.

    Args:
        psf: One PSF or one per galaxy; the band covers the one with the highest frequencies.
        length: Pixels per period, even.
        oversampling: PSF samples per pixel.
    """
    fine = length * oversampling
    py, px = psf.shape[-2:]
    padded = torch.nn.functional.pad(psf, (0, fine - px, 0, fine - py))
    full = torch.fft.rfft2(torch.roll(padded, (-(py // 2), -(px // 2)), (-2, -1)))
    size = full.detach().abs()
    reached = size > BAND_FLOOR.get(psf.dtype, 0.0) * size[..., :1, :1]
    index = torch.fft.fftfreq(fine, 1.0 / fine, device=psf.device).round().long()
    rows = torch.where(reached.any(-1), index.abs(), 0).amax(-1)  # last row of each PSF
    width = torch.arange(full.shape[-1], device=psf.device)
    columns = torch.where(reached.any(-2), width, 0).amax(-1)
    r, c = int(rows.max()), int(columns.max())
    first, last = max(-r, -(fine // 2)), min(r, fine // 2 - 1)
    order = torch.arange(first, last + 1, device=psf.device)
    transfer = full[..., order % fine, : c + 1]
    if psf.dim() == 3:  # a PSF's image must not depend on the other PSFs
        within = order.abs()[:, None] <= rows[:, None, None]
        transfer = transfer * (within & (width[: c + 1] <= columns[:, None, None]))
    edges, sums = _rings(transfer.detach(), order)
    return Band(
        transfer,
        order.to(psf.dtype) / length,
        torch.arange(c + 1, device=psf.device).to(psf.dtype) / length,
        first,
        length,
        oversampling,
        edges,
        sums,
    )


def with_width(band: Band, psf: Float[Tensor, "*b py px"]) -> Band:
    r"""Returns a band with its derivative with respect to the logarithm of the PSF's width.

    A PSF scaled to s times its width, :math:`p(x/s)/s^2`, has the transform :math:`P(s k)`, whose
    derivative with ln s is :math:`k \cdot \nabla P(k)`: the transform of
    :math:`-\nabla \cdot (x\, p)`.

    Args:
        band: Band from :func:`psf_band`.
        psf: The PSFs of that band.
    """
    fine = band.length * band.oversampling
    py, px = psf.shape[-2:]
    x = (torch.arange(px).to(psf) - px // 2) / band.oversampling
    y = (torch.arange(py).to(psf) - py // 2) / band.oversampling
    moments = torch.stack([psf * x, psf * y[:, None]], -3)
    padded = torch.nn.functional.pad(moments, (0, fine - px, 0, fine - py))
    full = torch.fft.rfft2(torch.roll(padded, (-(py // 2), -(px // 2)), (-2, -1)))
    order = band.first + torch.arange(len(band.ky), device=psf.device)
    along_x, along_y = full[..., order % fine, : len(band.kx)].unbind(-3)
    slope = -2j * math.pi * (band.kx * along_x + band.ky[:, None] * along_y)
    return replace(band, width=torch.where(band.transfer != 0, slope, 0.0))


def _rings(transfer: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Returns edges of square rings about the middle of a band, and sums of |transform| in each."""
    last = max(int(order.abs().max()), transfer.shape[-1] - 1)
    width = max(1, -(-(last + 1) // _RINGS))
    edges = torch.arange(0, last + width, width, device=transfer.device)
    edges[-1] = last + 1
    size = transfer.abs()
    size[..., 1:] *= 2.0  # the other half-plane
    columns = size.cumsum(-1)
    within = []
    for edge in edges[1:].tolist():
        reached = columns[..., order.abs() < edge, min(edge, size.shape[-1]) - 1]
        within.append(reached.sum(-1))
    sums = torch.stack(within, -1)
    return edges, torch.diff(sums, dim=-1, prepend=torch.zeros_like(sums[..., :1]))


def to_stamp(spectrum: Complex[Tensor, "b r c"], band: Band, size: int) -> Tensor:
    """Returns pixels 0 to size - 1 of the periodic image of a spectrum, (B, size, size).

    Args:
        spectrum: Spectrum on the band's frequencies; its value at 0 is the flux.
        band: Band that defines the frequencies.
        size: Side of the stamp. [px]
    """
    rows = _fold_rows(spectrum, band.first, band.length)
    # The second half of the transform needs the stamp's rows only.
    stamp = torch.fft.ifft(rows, dim=-2)[:, :size]
    s = band.oversampling
    return s * torch.fft.irfft(stamp, n=band.length * s, dim=-1)[..., : size * s : s]


def _fold_rows(spectrum: Tensor, first: int, length: int) -> Tensor:
    """Adds up rows `first`, `first + 1`, ... modulo the length, with shape (B, L, C)."""
    batch, count, columns = spectrum.shape
    folded = spectrum.new_zeros(batch, length, columns)
    start = 0
    while start < count:
        target = (first + start) % length
        stop = min(count, start + length - target)
        folded[:, target : target + stop - start] += spectrum[:, start:stop]
        start = stop
    return folded


def shift_phases(band: Band, x: Tensor, y: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the phase factors of shifts to (x, y): for columns (B, C) and for rows (B, R).

    Args:
        band: Band that defines the frequencies.
        x: Columns, with shape (B,). [px]
        y: Rows, with shape (B,). [px]
        scale: Factor included in the rows' phases, with shape (B,).
    """
    one = torch.ones_like(x)[:, None]
    columns = torch.polar(one.expand(-1, len(band.kx)), -2 * math.pi * band.kx * x[:, None])
    rows = torch.polar(scale[:, None].expand(-1, len(band.ky)), -2 * math.pi * band.ky * y[:, None])
    return columns, rows
