"""Compact Swin V2 networks, timm's by name, and gradient checkpointing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from deeplegato_pp.config.schema import BackboneConfig
from deeplegato_pp.errors import ConfigError, RangeError, ShapeError
from deeplegato_pp.models.swin_backbone import SwinBackbone

COMPACT = BackboneConfig(embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def test_compact_features_are_pooled(images):
    backbone = SwinBackbone(COMPACT, 8, 32)
    assert backbone(images).shape == (2, backbone.num_features) == (2, 32)


@pytest.mark.parametrize(
    "name",
    [
        "swinv2_cr_tiny_224",
        "resnet10t",
        "convnext_atto",
        "efficientnet_lite0",
        "mobilenetv3_small_050",
    ],
)
def test_models_of_timm_are_pooled_by_timm(images, name):
    # Four layouts: NHWC with a fixed size, NCHW, a norm after pooling, a layer after pooling.
    backbone = SwinBackbone(BackboneConfig(type=name), 8, 32).eval()
    assert backbone(images).shape == (2, backbone.num_features)


@pytest.mark.parametrize(
    "config",
    [COMPACT, BackboneConfig(type="convnext_atto"), BackboneConfig(type="vit_tiny_patch16_224")],
)
def test_the_layout_is_read_beside_the_pooled_features(config, images):
    torch.manual_seed(0)
    backbone = SwinBackbone(config, 8, 32).eval()
    pooled = SwinBackbone(dataclasses.replace(config, layout_channels=0), 8, 32).eval()
    pooled.network.load_state_dict(backbone.network.state_dict())
    # It starts at zero, and acts as soon as it is trained.
    torch.testing.assert_close(backbone(images), pooled(images))
    torch.nn.init.normal_(backbone.layout[-1].weight)
    assert not torch.allclose(backbone(images), pooled(images), atol=1e-2)


def test_the_layout_tells_where_a_feature_is():
    torch.manual_seed(0)
    backbone = SwinBackbone(COMPACT, 8, 32).eval()
    torch.nn.init.normal_(backbone.layout[-1].weight)
    feature_map = torch.zeros(2, 4, 4, 32)
    feature_map[0, 0, 0], feature_map[1, 3, 3] = 1.0, 1.0
    backbone.network.forward_features = lambda _: feature_map
    one, other = backbone(torch.zeros(2, 8, 32, 32))
    pooled = backbone.network.forward_head(feature_map)
    torch.testing.assert_close(pooled[0], pooled[1])
    assert not torch.allclose(one, other, atol=1e-2)


def test_a_fine_feature_map_is_averaged_to_a_small_grid():
    config = dataclasses.replace(COMPACT, patch_size=2, layout_channels=3)
    backbone = SwinBackbone(config, 8, 32)
    assert backbone.layout[-1].in_features == 4 * 4 * 3


def test_a_named_swin_takes_sizes_and_stochastic_depth(images):
    config = BackboneConfig(
        type="swinv2_tiny_window8_256",
        embed_dim=12,
        depths=(1, 2),
        num_heads=(1, 2),
        drop_path=0.4,
    )
    backbone = SwinBackbone(config, 8, 32)
    assert [len(layer.blocks) for layer in backbone.network.layers] == [1, 2]
    assert backbone.num_features == 24
    assert backbone.network.layers[1].blocks[1].drop_path1.drop_prob == pytest.approx(0.4)
    with pytest.raises(ConfigError, match=r"timm cannot build resnet10t .*embed_dim"):
        SwinBackbone(BackboneConfig(type="resnet10t", embed_dim=12), 8, 32)


@pytest.mark.slow
def test_a_named_swin_v2_takes_the_size_of_the_views(images):
    backbone = SwinBackbone(BackboneConfig(type="swinv2_tiny_window8_256"), 8, 32).eval()
    assert backbone.network.patch_embed.img_size == (32, 32)
    assert backbone(images).shape == (2, backbone.num_features)


def count_runs(backbone: SwinBackbone, images: torch.Tensor) -> tuple[int, torch.Tensor]:
    """How often the first block runs in a forward and backward pass, and a gradient."""
    runs = []
    block = backbone.network.layers[0].blocks[0]
    # Before the block, since a second run stops as soon as it has what the gradient needs.
    handle = block.register_forward_pre_hook(lambda *_: runs.append(1))
    backbone.train()(images).pow(2).sum().backward()
    handle.remove()
    return len(runs), block.attn.qkv.weight.grad


def test_gradient_checkpointing_runs_blocks_again_and_changes_no_gradient(images):
    plain = SwinBackbone(COMPACT, 8, 32)
    frugal = SwinBackbone(
        BackboneConfig(**{**vars(COMPACT), "gradient_checkpointing": True}), 8, 32
    )
    frugal.load_state_dict(plain.state_dict())
    runs, gradient = count_runs(plain, images)
    runs_again, same_gradient = count_runs(frugal, images)
    assert (runs, runs_again) == (1, 2)
    torch.testing.assert_close(same_gradient, gradient)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BackboneConfig(type="swimv2_tiny"), r"name of a timm model, got 'swimv2_tiny'"),
        (BackboneConfig(depths=(2, 2), num_heads=(2,)), "one entry per stage"),
        (BackboneConfig(patch_size=5), "patch_size 5 must divide the view's side 32"),
    ],
)
def test_what_cannot_be_built_is_explained(config, message):
    with pytest.raises(ConfigError, match=message):
        SwinBackbone(config, 8, 32)


def test_a_model_without_gradient_checkpointing_says_so(monkeypatch):
    def refuse(self, enable=True):
        assert not enable, "gradient checkpointing not supported"

    monkeypatch.setattr("timm.models.resnet.ResNet.set_grad_checkpointing", refuse)
    with pytest.raises(ConfigError, match="gradient_checkpointing=false"):
        SwinBackbone(BackboneConfig(type="resnet10t", gradient_checkpointing=True), 8, 32)


def test_pretrained_weights_that_cannot_be_had_offline():
    code = """
from deeplegato_pp.config.schema import BackboneConfig
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.swin_backbone import SwinBackbone
try:
    SwinBackbone(BackboneConfig(type="resnet10t", pretrained=True), 8, 32)
except ConfigError as error:
    print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert "pretrained weights of resnet10t could not be loaded" in done.stdout
    assert "model.backbone.pretrained=false" in done.stdout


# --- by keyword arguments ---------------------------------------------------------------------

SIZES = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 4), "window_size": 4}


def test_keywords_and_a_configuration_build_the_same():
    config = BackboneConfig(**SIZES, feature_dim=24, layout_channels=8)
    one = SwinBackbone(config, 2, 32)
    other = SwinBackbone("compact", 2, 32, **SIZES, feature_dim=24, layout_channels=8)
    shapes = [{k: v.shape for k, v in b.state_dict().items()} for b in (one, other)]
    assert shapes[0] == shapes[1]
    assert one.num_features == other.num_features == 24


def test_features_are_projected_by_a_layer_that_learns():
    backbone = SwinBackbone(**SIZES, feature_dim=24)
    features = backbone(torch.randn(3, 1, 32, 32))
    assert features.shape == (3, 24)
    features.square().sum().backward()
    assert bool(backbone.projection.weight.grad.any())
    assert SwinBackbone(**SIZES).projection is None
    assert SwinBackbone(**SIZES, feature_dim=32).projection is None  # its own length


@torch.no_grad()
def test_without_a_size_images_of_several_sizes_are_taken():
    backbone = SwinBackbone(**SIZES, layout_channels=3).eval()
    torch.nn.init.normal_(backbone.layout[-1].weight)
    for shape in ((2, 1, 16, 16), (2, 1, 32, 64), (2, 40, 40)):
        assert backbone(torch.randn(shape)).shape == (2, 32)
    images = torch.randn(2, 1, 32, 32)
    built_for_it = SwinBackbone(image_size=32, **SIZES, layout_channels=3).eval()
    built_for_it.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(backbone(images), built_for_it(images))


def test_a_named_model_takes_its_own_size_if_it_has_but_one():
    assert SwinBackbone("vit_tiny_patch16_224").image_size == 224
    assert SwinBackbone("resnet10t").image_size is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"feature_dim": -3}, RangeError, "feature_dim must be a whole number >= 1, got -3"),
        ({"embed_dim": 0}, RangeError, "embed_dim must be a whole number >= 1, got 0"),
        ({"depths": (1, -1)}, RangeError, "depths must be a whole number >= 1, got -1"),
        ({"in_channels": 0}, RangeError, "in_channels"),
        ({"image_size": -64}, RangeError, "image_size"),
        ({"drop_path": 1.5}, RangeError, r"drop_path must lie in \[0, 1\), got 1.5"),
        ({"num_heads": (3, 4)}, ConfigError, "num_heads 3 must divide the 16 channels of stage 1"),
        ({"features": 3}, ConfigError, "no option 'features'.*feature_dim"),
        ({"views": 2}, ConfigError, "SwinBackbone has no option 'views'"),
        ({"name": "swinv2_tiny_window8_265"}, ConfigError, "has: swinv2_tiny_window8_256"),
        ({"name": 3}, ConfigError, "name of a timm model, got 3"),
    ],
)
def test_bad_sizes_and_names_are_one_line_with_a_remedy(options, error, message):
    with pytest.raises(error, match=message) as caught:
        SwinBackbone(**{**SIZES, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 32, 32), r"shape \(B, 1, H, W\), got \(2, 3, 32, 32\). Select channels"),
        ((32, 32), r"got \(32, 32\)"),
        ((2, 1, 64, 64), "built for images of 32 x 32 px, got 64 x 64. Cut or pad"),
    ],
)
def test_images_of_another_shape_are_refused(shape, message):
    with pytest.raises(ShapeError, match=message):
        SwinBackbone(image_size=32, **SIZES)(torch.zeros(shape))


def test_sides_that_are_no_whole_patches_are_refused():
    with pytest.raises(ShapeError, match="multiples of the patch's 4 px, got 34 x 32"):
        SwinBackbone(**SIZES)(torch.zeros(2, 1, 34, 32))


def test_windows_of_one_patch_have_finite_positions(monkeypatch):
    from timm.models.swin_transformer_v2 import WindowAttention

    make = WindowAttention.__init__

    def as_old_timm_does(self, *args, **kwargs):
        make(self, *args, **kwargs)
        if self.relative_coords_table.shape[1:3] == (1, 1):
            self.relative_coords_table.fill_(torch.nan)

    monkeypatch.setattr(WindowAttention, "__init__", as_old_timm_does)
    backbone = SwinBackbone(image_size=8, **SIZES)
    tables = [b for n, b in backbone.named_buffers() if n.endswith("relative_coords_table")]
    assert tables[-1].shape[1:3] == (1, 1)
    assert bool(torch.isfinite(backbone(torch.randn(2, 1, 8, 8))).all())
