from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("leaves", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_stopped_says_how_to_go_on(monkeypatch, tmp_path, capsys, leaves):
    folder = tmp_path / "run"

    def stopped(*arguments, **options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if leaves is SystemExit:  # as Lightning does
                raise SystemExit(1)  # noqa: B904
            raise

    monkeypatch.setattr(deeplegato_pp.training, "train", stopped, raising=False)
    call = ["train", "default", f"logging.output_dir={folder}"]

    def told(*more: str) -> str:
        assert main([*call, *more]) == 130
        return capsys.readouterr().err.removeprefix("deeplegato: interrupted.").strip()

    assert told() == "No epoch had ended: the same command starts anew."
    folder.mkdir()
    (folder / "last.ckpt").touch()
    safe = f"The epochs that had ended are safe in {folder / 'last.ckpt'}: go on with the same "
    assert told() == safe + "command."
    assert told("--restart") == safe + "command without --restart."
    assert told("training.resume_from_latest=false") == (
        safe + "command with training.resume_from_latest=true."
    )
    assert told("--fast-dev-run") == ""
