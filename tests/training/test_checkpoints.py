"""Checkpoints may come from anyone: reading one runs nothing."""

from __future__ import annotations

import os

import pytest
import torch

from deeplegato_pp.cli.app import main
from deeplegato_pp.errors import FormatError
from deeplegato_pp.training.checkpoints import EXPECTED, read_checkpoint
from deeplegato_pp.training.train import train


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def whole(**changes) -> dict:
    return {name: kind() for name, kind in EXPECTED.items()} | changes


def write_attack(folder):
    path, proof = folder / "last.ckpt", folder / "proof"
    torch.save(whole(hyper=Attack(proof)), path)
    return path, proof


def test_a_crafted_checkpoint_runs_nothing_unless_trusted(tmp_path):
    path, proof = write_attack(tmp_path)
    with pytest.raises(FormatError, match=r"could run code of its author.*--trust-checkpoint"):
        read_checkpoint(path)
    assert not proof.exists()
    read_checkpoint(path, trusted=True)
    assert proof.exists(), "the attack of this test works"


def test_training_refuses_it_in_one_line(tmp_path, capsys):
    _, proof = write_attack(tmp_path)
    call = ["train", "default", f"logging.output_dir={tmp_path}", "data.image_size=64"]
    call += ["model.backbone.embed_dim=8", "model.backbone.depths=[1]", "training.accelerator=cpu"]
    call += ["model.backbone.num_heads=[1]", "training.max_steps=1", "training.steps_per_epoch=1"]
    assert main(call) == 2
    assert "--trust-checkpoint" in (err := capsys.readouterr().err)
    assert err.count("\n") == 1
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(0 bytes\) is damaged, or no checkpoint"),
        (b"\x80\x02}q\x00.", "is damaged, or no checkpoint"),
        (b"PK\x03\x04" + bytes(100), "is damaged, or no checkpoint"),
        ([1, 2], "it lacks state_dict, global_step"),
        (whole(callbacks=[]), "it lacks callbacks"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, content, message):
    path = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    for trusted in (False, True):
        with pytest.raises(FormatError, match=message):
            read_checkpoint(path, trusted=trusted)


def test_what_a_run_looked_up_is_not_passed_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    config = tiny("training.max_steps=3", "data.drive_base=${oc.env:SECRET_TOKEN}")
    assert config.data.drive_base == "hunter2"
    train(config, "training.seed=1")
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path.name
