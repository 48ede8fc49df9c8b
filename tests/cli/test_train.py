from __future__ import annotations

import deeplegato_pp.training
from deeplegato_pp.calibration.truth import best_profiles
from deeplegato_pp.cli.app import main


def test_train_hands_over_the_configuration(monkeypatch):
    seen = []
    monkeypatch.setattr(
        deeplegato_pp.training, "train", lambda *a, **k: seen.append((*a, k)), raising=False
    )
    assert main(["train", "default", "training.max_steps=7", "training.seed=3"]) == 0
    assert main(["train", "default", "--restart", "--fast-dev-run"]) == 0
    (config, options), (_, others) = seen
    truth = {"truth": best_profiles}
    assert options == {"resume": None, "fast_dev_run": False, "trust_checkpoint": False} | truth
    assert others == {"resume": False, "fast_dev_run": True, "trust_checkpoint": False} | truth
    assert main(["train", "default", "--trust-checkpoint"]) == 0
    assert seen[-1][1]["trust_checkpoint"] is True
    assert config.training.max_steps == 7
    assert config.training.seed == 3
