"""An untrained network of some thousand weights for stamps of 64 px, in a folder."""

from __future__ import annotations

from pathlib import Path

import torch

from deeplegato_pp.config.schema import Config, load_config
from deeplegato_pp.models import DeepLeGAToPP

TINY = {
    "model": {
        "backbone": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
        "npe": {
            "num_flow_layers": 2,
            "hidden_dim": 16,
            "context_dim": 8,
            "trunk_dim": 16,
            "spline_bins": 4,
            "psf_channels": 2,
        },
    },
    "data": {"image_size": 64, "priors": {"effective_radius": [0.1, 1.5]}},
}


def tiny_config() -> Config:
    """Its configuration: radii up to 6 px, conditions as in training."""
    return load_config(TINY)


def save_tiny_model(folder: Path) -> Path:
    """Writes the network, always with the same weights, and returns the folder."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DeepLeGAToPP(tiny_config())
    return model.save_pretrained(folder, {"training": {"images": 0}})
