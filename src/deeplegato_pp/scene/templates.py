r"""Marginalisation of templates: errors of known shape and unknown amplitude.

A residual constant sky, and the change of the model image with the PSF's width, add images of known
shape and unknown amplitude to the data. With the templates T, each multiplied by the prior standard
deviation of its amplitude, and the pixel covariance C, the total covariance is
:math:`\Sigma = C + T^T T`, a low-rank update of C. Everything about :math:`\Sigma` therefore
follows from inner products under :math:`C^{-1}` (Woodbury 1950), with
:math:`M = 1 + T C^{-1} T^T`:

.. math:: r^T \Sigma^{-1} r = r^T C^{-1} r - b^T M^{-1} b, \quad b = T C^{-1} r, \qquad
    |\Sigma| = |C|\,|M| .
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Templates:
    """Images whose amplitudes in the data are unknown, with prior N(0, 1).

    Attributes:
        images: Templates multiplied by the prior standard deviation of their amplitudes, the
            constant sky first; float64, with shape (K, N, N) for all models, or (*, K, N, N).
    """

    images: Float[Tensor, "*b k n n"]

    @classmethod
    def of(
        cls,
        sky_sigma: Float[Tensor, "*b"],
        size: int,
        psf_change: Float[Tensor, "*b n n"] | None = None,
    ) -> Templates:
        """Builds the templates of galaxies.

        Args:
            sky_sigma: Prior standard deviation of the constant sky, with shape (*,).
            size: Side of the images. [px]
            psf_change: Change of the image per standard deviation of the PSF's width, with shape
                (*, N, N); None if the PSF is known.
        """
        sky = sky_sigma.double()[..., None, None].expand(*sky_sigma.shape, size, size)
        images = [sky] if psf_change is None else [sky, psf_change.double()]
        return cls(torch.stack(images, -3))

    @property
    def number(self) -> int:
        """Number of templates K."""
        return self.images.shape[-3]

    def at(self, index: Int[Tensor, " r"]) -> Templates:
        """Returns the templates of the selected galaxies."""
        return Templates(self.images[index])

    def project(self, image: Float[Tensor, "*s n n"]) -> Float[Tensor, "*s k"]:
        """Returns the inner products of templates and images, with shape (*, K), float64."""
        flat = image.flatten(-2).double()
        templates = self.images.flatten(-2)
        if templates.dim() == 2:
            return flat @ templates.T
        return (templates @ flat[..., None])[..., 0]

    def products(self, weight: Float[Tensor, "*s n n"]) -> Float[Tensor, "*s k k"]:
        """Returns the inner products of templates under pixel weights, with shape (*, K, K)."""
        flat = weight.flatten(-2).double()
        templates = self.images.flatten(-2)
        if templates.dim() == 2:
            pairs = (templates[:, None] * templates).flatten(0, 1)
            return (flat @ pairs.T).unflatten(-1, (self.number, self.number))
        return (templates * flat[..., None, :]) @ templates.mT

    def combine(self, amplitude: Float[Tensor, "*s k"]) -> Float[Tensor, "*s n n"]:
        """Returns the templates' sum weighted by amplitudes, with shape (*, N, N)."""
        return torch.einsum("...k,...kyx->...yx", amplitude, self.images)

    def spread(self, covariance: Float[Tensor, "*s k k"]) -> Float[Tensor, "*s n n"]:
        """Returns the variance per pixel for a covariance of the amplitudes, (*, N, N)."""
        half = torch.einsum("...jk,...kyx->...jyx", covariance, self.images)
        return (half * self.images).sum(-3)


@dataclass(frozen=True, eq=False)
class Amplitudes:
    r"""Posterior of the templates' amplitudes, and its effect on ln L.

    Attributes:
        best: Means of the amplitudes, with shape (*, K).
        covariance: Covariance of the amplitudes, :math:`M^{-1}`, with shape (*, K, K).
        squares: Reduction of chi-square, :math:`b^T M^{-1} b`, with shape (*,).
        log_determinant: :math:`\ln |M|`, with shape (*,).
    """

    best: Float[Tensor, "*b k"]
    covariance: Float[Tensor, "*b k k"]
    squares: Float[Tensor, "*b"]
    log_determinant: Float[Tensor, "*b"]

    @property
    def gain(self) -> Float[Tensor, "*b"]:
        """Increase of ln L from marginalising the amplitudes, with shape (*,)."""
        return 0.5 * (self.squares - self.log_determinant)


def marginalise(
    projection: Float[Tensor, "*b k"], information: Float[Tensor, "*b k k"]
) -> Amplitudes:
    r"""Returns the posterior of amplitudes with prior N(0, 1).

    Args:
        projection: :math:`b = T C^{-1} r`, with shape (*, K).
        information: :math:`T C^{-1} T^T`, with shape (*, K, K).

    Example:
        >>> found = marginalise(torch.tensor([6.0]), torch.tensor([[3.0]]))
        >>> float(found.best), float(found.squares)
        (1.5, 9.0)
    """
    identity = torch.eye(projection.shape[-1], dtype=projection.dtype, device=projection.device)
    # NaN is passed on; the caller raises an error with the galaxy's index.
    tril, _ = torch.linalg.cholesky_ex(information + identity)
    covariance = torch.cholesky_inverse(tril)
    best = (covariance @ projection[..., None])[..., 0]
    log_determinant = 2.0 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return Amplitudes(best, covariance, (projection * best).sum(-1), log_determinant)
