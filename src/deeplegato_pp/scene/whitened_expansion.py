r"""Fast evaluation of ln L for many images of one galaxy under correlated noise.

Like `scene.expansion`, for correlated pixels: with y the residual in units of the noise and W the
whitening matrix, ln L contains :math:`|W y|^2`. For images b B, W y is a sum of whitened basis
images wherever y is linear in the image. This fails for the few pixels whose variance depends
strongly on the model; their deviations are added, whitened by the columns of W for those pixels.
Where they are more than half of all pixels, images are evaluated as they are, which costs less.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.scene.batches import Data
from deeplegato_pp.scene.expansion import CHUNK_PIXELS, GalaxyPixels
from deeplegato_pp.scene.noise import variance_slope
from deeplegato_pp.scene.templates import marginalise

_NEGLECTED = 0.01
"""Allowed error of ln L from expanded pixels."""


class WhitenedLikelihood:
    """Evaluates ln L of images reference + b B of one galaxy under correlated noise.

    Args:
        data: Pixels and noise of the galaxy, one row, with correlated noise.
        reference: Noiseless image about which ln L is expanded, with shape (N, N).
        basis: Basis images, with shape (K, P), float64.
        probes: Sample of coefficients, with shape (M, K), used to find the pixels that cannot be
            expanded.

    Attributes:
        exact: True for the pixels that are not expanded.
        direct: Whether these are all pixels, since more than half could not be expanded.
    """

    def __init__(
        self,
        data: Data,
        reference: Float[Tensor, "n n"],
        basis: Float[Tensor, "k p"],
        probes: Float[Tensor, "m k"],
    ) -> None:
        assert data.whitening is not None  # noqa: S101  # there are sums of pixels for those
        (stamp,) = data.whitening.stamps
        assert stamp is not None  # noqa: S101  # the same
        shape = (1, -1, *reference.shape)
        self.pixels = _Pixels(data)
        self.reference = reference.flatten()
        self.fields, self.slope = self.pixels.expand(self.reference)
        self.log_v = self.pixels.expand_log_variance(self.reference)
        linear = torch.cat([self.fields[:, None], self.slope[:, None] * basis], 1)
        white = data.whitening(linear.view(shape)).view(-1, basis.shape[1])
        self.gram = (white @ white.T).view(*linear.shape[:2], *linear.shape[:2])
        pulled = data.whitening.transposed(white.view(shape)).view(linear.shape)
        self.exact = self._unexpanded(basis, probes, pulled[0, 0].abs() + 1.0)
        self.data, self.basis = data, basis
        self.direct = 2 * int(self.exact.sum()) > len(self.reference)
        if self.direct:
            self.exact.fill_(True)
            return
        kept = ~self.exact
        value, first, second = self.log_v
        self.constant = float((value * kept).sum()) + stamp.log_det
        self.constant += float(data.good.sum()) * math.log(2.0 * math.pi)
        self.linear = basis @ (first * kept)
        self.quadratic = (basis * (second * kept)) @ basis.T
        self.among = pulled[..., self.exact]
        self.columns = stamp.columns(self.exact.nonzero()[:, 0])
        self.basis = basis[:, self.exact]

    def __call__(self, b: Float[Tensor, "s k"]) -> Float[Tensor, " s"]:
        """Returns ln L for coefficients b, with shape (S,)."""
        evaluate = self._of_images if self.direct else self._of_sums
        chunk = max(1, CHUNK_PIXELS // max(1, int(self.exact.sum())))
        return torch.cat([evaluate(part) for part in b.split(chunk)])

    def _of_images(self, b: Tensor) -> Tensor:
        images = self.reference + b @ self.basis
        return self.data.log_likelihood(images.view(-1, *self.data.image.shape[-2:]))

    def _of_sums(self, b: Tensor) -> Tensor:
        shares = torch.cat([torch.ones_like(b[:, :1]), b], 1)
        half = torch.einsum("sk,fkgl->sfgl", shares, self.gram)
        sums = torch.einsum("sfgl,sl->sfg", half, shares)
        log_v = self.constant + b @ self.linear + 0.5 * ((b @ self.quadratic) * b).sum(-1)
        if bool(self.exact.any()):
            change = b @ self.basis
            found, exact = self.pixels.fields(self.reference[self.exact] + change, self.exact)
            log_v = log_v + exact.sum(-1)
            # Deviation of the fields from their expansion in some pixels, (S, 1 + T, E).
            beyond = (found - self._expanded(change, self.exact)).movedim(0, 1)
            cross = torch.einsum("sk,fke->sfe", shares, self.among) @ beyond.mT
            white = (self.columns @ beyond.flatten(0, 1).T).view(-1, *beyond.shape[:2])
            sums = sums + cross + cross.mT + torch.einsum("msf,msg->sfg", white, white)
        known = marginalise(sums[:, 1:, 0], sums[:, 1:, 1:])
        return -0.5 * (sums[:, 0, 0] + log_v) + known.gain

    def _expanded(self, change: Float[Tensor, "s p"], where: slice | Tensor) -> Tensor:
        return self.fields[:, None, where] + self.slope[:, None, where] * change

    def _unexpanded(self, basis: Tensor, probes: Tensor, matter: Tensor) -> Bool[Tensor, " p"]:
        """Returns the pixels whose summed expansion errors would exceed the tolerance.

        Errors of the fields are multiplied by the residual whitened twice, whose sign is random:
        they are added in quadrature.
        """
        exact = torch.zeros_like(self.reference, dtype=torch.bool)
        if not self.pixels.follows:
            return exact
        of_fields, of_log_v = torch.zeros(2, *self.reference.shape).to(self.reference)
        value, first, second = self.log_v
        for part in probes.split(max(1, CHUNK_PIXELS // len(self.reference))):
            change = part @ basis
            found, log_v = self.pixels.fields(self.reference + change)
            off = (found - self._expanded(change, slice(None))).abs().sum(0) * matter
            of_fields = torch.maximum(of_fields, off.amax(0))
            off = 0.5 * (log_v - value - change * (first + 0.5 * second * change)).abs()
            of_log_v = torch.maximum(of_log_v, off.amax(0))
        order = (of_fields + of_log_v).argsort()
        total = of_log_v[order].cumsum(0) + (of_fields[order] ** 2).cumsum(0).sqrt()
        exact[order[total > _NEGLECTED]] = True
        return exact


class _Pixels(GalaxyPixels):
    """Residual and templates of one galaxy in units of the noise."""

    def fields(
        self, model: Float[Tensor, "*s p"], where: Bool[Tensor, " n"] | None = None
    ) -> tuple[Float[Tensor, "t *s p"], Float[Tensor, "*s p"]]:
        """Returns residual and templates in units of the noise (0 where masked), and ln V.

        Args:
            model: Noiseless images.
            where: Pixels of those images; all pixels if None.
        """
        every = slice(None) if where is None else where
        good = self.good[every]
        variance = self.variance(model, every)
        residual = (self.image[every] - model) * good
        shape = (len(self.templates), *[1] * (model.dim() - 1), model.shape[-1])
        templates = (self.templates[:, every] * good).view(shape).expand(-1, *model.shape)
        fields = torch.cat([residual[None], templates]) / variance.sqrt()
        return fields, torch.where(good, variance.log(), 0.0)

    def expand(
        self, model: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "t p"], Float[Tensor, "t p"]]:
        """Returns the fields of an image, and their derivatives with respect to it."""
        fields, _ = self.fields(model)
        variance = self.variance(model)
        slope = -0.5 * fields * (self._variance_slope(model) / variance)
        slope[0] -= self.good / variance.sqrt()
        return fields, slope

    def expand_log_variance(self, model: Float[Tensor, " p"]) -> Float[Tensor, "3 p"]:
        """Returns ln V with its first and second derivatives; 0 where masked, shape (3, P)."""
        variance = self.variance(model)
        relative = self._variance_slope(model) / variance
        second = 2.0 * self.model_error**2 / variance - relative**2
        return torch.where(self.good, torch.stack([variance.log(), relative, second]), 0.0)

    def _variance_slope(self, model: Tensor) -> Tensor:
        return variance_slope(model[..., None], self.gain, self.model_error)[..., 0]
