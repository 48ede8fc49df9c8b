"""The likelihood of one galaxy in several bands.

The joint ln L is the sum over bands. Each band keeps its own stamp, PSF, noise and sky in a
likelihood of its own, as a function of the shared coordinates. Images of the bands are stacked,
(S, K, N, N), so that searches treat them as one likelihood with one more axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.errors import ShapeError
from deeplegato_pp.scene.bands import BandCoordinates, BandView
from deeplegato_pp.scene.batches import Batches, Data, Response
from deeplegato_pp.scene.likelihood import Likelihood


class JointLikelihood:
    """The likelihood of one galaxy in several bands.

    Args:
        bands: One likelihood per band, each of one stamp; all stamps have the same side.
        coordinates: Coordinates of the galaxy in all bands.

    Raises:
        ShapeError: If there is not one likelihood of one stamp for each band.
    """

    def __init__(self, bands: Sequence[Likelihood], coordinates: BandCoordinates) -> None:
        if len(bands) != len(coordinates.frames) or any(len(b) != 1 for b in bands):
            raise ShapeError(
                f"{len(coordinates.frames)} bands need a likelihood of one stamp each, got "
                f"{[len(b) for b in bands]} stamps."
            )
        self.coordinates = coordinates
        self.bands = [b.under(coordinates.view(k)) for k, b in enumerate(bands)]
        self.views: list[BandView] = [coordinates.view(k) for k in range(len(bands))]

    def __len__(self) -> int:
        return 1

    @property
    def size(self) -> int:
        """Side of the stamps. [px]"""
        return self.bands[0].size

    @property
    def num_pixels(self) -> int:
        """Unmasked pixels of all bands."""
        return sum(int(band.num_pixels[0]) for band in self.bands)


@dataclass(frozen=True)
class JointData:
    """Pixels and noise of all bands, with the same rows in each.

    Attributes:
        bands: Pixels and noise of each band.
    """

    bands: tuple[Data, ...]

    def at(self, index: Tensor) -> JointData:
        """Returns the selected rows."""
        return JointData(tuple(band.at(index) for band in self.bands))

    def log_likelihood(self, model: Float[Tensor, "r k n n"]) -> Float[Tensor, " r"]:
        """Returns ln L under noiseless images, with shape (R,)."""
        parts = [b.log_likelihood(model[:, k]) for k, b in enumerate(self.bands)]
        return torch.stack(parts).sum(0)

    def unexplained(self, model: Float[Tensor, "r k n n"]) -> tuple[Tensor, Tensor]:
        """Returns data minus images and best templates, and the variance, (R, K, N, N)."""
        parts = [b.unexplained(model[:, k]) for k, b in enumerate(self.bands)]
        return torch.stack([p[0] for p in parts], 1), torch.stack([p[1] for p in parts], 1)

    def freeze(self, index: Tensor, width_slope: Float[Tensor, "r k n n"]) -> None:
        """Sets the PSF-width templates of all bands; see :meth:`Data.freeze`."""
        for k, band in enumerate(self.bands):
            if bool((band.psf_error > 0).any()):
                band.freeze(index, width_slope[:, k])

    def respond(
        self, model: Float[Tensor, "r k n n"], jacobian: Float[Tensor, "r f p"]
    ) -> Response:
        """Returns gradient and Fisher information of ln L, summed over bands."""
        slopes = jacobian.unflatten(-1, (len(self.bands), -1))
        parts = [b.respond(model[:, k], slopes[:, :, k]) for k, b in enumerate(self.bands)]
        return Response(
            torch.stack([p.gradient for p in parts]).sum(0),
            torch.stack([p.information for p in parts]).sum(0),
        )

    def squared_distance(
        self, model: Float[Tensor, "r k n n"], difference: Float[Tensor, "r p"]
    ) -> Float[Tensor, " r"]:
        """Returns the chi-square between pairs of images, summed over bands."""
        change = difference.unflatten(-1, (len(self.bands), -1))
        parts = [b.squared_distance(model[:, k], change[:, k]) for k, b in enumerate(self.bands)]
        return torch.stack(parts).sum(0)


class JointBatches:
    """Renders all bands of one galaxy.

    Args:
        likelihood: Joint likelihood of the galaxy.
    """

    def __init__(self, likelihood: JointLikelihood) -> None:
        self.likelihood = likelihood
        self.bands = [Batches(band) for band in likelihood.bands]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one galaxy's images, (K, N, N)."""
        return (len(self.bands), *self.bands[0].shape)

    @property
    def derivative_cost(self) -> int:
        """Cost of the galaxy's images with all derivatives, in units of one set of images."""
        return sum(band.derivative_cost for band in self.bands)

    def data(self, rows: Int[Tensor, " r"]) -> JointData:
        """Returns the galaxy's pixels and noise, repeated once per row."""
        return JointData(tuple(band.data(rows) for band in self.bands))

    def render(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> Float[Tensor, "r k n n"]:
        """Returns noiseless images of all bands, float64, with shape (R, K, N, N)."""
        return torch.stack([band.render(rows, u) for band in self.bands], 1)

    def differentiate(
        self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]
    ) -> tuple[Float[Tensor, "r k n n"], Float[Tensor, "r f p"], Float[Tensor, "r k n n"] | None]:
        """Returns images, float64, and their derivatives, with the bands' pixels concatenated.

        The third value holds derivatives with respect to ln(PSF width): 0 in bands whose PSF is
        known, None if all are known.
        """
        images, jacobians, widths = zip(
            *(band.differentiate(rows, u) for band in self.bands), strict=True
        )
        width = None
        if any(w is not None for w in widths):
            known = [
                torch.zeros_like(i) if w is None else w for i, w in zip(images, widths, strict=True)
            ]
            width = torch.stack(known, 1)
        return torch.stack(images, 1), torch.cat(jacobians, -1), width

    def freeze(self, rows: Int[Tensor, " r"], u: Float[Tensor, "r f"]) -> None:
        """Sets the points of the PSF-width templates; see :meth:`Batches.freeze`."""
        for band in self.bands:
            band.freeze(rows, u)


AnyLikelihood = Likelihood | JointLikelihood
AnyBatches = Batches | JointBatches


def batches_of(likelihood: AnyLikelihood) -> AnyBatches:
    """Returns the object that renders rows of a likelihood of one or several bands."""
    if isinstance(likelihood, JointLikelihood):
        return JointBatches(likelihood)
    return Batches(likelihood)
