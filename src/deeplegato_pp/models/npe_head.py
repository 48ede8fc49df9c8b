"""Posterior head: Gaussian whitening of the coordinates and a normalizing flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, overload

import torch
import zuko
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.config.schema import NPEConfig
from deeplegato_pp.errors import ConfigError, RangeError, ShapeError
from deeplegato_pp.models.coupling_splines import push
from deeplegato_pp.models.options import with_options
from deeplegato_pp.scene.parameters import NUM_PARAMETERS, PARAMETERS

# zuko disables torch's argument validation globally; torch's default is restored here.
Distribution.set_default_validate_args(__debug__)

DEFAULT_BOUNDS: dict[str, tuple[float, float]] = {p.name: p.bounds for p in PARAMETERS}
"""Physical bounds of the parameters, from the parameter table."""

LOG_SIGMA_RANGE = (-11.0, 1.5)
"""Bounds of the whitening's log-widths: from 1e-5 of the prior's width to well above it."""


@dataclass(frozen=True)
class Context:
    """Output of the head for a batch of galaxies.

    Attributes:
        mean: Centre of the whitening, with shape (B, D).
        log_sigma: Logarithm of the whitening's widths, with shape (B, D).
        embedding: Context of the flow, with shape (B, C).
        features: Input features, with shape (B, F).
    """

    mean: Float[Tensor, "b d"]
    log_sigma: Float[Tensor, "b d"]
    embedding: Float[Tensor, "b c"]
    features: Float[Tensor, "b f"]

    def __len__(self) -> int:
        return self.mean.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Context:
        """Returns the context of selected galaxies."""
        return Context(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Context]) -> Context:
        """Concatenates contexts."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


class NPEHead(nn.Module):
    r"""Neural posterior estimation in the coordinates under which the prior is :math:`N(0, I)`.

    Mean and log-variance whiten the coordinates, and the flow f models the rest: :math:`\log q(w) =
    \log f((w - \mu)/\sigma \mid c) - \sum \ln \sigma`, so that widths from 1e-4 to 1 of the prior
    are equally easy. All densities are float32, also under autocast. Without whitening, the flow
    must represent narrow posteriors itself.

    Args:
        feature_dim: Length F of the feature vectors. A :class:`~deeplegato_pp.config.NPEConfig` may
            precede it: ``NPEHead(config, feature_dim, num_params)``.
        num_params: Number of dimensions D of the posterior.
        num_parameters: Alias of `num_params`.
        **options: Fields of :class:`~deeplegato_pp.config.NPEConfig`: `type` of the flow,
            `num_flow_layers`, `hidden_dim`, `num_blocks`, `context_dim`, `trunk_dim`,
            `spline_bins`, `dropout`, `whitening`.

    Raises:
        ConfigError: If an option or the flow's type is unknown.
        RangeError: If a size is not positive.

    References:
        | Neural spline flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
        | Masked autoregressive flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
        | Density estimation using real NVP (Dinh et al., 2017), https://arxiv.org/abs/1605.08803

    Example:
        >>> head = NPEHead(feature_dim=16, num_params=2, num_flow_layers=2, hidden_dim=32)
        >>> found = head(torch.zeros(3, 16), num_samples=100)
        >>> found["samples"].shape, found["log_prob"].shape, found["mean"].shape
        (torch.Size([3, 100, 2]), torch.Size([3, 100]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        feature_dim: int | NPEConfig,
        num_params: int = NUM_PARAMETERS,
        num_parameters: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        given = NPEConfig()
        if isinstance(feature_dim, NPEConfig):
            given, feature_dim, num_params = feature_dim, num_params, NUM_PARAMETERS
        num_parameters = num_params if num_parameters is None else num_parameters
        config = with_options(given, options, "NPEHead", foreign=("psf_channels",))
        _check_sizes(config, feature_dim, num_parameters)
        self.feature_dim = feature_dim
        self.num_parameters = num_parameters
        self.kind = config.type
        self.trunk = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, config.trunk_dim),
            nn.GELU(),
            nn.Linear(config.trunk_dim, config.trunk_dim),
            nn.GELU(),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.mean_head = self.logvar_head = None
        if config.whitening:
            self.mean_head = nn.Linear(config.trunk_dim, num_parameters)
            self.logvar_head = nn.Linear(config.trunk_dim, num_parameters)
        self.feature_embedding = nn.Linear(config.trunk_dim, config.context_dim)
        self.flow = _build_flow(config, num_parameters)
        for layer in (self.mean_head, self.logvar_head):
            if layer is not None:  # initial outputs close to the prior's mean and width
                nn.init.normal_(layer.weight, std=1e-2)
                nn.init.zeros_(layer.bias)

    @overload
    def forward(self, features: Tensor) -> Context: ...

    @overload
    def forward(self, features: Tensor, num_samples: int) -> dict[str, Tensor]: ...

    def forward(
        self, features: Float[Tensor, "b f"], num_samples: int | None = None
    ) -> Context | dict[str, Tensor]:
        """Returns the context of features, or draws from the posterior.

        Args:
            features: Feature vectors, with shape (B, F).
            num_samples: Number S of draws per posterior; None for the context only, which is the
                input of `log_prob` and `from_noise`.

        Returns:
            The context, or: ``samples`` (B, S, D), in the coordinates w; ``log_prob`` (B, S), their
            posterior log-density; ``mean`` and ``std`` (B, D) of the draws. Draws use torch's
            generator and are differentiable.

        Raises:
            ShapeError: If the length of the features is not `feature_dim`.
            RangeError: If the number of draws is not positive.
        """
        if features.dim() != 2 or features.shape[1] != self.feature_dim:
            raise ShapeError(
                f"Features have shape (B, {self.feature_dim}), got {tuple(features.shape)}. Build "
                "the head with the backbone's num_features as feature_dim."
            )
        context = self._context(features)
        if num_samples is None:
            return context
        number = check_positive_integer(num_samples, "num_samples")
        noise = torch.randn(len(features), number, self.num_parameters, device=features.device)
        samples, log_prob = self.from_noise(context, noise)
        moments = {"mean": samples.mean(1), "std": samples.std(1)}
        return {"samples": samples, "log_prob": log_prob, **moments}

    def _context(self, features: Tensor) -> Context:
        with torch.autocast(features.device.type, enabled=False):
            trunk = self.dropout(self.trunk(features.float()))
            embedding = self.feature_embedding(trunk)
            if self.mean_head is None or self.logvar_head is None:
                zero = trunk.new_zeros(len(trunk), self.num_parameters)
                return Context(zero, zero, embedding, features)
            log_sigma = 0.5 * self.logvar_head(trunk)
            mean = self.mean_head(trunk)
            return Context(mean, log_sigma.clamp(*LOG_SIGMA_RANGE), embedding, features)

    def log_prob(self, context: Context, w: Float[Tensor, "b s d"]) -> Float[Tensor, "b s"]:
        """Returns the posterior's log-density at w, in coordinates w, with shape (B, S)."""
        with torch.autocast(w.device.type, enabled=False):
            mean, log_sigma = context.mean[:, None], context.log_sigma[:, None]
            z = ((w - mean) * (-log_sigma).exp()).float()
            end, ladj = self._push(context, z, inverse=False)
            return _standard_normal(end) + ladj - context.log_sigma.sum(-1)[:, None]

    def gaussian_log_prob(self, context: Context, w: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Returns the log-density of the whitening Gaussian at w, with shape (B,)."""
        with torch.autocast(w.device.type, enabled=False):
            z = ((w - context.mean) * (-context.log_sigma).exp()).float()
            return _standard_normal(z) - context.log_sigma.sum(-1)

    def draws(self, context: Context, noise: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        """Returns the draws of `from_noise` in float32 without density, for tracing and export."""
        with torch.autocast(noise.device.type, enabled=False):
            z = self.flow.transform(context.embedding[:, None]).inv(noise)
            w: Tensor = context.mean[:, None] + context.log_sigma[:, None].exp() * z
            return w

    def from_noise(
        self, context: Context, noise: Float[Tensor, "b s d"]
    ) -> tuple[Float[Tensor, "b s d"], Float[Tensor, "b s"]]:
        """Transforms standard-normal noise by the flow.

        Returns:
            Draws w, with shape (B, S, D), and their log-density, with shape (B, S).
        """
        with torch.autocast(noise.device.type, enabled=False):
            z, ladj = self._push(context, noise, inverse=True)
            log_f = _standard_normal(noise) - ladj
            w = context.mean[:, None].double() + context.log_sigma[:, None].double().exp() * z
            return w, log_f.double() - context.log_sigma.double().sum(-1)[:, None]

    def _push(self, context: Context, points: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """Transforms points from data to noise or back; returns them and log-determinants."""
        if self.kind == "coupling_nsf" and self.num_parameters > 1:  # one dimension has no coupling
            layers = self.flow.transform.transforms
            return push(layers, context.embedding, points, inverse=inverse)
        transform = self.flow.transform(context.embedding[:, None])
        ends: tuple[Tensor, Tensor] = (transform.inv if inverse else transform).call_and_ladj(
            points
        )
        return ends


def _standard_normal(z: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
    """Returns the log-density of N(0, I)."""
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2.0 * math.pi)


def _check_sizes(config: NPEConfig, feature_dim: int, num_params: int) -> None:
    check_positive_integer(feature_dim, "feature_dim")
    check_positive_integer(num_params, "num_params")
    names = ("num_flow_layers", "hidden_dim", "num_blocks", "context_dim", "trunk_dim")
    for name in (*names, "spline_bins"):
        check_positive_integer(getattr(config, name), name)
    if not 0.0 <= config.dropout < 1.0:
        raise RangeError(f"dropout must lie in [0, 1), got {config.dropout}.")


def _build_flow(config: NPEConfig, num_parameters: int) -> zuko.flows.Flow:
    """Builds the flow.

    Couplings transform half of the coordinates given the other half, in one pass in either
    direction; zuko's autoregressive flow with two passes is equivalent but evaluates its network
    for all coordinates, at 1.7 times the cost per draw of seven.
    """
    options = {
        "features": num_parameters,
        "context": config.context_dim,
        "transforms": config.num_flow_layers,
        "hidden_features": (config.hidden_dim,) * config.num_blocks,
    }
    bins = config.spline_bins
    if config.type == "coupling_nsf":
        return zuko.flows.NICE(
            **options,
            univariate=zuko.transforms.MonotonicRQSTransform,
            shapes=[(bins,), (bins,), (bins - 1,)],
        )
    if config.type == "realnvp":
        return zuko.flows.NICE(**options)
    if config.type == "nsf":
        return zuko.flows.NSF(**options, bins=bins)
    if config.type == "maf":
        return zuko.flows.MAF(**options)
    raise ConfigError(f"model.npe.type is coupling_nsf, realnvp, nsf or maf, got {config.type!r}.")
