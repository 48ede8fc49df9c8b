"""The Lightning module: steps, and steps that must not be taken."""

from __future__ import annotations

import copy
import warnings

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from deeplegato_pp.data.loaders import validation_set
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.training.trainer import DeepLeGAToPPTrainer


def snapshot(module: DeepLeGAToPPTrainer, optimizer: torch.optim.Optimizer) -> dict:
    weights = {k: v.clone() for k, v in module.model.state_dict().items()}
    return {"weights": weights, "moments": copy.deepcopy(optimizer.state_dict()["state"])}


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Spy(Callback):
    """Spoils the gradients of one step, and keeps the state after each."""

    def __init__(self, spoilt: int, value: float) -> None:
        self.spoilt, self.value = spoilt, value
        self.states: list[dict] = []

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.spoilt:
            pl_module.model.head.mean_head.weight.grad[0, 0] = self.value

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append(snapshot(pl_module, trainer.optimizers[0]))


def run(config, *callbacks: Callback) -> DeepLeGAToPPTrainer:
    with torch.random.fork_rng(), warnings.catch_warnings():
        # What `train` leaves to the user's choice of workers is not what is tested here.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        torch.manual_seed(0)
        module = DeepLeGAToPPTrainer(config)
        pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=config.training.max_steps,
            limit_val_batches=0,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module)
    return module


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted(tiny, optimizer, value):
    spy = Spy(2, value)
    config = tiny(f"training.optimizer={optimizer}", "training.max_steps=4")
    module = run(config, spy)
    before, spoilt, after = spy.states[1:]
    assert same(before, spoilt)
    assert not same(spoilt["weights"], after["weights"])
    assert not same(spoilt["moments"], after["moments"])
    assert all(bool(torch.isfinite(v).all()) for v in after["weights"].values())
    assert int(module.skipped_steps) == 1


def test_a_loss_that_is_nan_is_skipped_too(tiny, monkeypatch):
    spy = Spy(-1, 0.0)
    compute_loss = DeepLeGAToPPTrainer.training_step

    def spoil(self, batch, index):
        terms = compute_loss(self, batch, index)
        return {**terms, "loss": terms["loss"] * (torch.nan if self.global_step == 1 else 1.0)}

    monkeypatch.setattr(DeepLeGAToPPTrainer, "training_step", spoil)
    module = run(tiny("training.max_steps=3"), spy)
    assert same(spy.states[0], spy.states[1])
    assert int(module.skipped_steps) == 1


def test_it_can_learn_a_batch_by_heart(tiny):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = DeepLeGAToPPTrainer(tiny("training.warmup_steps=0", "training.learning_rate=0.01"))
    optimizer = module.configure_optimizers()["optimizer"]
    stamps, w = module.train_dataloader().dataset[0]
    losses = []
    for _ in range(60):
        loss = module.objective(module.model, stamps, w)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 5.0


def test_gradients_are_clipped(tiny):
    norms = []

    class Norms(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            grads = [p.grad.norm() for p in pl_module.model.parameters() if p.grad is not None]
            if grads:
                norms.append(float(torch.stack(grads).norm()))

    run(tiny("training.max_steps=3", "training.gradient_clip=0.01"), Norms())
    assert norms
    assert max(norms) <= 0.01 * (1 + 1e-4)


def test_validation_sets_are_fixed_and_apart_from_training(tiny):
    config = tiny()
    clean, full = (validation_set(config, name) for name in ("clean", "full"))
    assert len(clean) == len(full) == 2
    stamps, w = clean[1]
    again, w_again = validation_set(config, "clean")[1]
    assert torch.equal(w, w_again)
    assert torch.equal(stamps.image, again.image)
    trained = DeepLeGAToPPTrainer(config).train_dataloader().dataset
    assert not torch.equal(trained[1][1], w)
    assert not bool(stamps.mask.any())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.optimizer=sgdd", "training.optimizer .*'sgdd'"),
        ("training.scheduler=linear", "training.scheduler is one of"),
    ],
)
def test_unknown_names_are_explained(tiny, override, message):
    with pytest.raises(ConfigError, match=message):
        DeepLeGAToPPTrainer(tiny(override)).configure_optimizers()
