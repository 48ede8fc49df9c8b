"""Training of a network with PyTorch Lightning."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from deeplegato_pp.config.schema import ConfigLike, load_config
from deeplegato_pp.data.datasets import Batch, Share, stream_seed
from deeplegato_pp.data.loaders import Loader, create_dataloaders
from deeplegato_pp.data.sersic_simulator import Truth
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.training.objective import Objective
from deeplegato_pp.training.optimizer import create_optimizer
from deeplegato_pp.training.schedules import learning_rate_factor
from deeplegato_pp.training.validation import validation_metrics

logger = logging.getLogger(__name__)

_NOISE_STREAM = 2**33
"""Offset of random seeds for dropout, hidden pixels etc. from those of simulations."""


class DeepLeGAToPPTrainer(pl.LightningModule):
    """Trains a network on new simulations, stored ones and real galaxies.

    Steps with non-finite gradients are skipped, for weights and moments alike, and counted
    (``skipped_steps``); they occasionally occur with bf16. All random numbers depend on (seed,
    step, shard), so that a resumed run gives the same results as an uninterrupted one.

    Args:
        config: The configuration or its source: a YAML file, the name of a packaged one, nested
            dictionaries.
        model: Network to continue with, or None for a new one.
        truth: Function that finds the best-fitting profiles of galaxies with structure, if any.
    """

    def __init__(
        self,
        config: ConfigLike = None,
        model: DeepLeGAToPP | None = None,
        truth: Truth | None = None,
    ) -> None:
        super().__init__()
        self.truth = truth
        self.config = config = load_config(config)
        self.model = model or DeepLeGAToPP(config)
        self.objective = Objective(config, self.model.backbone.num_features)
        self.skipped_steps = 0
        self.finished: dict[str, Tensor] | None = None
        self._loaders: tuple[Loader, dict[str, Loader]] | None = None
        self._forward_passes = 0

    @property
    def monitored(self) -> str:
        """Metric by which the best weights are selected."""
        term = "nll" if self.config.training.task == "posterior" else "reconstruction"
        return f"val_full/{term}"

    def transfer_batch_to_device(
        self, batch: Batch | list[Any], device: torch.device, _: int
    ) -> Batch:
        """Moves stamps and coordinates."""
        stamps, w = batch
        return stamps.to(device), w.to(device)

    def on_fit_start(self) -> None:
        """Compiles the image network, if configured; names of weights are unchanged."""
        if self.config.training.compile:
            self.model.backbone.compile()

    def on_train_epoch_start(self) -> None:
        """Sets the count of forward passes to the current step."""
        self._forward_passes = self.global_step * self.config.training.accumulation_steps

    def training_step(self, batch: Batch, _: int) -> dict[str, Tensor]:
        """Returns the loss of a batch, and its terms for the record."""
        step, shard = self._share().step_and_shard(self._forward_passes)
        torch.manual_seed(stream_seed(_NOISE_STREAM + self.config.training.seed, step, shard))
        self._forward_passes += 1
        terms: dict[str, Tensor] = self.objective(self.model, *batch)
        for name, value in terms.items():
            if name != "loss":
                self.log(f"train/{name}", value, prog_bar=name in ("flow_nll", "reconstruction"))
        return terms

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        """Logs NLL, errors and coverage, or the error of the reconstruction."""
        stamps, w = batch
        name = list(self._both_loaders()[1])[dataloader_idx]
        if self.config.training.task == "reconstruction":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.training.seed)  # the same pixels each time
                metrics = {"reconstruction": self.objective.reconstruct(self.model, stamps)}
        else:
            draws = self.config.validation.num_posterior_samples
            metrics = validation_metrics(self.model, stamps, w, draws)
        for key, value in metrics.items():
            self.log(
                f"val_{name}/{key}",
                value,
                batch_size=len(stamps),
                add_dataloader_idx=False,
                prog_bar=key in ("nll", "reconstruction"),
                sync_dist=True,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Stores the number of skipped steps and the configuration."""
        checkpoint["skipped_steps"] = self.skipped_steps
        checkpoint["config"] = self.config.to_record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the number of skipped steps, and the averaged weights of a finished run.

        Raises:
            ConfigError: If the checkpoint belongs to another network; the message lists missing and
                unexpected weights, and those with another shape.
        """
        report = mismatches(self.state_dict(), checkpoint["state_dict"])
        if report:
            raise ConfigError(
                f"The checkpoint belongs to a network of other sizes: {report}. Set another "
                "logging.output_dir, or start anew without resuming (--restart)."
            )
        self.skipped_steps = checkpoint["skipped_steps"]
        if checkpoint["global_step"] >= self.config.training.max_steps:
            # No steps remain, but Lightning inserts averages only after steps.
            self.finished = checkpoint["state_dict"]

    def on_before_optimizer_step(self, _: Optimizer) -> None:
        """Clips the gradient, or removes it if it is not finite, which skips the step."""
        norm = nn.utils.clip_grad_norm_(self.parameters(), self.config.training.gradient_clip)
        if not bool(torch.isfinite(norm)):
            self.skipped_steps += 1
            for parameter in self.parameters():
                parameter.grad = None  # the optimizer ignores parameters without gradient

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns one optimizer and its schedule.

        Raises:
            ConfigError: If the optimizer or the schedule is unknown.
        """
        training = self.config.training
        trained: nn.Module = self.model
        if self.objective.decoder is not None:
            trained = nn.ModuleList([self.model, self.objective.decoder])
        optimizer = create_optimizer(trained, training)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, training))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def train_dataloader(self) -> Loader:
        """Returns this process's infinite stream, divided into epochs."""
        return self._both_loaders()[0]

    def val_dataloader(self) -> list[Loader]:
        """Returns the fixed validation sets."""
        return list(self._both_loaders()[1].values())

    def _both_loaders(self) -> tuple[Loader, dict[str, Loader]]:
        if self._loaders is None:
            self._loaders = create_dataloaders(
                self.config,
                share=self._share(),
                device=self.device,
                position=lambda: self.global_step * self.config.training.accumulation_steps,
                truth=self.truth,
            )
        return self._loaders

    def _share(self) -> Share:
        # Without a trainer, as in a notebook, there is one process.
        world = self._trainer.world_size if self._trainer is not None else 1
        return Share(self.global_rank, world, self.config.training.accumulation_steps)


def mismatches(own: dict[str, Tensor], other: dict[str, Tensor], most: int = 3) -> str:
    """Describes differences of names and shapes of two sets of weights; empty if there are none.

    Args:
        own: Weights of the network.
        other: Weights to load.
        most: Maximum number of listed names of each kind.
    """
    kinds = {
        "missing": sorted(own.keys() - other.keys()),
        "unexpected": sorted(other.keys() - own.keys()),
        "of another shape": sorted(
            f"{k} {tuple(other[k].shape)} for {tuple(own[k].shape)}"
            for k in own.keys() & other.keys()
            if own[k].shape != other[k].shape
        ),
    }
    parts = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            parts.append(f"{kind} {', '.join(names[:most])}{more}")
    return "; ".join(parts)
