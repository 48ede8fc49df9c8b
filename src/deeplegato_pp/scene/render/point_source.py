"""Images of point sources: the effective PSF, shifted exactly in Fourier space.

The result equals that of :func:`~deeplegato_pp.scene.render.renderer.render_sersic` in the limit of
zero radius, but needs neither the profile's transform nor the wings of periodic copies.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.scene.render.fourier import shift_phases, to_stamp
from deeplegato_pp.scene.render.renderer import COMPACT, Bands, band_of, period_length


def render_points(
    flux: Float[Tensor, " b"],
    x: Float[Tensor, " b"],
    y: Float[Tensor, " b"],
    psf: Float[Tensor, "*p py px"],
    size: int,
    *,
    oversampling: int = 1,
    psf_includes_pixel: bool = True,
    psf_index: Int[Tensor, " b"] | None = None,
    bands: Bands | None = None,
    chunk_pixels: int = 2**20,
    by_width: bool = False,
) -> Float[Tensor, "b size size"]:
    """Renders point sources on square stamps; dtype and device are those of `flux`.

    Args:
        flux: Total flux, with shape (B,).
        x: Column from the stamp's centre, with shape (B,). [px]
        y: Row from the stamp's centre, with shape (B,). [px]
        psf: PSF with odd sides, shared by all sources; several with `psf_index`. Used as given.
        size: Side of the stamp. [px]
        oversampling: PSF samples per pixel.
        psf_includes_pixel: Whether the PSF includes the detector's pixel; if not, it is convolved.
        psf_index: Index of each source's PSF, with shape (B,).
        bands: As for :func:`~deeplegato_pp.scene.render.renderer.render_sersic`.
        chunk_pixels: Pixels of the period processed at a time.
        by_width: Render the derivatives with respect to ln(PSF width) instead.

    Returns:
        Images, with shape (B, size, size). [flux per pixel]

    Example:
        >>> one, zero = torch.ones(1), torch.zeros(1)
        >>> image = render_points(one, zero, zero, torch.ones(1, 1), 3)[0]
        >>> bool((image - torch.eye(3)[1].outer(torch.eye(3)[1])).abs().max() < 1e-5)
        True
    """
    length = period_length(size, tuple(psf.shape[-2:]), oversampling, COMPACT)
    band = band_of({} if bands is None else bands, psf.to(flux), length, oversampling, by_width)
    transfer = band.transfer if band.width is None else band.width
    pixel = 1.0 if psf_includes_pixel else torch.sinc(band.kx) * torch.sinc(band.ky)[:, None]
    middle = (size - 1) / 2
    chunk = max(1, chunk_pixels // length**2)
    images = []
    for part in torch.arange(len(flux), device=flux.device).split(chunk):
        columns, rows = shift_phases(band, middle + x[part], middle + y[part], flux[part])
        own = transfer if psf_index is None else transfer[psf_index[part]]
        spectrum = own * pixel * (rows[:, :, None] * columns[:, None, :])
        images.append(to_stamp(spectrum, band, size))
    return torch.cat(images)
