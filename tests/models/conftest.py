"""Small networks and made-up stamps."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.config.schema import (
    BackboneConfig,
    Config,
    DataConfig,
    ModelConfig,
    NPEConfig,
)
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.stamps import PSF_GRID, StampBatch

FLOWS = ("coupling_nsf", "realnvp", "nsf", "maf")


def small_config(flow: str = "coupling_nsf") -> Config:
    """A network of some thousand parameters for stamps of 64 px."""
    backbone = BackboneConfig(embed_dim=16, depths=(1, 1), num_heads=(2, 4), window_size=4)
    npe = NPEConfig(
        type=flow,
        num_flow_layers=3,
        hidden_dim=16,
        context_dim=8,
        trunk_dim=16,
        spline_bins=4,
        psf_channels=2,
    )
    return Config(model=ModelConfig(backbone, npe), data=DataConfig(image_size=64))


def small_model(flow: str = "coupling_nsf", spread: float = 0.1) -> DeepLeGAToPP:
    """An untrained network whose posteriors are far from Gaussian, and differ by galaxy."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DeepLeGAToPP(small_config(flow)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += spread * torch.randn_like(parameter)
            model.head.logvar_head.bias -= 0.5
    return model


def made_up_stamps(batch: int = 6, size: int = 64, seed: int = 0) -> StampBatch:
    """Stamps with every kind of entry: blobs, uneven noise, masks, both noise modes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    axis = torch.arange(size) - (size - 1) / 2
    grid = torch.arange(PSF_GRID) - (PSF_GRID - 1) / 2
    width = 2.0 + 6.0 * uniform(batch, 1, 1)
    blob = torch.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / width**2)
    psf = torch.exp(-0.5 * (grid[:, None] ** 2 + grid**2) / (1.5 + 3.0 * uniform(batch, 1, 1)) ** 2)
    noise = torch.randn(batch, size, size, generator=generator)
    return StampBatch(
        image=100.0 * uniform(batch, 1, 1) * blob + noise,
        sigma=0.8 + 0.4 * uniform(batch, size, size),
        mask=uniform(batch, size, size) < 0.1,
        psf=psf / psf.sum((-2, -1), keepdim=True),
        gain=torch.where(torch.arange(batch) % 2 == 0, torch.inf, 50.0),
        sky_sigma=0.02 + 0.05 * uniform(batch),
        noise_correlation=1.0 + uniform(batch),
    )


@pytest.fixture(scope="session")
def model() -> DeepLeGAToPP:
    return small_model()


@pytest.fixture(params=FLOWS, scope="session")
def any_model(request) -> DeepLeGAToPP:
    return small_model(request.param)


@pytest.fixture
def stamps() -> StampBatch:
    return made_up_stamps()


@pytest.fixture
def make_stamps():
    return made_up_stamps


@pytest.fixture
def make_model():
    return small_model
