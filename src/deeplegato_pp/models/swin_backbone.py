"""The image network: a Swin Transformer V2, or any timm model by name."""

from __future__ import annotations

import inspect

import timm
import torch
from jaxtyping import Float
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from deeplegato_pp.config import BackboneConfig
from deeplegato_pp.errors import ConfigError


class SwinBackbone(nn.Module):
    """Turns images into feature vectors.

    ``type="compact"`` builds a Swin V2 of the sizes in the configuration; any other type is the
    name of a timm model, whose own pooling is used (timm knows each model's layout).

    Args:
        config: Which network.
        in_channels: Channels of the images.
        image_size: Side of the images. [px]

    Raises:
        ConfigError: If timm knows no such model, its weights cannot be had, or the sizes do not
            fit each other.

    References:
        | Swin Transformer V2: scaling up capacity and resolution (Liu et al., 2022)
        | https://arxiv.org/abs/2111.09883

    Example:
        >>> SwinBackbone(BackboneConfig(depths=(1, 1), num_heads=(2, 4)), 3, 32).num_features
        128
    """

    def __init__(self, config: BackboneConfig, in_channels: int, image_size: int) -> None:
        super().__init__()
        if config.type == "compact":
            self.network = _compact(config, in_channels, image_size)
        else:
            self.network = _named(config, in_channels, image_size)
        if config.gradient_checkpointing:
            self.network.set_grad_checkpointing(True)
        self.num_features: int = self.network.num_features

    def forward(self, images: Float[Tensor, "b c n n"]) -> Float[Tensor, "b f"]:
        """Returns pooled features, with shape (B, num_features)."""
        features: Tensor = self.network(images)
        return features


def _compact(config: BackboneConfig, in_channels: int, image_size: int) -> nn.Module:
    if len(config.depths) != len(config.num_heads):
        raise ConfigError(
            "model.backbone.depths and num_heads have one entry per stage, got "
            f"{tuple(config.depths)} and {tuple(config.num_heads)}."
        )
    if image_size % config.patch_size:
        raise ConfigError(
            f"model.backbone.patch_size {config.patch_size} must divide the view's side "
            f"{image_size}, which is half of data.image_size."
        )
    return SwinTransformerV2(
        img_size=image_size,
        patch_size=config.patch_size,
        in_chans=in_channels,
        num_classes=0,
        embed_dim=config.embed_dim,
        depths=tuple(config.depths),
        num_heads=tuple(config.num_heads),
        window_size=config.window_size,
        drop_path_rate=config.drop_path,
        pretrained_window_sizes=(0,) * len(config.depths),
    )


def _named(config: BackboneConfig, in_channels: int, image_size: int) -> nn.Module:
    if not timm.is_model(config.type):
        near = ", ".join(timm.list_models(f"*{config.type.split('_')[0]}*")[:5]) or "none alike"
        raise ConfigError(f"timm has no model {config.type!r} (there are: {near}).")
    options: dict[str, object] = {"in_chans": in_channels, "num_classes": 0}
    if _takes_image_size(config.type):
        options["img_size"] = image_size
    try:
        return timm.create_model(config.type, pretrained=config.pretrained, **options)
    except (OSError, RuntimeError) as error:
        if not config.pretrained:
            raise ConfigError(f"timm cannot build {config.type} with {options}: {error}") from error
        raise ConfigError(
            f"The pretrained weights of {config.type} could not be loaded ({error}). Connect to "
            "the network once, fill timm's cache, or set model.backbone.pretrained=false."
        ) from error


def _takes_image_size(name: str) -> bool:
    """Whether the model's class fixes its input size at construction (transformers do)."""
    module = inspect.getmodule(timm.model_entrypoint(name))
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, torch.nn.Module)
    ]
    main = [c for c in classes if "num_classes" in inspect.signature(c.__init__).parameters]
    return any("img_size" in inspect.signature(c.__init__).parameters for c in main)
