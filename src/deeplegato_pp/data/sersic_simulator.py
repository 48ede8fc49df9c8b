"""The simulator: galaxies drawn from the prior, rendered, blurred, and observed with noise."""

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
class Scene:
    """A simulated batch with everything that made it.

    Attributes:
        params: True parameters at the reference instrument, with shape (B, 7), float64; of a
            galaxy with structure those of the profile that fits it best.
        stamps: What the network sees.
        psf: The PSFs, as rendered.
        model: Noiseless images of the target galaxies alone, with shape (B, N, N). [sigma]
        snr: Signal-to-noise ratios, with shape (B,).
        nearest: Distance of the nearest neighbour from the stamp's centre, infinite where there is
            none, with shape (B,). [px]
        structured: Which galaxies have structure beyond a Sérsic profile, with shape (B,).
    """

    params: Float[Tensor, "b 7"]
    stamps: StampBatch
    psf: DrawnPSF
    model: Float[Tensor, "b n n"]
    snr: Float[Tensor, " b"]
    nearest: Float[Tensor, " b"]
    structured: Bool[Tensor, " b"]


Truth = Callable[[StampBatch, DrawnPSF, Tensor, PriorBox], tuple[Tensor, Tensor]]
"""Finds the profiles that fit galaxies with structure best.

From stamps whose images hold the galaxies alone, without noise; their PSFs; the coordinates w of
the smooth galaxies, (B, 7); and the prior at the reference instrument, to coordinates w (B, 7) and
whether they were found, (B,)."""


class SersicSimulator:
    """Simulates galaxy images for an instrument.

    Args:
        image_size: Side of the stamps. [px]
        pixel_scale: [arcsec/px]
        zero_point: Magnitude of one image unit; the background's noise is one unit.
        prior: Where parameters are drawn, or None for the default box.
        conditions: What the stamps look like beside the galaxy, or None for the defaults.
        structure: Which structure the galaxies have, or None for none.
        truth: What finds the profiles that fit those best: `calibration.truth.best_profiles`.

    Raises:
        ConfigError: If there is structure, and nothing to find the best profiles with.

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
            config: The data section.
            clean: Leave out structure, masks, neighbours, partial stamps and estimated noise
                maps.
            truth: What finds the best profiles of galaxies with structure.
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
        """Returns the galaxies as the renderer takes them: flux in image units, radius in pixels.

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
            psf: One PSF or one per galaxy, odd-sided; used as given, without normalising.
            oversampling: PSF samples per pixel.
            psf_includes_pixel: Whether the detector's pixel is in the PSF already.

        Returns:
            Images, with shape (B, N, N), in image units and the dtype of `params`.

        Raises:
            ShapeError: If a shape does not fit.
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

        The background's noise is one unit and the noise maps are total: each is the standard
        deviation that its image was drawn with. The pixels' noise is independent. The PSF given is
        the one rendered with, at the pixels' sampling, however narrow.

        Args:
            batch: Number of galaxies.
            generator: Source of randomness, or None for a fresh one.

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

        Those of :meth:`sample`, without its noise maps and PSFs.

        Args:
            batch: Number of galaxies.
            seed: Of all that is random; None for a fresh one.

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

    def sample_scene(self, batch: int, generator: torch.Generator) -> Scene:
        """Draws galaxies under the full range of conditions, as training needs them.

        Args:
            batch: Number of galaxies.
            generator: Source of randomness; its device is where the images are made.

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
        # A detection never masks the core of the object it is looking at.
        mask = mask | (neighbours.mask & ~_core(size, generator.device))
        background = background / _median(background, mask)[:, None, None]
        gain = draw.log_uniform(config.gain)
        read = draw.uniform(0.0, config.read_fraction)
        fixed = draw.chance(config.fixed_variance)
        estimated = fixed & draw.chance(config.source_in_map)
        # A flat map without gain declares that the source adds nothing.
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
        return Scene(
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
        """Gives some galaxies structure.

        Those whose best profile is not found, or lies outside the prior's box, stay smooth.

        Args:
            draw: Random numbers of the batch.
            stamps: Noiseless images of the smooth galaxies, unmasked, and their noise.
            params: Of the smooth galaxies, with shape (B, 7).
            psf: Their PSFs.

        Returns:
            Noiseless images, true parameters, and which of the galaxies have structure.
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

        The prior's box belongs to those units. They differ from the drawn ones only where a total
        noise map holds the source's shot noise; a magnitude that this carries over the box's
        faint edge, where there is next to none, is put on it.
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
    """Returns the median noise over unmasked pixels, with shape (B,)."""
    return torch.where(mask, torch.nan, sigma).flatten(1).nanmedian(1).values


def _core(size: int, device: torch.device) -> Tensor:
    a = torch.arange(size, device=device) - (size - 1) / 2
    return (a[:, None] ** 2 + a**2) < 3.0**2


def _fresh_generator() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator
