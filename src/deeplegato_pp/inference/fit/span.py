"""Emulation of ln L for images that are linear combinations of a few rendered images.

Images of one galaxy that differ by little more than the noise span few dimensions, even if the
posterior is strongly curved in the parameters. The coefficients of an image, and its distance from
the span, follow from its Fourier transform at a few hundred frequencies
(`scene.render.sampled_transform`). An image therefore needs no render, and ln L needs no sum over
pixels: it is a quadratic form in the coefficients.
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
"""Norm of a direction below which it is dropped. [sigmas of the noise]"""

_PROBES = 12
"""Number of images used to find the pixels whose terms of ln L are not quadratic."""


_FLUX_PROBE = 0.01
"""Relative flux increase of an additional such image."""


class Reference:
    """The image relative to which other images of a galaxy are expressed.

    Args:
        likelihood: Galaxies.
        row: Index of the galaxy.
        u: Coordinates of an image near the best one, with shape (F,).
        image: That image, with shape (N, N), float64.

    Attributes:
        image: The reference image.
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
        """Returns differences of transforms from the reference's. [sigmas of the noise]"""
        return self._transforms(u) - self.own

    def _transforms(self, u: Tensor) -> Tensor:
        device = self.image.device
        return self.scale * self.transform(self.likelihood.model.columns(u, device))


@dataclass(frozen=True)
class ImageSpan:
    """Linear combinations of rendered images of one galaxy.

    Attributes:
        directions: Orthonormal directions of transforms, with shape (J, K).
        quadratic: ln L as a function of the coefficients of those directions.
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
        """Builds the span of a reference image and other images.

        Args:
            reference: Image about which ln L is expanded.
            features: Differences of the other transforms from the reference's.
            images: Differences of the other images from the reference image.
            matter: Which images are not excluded by the noise; all if None.
        """
        # The reference itself is a direction, since the flux may change.
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
        """Returns coefficients of the directions (S, K), and distances from the span (S,)."""
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
    """Selects points whose images extend a span so that it is close to all images.

    The farthest point is selected each time, until all are within the tolerance.

    Args:
        features: Features of the points.
        directions: Directions of the present span; None if there is none.
        most: Maximum number of points.
        tolerance: Sufficient distance from the span. [sigmas of the noise]
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
