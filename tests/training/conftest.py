"""A run that takes seconds: a tiny network, small stamps, short epochs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from deeplegato_pp.config.schema import Config, load_config

TINY = {
    "model": {
        "backbone": {
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 4],
            "window_size": 4,
        },
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
    "training": {
        "batch_size": 4,
        "max_steps": 12,
        "steps_per_epoch": 3,
        "warmup_steps": 2,
        "decay_steps": 4,
        "precision": "32-true",
        "ema_decay": 0.7,
        "accelerator": "cpu",
    },
    "validation": {"num_images": 8, "batch_size": 4},
    "logging": {"every_n_steps": 1, "progress_bar": False},
}


@pytest.fixture
def tiny(tmp_path):
    """Returns a function that builds the tiny configuration, with overrides."""

    def build(*overrides: str, folder: str = "run") -> Config:
        output = f"logging.output_dir={tmp_path / folder}"
        return load_config(TINY, [output, *overrides])

    return build


@pytest.fixture
def read_rows():
    """Returns a function that reads a CSV file, without the columns that tell the time."""

    def read(path: Path) -> list[dict[str, float]]:
        with path.open(newline="") as f:
            rows = list(csv.DictReader(f))
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in rows]

    return read
