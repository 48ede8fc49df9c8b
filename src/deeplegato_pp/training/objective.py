"""Objective of the training: the posterior's NLL, and optional terms."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deeplegato_pp.config.schema import Config
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.models.npe_head import Context
from deeplegato_pp.scene.parameters import NUM_PARAMETERS
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch
from deeplegato_pp.training.losses import (
    NPELoss,
    PhysicsInformedLoss,
    ReconstructionLoss,
    UncertaintyCalibrationLoss,
)
from deeplegato_pp.training.pretraining import PixelDecoder, hide_cells, targets

TASKS = ("posterior", "reconstruction")

COMPLETION_DRAWS = 256
"""Number of posterior draws from which a galaxy's unknown parameters are chosen."""


class Objective(nn.Module):
    """Loss of a configuration.

    ``task="posterior"`` adds the configured weighted terms to the NLL; ``task="reconstruction"``
    uses only the reconstruction, which needs no labels.

    Args:
        config: The whole configuration.
        num_features: Length of the backbone's feature vectors.

    Raises:
        ConfigError: If the task or a kind of loss is unknown.
    """

    def __init__(self, config: Config, num_features: int) -> None:
        super().__init__()
        training = config.training
        if training.task not in TASKS:
            raise ConfigError(f"training.task is one of {', '.join(TASKS)}, got {training.task!r}.")
        self.training_config = training
        self.npe = NPELoss(training.gaussian_weight)
        self.physics = PhysicsInformedLoss()
        self.calibration = UncertaintyCalibrationLoss()
        self.reconstruction = ReconstructionLoss(training.reconstruction_kind)
        self.box = PriorBox.from_mapping(config.data.priors)  # in the instrument's units
        self.decoder: PixelDecoder | None = None
        if training.task == "reconstruction" or training.reconstruction_weight:
            self.decoder = PixelDecoder(num_features)

    def forward(
        self, model: DeepLeGAToPP, stamps: StampBatch, w: Float[Tensor, "b 7"]
    ) -> dict[str, Tensor]:
        """Returns ``loss``, which is differentiable, and its detached terms by name.

        Args:
            model: The network.
            stamps: A batch.
            w: Its coordinates, NaN where unknown.
        """
        training = self.training_config
        if training.task == "reconstruction":
            loss = self.reconstruct(model, stamps)
            return {"loss": loss, "reconstruction": loss.detach()}
        context = model.encode(stamps)
        if bool(torch.isnan(w).any()):
            w = complete(model, context, w)
        terms = model.compute_loss(stamps, w.float(), context)
        loss = self.npe(terms)
        metrics = {"flow_nll": terms["flow"].detach().mean()}
        if training.physics_weight:
            # The relation is in the survey's magnitudes and arcseconds.
            physics = self.physics(self.box.to_physical(context.mean)).float()
            loss = loss + training.physics_weight * physics
            metrics["physics"] = physics.detach()
        if training.calibration_weight:
            calibration = self.calibration(self._draws(model, context), w.double()).float()
            loss = loss + training.calibration_weight * calibration
            metrics["calibration"] = calibration.detach()
        if training.reconstruction_weight:
            reconstruction = self.reconstruct(model, stamps)
            loss = loss + training.reconstruction_weight * reconstruction
            metrics["reconstruction"] = reconstruction.detach()
        return {"loss": loss, **metrics}

    def reconstruct(self, model: DeepLeGAToPP, stamps: StampBatch) -> Float[Tensor, ""]:
        """Returns the reconstruction loss of hidden pixels."""
        if self.decoder is None:
            raise ConfigError(
                "There is no decoder. Set training.task=reconstruction or a "
                "training.reconstruction_weight."
            )
        seen, hidden = hide_cells(stamps, self.training_config.hidden_share)
        images, mask = targets(stamps, hidden)
        drawn = self.decoder(model.image_features(seen)).float()
        loss: Tensor = self.reconstruction(drawn, images, mask)
        return loss

    def _draws(self, model: DeepLeGAToPP, context: Context) -> Tensor:
        number = self.training_config.calibration_draws
        noise = torch.randn(len(context), number, NUM_PARAMETERS, device=context.mean.device)
        draws, _ = model.head.from_noise(context, noise)
        return draws


@torch.no_grad()
def complete(
    model: DeepLeGAToPP, context: Context, w: Float[Tensor, "b 7"]
) -> Float[Tensor, "b 7"]:
    """Replaces unknown coordinates by draws from the network's own posterior.

    Values are taken from the posterior draw that is closest in the known coordinates, in units of
    the posterior's widths: approximately a draw from the conditional posterior. Maximising the
    likelihood of completed coordinates is stochastic expectation-maximisation, and does not change
    the network's posterior of the unknown ones.

    Args:
        model: The network.
        context: Context of the galaxies.
        w: Coordinates, NaN where unknown.

    References:
        | The stochastic EM algorithm (Celeux & Diebolt, 1985)
    """
    unknown = torch.isnan(w)
    noise = torch.randn(len(w), COMPLETION_DRAWS, w.shape[1], device=context.mean.device)
    draws, _ = model.head.from_noise(context, noise)
    width = draws.std(1, keepdim=True).clamp_min(math.exp(-12.0))
    off = ((draws - w[:, None].nan_to_num()) / width) ** 2
    nearest = off.masked_fill(unknown[:, None], 0.0).sum(-1).argmin(1)
    lent = draws[torch.arange(len(w), device=w.device), nearest]
    return torch.where(unknown, lent.to(w), w)
