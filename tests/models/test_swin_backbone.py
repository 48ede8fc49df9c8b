"""Compact Swin V2 networks, timm's by name, and gradient checkpointing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from deeplegato_pp.config import BackboneConfig
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.swin_backbone import SwinBackbone

COMPACT = BackboneConfig(embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def test_compact_features_are_pooled(images):
    backbone = SwinBackbone(COMPACT, 8, 32)
    assert backbone(images).shape == (2, backbone.num_features) == (2, 32)


@pytest.mark.parametrize(
    "name", ["swinv2_cr_tiny_224", "resnet10t", "convnext_atto", "mobilenetv3_small_050"]
)
def test_models_of_timm_are_pooled_by_timm(images, name):
    # Four layouts: NHWC with a fixed size, NCHW, a norm after pooling, a layer after pooling.
    backbone = SwinBackbone(BackboneConfig(type=name), 8, 32).eval()
    assert backbone(images).shape == (2, backbone.num_features)


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
from deeplegato_pp.config import BackboneConfig
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
