"""Sandwich covariances from likelihoods and modes: images, blocks and the maps for draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.signal import fftconvolve
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.inference.fit.background import (
    BLOCK,
    FAINT,
    foreign_light,
    measured_noise,
    pull_of_image,
    pull_of_light,
)
from deeplegato_pp.inference.fit.blocks import Ellipses, blocks_among, elliptical, ring_sectors
from deeplegato_pp.inference.fit.fit import Fit
from deeplegato_pp.inference.fit.neighbours import INNER_RADIUS
from deeplegato_pp.inference.fit.sandwich import Sandwich, sandwich, sandwich_of
from deeplegato_pp.inference.fit.scores import SHRINKAGE, ModeImages, block_scores, summed
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.observation.effective_psf import psf_fwhm, wings
from deeplegato_pp.observation.noise_maps import noise_data_slope
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.correlated_noise import block_scatter
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.joint import JointLikelihood
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import model_variance, variance_slope
from deeplegato_pp.scene.parameters import NUM_PARAMETERS
from deeplegato_pp.scene.prior import W_MAX

MISSING = 0.01
"""Part of the PSF's light beyond its array from which it is looked at."""

Slopes = tuple[Tensor, Tensor]
"""Noiseless image (N, N) and derivatives with respect to coordinates (F, N * N), float64."""


def slopes_at(
    batches: Batches, rows: Sequence[int], points: Sequence[Float[Tensor, "m f"]]
) -> list[list[Slopes] | None]:
    """Returns galaxies' images and derivatives at some points of each, in few calls.

    Args:
        batches: Renders of the galaxies.
        rows: Galaxy indices.
        points: Points of each galaxy.

    Returns:
        For each galaxy one pair per point; None for all galaxies if any derivative is not finite,
        in which case each must be requested individually.
    """
    sizes = [len(u) for u in points]
    owner = torch.tensor(rows, dtype=torch.long).repeat_interleave(torch.tensor(sizes))
    try:
        images, jacobians = batches.differentiate(owner, torch.cat(list(points)))[:2]
    except NumericalError:
        return [None] * len(rows)
    pairs = iter(zip(images, jacobians.double(), strict=True))
    return [list(islice(pairs, size)) for size in sizes]


def mode_images(
    likelihood: Likelihood, row: int, u: Float[Tensor, " f"], slopes: Slopes | None = None
) -> ModeImages:
    """Returns one galaxy's derivatives, residual and variances at a point, as a batch of one.

    Args:
        likelihood: Galaxies and hypothesis, with the masks in force.
        row: Index of the galaxy.
        u: Point, with shape (F,).
        slopes: Image and derivatives at the point, if known.
    """
    model, jacobian = likelihood.jacobian(row, u) if slopes is None else slopes
    s, error = likelihood.stamps, likelihood.model_error
    mask, gain = s.mask[row], s.gain[row]
    sigma = torch.where(mask, 1.0, s.sigma[row])
    stated = model_variance(model, sigma, gain)
    variance = model_variance(model, sigma, gain, error)
    slope = variance_slope(model, gain, error)
    left = likelihood.residual(row, model).left
    templates = likelihood.templates(torch.tensor([row]))
    return ModeImages(
        jacobian.reshape(1, len(u), *model.shape),
        left[None],
        variance[None],
        stated[None],
        slope[None],
        mask[None],
        templates,
        likelihood.whitening(row),
        likelihood.psf_widths.amplitude_variance(row, templates.number)[None],
    )


def widening_at(
    likelihood: Likelihood,
    row: int,
    modes: Fit | None,
    mean: Float[Tensor, "7"],
    slopes: Sequence[Slopes] | None = None,
) -> Widening:
    """Computes the widening of one galaxy's draws to their sandwich covariance.

    Args:
        likelihood: Galaxies, with the masks in force.
        row: Index of the galaxy.
        modes: Modes of the galaxy, best first; None if no search was made, in which case `mean` is
            used.
        mean: Weighted mean of the draws in w, with shape (7,).
        slopes: Image and derivatives at each mode, if known.
    """
    coordinates = likelihood.coordinates
    assert isinstance(coordinates, SersicCoordinates | Member)  # noqa: S101  # a galaxy is refined
    points = coordinates.project(mean[None]) if modes is None else modes.u
    every = [
        _sandwich_and_images(
            likelihood,
            row,
            u,
            None if modes is None else modes.covariance[i],
            None if slopes is None else slopes[i],
        )
        for i, u in enumerate(points)
    ]
    found = [s for s, *_ in every]
    best, images, noise, wings_pull = every[0]
    return Widening(
        coordinates.embed(points),
        _embedded(coordinates, torch.cat([s.precision for s in found])),
        _embedded(coordinates, torch.cat([s.transform for s in found])),
        _embedded(coordinates, best.covariance, 0.0)[0],
        best.inflation[0],
        int(best.blocks[0]),
        bool(best.judged[0]),
        noise,
        _pull_of_light(likelihood, row, points[0], images, best, noise),
        wings_pull,
        _pull_of_weights(likelihood, row, images, best),
    )


def sandwich_at(
    likelihood: Likelihood,
    row: int,
    u: Float[Tensor, " f"],
    covariance: Float[Tensor, "f f"] | None = None,
    slopes: Slopes | None = None,
) -> Sandwich:
    """Computes the sandwich of one galaxy at a point, under any hypothesis, as a batch of one.

    Where the background scatters more than the noise map, the noise of the background is used. The
    shift of the mode expected from light beyond the PSF's array is included.

    Args:
        likelihood: Galaxies, with the masks in force.
        row: Index of the galaxy.
        u: Mode, with shape (F,).
        covariance: Covariance of the posterior, if known more accurately than from Fisher
            information.
        slopes: Image and derivatives at the mode, if known.
    """
    return _sandwich_and_images(likelihood, row, u, covariance, slopes)[0]


def _sandwich_and_images(
    likelihood: Likelihood,
    row: int,
    u: Tensor,
    covariance: Tensor | None,
    slopes: Slopes | None,
) -> tuple[Sandwich, ModeImages, float, float]:
    """Returns a sandwich, its images (derivatives in u), noise ratio, and pull of the PSF's wings.

    The noise ratio is that of background to noise map. The pull is in widths that do not include
    it.
    """
    slopes = likelihood.jacobian(row, u) if slopes is None else slopes
    _, std = likelihood.coordinates.normal_prior()
    at_mode = mode_images(likelihood, row, u, slopes)
    images, noise = normalised(likelihood, row, at_mode)
    blocks = blocks_at(likelihood, row, u)
    precision = None if covariance is None else torch.linalg.inv(covariance)[None]
    if precision is not None:
        precision = precision * std[:, None] * std
    whole = sandwich(images, blocks, precision=precision).rescaled(std)
    shift = _shift_by_wings(likelihood, row, slopes[0], at_mode)
    if shift is None:
        return whole, at_mode, noise, 0.0
    return whole.holding(shift[None]), at_mode, noise, _in_widths(shift, whole)


def normalised(likelihood: Likelihood, row: int, images: ModeImages) -> tuple[ModeImages, float]:
    """Returns images in coordinates in which the prior is N(0, I), under the background's noise.

    Sandwiches are computed in these coordinates.

    Args:
        likelihood: Galaxies.
        row: Index of the galaxy.
        images: Its images at the mode, with derivatives in u.

    Returns:
        The images, and the ratio of background noise to noise map.
    """
    _, std = likelihood.coordinates.normal_prior()
    noise = _background_noise(likelihood, row, images)
    images = _under_measured_noise(images, noise)
    return replace(images, derivatives=images.derivatives * std[:, None, None]), noise


def blocks_at(likelihood: Likelihood, row: int, u: Float[Tensor, " f"]) -> Int[Tensor, "1 n n"]:
    """Returns the block of each pixel of one galaxy's stamp, see `blocks.blocks_among`.

    Args:
        likelihood: Galaxies.
        row: Which galaxy.
        u: Its mode, with shape (F,).
    """
    scale = torch.tensor([block_scale(likelihood, row)], dtype=torch.float64)
    found = likelihood.coordinates.galaxies(u[None].clamp(-W_MAX, W_MAX))
    ellipses, radii = zip(*(_ellipse(profiles) for profiles in found), strict=True)
    return blocks_among(ellipses, radii, likelihood.size, scale.to(u.device))


def _background_noise(likelihood: Likelihood, row: int, images: ModeImages) -> float:
    """Returns the ratio of background noise to noise map, see `background.measured_noise`."""
    stamps = likelihood.stamps
    sigma = torch.where(images.mask[0], 1.0, stamps.sigma[row])
    light = stamps.image[row] - images.residual[0]  # model plus sky
    background = ~images.mask[0] & (light.abs() < FAINT * sigma)
    stated = float(block_scatter(stamps.full_lags[row : row + 1], BLOCK))
    return measured_noise(images.residual[0] / sigma, background, stated)


def _under_measured_noise(images: ModeImages, noise: float) -> ModeImages:
    """Returns the images with the noise of the background, where it exceeds the noise map."""
    return replace(images, noise_variance=images.noise_variance * max(noise, 1.0) ** 2)


def _pull_of_light(
    likelihood: Likelihood, row: int, u: Tensor, images: ModeImages, mode: Sandwich, noise: float
) -> float:
    """Returns the shift of a mode by foreign light, in sandwich widths of its coordinates."""
    good = ~images.mask[0]
    variance = images.variance[0] * max(noise, 1.0) ** 2
    (ellipse, radius), *_ = (
        _ellipse(p) for p in likelihood.coordinates.galaxies(u[None].clamp(-W_MAX, W_MAX))
    )
    axis = torch.arange(likelihood.size).to(variance) - (likelihood.size - 1) / 2
    rho, _ = elliptical(ellipse, axis[None, None, :], axis[None, :, None])
    inside = rho[0] < (INNER_RADIUS * radius + 2.0) * float(ellipse.axis_ratio) ** 0.5
    residual = torch.where(good, images.residual[0] / variance.sqrt(), 0.0)
    light = foreign_light(residual, good, inside)
    if not bool(light.any()):
        return 0.0
    pull = pull_of_light(images.derivatives[0], images.residual[0], variance, good, light)
    return _in_widths(pull, mode)


def _shift_by_wings(
    likelihood: Likelihood, row: int, model: Tensor, images: ModeImages
) -> Tensor | None:
    """How far the PSF's light beyond its array moves a mode, with shape (F,); None if it has none.

    That light is where the image, convolved with the continued wings, has it, and as much is
    missing from the image.
    """
    found = wings(likelihood.psfs[row].cpu().numpy())
    if found is None or found.fraction < MISSING:
        return None
    light = np.asarray(model.double().cpu())
    halo = found.image(2 * light.shape[0] - 1, likelihood.oversampling[row])
    moved = fftconvolve(light, halo, mode="same") - found.fraction * light
    return _shift(torch.from_numpy(moved).to(images.variance) / images.variance[0], images)


def _pull_of_weights(likelihood: Likelihood, row: int, images: ModeImages, mode: Sandwich) -> float:
    """How far weights that follow the data's own noise move a mode, in its honest widths.

    With the variance V + s e of a pixel whose noise is e, and V_e that of the likelihood, the mean
    of e / (V_e + s e) is -s V / V_e^2.
    """
    s = likelihood.stamps
    if bool(torch.isfinite(s.gain[row])):  # the variance is the model's
        return 0.0
    image, sigma, mask = (x[row].double().cpu().numpy() for x in (s.image, s.sigma, s.mask))
    slope = noise_data_slope(image, sigma, mask.astype(bool))
    weighted = -slope * images.noise_variance[0] / images.variance[0] ** 2
    return _in_widths(_shift(weighted, images), mode)


def _shift(weighted: Tensor, images: ModeImages) -> Tensor:
    """What something in the data, over the variance, moves the coordinates by, with shape (F,)."""
    return pull_of_image(
        images.derivatives[0],
        weighted,
        images.variance[0],
        ~images.mask[0],
        images.templates.images[0],
    )


def _in_widths(shift: Tensor, mode: Sandwich) -> float:
    """The largest of a mode's shifts, in its honest widths."""
    return float((shift / mode.covariance[0].diagonal().sqrt()).abs().max())


def joint_sandwich_at(
    likelihood: JointLikelihood,
    u: Float[Tensor, " f"],
    covariance: Float[Tensor, "f f"],
) -> Sandwich:
    """Computes the sandwich of a galaxy in several bands at a mode, as a batch of one.

    A block is a part of the sky: its score is the sum over all bands.

    Args:
        likelihood: Joint likelihood of the galaxy.
        u: Mode, with shape (F,).
        covariance: Covariance of the posterior at the mode, with shape (F, F).
    """
    coordinates = likelihood.coordinates
    sizes = [frame.size for frame in coordinates.frames]
    scales = [
        block_scale(band, 0) / size for band, size in zip(likelihood.bands, sizes, strict=True)
    ]
    scale = torch.tensor([max(scales)], dtype=torch.float64)
    _, _, _, q, angle, x, y = coordinates.profiles(u[None])[0]
    ellipse = Ellipses(x, y, q, angle)
    axis = torch.arange(likelihood.size, dtype=torch.float64) - (likelihood.size - 1) / 2
    parts = []
    for band, frame in zip(likelihood.bands, coordinates.frames, strict=True):
        points = frame.back(axis[None, None, :], axis[None, :, None])
        blocks = ring_sectors(*elliptical(ellipse, *points), scale)
        images = mode_images(band, 0, u)
        images = _under_measured_noise(images, _background_noise(band, 0, images))
        parts.append(block_scores(images, blocks))
    return sandwich_of(
        summed(parts),
        precision=torch.linalg.inv(covariance)[None],
        # With a given number of blocks, the scatter is less certain for more coordinates.
        shrinkage=SHRINKAGE * coordinates.dim / NUM_PARAMETERS,
        parameters=NUM_PARAMETERS,
    )


def block_scale(likelihood: Likelihood, row: int) -> float:
    """Returns the minimum size of a block: PSF FWHM or noise correlation length. [px]"""
    fwhm = psf_fwhm(likelihood.psfs[row].cpu().numpy(), likelihood.oversampling[row])
    correlated = math.sqrt(float(likelihood.stamps.noise_correlation[row]))
    return max(fwhm, correlated, 1.0)


def _ellipse(profiles: Float[Tensor, "c 7 1"]) -> tuple[Ellipses, float]:
    """Returns the ellipse of a galaxy's brightest part, and its effective radius. [px]"""
    _, radius, _, q, angle, x, y = profiles[int(profiles[:, 1, 0].argmax())]
    return Ellipses(x, y, q, angle), float(radius)


def _embedded(
    coordinates: SersicCoordinates | Member, matrices: Float[Tensor, "m f f"], diagonal: float = 1.0
) -> Float[Tensor, "m 7 7"]:
    """Embeds matrices of free coordinates in all seven; fixed ones get `diagonal`."""
    if coordinates.dim == NUM_PARAMETERS:
        return matrices
    unit = torch.eye(coordinates.dim).to(matrices)
    basis = coordinates.embed(unit) - coordinates.embed(torch.zeros_like(unit))  # (F, 7)
    whole = basis.T @ matrices @ basis
    return whole + diagonal * torch.diag(1.0 - basis.sum(0))
