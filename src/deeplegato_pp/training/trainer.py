"""The training of a network with PyTorch Lightning."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from deeplegato_pp.config import Config
from deeplegato_pp.data.datasets import EpochSampler, SimulatedGalaxyDataset
from deeplegato_pp.data.sersic_simulator import SersicSimulator
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.parameters import NAMES
from deeplegato_pp.stamps import StampBatch
from deeplegato_pp.training.losses import NPELoss
from deeplegato_pp.training.schedules import learning_rate_factor

logger = logging.getLogger(__name__)

VALIDATION_SETS = ("clean", "full")
"""Isolated unmasked galaxies, and the conditions of training."""

_VALIDATION_SEED = 2**31
"""Far from any training seed: the validation stream is never trained on."""

Batch = tuple[StampBatch, Tensor]


class DeepLeGAToPPTrainer(pl.LightningModule):
    """Trains a network on simulations made on the fly.

    Steps whose gradient is not finite are skipped, for weights and moments alike, and counted
    (``skipped_steps``): bf16 makes one now and then.

    Args:
        config: The whole configuration.
        model: A network to go on with, or None for a new one.
    """

    def __init__(self, config: Config, model: DeepLeGAToPP | None = None) -> None:
        super().__init__()
        self.config = config
        self.model = model or DeepLeGAToPP(config)
        self.loss = NPELoss(config.training.gaussian_weight)
        self.skipped_steps = 0

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        """Moves stamps and coordinates."""
        stamps, w = batch
        return stamps.to(device), w.to(device)

    def training_step(self, batch: Batch, _: int) -> dict[str, Tensor]:
        """Returns the loss of a batch, and the flow's part of it for the record."""
        stamps, w = batch
        terms = self.model.compute_loss(stamps, w.float())
        flow_nll = terms["flow"].detach().mean()
        self.log("train/flow_nll", flow_nll, prog_bar=True)
        return {"loss": self.loss(terms), "flow_nll": flow_nll}

    def validation_step(self, batch: Batch, _: int, dataloader_idx: int = 0) -> None:
        """Logs the flow's and the Gaussian's NLL and the error of each parameter."""
        stamps, w = batch
        terms = self.model.compute_loss(stamps, w.float())
        prefix = f"val_{VALIDATION_SETS[dataloader_idx]}"
        size = len(stamps)
        options: dict[str, Any] = {"batch_size": size, "add_dataloader_idx": False}
        self.log(f"{prefix}/nll", terms["flow"].mean(), prog_bar=True, **options)
        self.log(f"{prefix}/gaussian_nll", terms["gaussian"].mean(), **options)
        for name, error in zip(NAMES, terms["error"].abs().mean(0), strict=True):
            self.log(f"{prefix}/mae_{name}", error, **options)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the count of skipped steps."""
        checkpoint["skipped_steps"] = self.skipped_steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the count of skipped steps."""
        self.skipped_steps = checkpoint["skipped_steps"]

    def on_before_optimizer_step(self, _: Optimizer) -> None:
        """Clips the gradient; drops it, and with it the step, if it is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.training.gradient_clip
        )
        if not bool(torch.isfinite(norm)):
            self.skipped_steps += 1
            for parameter in self.model.parameters():
                parameter.grad = None  # the optimizer passes over parameters without a gradient

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns one optimizer (timm's Muon holds AdamW for biases and norms) and its schedule.

        Raises:
            ConfigError: If timm has no such optimizer or the schedule is unknown.
        """
        training = self.config.training
        try:
            optimizer: Optimizer = create_optimizer_v2(
                self.model,
                opt=training.optimizer,
                lr=training.learning_rate,
                weight_decay=training.weight_decay,
            )
        except ValueError as error:
            raise ConfigError(
                f"training.optimizer is the name of a timm optimizer, got "
                f"{training.optimizer!r}: {error}"
            ) from error
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, training))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns this rank's endless stream, cut into epochs."""
        training = self.config.training
        dataset = SimulatedGalaxyDataset(
            SersicSimulator.from_config(self.config.data),
            training.batch_size,
            training.max_steps,
            seed=training.seed,
            rank=self.global_rank,
            device=self._simulation_device(),
        )
        steps = min(training.steps_per_epoch, training.max_steps)
        sampler = EpochSampler(steps, position=lambda: self.global_step)
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=training.num_workers,
            persistent_workers=training.num_workers > 0,
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Returns the two fixed validation sets."""
        return [
            DataLoader(
                validation_set(self.config, name, device=self._simulation_device()), batch_size=None
            )
            for name in VALIDATION_SETS
        ]

    def _simulation_device(self) -> torch.device:
        """Images are made where they are used, except by worker processes."""
        return torch.device("cpu") if self.config.training.num_workers else self.device


def validation_set(
    config: Config, name: str, device: torch.device | str = "cpu"
) -> SimulatedGalaxyDataset:
    """Returns a fixed validation set, ``"clean"`` or ``"full"``."""
    validation = config.validation
    return SimulatedGalaxyDataset(
        SersicSimulator.from_config(config.data, clean=name == "clean"),
        min(validation.batch_size, validation.num_images),
        max(1, validation.num_images // validation.batch_size),
        seed=_VALIDATION_SEED + config.training.seed,
        device=device,
    )
