"""Simulator: galaxies drawn from the prior, rendered, convolved, and observed with noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.config.schema import ConditionsConfig, DataConfig, StructureConfig
from deeplegato_pp.data.conditions import (
    DrawnPSF,
    draw_background,
    draw_mask,
    draw_neighbours,
    draw_noise_correlation,
    draw_psf,
    draw_saturation,
    draw_sky,
    estimate_total_noise,
)
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.structure import draw_structure
from deeplegato_pp.errors import ConfigError, ShapeError
from deeplegato_pp.scene.noise import draw_noise
from deeplegato_pp.scene.parameters import MAGNITUDE, NUM_PARAMETERS, RADIUS, signal_to_noise
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.render.wings import Galaxies
from deeplegato_pp.scene.stamps import (
    PSF_GRID,
    REFERENCE_PIXEL_SCALE,
    REFERENCE_ZERO_POINT,
    StampBatch,
)


@dataclass(frozen=True)
class SimulatedScene:
    """Simulated batch with its true properties.

    Attributes:
        params: True parameters at the reference instrument, with shape (B, 7), float64; for
            galaxies with structure those of the best-fitting profile.
        stamps: Input of the network.
        psf: PSFs of the rendering.
        model: Noiseless images of the target galaxies only, with shape (B, N, N). [sigma]
        snr: Signal-to-noise ratios, with shape (B,).
        nearest: Distance of the nearest neighbour from the stamp's centre, infinite without
            neighbours, with shape (B,). [px]
        structured: Whether galaxies have structure beyond a Sérsic profile, with shape (B,).
    """

    params: Float[Tensor, "b 7"]
    stamps: StampBatch
    psf: DrawnPSF
    model: Float[Tensor, "b n n"]
    snr: Float[Tensor, " b"]
    nearest: Float[Tensor, " b"]
    structured: Bool[Tensor, " b"]


Truth = Callable[[StampBatch, DrawnPSF, Tensor, PriorBox], tuple[Tensor, Tensor]]
"""Function that finds the best-fitting profiles of galaxies with structure.

Its arguments are stamps with noiseless images of isolated galaxies; their PSFs; the coordinates w
of the smooth galaxies, (B, 7); and the prior at the reference instrument. It returns coordinates w
(B, 7), and whether they were found, (B,)."""


class SersicSimulator:
    """Simulates galaxy images for an instrument.

    Args:
        image_size: Side of the stamps. [px]
        pixel_scale: Pixel scale. [arcsec/px]
        zero_point: Magnitude of one image unit; the background noise is one unit.
        prior: Prior box of the parameters, or None for the default box.
        conditions: Observing conditions, or None for the defaults.
        structure: Structure of the galaxies, or None for none.
        truth: Function that finds their best-fitting profiles: `calibration.truth.best_profiles`.

    Raises:
        ConfigError: If there is structure without `truth`.

    Example:
        >>> sim = SersicSimulator(image_size=64)
        >>> params, images, noise, psf = sim.sample(2, torch.Generator().manual_seed(0))
        >>> images.shape, psf.shape
        (torch.Size([2, 64, 64]), torch.Size([2, 43, 43]))
    """

    def __init__(
        self,
        image_size: int = 128,
        pixel_scale: float = 0.25,
        zero_point: float = 30.5,
        *,
        prior: PriorBox | None = None,
        conditions: ConditionsConfig | None = None,
        structure: StructureConfig | None = None,
        truth: Truth | None = None,
    ) -> None:
        self.image_size = image_size
        self.pixel_scale = pixel_scale
        self.zero_point = zero_point
        self.prior = prior or PriorBox()
        self.conditions = conditions or ConditionsConfig()
        self.structure = structure or StructureConfig()
        self.truth = truth
        if self.structure.share and truth is None:
            raise ConfigError(
                f"data.structure.share is {self.structure.share}, and the truth of galaxies with "
                "structure is the profile that fits them best, for which nothing was given. Give "
                "truth=deeplegato_pp.calibration.truth.best_profiles, or set "
                "data.structure.share=0."
            )

    @classmethod
    def from_config(
        cls, config: DataConfig, *, clean: bool = False, truth: Truth | None = None
    ) -> SersicSimulator:
        """Builds the simulator of a configuration.

        Args:
            config: Data section of a configuration.
            clean: Omit structure, masks, neighbours, partial stamps and estimated noise maps.
            truth: Function that finds the best-fitting profiles of galaxies with structure.
        """
        return cls(
            config.image_size,
            config.pixel_scale,
            config.zero_point,
            prior=PriorBox.from_mapping(config.priors),
            conditions=config.conditions.clean() if clean else config.conditions,
            structure=None if clean else config.structure,
            truth=truth,
        )

    def columns(self, params: Float[Tensor, "b 7"]) -> Galaxies:
        """Returns the input of the renderer: flux in image units, radius in pixels.

        Raises:
            ShapeError: If `params` is not (B, 7).
        """
        if params.dim() != 2 or params.shape[1] != NUM_PARAMETERS:
            raise ShapeError(f"params has shape (B, 7), got {tuple(params.shape)}.")
        flux = 10.0 ** (-0.4 * (params[:, MAGNITUDE] - self.zero_point))
        radius = params[:, RADIUS] / self.pixel_scale
        return Galaxies(flux, radius, *params[:, 2:].unbind(1))

    def render(
        self,
        params: Float[Tensor, "b 7"],
        psf: Float[Tensor, "*b py px"],
        oversampling: int = 1,
        psf_includes_pixel: bool = True,
    ) -> Float[Tensor, "b n n"]:
        """Renders noiseless images.

        Args:
            params: Physical parameters in the table's order, with shape (B, 7).
            psf: One PSF or one per galaxy, with odd sides; used without normalisation.
            oversampling: PSF samples per pixel.
            psf_includes_pixel: Whether the PSF includes the pixel response.

        Returns:
            Images, with shape (B, N, N), in image units and the dtype of `params`.

        Raises:
            ShapeError: If a shape is wrong.
            RangeError: If n lies outside the tables.

        Example:
            >>> sim = SersicSimulator(image_size=64, zero_point=25.0)
            >>> params = torch.tensor([[20.0, 0.5, 1.0, 0.8, 30.0, 0.0, 0.0]])
            >>> psf = torch.ones(1, 1)
            >>> round(float(sim.render(params, psf).sum()), 0)
            100.0
        """
        return render_sersic(
            *self.columns(params),
            psf,
            self.image_size,
            oversampling=oversampling,
            psf_includes_pixel=psf_includes_pixel,
        )

    def sample(
        self, batch: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draws galaxies from the prior and observes them, isolated and unmasked.

        The background noise is one unit and the noise maps are total: each is the standard
        deviation of its image's noise, which is independent between pixels. The PSF is that of the
        rendering, with one sample per pixel at any width.

        Args:
            batch: Number of galaxies.
            generator: Source of randomness, or None for a random seed.

        Returns:
            Parameters (B, 7), float64; images (B, N, N); noise maps (B, N, N); PSFs (B, 43, 43)
            at the pixels' sampling.
        """
        generator = generator or _fresh_generator()
        draw = Draw(batch, generator, torch.float32)
        params = self.prior.sample(batch, generator)
        clean = self.conditions.clean()
        psf = draw_psf(draw, clean)
        model = self.render(params.float(), psf.native)
        gain = draw.log_uniform(clean.gain)
        noise = (1.0 + model.clamp_min(0.0) / gain[:, None, None]).sqrt()
        images = draw_noise(
            model,
            torch.ones_like(model),
            gain,
            read_fraction=draw.uniform(0.0, clean.read_fraction),
            generator=generator,
        )
        return params, images, noise, psf.native

    def generate(self, batch: int, seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Returns images and parameters of galaxies drawn from the prior, isolated and unmasked.

        They are those of :meth:`sample`, without noise maps and PSFs.

        Args:
            batch: Number of galaxies.
            seed: Random seed; None for a random one.

        Returns:
            Images (B, 1, N, N), in image units, and physical parameters (B, 7), float64.

        Example:
            >>> images, params = SersicSimulator(image_size=64).generate(2, seed=0)
            >>> images.shape, params.shape
            (torch.Size([2, 1, 64, 64]), torch.Size([2, 7]))
        """
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        params, images, _, _ = self.sample(batch, generator)
        return images[:, None], params

    def sample_scene(self, batch: int, generator: torch.Generator) -> SimulatedScene:
        """Draws galaxies with the full range of conditions, as for training.

        Args:
            batch: Number of galaxies.
            generator: Source of randomness; images are made on its device.

        Returns:
            The scene, in detector units.
        """
        size, config = self.image_size, self.conditions
        draw = Draw(batch, generator, torch.float32)
        params = self.prior.sample(batch, generator)
        psf = draw_psf(draw, config)
        columns = self.columns(params).float()
        owner = torch.arange(batch, device=generator.device)
        true = psf.mistaken(draw)
        model = true.render(columns, size, owner)
        background = draw_background(draw, size, config)
        mask = draw_mask(draw, size, config)
        neighbours = draw_neighbours(draw, true, size, config)
        # A detection does not mask the core of the target.
        mask = mask | (neighbours.mask & ~_core(size, generator.device))
        background = background / _median(background, mask)[:, None, None]
        gain = draw.log_uniform(config.gain)
        read = draw.uniform(0.0, config.read_fraction)
        fixed = draw.chance(config.fixed_variance)
        estimated = fixed & draw.chance(config.source_in_map)
        # A flat map without gain means that the source adds no noise.
        noise_gain = torch.where(fixed & ~estimated, torch.full_like(gain, torch.inf), gain)
        sky_sigma = draw.log_uniform(config.sky_sigma)
        correlation = draw_noise_correlation(draw, config)
        flat = torch.ones_like(gain) if correlation is None else correlation
        empty = torch.zeros_like(mask)
        noiseless = StampBatch(model, background, empty, true.fine, noise_gain, sky_sigma, flat)
        model, params, structured = self._with_structure(draw, noiseless, params, true)
        sky = draw_sky(draw, sky_sigma, size, config)
        image = sky + draw_noise(
            model + neighbours.light,
            background,
            noise_gain,
            read_fraction=read,
            noise_correlation=1.0 if correlation is None else correlation,
            generator=generator,
        )
        mask = mask | draw_saturation(draw, image, mask, config)
        total = estimate_total_noise(image, background, gain)
        sigma = torch.where(estimated[:, None, None], total, background)
        scale = _median(sigma, mask)
        stamps = _to_detector_units(
            image,
            sigma,
            mask,
            psf.fine,
            torch.where(fixed, torch.full_like(gain, torch.inf), gain),
            sky_sigma,
            correlation,
            scale,
            psf.error if config.psf_error_input else None,
        )
        snr = signal_to_noise(columns.flux, columns.radius, columns.axis_ratio, psf.fwhm)
        return SimulatedScene(
            self._rescaled(params, scale),
            stamps,
            psf,
            model / scale[:, None, None],
            snr,
            neighbours.nearest,
            structured,
        )

    def _with_structure(
        self, draw: Draw, stamps: StampBatch, params: Tensor, psf: DrawnPSF
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds structure to some galaxies.

        Galaxies whose best profile is not found, or lies outside the prior box, stay smooth.

        Args:
            draw: Random numbers of the batch.
            stamps: Noiseless, unmasked images of the smooth galaxies, and their noise.
            params: Parameters of the smooth galaxies, with shape (B, 7).
            psf: Their PSFs.

        Returns:
            Noiseless images, true parameters, and whether galaxies have structure.
        """
        model = stamps.image
        structured = torch.zeros(len(model), dtype=torch.bool, device=model.device)
        structure = draw_structure(draw, self.columns(params).float(), psf.fwhm, self.structure)
        if structure is None:
            return model, params, structured
        assert self.truth is not None  # noqa: S101  # without, there is no structure
        box = self.prior.shifted(
            magnitude=REFERENCE_ZERO_POINT - self.zero_point,
            radius_factor=REFERENCE_PIXEL_SCALE / self.pixel_scale,
        )
        rows = structure.rows
        images = structure.images(psf, model.shape[-1])
        start = self.prior.to_normal(params[rows])
        own = DrawnPSF(psf.fine[rows], psf.fwhm[rows])
        w, found = self.truth(replace(stamps[rows], image=images), own, start, box)
        kept = rows[found]
        model, params = model.clone(), params.clone()
        model[kept], params[kept] = images[found], self.prior.to_physical(w[found])
        structured[kept] = True
        return model, params, structured

    def _rescaled(self, params: Tensor, scale: Tensor) -> Tensor:
        """Returns the parameters in units of the stamp's own noise.

        The prior box refers to those units. They differ from the drawn ones only if a total noise
        map includes the source's shot noise; magnitudes that would then exceed the faint bound of
        the box, which is rare, are set to it.
        """
        shifted = params.clone()
        shifted[:, MAGNITUDE] += 2.5 * scale.double().log10()
        shifted[:, MAGNITUDE] = shifted[:, MAGNITUDE].clamp(*self.prior.magnitude)
        return shifted


def _to_detector_units(
    image: Tensor,
    sigma: Tensor,
    mask: Tensor,
    fine: Tensor,
    gain: Tensor,
    sky_sigma: Tensor,
    correlation: Tensor | None,
    scale: Tensor,
    psf_error: Tensor | None,
) -> StampBatch:
    """Divides a batch by each stamp's own noise and cuts the PSFs to the networks' grid."""
    edge = (fine.shape[-1] - PSF_GRID) // 2
    s = scale[:, None, None]
    return StampBatch(
        torch.where(mask, 0.0, image / s),
        torch.where(mask, 1.0, sigma / s),
        mask,
        fine[:, edge : edge + PSF_GRID, edge : edge + PSF_GRID].contiguous(),
        gain * scale,
        sky_sigma / scale,
        torch.ones_like(scale) if correlation is None else correlation,
        psf_error=psf_error,
    )


def _median(sigma: Tensor, mask: Tensor) -> Tensor:
    """Returns the median noise of unmasked pixels, with shape (B,)."""
    return torch.where(mask, torch.nan, sigma).flatten(1).nanmedian(1).values


def _core(size: int, device: torch.device) -> Tensor:
    a = torch.arange(size, device=device) - (size - 1) / 2
    return (a[:, None] ** 2 + a**2) < 3.0**2


def _fresh_generator() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator
