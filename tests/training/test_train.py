"""The loop: what a run leaves, and that killing it changes nothing."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from deeplegato_pp.config import CONFIG_DIR, load_config
from deeplegato_pp.data.datasets import SimulatedGalaxyDataset
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.training import train
from deeplegato_pp.training.train import CHECKPOINT

CURVES = ("training.csv", "steps.csv")


class Killed(Exception):
    pass


def kill_at(monkeypatch, step: int) -> None:
    simulate = SimulatedGalaxyDataset.__getitem__

    def die(self, index):
        if index == step:
            raise Killed
        return simulate(self, index)

    monkeypatch.setattr(SimulatedGalaxyDataset, "__getitem__", die)


def same_weights(a: DeepLeGAToPP, b: DeepLeGAToPP) -> bool:
    return all(
        torch.allclose(x, y, atol=1e-6) for x, y in zip(a.parameters(), b.parameters(), strict=True)
    )


def test_a_killed_run_goes_on_as_if_nothing_had_been(tiny, tmp_path, monkeypatch, read_rows):
    whole = train(tiny(folder="whole"))
    with monkeypatch.context() as patch:
        kill_at(patch, 8)  # the last step of the third epoch
        with pytest.raises(Killed):
            train(tiny(folder="killed"))
    folder = tmp_path / "killed"
    assert not (folder / "model").exists()
    assert len(read_rows(folder / "steps.csv")) == 8
    # As if it had been killed between validating and saving.
    with (folder / "training.csv").open("a") as f:
        f.write("9,36,1.0\n")
    resumed = train(tiny(folder="killed"))

    assert same_weights(whole, resumed)
    for name in CURVES:
        expected, rows = (read_rows(tmp_path / run / name) for run in ("whole", "killed"))
        assert [row["step"] for row in rows] == [row["step"] for row in expected]
        for row, other in zip(rows, expected, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert whole.card["training"]["validation"] == pytest.approx(
        resumed.card["training"]["validation"], abs=2e-4
    )
    assert resumed.card["training"]["hours"] >= 0


def test_a_resumed_run_leaves_out_no_batch_and_repeats_none(tiny, monkeypatch):
    simulate, seen = SimulatedGalaxyDataset.__getitem__, []

    def watch(self, index):
        if self.seed == 0:  # the validation sets have other seeds
            seen.append(index)
        return simulate(self, index)

    monkeypatch.setattr(SimulatedGalaxyDataset, "__getitem__", watch)
    train(tiny("training.max_steps=3"))
    train(tiny("training.max_steps=9"))
    assert seen == list(range(9))


def test_a_run_leaves_its_curves_its_record_and_a_model_that_loads(tiny, tmp_path, read_rows):
    model = train(tiny("training.max_steps=6"))
    folder = tmp_path / "run"
    assert sorted(p.name for p in folder.iterdir()) == [
        CHECKPOINT,
        "model",
        "steps.csv",
        "training.csv",
    ]
    rows = read_rows(folder / "training.csv")
    assert [row["step"] for row in rows] == [3, 6]
    assert [row["images"] for row in rows] == [12, 24]
    for name in ("val_clean/nll", "val_full/nll", "val_full/mae_sersic_index", "train/flow_nll"):
        assert all(row[name] == row[name] for row in rows)
    steps = read_rows(folder / "steps.csv")
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]

    assert not model.training
    loaded = DeepLeGAToPP.from_pretrained(folder / "model")
    assert same_weights(model, loaded)
    record = loaded.card["training"]
    assert (record["steps"], record["images"], record["skipped_steps"]) == (6, 24, 0)
    assert record["validation"]["val_clean/nll"] == pytest.approx(
        rows[-1]["val_clean/nll"], abs=1e-4
    )

    # Averaged weights are what is kept and validated; the checkpoint holds the last ones as well.
    saved = torch.load(folder / CHECKPOINT, weights_only=False)
    name = "model.head.mean_head.weight"
    assert torch.allclose(saved["state_dict"][name], model.head.mean_head.weight)
    assert not torch.allclose(saved["current_model_state"][name], model.head.mean_head.weight)


def test_a_finished_run_that_is_started_again_gives_the_same_model(tiny, tmp_path):
    config = tiny("training.max_steps=3")
    first = train(config)
    second = train(config)
    assert same_weights(first, second)
    assert second.card["training"]["validation"] == first.card["training"]["validation"]
    assert second.card["training"]["steps"] == 3


def test_without_resuming_it_starts_anew(tiny, tmp_path, read_rows):
    config = tiny("training.max_steps=3")
    first = train(config)
    assert same_weights(first, train(config, resume=False))
    assert [row["step"] for row in read_rows(tmp_path / "run" / "training.csv")] == [3]


def test_skipped_steps_reach_the_record(tiny, tmp_path, monkeypatch, read_rows):
    compute_loss, calls = DeepLeGAToPP.compute_loss, []

    def spoil_the_second(self, stamps, w):
        terms = compute_loss(self, stamps, w)
        if self.training:
            calls.append(1)
            if len(calls) == 2:
                terms["flow"] = terms["flow"] * torch.nan
        return terms

    monkeypatch.setattr(DeepLeGAToPP, "compute_loss", spoil_the_second)
    model = train(tiny("training.max_steps=3"))
    assert model.card["training"]["skipped_steps"] == 1
    assert [r["skipped_steps"] for r in read_rows(tmp_path / "run" / "steps.csv")] == [0, 1, 1]
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_diverged_validation_does_not_cost_the_model(tiny, tmp_path, monkeypatch):
    compute_loss = DeepLeGAToPP.compute_loss

    def diverge(self, stamps, w):
        terms = compute_loss(self, stamps, w)
        return terms if self.training else {**terms, "flow": terms["flow"] * torch.inf}

    monkeypatch.setattr(DeepLeGAToPP, "compute_loss", diverge)
    train(tiny("training.max_steps=3"))
    content = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert content["card"]["training"]["validation"]["val_clean/nll"] is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.max_steps=10"], r"multiple of training.steps_per_epoch.*max_steps=9"),
        (["training.steps_per_epoch=0"], "at least 1"),
        (["training.precision=17-true"], "training.precision=17-true"),
        (["training.accelerator=abacus"], "training.accelerator=abacus"),
    ],
)
def test_settings_that_cannot_be(tiny, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(tiny(*overrides))


def test_the_checkpoint_of_another_network_is_not_taken_up(tiny):
    train(tiny("training.max_steps=3"))
    with pytest.raises(ConfigError, match=r"network of other sizes.*logging\.output_dir"):
        train(tiny("training.max_steps=6", "model.npe.context_dim=9"))


@pytest.mark.parametrize("name", sorted(p.stem for p in CONFIG_DIR.glob("*.yaml")))
def test_shipped_configurations_train(name, tmp_path):
    config = load_config(
        name,
        [
            "training.max_steps=2",
            "training.batch_size=2",
            "training.accelerator=cpu",
            "validation.num_images=2",
            "data.image_size=64",
            f"logging.output_dir={tmp_path}",
            "logging.progress_bar=false",
        ],
    )
    config.model.backbone.depths = (1,) * len(config.model.backbone.depths)
    train(config)
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_run_gives_no_warnings_with_workers_either(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tiny("training.max_steps=3", "training.num_workers=1"))
