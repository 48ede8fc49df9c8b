"""Detection of out-of-distribution images from the density of the network's features.

The features at the input of the posterior head are described, over some thousand training
simulations, by a Gaussian: principal directions with their variances, and one variance for all
other directions. The score of an image is its Mahalanobis distance, and the p-value the fraction of
*other* simulations with a larger one. It detects images unlike any simulation. Images that resemble
a simulation but violate the assumptions (pure noise, a wrong PSF) are detected by the likelihood:
see :mod:`~deeplegato_pp.inference.verdict.goodness`.

References:
    | A simple unified framework for detecting out-of-distribution samples (Lee et al., 2018)
    | https://arxiv.org/abs/1807.03888
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import FormatError

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

logger = logging.getLogger(__name__)

TAIL = 0.05
"""Fraction of the largest scores, whose mean excess defines an exponential tail."""


@dataclass(frozen=True, eq=False)
class Novelty:
    """Distribution of the features of training images, and of the scores of fresh simulations.

    Attributes:
        mean: Mean features, with shape (F,).
        directions: Principal directions, of unit length, with shape (F, D).
        widths: Standard deviations along them, with shape (D,).
        rest: Standard deviation along any other direction.
        scores: Quantiles of the scores of fresh simulations, evenly spaced from 0 to 95 %,
            ascending, with shape (Q,).
        tail: Mean excess of the scores beyond the last quantile.
    """

    mean: Float[Tensor, " f"]
    directions: Float[Tensor, "f d"]
    widths: Float[Tensor, " d"]
    rest: float
    scores: Float[Tensor, " q"]
    tail: float

    def score(self, features: Float[Tensor, "b f"]) -> Float[Tensor, " b"]:
        """Returns Mahalanobis distances over the square root of the number of features, (B,)."""
        centred = features.double() - self.mean
        along = centred @ self.directions
        rest = (centred**2).sum(1) - (along**2).sum(1)
        total = ((along / self.widths) ** 2).sum(1) + rest.clamp_min(0.0) / self.rest**2
        return (total / features.shape[1]).sqrt()

    def p_value(self, score: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Returns the probability that a training simulation has a higher score, with shape (B,).

        Interpolated in the quantiles up to 95 %, and from an exponential tail beyond.
        """
        levels = np.linspace(0.0, 1.0 - TAIL, len(self.scores))
        below = np.interp(score.double().cpu().numpy(), self.scores.numpy(), levels)
        beyond = TAIL * (-(score.double().cpu() - self.scores[-1]) / self.tail).exp()
        return torch.minimum(1.0 - torch.from_numpy(below), beyond.clamp(max=1.0))

    def tensors(self, model: DeepLeGAToPP) -> dict[str, Tensor]:
        """Returns the tensors to be stored, float32, with the fingerprint of the weights."""
        return {
            "mean": self.mean.float(),
            "directions": self.directions.float().contiguous(),
            "widths": self.widths.float(),
            "numbers": torch.tensor([self.rest, self.tail], dtype=torch.float32),
            "scores": self.scores.float(),
            "fingerprint": fingerprint(model),
        }

    @classmethod
    def of(cls, model: DeepLeGAToPP) -> Novelty | None:
        """Loads the distribution for a model's weights; None if missing or for other weights.

        Raises:
            FormatError: If the file beside the weights cannot be read.
        """
        tensors = getattr(model, "reference", None)
        if not tensors:
            return None
        try:
            if not torch.equal(tensors["fingerprint"], fingerprint(model)):
                logger.warning("the features of training images belong to other weights: no `ood`")
                return None
            rest, tail = tensors["numbers"].tolist()
            mean, directions, widths, scores = (
                tensors[name].double() for name in ("mean", "directions", "widths", "scores")
            )
        except (KeyError, ValueError) as error:
            raise FormatError(
                f"The features of training images cannot be read ({error}). Fit them anew."
            ) from error
        return cls(mean, directions, widths, rest, scores, tail)


def fingerprint(model: DeepLeGAToPP) -> Tensor:
    """Returns a digest of a model's weights, 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)
