"""ln L of one galaxy at images that are sums of a few rendered ones.

Galaxies whose images are alike enough to be told from one another by the noise only span few
dimensions, however bent the posterior is in their parameters. Which sum of rendered images an image
is, its Fourier transform at a few hundred frequencies tells (`scene.render.sampled_transform`), and
by how much it is none. So an image costs no render, and ln L no pixels: it is a quadratic form in
the shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.scene.batches import Data
from deeplegato_pp.scene.expansion import QuadraticLikelihood
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.render.sampled_transform import SampledTransform
from deeplegato_pp.scene.whitened_expansion import WhitenedLikelihood

_SMALLEST = 3e-3
"""Size of a direction's images below which it is left out. [sigmas of the noise]"""

_PROBES = 12
"""Images by which it is told which pixels' shares of ln L are no quadratic forms."""


_FLUX_PROBE = 0.01
"""A further one: that of a flux higher by this part."""


class Reference:
    """The image that others of one galaxy are counted from.

    Args:
        likelihood: Galaxies.
        row: Which galaxy.
        u: Coordinates of an image near the best one, with shape (F,).
        image: That image, with shape (N, N), float64.

    Attributes:
        image: As given.
        own: Its transform, with shape (J,). [sigmas of the noise]
    """

    def __init__(
        self, likelihood: Likelihood, row: int, u: Float[Tensor, " f"], image: Float[Tensor, "n n"]
    ) -> None:
        self.likelihood, self.row, self.image = likelihood, row, image
        columns = likelihood.model.columns(u[None], image.device)[..., 0]
        self.transform = SampledTransform.about(
            columns,
            likelihood.psfs[row],
            likelihood.oversampling[row],
            likelihood.includes_pixel[row],
            likelihood.size,
        )
        s = likelihood.stamps
        light = torch.where(s.mask[row], 0.0, image**2)
        noise = likelihood.variance(row, image) * s.noise_correlation[row]
        self.scale = float(((light / noise).sum() / light.sum()).sqrt())
        self.own = self._transforms(u[None])[0]

    def features(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "s j"]:
        """Returns how the transforms at points differ from this one. [sigmas of the noise]"""
        return self._transforms(u) - self.own

    def _transforms(self, u: Tensor) -> Tensor:
        device = self.image.device
        return self.scale * self.transform(self.likelihood.model.columns(u, device))


@dataclass(frozen=True)
class ImageSpan:
    """Sums of rendered images of one galaxy.

    Attributes:
        directions: Orthonormal directions of transforms, with shape (J, K).
        quadratic: ln L as a function of the shares of those directions.
    """

    directions: Float[Tensor, "j k"]
    quadratic: QuadraticLikelihood | WhitenedLikelihood

    @classmethod
    def of(
        cls,
        reference: Reference,
        features: Float[Tensor, "m j"],
        images: Float[Tensor, "m p"],
        matter: Bool[Tensor, " m"] | None = None,
    ) -> ImageSpan:
        """Returns the span of a reference image and of others.

        Args:
            reference: The image that ln L is expanded about.
            features: How the others' transforms differ from its own.
            images: How the others' pixels differ from its own.
            matter: Which of the images the noise does not exclude; all if None.
        """
        # The reference itself is a direction: that of another flux.
        features = torch.cat([reference.own[None], features])
        images = torch.cat([reference.image.flatten()[None].to(images), images])
        value, vectors = torch.linalg.eigh(features @ features.T)
        kept = value > max(_SMALLEST**2, 1e-13 * float(value[-1]))
        shares = vectors[:, kept] / value[kept].sqrt()
        directions = features.T @ shares
        basis = shares.T.to(images) @ images
        inner = features[1:] if matter is None else features[1:][matter]
        seen = torch.cat([_FLUX_PROBE * reference.own[None], inner]) @ directions
        probes = seen[(seen**2).sum(1).argsort(descending=True)[:_PROBES]]
        data = Data.of(reference.likelihood, torch.tensor([reference.row]))
        expanded = QuadraticLikelihood if data.whitening is None else WhitenedLikelihood
        quadratic = expanded(data, reference.image, basis.double(), probes)
        return cls(directions, quadratic)

    def shares(self, features: Float[Tensor, "s j"]) -> tuple[Tensor, Tensor]:
        """Returns shares of the directions (S, K), and how far images are off the span, (S,)."""
        shares = features @ self.directions
        left = (features**2).sum(1) - (shares**2).sum(1)
        return shares, left.clamp_min(0.0).sqrt()

    def log_likelihood(self, shares: Float[Tensor, "s k"]) -> Float[Tensor, " s"]:
        """Returns ln L, with shape (S,), float64."""
        return self.quadratic(shares).cpu()


def spanning(
    features: Float[Tensor, "s j"],
    directions: Float[Tensor, "j k"] | None,
    most: int,
    tolerance: float,
) -> list[int]:
    """Returns points whose images, added to a span, bring the others' nearest to it, in turn.

    The farthest one is taken each time, until none is farther than a tolerance.

    Args:
        features: Of the points.
        directions: Of the span so far; None: there is none.
        most: Largest number of points.
        tolerance: Distance that is good enough. [sigmas of the noise]
    """
    left = features
    if directions is not None:
        left = features - (features @ directions) @ directions.T
    distance2 = (left**2).sum(1)
    chosen: list[int] = []
    added = features.new_empty(features.shape[1], 0)
    while len(chosen) < min(most, len(features)):
        i = int(distance2.argmax())
        if float(distance2[i]) < tolerance**2:
            break
        new = left[i] - added @ (left[i] @ added)
        new = new / new.norm()
        distance2 = distance2 - (left @ new) ** 2
        distance2[i] = 0.0
        added = torch.cat([added, new[:, None]], 1)
        chosen.append(i)
    return chosen
