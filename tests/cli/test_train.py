from __future__ import annotations

import deeplegato_pp.training
from deeplegato_pp.cli.app import main


def test_train_hands_over_the_configuration(monkeypatch):
    seen = []
    monkeypatch.setattr(
        deeplegato_pp.training, "train", lambda *a, **k: seen.append((*a, k)), raising=False
    )
    assert main(["train", "default", "training.max_steps=7", "training.seed=3"]) == 0
    assert main(["train", "default", "--restart", "--fast-dev-run"]) == 0
    (config, options), (_, others) = seen
    assert options == {"resume": None, "fast_dev_run": False}
    assert others == {"resume": False, "fast_dev_run": True}
    assert config.training.max_steps == 7
    assert config.training.seed == 3
