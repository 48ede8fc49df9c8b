from __future__ import annotations

import deeplegato_pp.training
from deeplegato_pp.cli.app import main


def test_train_hands_over_the_configuration(monkeypatch):
    seen = []
    monkeypatch.setattr(deeplegato_pp.training, "train", seen.append, raising=False)
    assert main(["train", "default", "training.max_steps=7", "training.seed=3"]) == 0
    (config,) = seen
    assert config.training.max_steps == 7
    assert config.training.seed == 3
