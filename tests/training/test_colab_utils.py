"""The helpers for Colab, on a machine that is none."""

from __future__ import annotations

import os
import shutil
import sys
import types

import pytest
import torch

from deeplegato_pp.config.schema import CONFIG_DIR, load_config
from deeplegato_pp.errors import DeepLegatoError, FormatError
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.training import (
    auto_select_config,
    clear_gpu_memory,
    colab_utils,
    get_best_checkpoint,
    get_latest_checkpoint,
    is_colab,
    print_gpu_info,
    save_model_to_drive,
    setup_drive_paths,
    train,
)


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Colab's own library, whose drive is a local folder; returns the folder."""
    module = types.ModuleType("google.colab")
    drive = types.ModuleType("google.colab.drive")
    mount = tmp_path / "content" / "drive"
    drive.mount = lambda path: (mount / "MyDrive").mkdir(parents=True)
    module.drive = drive
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setitem(sys.modules, "google.colab.drive", drive)
    monkeypatch.setattr(colab_utils, "DRIVE", mount)
    return mount


def test_colab_is_told_by_its_library_or_its_environment(monkeypatch, request):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    assert not is_colab()
    with monkeypatch.context() as patch:
        patch.setenv("COLAB_RELEASE_TAG", "release")
        assert is_colab()
    request.getfixturevalue("colab")
    assert is_colab()


def test_the_drive_is_mounted_once_and_holds_the_folders(colab):
    paths = setup_drive_paths()
    assert sorted(paths) == ["base", "configs", "data", "models", "runs"]
    assert paths["runs"] == colab / "MyDrive" / "deeplegato" / "runs"
    assert all(p.is_dir() for p in paths.values())
    assert setup_drive_paths() == paths  # mounting a second time would raise here
    # The configurations for Colab put their runs there.
    base = str(paths["base"]).replace(str(colab), "/content/drive")
    assert load_config("colab_t4").data.drive_base == base


def test_a_drive_that_was_not_allowed(colab, monkeypatch):
    monkeypatch.setattr(sys.modules["google.colab.drive"], "mount", lambda path: None)
    with pytest.raises(DeepLegatoError, match="was not mounted"):
        setup_drive_paths()


def test_elsewhere_the_folders_are_local(tmp_path, monkeypatch):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert setup_drive_paths()["models"] == tmp_path / "deeplegato" / "models"
    assert setup_drive_paths(tmp_path / "own")["base"] == tmp_path / "own"


@pytest.mark.parametrize(
    ("name", "memory", "config"),
    [
        ("Tesla T4", 14.7, "colab_t4"),
        ("NVIDIA L4", 22.2, "colab_l4"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "colab_a100"),
        ("NVIDIA H100 80GB HBM3", 79.1, "colab_a100"),
        ("Tesla V100-SXM2-16GB", 15.8, "colab_t4"),  # unknown names go by their memory
        ("NVIDIA GeForce RTX 4090", 23.6, "colab_l4"),
        ("NVIDIA L40S", 44.4, "colab_a100"),
        ("NVIDIA T400", 3.9, "colab_t4"),
        (None, 80.0, "colab_a100"),
    ],
)
def test_a_gpu_has_its_configuration(name, memory, config):
    assert auto_select_config(name, memory) == config
    assert (CONFIG_DIR / f"{config}.yaml").is_file()


class FakeGPU:
    name = "Tesla T4"
    total_memory = 15 * 2**30


def test_the_gpu_that_is_there_is_described(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert auto_select_config() == "cpu"
    print_gpu_info()
    assert capsys.readouterr().out == "no GPU; configuration: cpu\n"
    freed = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: FakeGPU)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (14 * 2**30, 15 * 2**30))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))
    print_gpu_info()
    assert capsys.readouterr().out == (
        "Tesla T4, 15.0 GiB (14.0 free), without bfloat16; configuration: colab_t4\n"
    )
    clear_gpu_memory()
    assert freed == [True]


def test_checkpoints_are_found_again(tiny, tmp_path):
    assert get_latest_checkpoint(tmp_path) is None
    assert get_best_checkpoint(tmp_path / "nowhere") is None
    train(tiny("training.max_steps=3", folder="runs/a"))
    a, b = tmp_path / "runs" / "a", tmp_path / "runs" / "b"
    shutil.copytree(a, b)
    os.utime(b / "last.ckpt", (1.0, 1.0))
    assert get_latest_checkpoint(tmp_path) == a / "last.ckpt"
    os.utime(a / "last.ckpt", (0.0, 0.0))
    assert get_latest_checkpoint(tmp_path) == b / "last.ckpt"

    saved = torch.load(b / "best.ckpt", weights_only=False)
    states = saved["callbacks"].values()
    (own,) = [s for s in states if s.get("best_model_score") is not None]
    own["best_model_score"] -= 1.0
    torch.save(saved, b / "best.ckpt")
    assert get_best_checkpoint(tmp_path) == b / "best.ckpt"
    own["best_model_score"] += 2.0
    torch.save(saved, b / "best.ckpt")
    assert get_best_checkpoint(tmp_path) == a / "best.ckpt"
    (b / "best.ckpt").write_bytes(b"half a file")
    with pytest.raises(FormatError, match=r"best\.ckpt .* is damaged, or no checkpoint"):
        get_best_checkpoint(tmp_path)


@pytest.fixture
def model(tiny):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeepLeGAToPP(tiny()).eval()


def test_a_model_on_the_drive_is_the_model(model, tmp_path, colab):
    before = setup_drive_paths()["models"] / "mine" / "recalibration.json"
    before.parent.mkdir()
    before.write_text("of another model")
    folder = save_model_to_drive(model, "mine")
    assert not before.exists()
    assert folder == colab / "MyDrive" / "deeplegato" / "models" / "mine"
    loaded = DeepLeGAToPP.from_pretrained(folder)
    assert torch.equal(loaded.head.mean_head.weight, model.head.mean_head.weight)
    assert not list(folder.glob("*.part"))


def test_a_drive_that_fails_now_and_then(model, tmp_path, monkeypatch):
    copy, failures = shutil.copyfile, iter([OSError("network"), None, None, None])

    def copyfile(source, target):
        if (error := next(failures, None)) is not None:
            raise error
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    waits = []
    monkeypatch.setattr(colab_utils.time, "sleep", waits.append)
    folder = save_model_to_drive(model, "mine", tmp_path)
    assert DeepLeGAToPP.from_pretrained(folder).card["name"] == "mine"
    assert waits == [1.0]

    def full(source, target):
        raise OSError("no room")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DeepLegatoError, match=r"in 3 tries \(no room\)"):
        save_model_to_drive(model, "other", tmp_path)
