"""DeepLeGATo++: posterior of seven Sérsic parameters from batches of stamps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.config.schema import ConfigLike, load_config
from deeplegato_pp.errors import ConfigError, NumericalError
from deeplegato_pp.models import storage
from deeplegato_pp.models.npe_head import Context, NPEHead
from deeplegato_pp.models.psf_encoder import PSFEncoder
from deeplegato_pp.models.stamp_channels import (
    NUM_CHANNELS,
    ONE_VIEW_CHANNELS,
    one_view,
    two_views,
)
from deeplegato_pp.models.swin_backbone import SwinBackbone
from deeplegato_pp.scene.parameters import NUM_PARAMETERS, PARAMETERS
from deeplegato_pp.scene.plain_images import ImageBatch, PlainImages
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch
from deeplegato_pp.stats.circular import tensor_circular_mean, unwrap

INTERVAL = (0.025, 0.975)
"""Probabilities of the ends of central 95 % credible intervals."""


class DeepLeGAToPP(nn.Module):
    """Network with Swin V2 backbone, PSF encoder and flow head.

    Args:
        config: Configuration of network and training: a :class:`~deeplegato_pp.config.Config`, a
            YAML file, the name of a packaged one, nested dictionaries, or None for the defaults.

    Attributes:
        config: The configuration.
        prior: Prior box, at the reference instrument.
        image_size: Side of the input stamps. [px]
        card: Training record and figures, as stored with the weights.
        reference: Features of training images, see `inference.verdict.novelty`; empty if not
            stored.

    Example:
        >>> model = DeepLeGAToPP.from_config("default")
        >>> model.image_size
        128
    """

    def __init__(self, config: ConfigLike = None) -> None:
        super().__init__()
        self.config = config = load_config(config)
        # The configured box refers to its instrument; internally the reference instrument is used.
        data = config.data
        self.prior = PriorBox.at_reference(data.priors, data.pixel_scale, data.zero_point)
        self.image_size = config.data.image_size
        self.card: dict[str, Any] = {}
        self.reference: dict[str, Tensor] = {}
        if config.model.backbone.views not in (1, 2):
            raise ConfigError(
                f"model.backbone.views must be 1 or 2, got {config.model.backbone.views}."
            )
        halved = config.model.backbone.views == 2
        self.backbone = SwinBackbone(
            config.model.backbone,
            NUM_CHANNELS if halved else ONE_VIEW_CHANNELS,
            self.image_size // 2 if halved else self.image_size,
        )
        self.psf_encoder = PSFEncoder(config.model.npe.psf_channels)
        features = self.backbone.num_features + self.psf_encoder.num_features
        self.correlation: nn.Linear | None = None
        if config.data.conditions.correlated_noise:
            # Initialised to zero, so that training can continue from networks without this input.
            self.correlation = nn.Linear(1, features, bias=False)
            nn.init.zeros_(self.correlation.weight)
        self.psf_error: nn.Linear | None = None
        if config.data.conditions.psf_error_input:
            self.psf_error = nn.Linear(1, features, bias=False)
            nn.init.zeros_(self.psf_error.weight)
        self.head = NPEHead(config.model.npe, features)

    @classmethod
    def from_config(cls, config: ConfigLike = None) -> DeepLeGAToPP:
        """Builds an untrained network.

        Args:
            config: See :class:`DeepLeGAToPP`.

        Raises:
            ConfigError: If the configuration is missing, a key is unknown, or the network cannot be
                built.
        """
        return cls(config)

    @classmethod
    def from_pretrained(cls, name: str | Path | None = None) -> DeepLeGAToPP:
        """Loads a trained network.

        Args:
            name: A folder, the name of a packaged model, a hub id ("owner/model", or
                "owner/model@revision" for a tag or commit), or None for the packaged default.

        Returns:
            The network in evaluation mode, on the CPU.

        Raises:
            ModelNotFoundError: If the model does not exist.
            FormatError: If weights and configuration do not match.
        """
        folder = storage.find(name)
        config, card, state = storage.load(folder)
        config.model.backbone.pretrained = False  # the model's own weights are loaded instead
        model = cls(config)
        storage.fill(model, state)
        model.card = card
        model.reference = storage.load_reference(folder)
        return model.eval()

    def save_pretrained(self, folder: str | Path, card: dict[str, Any] | None = None) -> Path:
        """Writes weights, configuration, model card and, if present, `reference`.

        The files are ``model.safetensors``, ``config.json`` and ``README.md``; a ``README.md``
        written by hand is left unchanged.

        Args:
            folder: Output folder, created if necessary.
            card: Training record of the weights; None keeps the current one.

        Returns:
            Path of the folder.
        """
        card = self.card if card is None else card
        written = storage.save(Path(folder), self, self.config, card)
        if self.reference:
            storage.save_reference(written, self.reference)
        return written

    def encode(self, stamps: StampBatch) -> Context:
        """Evaluates image and PSF networks, on which all further results depend.

        Args:
            stamps: Stamps in detector units, of side `image_size`.

        Raises:
            NumericalError: If the stamps contain values that are not finite.
        """
        features = self.features(stamps)
        if not self.training and not bool(torch.isfinite(features).all()):
            row = int((~torch.isfinite(features).all(1)).nonzero()[0, 0])
            raise NumericalError(
                f"The features of stamp {row} are not finite. Mask the pixels that are not."
            )
        context: Context = self.head(features)
        return context

    def features(self, stamps: StampBatch) -> Float[Tensor, "b f"]:
        """Returns the input of the head: features of image and PSF.

        A network trained with correlated noise shifts them by the correlation's logarithm, and one
        trained with PSF errors as input by the error in per cent.
        """
        found = torch.cat([self.image_features(stamps), self.psf_encoder(stamps).float()], 1)
        if self.correlation is not None:
            found = found + self.correlation(stamps.noise_correlation.log()[:, None]).float()
        if self.psf_error is not None:
            found = found + self.psf_error(100.0 * stamps.stated_psf_error[:, None]).float()
        return found

    def image_features(self, stamps: StampBatch) -> Float[Tensor, "b f"]:
        """Returns the backbone's features of stamps, in float32."""
        views = two_views if self.config.model.backbone.views == 2 else one_view
        features: Tensor = self.backbone(views(stamps)).float()
        return features

    def log_prob(self, context: Context, w: Float[Tensor, "b s 7"]) -> Float[Tensor, "b s"]:
        """Returns the posterior's log-density in the coordinates w, with shape (B, S)."""
        return self.head.log_prob(context, w)

    @torch.no_grad()
    def sample(
        self, context: Context, num_samples: int, seeds: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b s 7"], Float[Tensor, "b s"]]:
        """Draws from the posterior; each galaxy's draws depend only on its own seed.

        Args:
            context: Result of `encode`.
            num_samples: Number of draws per galaxy.
            seeds: One random seed per galaxy, with shape (B,).

        Returns:
            Coordinates w, with shape (B, S, 7), and their log-density, with shape (B, S); float64.
        """
        device = context.mean.device
        noise = torch.stack(
            [
                torch.randn(
                    num_samples, NUM_PARAMETERS, generator=torch.Generator().manual_seed(int(seed))
                )
                for seed in seeds
            ]
        )
        return self.head.from_noise(context, noise.to(device))

    def forward(
        self, images: StampBatch | PlainImages, num_samples: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """Returns draws and summaries, in physical units.

        Args:
            images: Stamps in detector units; or plain images in any unit, tensor or array, with
                shape (B, 1, H, W), (B, H, W) or (H, W), whose noise is estimated from their border,
                with the reference PSF, pixel scale and zero point.
            num_samples: Number of draws per galaxy.
            seed: Random seed of the draws; galaxy i uses seed + i.

        Returns:
            ``samples`` (B, S, 7); ``mean``, ``std``, ``ci_lower``, ``ci_upper`` (B, 7), the last
            two for the central 95 %; float64. For one plain image (H, W) all lack the first axis.
            For plain images also ``flags``, the names of each image's assumptions. Units are the
            images' own, those of the reference instrument for stamps. The position angle's mean is
            circular, and its interval may cross 180 degrees.

        Raises:
            InputError: If an image cannot be used.
            RangeError: If the number of draws is not positive.
        """
        check_positive_integer(num_samples, "num_samples")
        batch = self._batch(images)
        seeds = seed + torch.arange(len(batch.stamps))
        w, _ = self.sample(self.encode(batch.stamps), num_samples, seeds)
        samples = batch.to_physical(w)
        mean, std = _circular_moments(samples)
        lower, upper = _central_interval(samples, mean)
        moments = {"mean": mean, "std": std, "ci_lower": lower, "ci_upper": upper}
        return batch.answer({"samples": samples, **moments})

    @torch.no_grad()
    def predict(self, images: StampBatch | PlainImages, num_samples: int = 1000) -> dict[str, Any]:
        """Returns `forward` without gradients."""
        result: dict[str, Any] = self(images, num_samples)
        return result

    def compute_loss(
        self,
        images: StampBatch | PlainImages,
        targets: Float[Tensor, "b 7"],
        context: Context | None = None,
        *,
        physical: bool | None = None,
    ) -> dict[str, Tensor]:
        """Computes the negative log-densities of true parameters.

        Args:
            images: Stamps in detector units, or plain images as in :meth:`forward`.
            targets: True values, with shape (B, 7): coordinates w for stamps, physical parameters
                in the images' units for plain images.
            context: Result of `encode` for the stamps, if available.
            physical: Whether the targets are physical parameters, if this differs from the rule
                above.

        Returns:
            ``flow``: negative log-density of the posterior, with shape (B,); ``gaussian``: that of
                its whitening alone; ``error``: w minus the whitening's mean, (B, 7); ``loss``: mean
                of the first plus the weighted second, which training minimises. Densities are those
                of w.

        Raises:
            InputError: If an image cannot be used.
            ShapeError: If there are not seven parameters per image.
            RangeError: If a physical parameter lies outside the prior box.
        """
        batch = self._batch(images)
        if physical is None:
            physical = batch.flags is not None
        w = batch.to_normal(targets).to(batch.stamps.image) if physical else targets
        context = self.encode(batch.stamps) if context is None else context
        flow = -self.log_prob(context, w[:, None])[:, 0]
        gaussian = -self.head.gaussian_log_prob(context, w)
        return {
            "flow": flow,
            "gaussian": gaussian,
            "error": (w - context.mean).detach(),
            "loss": (flow + self.config.training.gaussian_weight * gaussian).mean(),
        }

    def _batch(self, images: StampBatch | PlainImages) -> ImageBatch:
        """Converts images to stamps on the network's device, with their units."""
        device = next(self.parameters()).device
        return ImageBatch.of(images, self.image_size, self.prior, device)


def _circular_moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation per parameter, circular for the angle."""
    mean, std = samples.mean(1), samples.std(1)
    for i, parameter in enumerate(PARAMETERS):
        if parameter.period is not None:
            centre = tensor_circular_mean(samples[..., i], parameter.period, 1)
            mean[:, i] = centre
            std[:, i] = unwrap(samples[..., i], centre[:, None], parameter.period).std(1)
    return mean, std


def _central_interval(samples: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the ends of the central 95 %, unwrapped about the mean for the angle."""
    ends = []
    for i, parameter in enumerate(PARAMETERS):
        draws = samples[..., i]
        if parameter.period is not None:
            draws = unwrap(draws, mean[:, i : i + 1], parameter.period)
        end = torch.quantile(draws, torch.tensor(INTERVAL).to(draws), dim=1)
        ends.append(end if parameter.period is None else end % parameter.period)
    lower, upper = torch.stack(ends, -1)
    return lower, upper
