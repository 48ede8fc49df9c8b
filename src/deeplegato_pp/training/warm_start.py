"""Initial network of a training run: new, or with the weights of another model."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from deeplegato_pp.config.schema import Config
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.training.trainer import mismatches

logger = logging.getLogger(__name__)

_PRIOR_DRAWS = 4096
"""Number of prior draws from which the map between two priors' coordinates is fitted."""


def initial_model(config: Config) -> DeepLeGAToPP:
    """Returns the initial network: new, or with the weights of another one.

    Layers of `model.init` that are also in the new network must have its shapes; missing layers are
    initialised as in a new network. Under another prior box the same galaxy has other coordinates
    w: mean and width are converted by the best linear map between the two priors' coordinates.

    Raises:
        ModelNotFoundError: If the model does not exist.
        ConfigError: If no layer exists in both, or shapes differ.
    """
    model = DeepLeGAToPP(config)
    if not config.model.init:
        return model
    source = DeepLeGAToPP.from_pretrained(config.model.init)
    own, other = model.state_dict(), source.state_dict()
    common = own.keys() & other.keys()
    report = mismatches({k: own[k] for k in common}, {k: other[k] for k in common})
    if report or not common:
        raise ConfigError(
            f"model.init={config.model.init} does not fit this network: "
            f"{report or 'no layer is found in both'}. Take over its model section."
        )
    if common != own.keys():
        logger.warning("model.init=%s: %s.", config.model.init, mismatches(own, other))
    model.load_state_dict({**own, **{k: other[k] for k in common}})
    if source.prior != model.prior:
        _convert_coordinates(model, source.prior)
    return model


@torch.no_grad()
def _convert_coordinates(model: DeepLeGAToPP, old: PriorBox) -> None:
    """Converts the whitening layers from the coordinates of another prior to the model's own."""
    mean, logvar = model.head.mean_head, model.head.logvar_head
    if mean is None or logvar is None:
        return
    scale, offset = linear_map(old, model.prior)
    mean.weight.mul_(scale[:, None])
    mean.bias.mul_(scale).add_(offset)
    logvar.bias.add_(2.0 * scale.log())


def linear_map(old: PriorBox, new: PriorBox) -> tuple[Tensor, Tensor]:
    """Fits w_new = scale * w_old + offset over the galaxies that both prior boxes contain.

    Each coordinate is fitted within one sigma of the old prior, so that the prior's tails, where
    the map bends most, do not spoil the map of most galaxies.

    Args:
        old: Prior box of the coordinates w_old.
        new: Prior box of the coordinates w_new.

    Returns:
        Scale and offset of each coordinate, each with shape (7,), float32. They are 1 and 0 if the
        boxes have hardly any galaxy in common.
    """
    params = old.sample(_PRIOR_DRAWS, torch.Generator().manual_seed(0))
    params = params[new.contains(params)]
    if len(params) < _PRIOR_DRAWS // 10:
        return torch.ones(params.shape[1]), torch.zeros(params.shape[1])
    x, y = old.to_normal(params), new.to_normal(params)
    weight = (x.abs() < 1.0).double()
    weight /= weight.sum(0)
    x_mean, y_mean = (weight * x).sum(0), (weight * y).sum(0)
    scale = (weight * (x - x_mean) * y).sum(0) / (weight * (x - x_mean) ** 2).sum(0)
    return scale.float(), (y_mean - scale * x_mean).float()
