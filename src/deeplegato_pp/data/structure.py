"""Structure of galaxies: random properties, and images.

Structure is drawn in the image plane before the PSF: its difference from the smooth galaxy,
evaluated at the pixels' centres, is convolved with the PSF and added to the smooth galaxy's exact
image. Bulges and nuclei, which have cusps, are rendered like the galaxy. The result has no true
parameters of a Sérsic profile: the truth is the profile that best fits its noiseless image, found
by a function given to `SersicSimulator`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.config.structure import KINDS, StructureConfig
from deeplegato_pp.data.conditions import DrawnPSF
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.polar_structure import PlanePixels, at_pixels, log_factors
from deeplegato_pp.scene.parameters import signal_to_noise
from deeplegato_pp.scene.render.sersic_profile import compute_bn, log_central_brightness
from deeplegato_pp.scene.render.wings import Galaxies

SEEN = 5.0
"""S/N below which a galaxy stays smooth, because structure would be hidden by noise."""

RESOLVED = 0.5
"""R_e relative to the PSF's FWHM below which a galaxy stays smooth, because it is unresolved."""

MOST_ADDED = 0.7
"""Maximum fraction of the light in bar, bulge, nucleus and clumps together."""

DISC_INDEX = 1.5
"""Maximum n of the rest of a galaxy with a bulge."""

CLUMPS = 12
"""Maximum number of clumps of a galaxy."""

POINT = 0.05
"""R_e of a nucleus, a point source. [px]"""


@dataclass(frozen=True)
class Structure:
    """Structure of galaxies in a batch.

    Attributes:
        rows: Galaxies of the batch with structure, with shape (S,).
        smooth: Their smooth components, without the light of added components, S rows.
        log_factor: Logarithm of the factor on their light on the polar grid, with shape (S, M, K).
        bar: Bars' fractions of the total light, 0 without bar, with shape (S,).
        bar_shape: Half length [R_e], angle from the major axis in the plane [rad], axis ratio and
            exponent of the bars, with shape (4, S).
        clump: Clumps' fractions of the light, with shape (S, C).
        clump_places: Distance [R_e], angle in the plane [rad] and sigma [R_e], (3, S, C).
        flux: Total light of the galaxies, with shape (S,).
        parts: Bulges and nuclei.
        owner: Index of the galaxy, of S, of each bulge or nucleus.
    """

    rows: Int[Tensor, " s"]
    smooth: Galaxies
    log_factor: Float[Tensor, "s m k"]
    bar: Float[Tensor, " s"]
    bar_shape: Float[Tensor, "4 s"]
    clump: Float[Tensor, "s c"]
    clump_places: Float[Tensor, "3 s c"]
    flux: Float[Tensor, " s"]
    parts: Galaxies
    owner: Int[Tensor, " p"]

    def images(self, psf: DrawnPSF, size: int) -> Float[Tensor, "s n n"]:
        """Returns noiseless images of the galaxies with structure.

        Light is conserved: a factor close to 1 compensates the light that arms, lanes or breaks add
        to or remove from the stamp.

        Args:
            psf: PSFs of the whole batch.
            size: Side of the stamps. [px]
        """
        pixels = PlanePixels.of(self.smooth, size)
        factor = at_pixels(self.log_factor, pixels)
        changed = _brightness(self.smooth, pixels) * torch.expm1(factor)
        gained = changed.sum((1, 2)) / self.smooth.flux
        scale = (1.0 / (1.0 + gained).clamp(0.5, 2.0))[:, None, None]
        light = scale * changed + _bars(self, pixels) + _clumps(self, size)
        found = scale * psf.render(self.smooth, size, self.rows)
        found += convolve(light, psf.native[self.rows])
        if len(self.owner):
            parts = psf.render(self.parts, size, self.rows[self.owner])
            found.index_add_(0, self.owner, parts.clamp_min(0.0))
        return found


def draw_structure(
    draw: Draw, galaxies: Galaxies, fwhm: Float[Tensor, " b"], config: StructureConfig
) -> Structure | None:
    """Draws the galaxies of a batch that have structure, and their structure.

    Faint and unresolved galaxies have none, because it could not be detected.

    Args:
        draw: Random numbers of the batch; none are used without structure.
        galaxies: The smooth galaxies, in pixels and background sigmas.
        fwhm: FWHM of the PSFs, with shape (B,). [px]
        config: Fractions and ranges.

    Returns:
        The structure; None if no galaxy has structure.
    """
    if not config.share or not config.kinds:
        return None
    snr = signal_to_noise(galaxies.flux, galaxies.radius, galaxies.axis_ratio, fwhm)
    visible = (snr > SEEN) & (galaxies.radius > RESOLVED * fwhm)
    rows = (draw.chance(config.share) & visible).nonzero()[:, 0]
    if not len(rows):
        return None
    part = Draw(len(rows), draw.generator, draw.options["dtype"], draw.options["device"])
    own = galaxies.at(rows)
    has = {kind: part.chance(getattr(config, kind)) for kind in KINDS}
    shares = _shares(part, has, config)
    added = shares["bars"] + shares["bulges"] + shares["nuclei"] + shares["clumps"].sum(1)
    less = (MOST_ADDED / added.clamp_min(1e-9)).clamp_max(1.0)
    smooth = own._replace(
        flux=own.flux * (1.0 - less * added),
        sersic_index=torch.where(
            has["bulges"], own.sersic_index.clamp_max(DISC_INDEX), own.sersic_index
        ),
    )
    parts, which = _parts(part, own, less, shares, config)
    return Structure(
        rows,
        smooth,
        log_factors(part, smooth, has, config),
        less * shares["bars"],
        torch.stack(
            [
                part.uniform(0.4, 1.3),
                part.uniform(0.0, math.pi),
                part.uniform(0.15, 0.45),
                part.uniform(2.0, 4.0),
            ]
        ),
        less[:, None] * shares["clumps"],
        torch.stack(
            [
                part.uniform(0.2, 2.5, CLUMPS),
                part.uniform(0.0, 2.0 * math.pi, CLUMPS),
                part.log_uniform((0.03, 0.12), CLUMPS),
            ]
        ),
        own.flux,
        parts,
        which,
    )


def convolve(
    images: Float[Tensor, "b n n"], psf: Float[Tensor, "b py px"]
) -> Float[Tensor, "b n n"]:
    """Convolves each image with its PSF, with zeros beyond the edges.

    Args:
        images: Square images.
        psf: One PSF per image, with odd sides.
    """
    size, (height, width) = images.shape[-1], psf.shape[-2:]
    # Padding prevents wrapped light from reaching the stamp.
    length = max(size + max(height, width) // 2 + 1, height, width)
    length += length % 2
    placed = torch.zeros_like(images[:, :1, :1]).expand(-1, length, length).clone()
    placed[:, :height, :width] = psf
    placed = torch.roll(placed, (-(height // 2), -(width // 2)), (1, 2))
    spectrum = torch.fft.rfft2(images, s=(length, length)) * torch.fft.rfft2(placed)
    return torch.fft.irfft2(spectrum, s=(length, length))[:, :size, :size]


def _shares(
    draw: Draw, has: dict[str, Bool[Tensor, " s"]], config: StructureConfig
) -> dict[str, Tensor]:
    """Draws added components as fractions of the total light, with one column per clump."""
    sums = draw.log_uniform(config.clump_fraction)
    number = draw.uniform(3.0, CLUMPS + 1.0).floor()
    sizes = -draw.uniform(1e-3, 1.0, CLUMPS).log()
    sizes = sizes * (torch.arange(CLUMPS).to(sizes) < number[:, None])
    clumps = sums[:, None] * sizes / sizes.sum(1, keepdim=True)
    found = {
        "bars": draw.log_uniform(config.bar_fraction),
        "bulges": draw.uniform(*config.bulge_fraction),
        "nuclei": draw.log_uniform(config.nucleus_fraction),
    }
    shares = {kind: torch.where(has[kind], share, 0.0) for kind, share in found.items()}
    return {**shares, "clumps": torch.where(has["clumps"][:, None], clumps, 0.0)}


def _parts(
    draw: Draw,
    own: Galaxies,
    less: Tensor,
    shares: dict[str, Tensor],
    config: StructureConfig,
) -> tuple[Galaxies, Tensor]:
    """Draws bulges and nuclei, and the indices of their galaxies."""
    one = torch.ones_like(own.flux)
    bulges = Galaxies(
        less * shares["bulges"] * own.flux,
        (own.radius * draw.log_uniform(config.bulge_radius)).clamp_min(POINT),
        draw.log_uniform((0.7, 5.0)),
        own.axis_ratio + (1.0 - own.axis_ratio) * draw.uniform(0.0, 1.0),  # rounder than the disc
        own.position_angle + draw.uniform(-20.0, 20.0),
        own.x,
        own.y,
    )
    nuclei = Galaxies(
        less * shares["nuclei"] * own.flux, POINT * one, one, one, 0.0 * one, own.x, own.y
    )
    indices = [(shares[kind] > 0).nonzero()[:, 0] for kind in ("bulges", "nuclei")]
    both = [part.at(index) for part, index in zip((bulges, nuclei), indices, strict=True)]
    return Galaxies(*(torch.cat(pair) for pair in zip(*both, strict=True))), torch.cat(indices)


def _brightness(galaxies: Galaxies, pixels: PlanePixels) -> Float[Tensor, "s n n"]:
    """Returns the surface brightness at the pixels' centres, with the cusp softened."""
    bn = compute_bn(galaxies.sersic_index)
    log_i = (
        log_central_brightness(galaxies.sersic_index, galaxies.radius, galaxies.axis_ratio, bn)
        + galaxies.flux.log()
    )
    power = pixels.radius ** (1.0 / galaxies.sersic_index)[:, None, None]
    return (log_i[:, None, None] - bn[:, None, None] * power).exp()


def _bars(structure: Structure, pixels: PlanePixels) -> Float[Tensor, "s n n"]:
    """Returns bars: flat inside, with a steep edge, and at least two pixels wide."""
    light = torch.zeros_like(pixels.radius)
    index = (structure.bar > 0).nonzero()[:, 0]
    if not len(index):
        return light
    half, turn, ratio, power = structure.bar_shape[:, index, None, None]
    pixel = 1.0 / structure.smooth.radius[index, None, None]
    half = torch.maximum(half, pixel)
    width = torch.maximum(ratio * half, pixel / structure.smooth.axis_ratio[index, None, None])
    x = pixels.along[index] * turn.cos() + pixels.across[index] * turn.sin()
    y = pixels.across[index] * turn.cos() - pixels.along[index] * turn.sin()
    radius2 = ((x / half).abs() ** power + (y / width).abs() ** power) ** (2.0 / power)
    bar = torch.exp(-2.0 * radius2)
    total = bar.sum((1, 2)).clamp_min(1e-3)
    light[index] = ((structure.bar * structure.flux)[index] / total)[:, None, None] * bar
    return light


def _clumps(structure: Structure, size: int) -> Float[Tensor, "s n n"]:
    """Returns clumps: Gaussians on the sky, as products of one along x and one along y."""
    g = structure.smooth
    distance, angle, width = structure.clump_places
    along = distance * angle.cos() * g.radius[:, None]
    across = distance * angle.sin() * (g.radius * g.axis_ratio)[:, None]
    t = torch.deg2rad(g.position_angle + 90.0)[:, None]
    x = g.x[:, None] + along * t.cos() - across * t.sin()
    y = g.y[:, None] + along * t.sin() + across * t.cos()
    sigma = (width * g.radius[:, None]).clamp_min(0.4)[..., None]
    axis = torch.arange(size).to(g.flux) - (size - 1) / 2
    columns = torch.exp(-0.5 * ((axis - x[..., None]) / sigma) ** 2) / sigma
    lines = torch.exp(-0.5 * ((axis - y[..., None]) / sigma) ** 2) / sigma
    flux = (structure.clump * structure.flux[:, None])[..., None] / (2.0 * math.pi)
    return (flux * lines).mT @ columns
