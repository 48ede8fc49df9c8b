"""Loss functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.parameters import MAGNITUDE, RADIUS

RECONSTRUCTIONS: dict[str, Callable[..., Tensor]] = {
    "mse": mse_loss,
    "l1": l1_loss,
    "huber": huber_loss,
}


class NPELoss(nn.Module):
    """Negative log-likelihood of neural posterior estimation.

    The flow's term alone defines the posterior; the Gaussian's keeps the whitening accurate, so
    that the flow always receives residuals of order one.

    Args:
        gaussian_weight: Weight of the Gaussian's term.

    References:
        | Fast epsilon-free inference of simulation models (Papamakarios & Murray, 2016)
        | https://arxiv.org/abs/1605.06376

    Example:
        >>> log_prob = torch.tensor([-1.0, -3.0])
        >>> float(NPELoss()(log_prob))
        2.0
        >>> float(NPELoss(0.5)({"flow": torch.ones(2), "gaussian": torch.ones(2)}))
        1.5
    """

    def __init__(self, gaussian_weight: float = 1.0) -> None:
        super().__init__()
        self.gaussian_weight = gaussian_weight

    def forward(
        self,
        log_prob: Float[Tensor, " b"] | Mapping[str, Float[Tensor, " b"]],
        gaussian_log_prob: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the mean loss of the batch.

        Args:
            log_prob: Posterior log-density of the truths, with shape (B,); or the *negative*
                log-densities ``flow`` and ``gaussian`` returned by `DeepLeGAToPP.compute_loss`.
            gaussian_log_prob: Log-densities of the whitening's Gaussian, with shape (B,), if
                `log_prob` is a log-density; None omits its term.
        """
        if isinstance(log_prob, Mapping):
            return (log_prob["flow"] + self.gaussian_weight * log_prob["gaussian"]).mean()
        if gaussian_log_prob is None:
            return -log_prob.mean()
        return -(log_prob + self.gaussian_weight * gaussian_log_prob).mean()


class ReconstructionLoss(nn.Module):
    """Difference of two images over unmasked pixels.

    Args:
        kind: ``"mse"``, ``"l1"`` or ``"huber"`` (quadratic below one, linear above).

    Raises:
        ConfigError: If the kind is unknown.

    Example:
        >>> images, targets = torch.zeros(4, 1, 8, 8), torch.full((4, 1, 8, 8), 3.0)
        >>> float(ReconstructionLoss("mse")(images, targets))
        9.0
        >>> ignore = torch.tensor([[False, True]])
        >>> float(ReconstructionLoss("l1")(torch.zeros(1, 2), torch.tensor([[2.0, 9.0]]), ignore))
        2.0
    """

    def __init__(self, kind: str = "huber") -> None:
        super().__init__()
        if kind not in RECONSTRUCTIONS:
            raise ConfigError(
                f"training.reconstruction_kind is one of {', '.join(RECONSTRUCTIONS)}, "
                f"got {kind!r}."
            )
        self.kind = kind

    def forward(
        self,
        image: Float[Tensor, "*s"],
        target: Float[Tensor, "*s"],
        mask: Bool[Tensor, "*s"] | None = None,
    ) -> Float[Tensor, ""]:
        """Returns the mean over unmasked pixels, 0 if there are none.

        Args:
            image: Reconstructed image.
            target: True image; masked pixels may have any values.
            mask: True for pixels to ignore, with the same shape.
        """
        if mask is None:
            return RECONSTRUCTIONS[self.kind](image, target)
        good = ~mask
        # Replaced before subtraction, because infinity times zero has no gradient.
        loss = RECONSTRUCTIONS[self.kind](
            image.masked_fill(mask, 0.0), target.masked_fill(mask, 0.0), reduction="sum"
        )
        return loss / good.sum().clamp_min(1)


class PhysicsInformedLoss(nn.Module):
    r"""Distance of predictions from a luminosity-size relation, an additional prior.

    .. math:: \frac12 \left\langle\left(
        \frac{\log_{10} R_e - [\log_{10} R_0 + a (m - m_0)]}{s}\right)^2\right\rangle

    It moves every galaxy towards the relation, independently of its image, in addition to the prior
    of the simulations: posteriors trained with it are biased for galaxies off the relation and no
    longer calibrated. It is off by default; a population's prior is better applied afterwards, by
    reweighting the exact posterior.

    Args:
        slope: Slope a in decades of radius per magnitude; -0.104 means radius proportional to
            luminosity^0.26, as for late types fainter than L*.
        radius: Radius R_0 at `magnitude`. [arcsec]
        magnitude: Magnitude m_0. [mag]
        scatter: Scatter s of the relation. [decades]

    References:
        | The size distribution of galaxies in the Sloan Digital Sky Survey (Shen et al., 2003)
        | https://arxiv.org/abs/astro-ph/0301527

    Example:
        >>> on_it = torch.tensor([[21.5, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0]])
        >>> float(PhysicsInformedLoss()(on_it))
        0.0
    """

    def __init__(
        self,
        slope: float = -0.104,
        radius: float = 1.0,
        magnitude: float = 21.5,
        scatter: float = 0.2,
    ) -> None:
        super().__init__()
        self.slope, self.radius, self.magnitude, self.scatter = slope, radius, magnitude, scatter

    def forward(self, params: Float[Tensor, "*b 7"]) -> Float[Tensor, ""]:
        """Returns the mean of half the squared distance from the relation, in scatters."""
        expected = self.slope * (params[..., MAGNITUDE] - self.magnitude)
        off = (params[..., RADIUS] / self.radius).log10() - expected
        return 0.5 * ((off / self.scatter) ** 2).mean()


class UncertaintyCalibrationLoss(nn.Module):
    """Differentiable miscalibration of posterior draws.

    The rank of each truth among its draws is computed with a sigmoid instead of a step; over a
    batch, the sorted ranks of a calibrated posterior follow the uniform distribution, and their
    mean squared deviation is returned (the Cramér-von Mises statistic). An overconfident posterior
    has too many ranks near 0 and 1, and its draws are pushed apart. Draws from the prior are
    calibrated too: this term does not measure information, and must be combined with the NLL.

    Args:
        temperature: Width of the sigmoid, in standard deviations of the draws.

    References:
        | Calibrating neural simulation-based inference with differentiable coverage probability
        | (Falkiewicz et al., 2023), https://arxiv.org/abs/2310.13402

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws, truth = (torch.randn(500, n, 2, generator=generator) for n in (100, 1))
        >>> calibration = UncertaintyCalibrationLoss()
        >>> right, narrow = (calibration(draws * width, truth[:, 0]) for width in (1.0, 0.3))
        >>> bool(right < 0.002 < 0.01 < narrow)
        True
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(
        self, draws: Float[Tensor, "b s p"], truth: Float[Tensor, "b p"]
    ) -> Float[Tensor, ""]:
        """Returns the mean squared deviation of ranks from uniform ones, 0 to 1/3.

        Args:
            draws: Posterior draws in non-periodic coordinates, differentiable.
            truth: The true values.
        """
        width = self.temperature * draws.detach().std(1, keepdim=True).clamp_min(1e-12)
        ranks = torch.sigmoid((truth[:, None] - draws) / width).mean(1)
        batch = len(ranks)
        uniform = (torch.arange(batch, device=ranks.device, dtype=ranks.dtype) + 0.5) / batch
        return ((ranks.sort(0).values - uniform[:, None]) ** 2).mean()
