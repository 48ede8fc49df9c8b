"""Image network: a Swin Transformer V2, or any timm model by name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, NamedTuple

import timm
import torch
from jaxtyping import Float
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.config.schema import BackboneConfig
from deeplegato_pp.errors import ConfigError, RangeError, ShapeError
from deeplegato_pp.models.options import with_options

_LARGEST_GRID = 4
"""Side of the grid of positions; finer feature maps are averaged to it."""


class SwinBackbone(nn.Module):
    """Converts images to feature vectors.

    ``"compact"`` builds a Swin V2 of the given sizes; other names are timm models, with their own
    pooling (timm knows each model's layout). Pooling discards positions in the image, which are
    needed for the galaxy's centre: with `layout_channels` the last feature map is also read cell by
    cell, and added. That layer starts at zero, so that training can continue from weights without
    it.

    Args:
        name: ``"compact"``, the name of a timm model, or a
            :class:`~deeplegato_pp.config.BackboneConfig`.
        in_channels: Number of channels of the images.
        image_size: Side of the images; None if the network supports any multiple of the patch side.
            [px]
        **options: Fields of :class:`~deeplegato_pp.config.BackboneConfig`, among them:
            `pretrained` (start from timm's weights), `gradient_checkpointing`, `feature_dim`
            (project the features to this length), `drop_path`, `layout_channels`, and the sizes
            `embed_dim`, `depths`, `num_heads`, `patch_size`, `window_size`.

    Attributes:
        num_features: Length F of the feature vectors.

    Raises:
        ConfigError: If an option or model is unknown, its weights cannot be loaded, or the sizes
            are inconsistent.
        RangeError: If a size is not positive.

    References:
        | Swin Transformer V2: scaling up capacity and resolution (Liu et al., 2022)
        | https://arxiv.org/abs/2111.09883

    Example:
        >>> backbone = SwinBackbone("compact", depths=(1, 1), num_heads=(2, 4), feature_dim=32)
        >>> backbone(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 32])
    """

    def __init__(
        self,
        name: str | BackboneConfig = "compact",
        in_channels: int = 1,
        image_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        given = name if isinstance(name, BackboneConfig) else BackboneConfig(type=name)
        config = with_options(given, options, "SwinBackbone", foreign=("type", "views"))
        _check_sizes(config, in_channels, image_size)
        build = _compact if config.type == "compact" else _named
        network: Any = build(config, in_channels, image_size)
        _place_single_patches(network)
        if config.gradient_checkpointing:
            _checkpoint_gradients(network, config.type)
        self.network = network
        self.in_channels = in_channels
        self.image_size = image_size or _own_size(network)
        # Output channels without classifier, which in some models exceed `num_features`.
        own = int(getattr(network, "head_hidden_size", network.num_features))
        self.layout: nn.Module | None = None
        if config.layout_channels:
            shape = _map_shape(network, in_channels, self.image_size or _trial_size(network))
            # Images of any size are read on a grid of fixed size.
            self._side = min(_LARGEST_GRID, shape.side) if self.image_size else _LARGEST_GRID
            cells = self._side**2 if shape.side else shape.tokens
            last = nn.Linear(cells * config.layout_channels, own)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = nn.Linear(shape.channels, config.layout_channels)
            self.layout = nn.Sequential(first, nn.GELU(), nn.Flatten(), last)
        self.num_features = config.feature_dim or own
        self.projection: nn.Linear | None = None
        if self.num_features != own:
            self.projection = nn.Linear(own, self.num_features)

    def forward(self, images: Float[Tensor, "b *c h w"]) -> Float[Tensor, "b f"]:
        """Returns pooled features.

        Args:
            images: Images with shape (B, C, H, W); (B, H, W) for a network of one channel.

        Returns:
            Feature vectors, with shape (B, F).

        Raises:
            ShapeError: If channels or sides are not those of the network.
        """
        if images.dim() == 3:
            images = images[:, None]
        self._check(images)
        feature_map = self.network.forward_features(images)
        features: Tensor = self.network.forward_head(feature_map)
        if self.layout is not None:
            features = features + self.layout(_cells(feature_map, self.network, self._side))
        return features if self.projection is None else self.projection(features)

    def _check(self, images: Tensor) -> None:
        """Checks an image's shape, for clearer errors than those of the library."""
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise ShapeError(
                f"Images have shape (B, {self.in_channels}, H, W), got {shape}. Select channels, "
                "or build the backbone with another in_channels."
            )
        patches = _patches(self.network)
        if patches is None:
            return
        if self.image_size and shape[2:] != (self.image_size, self.image_size):
            raise ShapeError(
                f"The backbone was built for images of {self.image_size} x {self.image_size} px, "
                f"got {shape[2]} x {shape[3]}. Cut or pad them, or build it with another "
                "image_size."
            )
        patch = patches.patch_size[0]
        if shape[2] % patch or shape[3] % patch:
            raise ShapeError(
                f"The sides of images must be multiples of the patch's {patch} px, got {shape[2]} "
                f"x {shape[3]}. Cut or pad them."
            )


class _Map(NamedTuple):
    """Last feature map: its side, or else the number of its tokens, and its channels."""

    side: int
    tokens: int
    channels: int


def _cells(feature_map: Tensor, network: Any, side: int) -> Float[Tensor, "b p c"]:
    """Converts a feature map to a list of cells: timm has maps NHWC, NCHW, and lists of tokens."""
    if feature_map.dim() == 3:
        return feature_map
    if getattr(network, "output_fmt", "NCHW") == "NHWC":
        feature_map = feature_map.permute(0, 3, 1, 2)
    if side != feature_map.shape[-1] or side != feature_map.shape[-2]:
        feature_map = adaptive_avg_pool2d(feature_map, side)
    return feature_map.flatten(2).transpose(1, 2)


@torch.no_grad()
def _map_shape(network: Any, in_channels: int, image_size: int) -> _Map:
    """Returns the shape of the last feature map, from a trial image."""
    was_training = network.training
    image = torch.zeros(1, in_channels, image_size, image_size)
    feature_map = network.eval().forward_features(image)
    network.train(was_training)
    if feature_map.dim() == 3:
        return _Map(0, *feature_map.shape[1:])
    if getattr(network, "output_fmt", "NCHW") == "NHWC":
        feature_map = feature_map.permute(0, 3, 1, 2)
    return _Map(feature_map.shape[3], 0, feature_map.shape[1])


def _patches(network: Any) -> Any:
    """Returns the layer that divides images into patches, or None."""
    embed = getattr(network, "patch_embed", None)
    return embed if hasattr(embed, "strict_img_size") else None


def _own_size(network: Any) -> int | None:
    """Returns the image side that a network requires, None if it supports several. [px]"""
    patches = _patches(network)
    return int(patches.img_size[0]) if patches is not None and patches.strict_img_size else None


def _trial_size(network: Any) -> int:
    """Returns an image side that a network of variable size supports. [px]"""
    patches = _patches(network)
    return 64 if patches is None else int(patches.img_size[0])


def _check_sizes(config: BackboneConfig, in_channels: int, image_size: int | None) -> None:
    check_positive_integer(in_channels, "in_channels")
    for what, value in (("image_size", image_size), ("feature_dim", config.feature_dim)):
        if value is not None:
            check_positive_integer(value, what)
    for what in ("embed_dim", "patch_size", "window_size"):
        check_positive_integer(getattr(config, what), what)
    for what in ("depths", "num_heads"):
        for value in getattr(config, what):
            check_positive_integer(value, what)
    if config.layout_channels:
        check_positive_integer(config.layout_channels, "layout_channels")
    if not 0.0 <= config.drop_path < 1.0:
        raise RangeError(f"drop_path must lie in [0, 1), got {config.drop_path}.")


def _compact(config: BackboneConfig, in_channels: int, image_size: int | None) -> nn.Module:
    if len(config.depths) != len(config.num_heads):
        raise ConfigError(
            "model.backbone.depths and num_heads have one entry per stage, got "
            f"{tuple(config.depths)} and {tuple(config.num_heads)}."
        )
    for stage, heads in enumerate(config.num_heads):
        if config.embed_dim * 2**stage % heads:
            raise ConfigError(
                f"model.backbone.num_heads {heads} must divide the {config.embed_dim * 2**stage} "
                f"channels of stage {stage + 1} (embed_dim, doubled with each stage)."
            )
    if image_size is not None and image_size % config.patch_size:
        raise ConfigError(
            f"model.backbone.patch_size {config.patch_size} must divide the view's side "
            f"{image_size} (half of data.image_size with two views)."
        )
    return SwinTransformerV2(
        img_size=image_size or _whole_windows(config),
        patch_size=config.patch_size,
        in_chans=in_channels,
        num_classes=0,
        embed_dim=config.embed_dim,
        depths=tuple(config.depths),
        num_heads=tuple(config.num_heads),
        window_size=config.window_size,
        drop_path_rate=config.drop_path,
        pretrained_window_sizes=(0,) * len(config.depths),
        strict_img_size=image_size is not None,
    )


def _whole_windows(config: BackboneConfig) -> int:
    """Returns a side for which every stage's map contains a whole window. [px]"""
    return config.patch_size * config.window_size * 2 ** (len(config.depths) - 1)


def _place_single_patches(network: nn.Module) -> None:
    """Sets relative positions in windows of one patch to 0; timm 1.0.24 and older divide 0 by 0."""
    for module in network.modules():
        table = getattr(module, "relative_coords_table", None)
        if isinstance(table, Tensor) and table.shape[1:3] == (1, 1):
            table.zero_()


def _checkpoint_gradients(network: Any, name: str) -> None:
    """Enables timm's gradient checkpointing; some models raise an assertion error."""
    try:
        network.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise ConfigError(
            f"{name} has no gradient checkpointing; set "
            "model.backbone.gradient_checkpointing=false."
        ) from error


def _named(config: BackboneConfig, in_channels: int, image_size: int | None) -> nn.Module:
    if not isinstance(config.type, str) or not timm.is_model(config.type):
        near = ", ".join(get_close_matches(str(config.type), timm.list_models(), 5)) or "none alike"
        raise ConfigError(
            f"model.backbone.type is 'compact' or the name of a timm model, got {config.type!r} "
            f"(timm has: {near})."
        )
    options: dict[str, Any] = {"in_chans": in_channels, "num_classes": 0}
    if image_size is not None and _has_fixed_input_size(config.type):
        options["img_size"] = image_size
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    default = BackboneConfig()
    for size in ("embed_dim", "depths", "num_heads", "patch_size", "window_size"):
        if getattr(config, size) != getattr(default, size):
            options[size] = getattr(config, size)
    try:
        network = _create(config, options, any_size=image_size is None)
    # Downloads and constructors raise errors of many libraries without a common base.
    except Exception as error:
        if not config.pretrained:
            raise ConfigError(f"timm cannot build {config.type} with {options}: {error}") from error
        raise ConfigError(
            f"The pretrained weights of {config.type} could not be loaded ({error}). Connect to "
            "the network once to fill timm's cache (the folder HF_HOME), or set "
            "model.backbone.pretrained=false (pretrained=False)."
        ) from error
    return network


def _create(config: BackboneConfig, options: dict[str, Any], any_size: bool) -> nn.Module:
    """Builds a network by timm, for images of any size if its constructor supports that."""
    if any_size:
        try:
            network: nn.Module = timm.create_model(
                config.type, pretrained=config.pretrained, strict_img_size=False, **options
            )
            return network
        except TypeError as error:
            if "strict_img_size" not in str(error):
                raise
    network = timm.create_model(config.type, pretrained=config.pretrained, **options)
    return network


def _has_fixed_input_size(name: str) -> bool:
    """Returns whether the model's constructor takes an image size, according to timm's metadata.

    The models' functions take ``**kwargs``, so their signatures do not show it; timm uses the same
    metadata to pass ``img_size``.
    """
    record = timm.get_pretrained_cfg(name)
    return record is not None and bool(record.fixed_input_size)
