"""TensorBoard, Weights & Biases, and what is said where they are missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from deeplegato_pp.config.schema import LoggingConfig
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.training import loggers, train
from deeplegato_pp.training.loggers import create_loggers, pictures


def test_without_a_wish_there_is_none(tmp_path):
    assert create_loggers(LoggingConfig(), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wish", "remedy"),
    [("tensorboard", r"deeplegato-pp\[train\]"), ("use_wandb", "pip install wandb")],
)
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, wish, remedy):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"logging\.{wish}=true needs .*{remedy}"):
        create_loggers(LoggingConfig(**{wish: True}), tmp_path)


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is an extra")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_curves_learning_rate_and_pictures(tiny, tmp_path):
    train(
        tiny(
            "training.max_steps=3",
            "logging.tensorboard=true",
            "logging.log_images_every_n_epochs=1",
            f"logging.log_dir={tmp_path / 'watch'}",
        )
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "watch" / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/flow_nll", "val_full/nll", "val_full/coverage_68"} <= scalars
    assert any(name.startswith("lr-") for name in scalars)
    assert "validation/stamps" in events.Tags()["images"]
    assert "wandb" not in sys.modules


def test_pictures_are_grey_and_hide_the_mask():
    image = torch.zeros(2, 4, 4)
    image[:, 1, 1] = 100.0
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, 0, 0] = True
    image[:, 0, 0] = torch.inf
    shown = pictures(image, torch.ones_like(image), mask)
    assert shown.shape == (2, 1, 4, 4)
    assert float(shown.min()) == 0.0
    assert shown[0, 0, 1, 1] == shown.max() == 1.0
    assert not bool(shown[:, 0, 0, 0].any())
