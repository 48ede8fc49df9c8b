"""The loop: what a run leaves, and that killing it changes nothing."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

from deeplegato_pp.calibration.truth import best_profiles
from deeplegato_pp.config.schema import CONFIG_DIR, load_config
from deeplegato_pp.data.datasets import SimulatedGalaxyDataset
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.training import DeepLeGAToPPTrainer, train
from deeplegato_pp.training.assembly import BEST
from deeplegato_pp.training.callbacks import append_row
from deeplegato_pp.training.train import CHECKPOINT, run_folder

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
        BEST,
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

    def spoil_the_second(self, *batch):
        terms = compute_loss(self, *batch)
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

    def diverge(self, *batch):
        terms = compute_loss(self, *batch)
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


SMALL = {
    "compact": ["embed_dim=16", "depths=[1,1]", "num_heads=[2,4]", "window_size=4"],
    "swinv2": ["embed_dim=24", "depths=[1,1,1,1]", "num_heads=[1,2,3,6]", "pretrained=false"],
}


@pytest.mark.parametrize("name", sorted(p.stem for p in CONFIG_DIR.glob("*.yaml")))
def test_shipped_configurations_take_two_steps(name):
    kind = load_config(name).model.backbone.type.split("_")[0]
    config = load_config(
        name,
        [
            "training.batch_size=2",
            "data.image_size=64",
            "model.npe.num_flow_layers=2",
            "model.npe.hidden_dim=16",
            *(f"model.backbone.{setting}" for setting in SMALL[kind]),
        ],
    )
    module = DeepLeGAToPPTrainer(config, truth=best_profiles)
    optimizer = module.configure_optimizers()["optimizer"]
    before = [p.detach().clone() for p in module.parameters()]
    for step in range(2):
        loss = module.objective(module.model, *module.train_dataloader().dataset[step])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert bool(torch.isfinite(loss))
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_trial_leaves_no_files(tiny, tmp_path):
    train(tiny(), fast_dev_run=True)
    assert not (tmp_path / "run").exists()


def test_early_stopping_keeps_the_best_weights(tiny, tmp_path, monkeypatch):
    scores = iter([0, 3.0, 0, 1.0, 0, 2.0, 0, 2.5])  # of the clean and the full set

    def figures(*_):
        return {"nll": torch.tensor(float(next(scores)))}

    monkeypatch.setattr("deeplegato_pp.training.trainer.validation_metrics", figures)
    model = train(
        tiny(
            "validation.num_images=4",
            "training.early_stopping_patience=1",
            "training.max_steps=30",
        )
    )
    assert model.card["training"]["steps"] == 9
    best = torch.load(tmp_path / "run" / BEST, weights_only=False)
    weights = {k.removeprefix("model."): v for k, v in best["state_dict"].items()}
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


def test_a_run_may_live_on_the_drive(tiny):
    assert run_folder(tiny(folder="a")).name == "a"
    relative = ["training.save_to_drive=true", "logging.output_dir=runs/a"]
    assert str(run_folder(tiny(*relative, "data.drive_base=/d"))) == "/d/runs/a"
    with pytest.raises(ConfigError, match="drive_base, which is empty"):
        run_folder(tiny(*relative))


def test_a_run_gives_no_warnings_with_workers_either(tiny):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tiny("training.max_steps=3", "training.num_workers=1"))


def test_new_figures_get_columns_in_the_curve_of_an_older_run(tmp_path):
    path = tmp_path / "training.csv"
    append_row(path, {"step": 1, "nll": 2.0})
    append_row(path, {"step": 2, "nll": 1.0, "coverage": 0.5})
    append_row(path, {"step": 3, "nll": 0.0, "coverage": 0.6})
    assert path.read_text().split() == ["step,nll,coverage", "1,2.0,", "2,1.0,0.5", "3,0.0,0.6"]


def test_half_precision_is_bfloat16_on_a_cpu(tiny, tmp_path):
    model = train(tiny("training.precision=fp16", "training.max_steps=3"))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.card["training"]["steps"] == 3


@pytest.mark.parametrize("wanted", [True, False])
def test_the_image_network_is_compiled_if_asked_for(tiny, monkeypatch, wanted):
    """Not compiled here, for want of a compiler on every machine: asked to, once."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    model = train(tiny("training.max_steps=3", f"training.compile={str(wanted).lower()}"))
    assert len(compiled) == wanted
    assert all(type(module) is type(model.backbone) for module in compiled)


def test_a_name_or_mapping_and_overrides_are_a_configuration(tiny, tmp_path):
    source = tiny().to_dict()
    source["training"]["steps_per_epoch"] = 1
    model = train(source, "training.max_steps=1", "training.batch_size=2")
    assert model.config.training.batch_size == 2
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    with pytest.raises(ConfigError, match=r"training\.nonsense"):
        train("cpu.yaml", "training.nonsense=1")
    with pytest.raises(ConfigError, match="No configuration file nowhere"):
        DeepLeGAToPPTrainer("nowhere.yaml")
