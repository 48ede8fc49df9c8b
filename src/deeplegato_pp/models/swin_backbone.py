"""The image network: a Swin Transformer V2, or any timm model by name."""

from __future__ import annotations

from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from deeplegato_pp.config.schema import BackboneConfig
from deeplegato_pp.errors import ConfigError

_LARGEST_GRID = 4
"""Side of the grid on which positions are kept; a finer feature map is averaged down to it."""


class SwinBackbone(nn.Module):
    """Turns images into feature vectors.

    ``type="compact"`` builds a Swin V2 of the sizes in the configuration; any other type is the
    name of a timm model, whose own pooling is used (timm knows each model's layout). Pooling
    forgets where in the image a feature was, and the galaxy's centre is asked for: with
    `layout_channels` the last feature map is read a second time, cell by cell, and added. That
    layer starts at zero, so that weights trained without it can be gone on with.

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
        build = _compact if config.type == "compact" else _named
        network: Any = build(config, in_channels, image_size)
        if config.gradient_checkpointing:
            _checkpoint_gradients(network, config.type)
        self.network = network
        # What comes out without a classifier; some models widen their `num_features` before it.
        self.num_features = int(getattr(network, "head_hidden_size", network.num_features))
        self.layout: nn.Module | None = None
        if config.layout_channels:
            cells, channels = _map_shape(network, in_channels, image_size)
            last = nn.Linear(cells * config.layout_channels, self.num_features)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = nn.Linear(channels, config.layout_channels)
            self.layout = nn.Sequential(first, nn.GELU(), nn.Flatten(), last)

    def forward(self, images: Float[Tensor, "b c n n"]) -> Float[Tensor, "b f"]:
        """Returns pooled features, with shape (B, num_features)."""
        feature_map = self.network.forward_features(images)
        features: Tensor = self.network.forward_head(feature_map)
        if self.layout is not None:
            features = features + self.layout(_cells(feature_map, self.network))
        return features


def _cells(feature_map: Tensor, network: Any) -> Float[Tensor, "b p c"]:
    """Returns a feature map as a list of cells: timm has maps NHWC, NCHW, and lists of tokens."""
    if feature_map.dim() == 3:
        return feature_map
    if getattr(network, "output_fmt", "NCHW") == "NHWC":
        feature_map = feature_map.permute(0, 3, 1, 2)
    side = min(_LARGEST_GRID, feature_map.shape[-1])
    if side < feature_map.shape[-1]:
        feature_map = adaptive_avg_pool2d(feature_map, side)
    return feature_map.flatten(2).transpose(1, 2)


@torch.no_grad()
def _map_shape(network: Any, in_channels: int, image_size: int) -> tuple[int, int]:
    """Returns the number of cells and the channels of each, by trying."""
    was_training = network.training
    image = torch.zeros(1, in_channels, image_size, image_size)
    cells = _cells(network.eval().forward_features(image), network)
    network.train(was_training)
    return cells.shape[1], cells.shape[2]


def _compact(config: BackboneConfig, in_channels: int, image_size: int) -> nn.Module:
    if len(config.depths) != len(config.num_heads):
        raise ConfigError(
            "model.backbone.depths and num_heads have one entry per stage, got "
            f"{tuple(config.depths)} and {tuple(config.num_heads)}."
        )
    if image_size % config.patch_size:
        raise ConfigError(
            f"model.backbone.patch_size {config.patch_size} must divide the view's side "
            f"{image_size} (half of data.image_size with two views)."
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


def _checkpoint_gradients(network: Any, name: str) -> None:
    """Switches timm's gradient checkpointing on; some models refuse by an assertion."""
    try:
        network.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise ConfigError(
            f"{name} has no gradient checkpointing; set "
            "model.backbone.gradient_checkpointing=false."
        ) from error


def _named(config: BackboneConfig, in_channels: int, image_size: int) -> nn.Module:
    if not timm.is_model(config.type):
        near = ", ".join(timm.list_models(f"*{config.type.split('_')[0]}*")[:5]) or "none alike"
        raise ConfigError(
            f"model.backbone.type is 'compact' or the name of a timm model, got {config.type!r} "
            f"(timm has: {near})."
        )
    options: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    if _has_fixed_input_size(config.type):
        options["img_size"] = image_size
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    default = BackboneConfig()
    for size in ("embed_dim", "depths", "num_heads", "patch_size", "window_size"):
        if getattr(config, size) != getattr(default, size):
            options[size] = getattr(config, size)
    try:
        network: nn.Module = timm.create_model(config.type, pretrained=config.pretrained, **options)
    # Downloads and constructors fail with errors of many libraries, which have no common base.
    except Exception as error:
        if not config.pretrained:
            raise ConfigError(f"timm cannot build {config.type} with {options}: {error}") from error
        raise ConfigError(
            f"The pretrained weights of {config.type} could not be loaded ({error}). Connect to "
            "the network once to fill timm's cache (the folder HF_HOME), or set "
            "model.backbone.pretrained=false."
        ) from error
    return network


def _has_fixed_input_size(name: str) -> bool:
    """Whether the model's constructor takes and fixes an image size, by timm's own declaration.

    The models' functions take ``**kwargs``, so that no signature tells; timm's record of each
    model does, and timm itself passes ``img_size`` by it.
    """
    record = timm.get_pretrained_cfg(name)
    return record is not None and bool(record.fixed_input_size)
