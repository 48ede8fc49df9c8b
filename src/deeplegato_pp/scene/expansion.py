"""Fast evaluation of ln L for many images of one galaxy that are linear in a few basis images.

For images b B (b: K coefficients per image, B: K basis images), ln L is a quadratic form in b if
the variance is fixed, so sums over pixels are computed once. If the variance depends on the model,
the terms of each pixel are expanded to second order about a reference image; the few bright pixels
for which this is not accurate are evaluated exactly. The inner products of the templates, which
vary little, are expanded to first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.scene.batches import Data
from deeplegato_pp.scene.noise import model_variance
from deeplegato_pp.scene.templates import marginalise

_NEGLECTED = 0.002
"""Allowed error of ln L from expanded pixels, as the sum of absolute errors."""

CHUNK_PIXELS = 2**19
"""Number of pixels evaluated at a time."""


class QuadraticLikelihood:
    """Evaluates ln L of one galaxy's images reference + b B for many b at low cost.

    Args:
        data: Pixels and noise of the galaxy, one row.
        reference: Noiseless image about which ln L is expanded, with shape (N, N).
        basis: Basis images, with shape (K, P), float64.
        probes: Sample of coefficients, with shape (M, K), used to find the pixels that cannot be
            expanded.
    """

    def __init__(
        self,
        data: Data,
        reference: Float[Tensor, "n n"],
        basis: Float[Tensor, "k p"],
        probes: Float[Tensor, "m k"],
    ) -> None:
        self.pixels = _Pixels(data)
        self.reference = reference.flatten()
        value, first, second = self.pixels.expand(self.reference)
        self.exact = self._unexpanded(basis, probes, value, first, second)
        kept = ~self.exact
        self.constant = self.pixels.shares(value * kept).sum(-1)
        self.linear = self.pixels.shares(first * kept) @ basis.T
        curved = self.pixels.shares(second * kept)[: 1 + len(self.pixels.templates)]
        single = basis.float()  # relative error 1e-6, of terms that are small for similar images
        self.quadratic = [
            ((single * c.float()) @ single.T).double() if bool(c.any()) else None for c in curved
        ]
        self.basis = basis[:, self.exact]

    def __call__(self, b: Float[Tensor, "s k"]) -> Float[Tensor, " s"]:
        """Returns ln L for coefficients b, with shape (S,)."""
        sums = self.constant[:, None] + self.linear @ b.T
        for i, form in enumerate(self.quadratic):
            if form is not None:
                sums[i] += 0.5 * ((b @ form) * b).sum(-1)
        if bool(self.exact.any()):
            chunk = max(1, CHUNK_PIXELS // int(self.exact.sum()))
            bright = self.reference[self.exact]
            parts = [
                self.pixels.sums(
                    self.pixels.terms(bright + part @ self.basis, self.exact), self.exact
                )
                for part in b.split(chunk)
            ]
            sums = sums + torch.cat(parts, 1)
        return self.pixels.combine(sums)

    def _unexpanded(
        self, basis: Tensor, probes: Tensor, value: Tensor, first: Tensor, second: Tensor
    ) -> Bool[Tensor, " p"]:
        """Returns the pixels whose summed expansion errors would exceed the tolerance."""
        if not self.pixels.follows:
            return torch.zeros_like(self.reference, dtype=torch.bool)
        error = torch.zeros_like(self.reference)
        for part in probes.split(max(1, CHUNK_PIXELS // len(self.reference))):
            change = part @ basis
            expected = value[0] + change * (first[0] + 0.5 * second[0] * change)
            found = self.pixels.terms(self.reference + change)[0]
            error = torch.maximum(error, (found - expected).abs().amax(0))
        order = error.argsort()
        exact = torch.ones_like(self.reference, dtype=torch.bool)
        exact[order[error[order].cumsum(0) < _NEGLECTED]] = False
        return exact


class GalaxyPixels:
    """Pixels of one galaxy and their noise, as flat arrays.

    Args:
        data: Pixels and noise of the galaxy, one row.

    Attributes:
        image: Image, with shape (P,).
        sigma: Noise map, with shape (P,).
        good: True for unmasked pixels, with shape (P,).
        gain: Electrons per unit, ().
        model_error: Model error as a fraction of the model image.
        templates: Templates with marginalised amplitudes, with shape (T, P).
        follows: Whether the variance depends on the model.
    """

    def __init__(self, data: Data) -> None:
        self.image, self.sigma = data.image.flatten(), data.sigma.flatten()
        self.good = data.good.flatten()
        self.gain, self.model_error = data.gain[0], data.model_error
        self.templates = data.templates.images[0].flatten(1)
        self.follows = bool(torch.isfinite(self.gain)) or data.model_error > 0

    def variance(
        self, model: Float[Tensor, "*s p"], where: Bool[Tensor, " n"] | slice = slice(None)
    ) -> Float[Tensor, "*s p"]:
        """Returns the variance under images, for all pixels or for the given ones."""
        sigma = self.sigma[where, None]
        return model_variance(model[..., None], sigma, self.gain, self.model_error)[..., 0]


class _Pixels(GalaxyPixels):
    """Contributions of single pixels to ln L, for independent pixels."""

    def __init__(self, data: Data) -> None:
        super().__init__(data)
        self._pairs = (self.templates[:, None] * self.templates).flatten(0, 1)
        self.count = int(self.good.sum())

    def terms(
        self, model: Float[Tensor, "*s p"], where: Bool[Tensor, " n"] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns each pixel's term of ln L, its weighted residual and its weight.

        Args:
            model: Noiseless images.
            where: Pixels of those images; all pixels if None.
        """
        every = slice(None) if where is None else where
        good = self.good[every]
        variance = self.variance(model, every)
        weight = good / variance
        residual = self.image[every] - model
        weighted = weight * residual
        value = -0.5 * (weighted * residual + torch.where(good, variance.log(), 0.0))
        return value, weighted, weight

    def expand(self, model: Float[Tensor, " p"]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three terms with their first and second derivatives, each (3, P)."""
        with torch.inference_mode(False), torch.enable_grad():
            at = model.detach().clone().requires_grad_()
            values = [v.expand_as(at) for v in self.terms(at)]
            first = [_slope(v, at) for v in values]
            second = [_slope(f, at) for f in first]
        return tuple(torch.stack(x).detach() for x in (values, first, second))  # type: ignore[return-value]

    def shares(self, terms: Float[Tensor, "3 p"]) -> Float[Tensor, "m p"]:
        """Returns each pixel's terms of ln L, of T w r per template, of w T T per template pair.

        Args:
            terms: From :meth:`terms`, for one image, or their derivatives.
        """
        value, weighted, weight = terms
        return torch.cat([value[None], weighted * self.templates, weight * self._pairs])

    def sums(self, terms: Sequence[Tensor], where: Bool[Tensor, " n"]) -> Float[Tensor, "m s"]:
        """Returns the sums of these terms over some pixels, for many images.

        Args:
            terms: From :meth:`terms`, each with shape (S, P).
            where: Pixels of those terms.
        """
        value, weighted, weight = terms
        projected = self.templates[:, where] @ weighted.T
        return torch.cat([value.sum(-1)[None], projected, self._pairs[:, where] @ weight.T])

    def combine(self, sums: Float[Tensor, "m s"]) -> Float[Tensor, " s"]:
        """Returns ln L from sums over pixels, with template amplitudes marginalised."""
        number = len(self.templates)
        pixels, *rest = sums.split([1, number, number**2])
        constant = 0.5 * self.count * math.log(2.0 * math.pi)
        found = marginalise(rest[0].T, rest[1].T.unflatten(-1, (number, number)))
        return pixels[0] - constant + found.gain


def _slope(value: Tensor, at: Tensor) -> Tensor:
    """Returns the derivative pixel by pixel; zero where the value does not depend on the model."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(value.sum(), at, create_graph=True, allow_unused=True)
    return torch.zeros_like(at) if found is None else found
