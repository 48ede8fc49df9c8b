"""Noise model and Gaussian likelihood.

The noise has two modes, selected by `gain` for each galaxy:

* finite gain: `sigma` is the background noise, and the model adds its own shot noise,
  V = sigma^2 + max(I, 0)/gain;
* infinite gain: `sigma` is the total noise, V = sigma^2.

Two optional terms apply in both modes: a `model_error` f, V += (f I)^2, for galaxies that deviate
from the model; and a correlation P of the noise of neighbouring pixels, as produced by drizzling,
which makes the covariance V^1/2 P V^1/2, see `scene.whitening`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.scene.correlated_noise import correlate, lags_of
from deeplegato_pp.scene.templates import Amplitudes, Templates, marginalise
from deeplegato_pp.scene.whitening import Whitening

POISSON_LIMIT = 100.0
"""Expected electrons above which counts are drawn from their first three cumulants.

The fourth cumulant, which is neglected, is then below 1 % of the squared variance.
"""

MODEL_ERROR = 0.03
"""Default model error for refinement, as a fraction of the model image.

Real galaxies deviate from Sérsic profiles: without it, a few bright pixels determine the optimum.
"""


def model_variance(
    model: Float[Tensor, "*b n n"],
    sigma: Float[Tensor, "*#b n n"],
    gain: Float[Tensor, "*#b"],
    model_error: float = 0.0,
) -> Float[Tensor, "*b n n"]:
    """Computes the variance per pixel under a model image.

    Args:
        model: Noiseless images, with shape (*, N, N). [units]
        sigma: Background noise, or total noise where the gain is infinite. [units]
        gain: Electrons per unit, with shape (*,); inf for the fixed-variance mode.
        model_error: Model error as a fraction of the model image.
    """
    variance = sigma**2 + model.clamp_min(0.0) / gain[..., None, None]
    return variance + (model_error * model) ** 2 if model_error else variance


def variance_slope(
    model: Float[Tensor, "*b n n"], gain: Float[Tensor, "*#b"], model_error: float = 0.0
) -> Float[Tensor, "*b n n"]:
    """Computes the derivative of :func:`model_variance` with respect to the model, per pixel.

    Args:
        model: Noiseless images, with shape (*, N, N).
        gain: Electrons per unit, with shape (*,); inf for the fixed-variance mode.
        model_error: Model error as a fraction of the model image.
    """
    return (model > 0) / gain[..., None, None] + 2.0 * model_error**2 * model


@dataclass(frozen=True, eq=False)
class Residual:
    r"""Residual of a model under the noise, with the amplitudes of templates marginalised.

    Below, :math:`w = 1/V` and :math:`r = d - I` over unmasked pixels, the noise covariance of the
    pixels is :math:`C = V^{1/2} P V^{1/2}` with correlation P, and the templates are the constant
    sky and, if the PSF is uncertain, the change of the image with its width: see
    `scene.templates`.

    Attributes:
        variance: V, with shape (*, N, N); 1 where masked.
        weight: w, with shape (*, N, N); 0 where masked.
        difference: r, with shape (*, N, N); 0 where masked.
        count: Number of unmasked pixels, with shape (*,), float64.
        whitening: Whitening of correlated noise; None for independent pixels.
        templates: Templates.
        amplitudes: Posterior of the templates' amplitudes.
        chi2: Chi-square at the best template amplitudes, :math:`r^T C^{-1} r - b^T M^{-1} b`,
            with shape (*,), float64. At the true parameters it follows a chi-square distribution
            with as many degrees of freedom as there are unmasked pixels.
    """

    variance: Float[Tensor, "*b n n"]
    weight: Float[Tensor, "*b n n"]
    difference: Float[Tensor, "*b n n"]
    count: Float[Tensor, "*#b"]
    whitening: Whitening | None
    templates: Templates
    amplitudes: Amplitudes
    chi2: Float[Tensor, "*b"]

    @property
    def log_determinant(self) -> Float[Tensor, "*b"]:
        """Log-determinant of 2 pi times the covariance, templates included, with shape (*,)."""
        log_v = self.variance.log().sum((-2, -1), dtype=torch.float64)
        pixels = log_v + self.count * math.log(2.0 * math.pi)
        if self.whitening is not None:
            log_det = self.whitening.log_det.to(pixels)
            pixels = pixels + (log_det[0] if len(log_det) == 1 else log_det)
        return pixels + self.amplitudes.log_determinant

    @property
    def log_likelihood(self) -> Float[Tensor, "*b"]:
        """Gaussian ln L, with shape (*,), float64; see :func:`log_likelihood`."""
        return -0.5 * (self.chi2 + self.log_determinant)

    @property
    def left(self) -> Float[Tensor, "*b n n"]:
        """Data minus model minus best templates, with shape (*, N, N); 0 where masked."""
        found = self.templates.combine(self.amplitudes.best).to(self.difference)
        return self.difference - found * (self.weight > 0)

    @property
    def in_sigma(self) -> Float[Tensor, "*b n n"]:
        """(data - model - best templates) / sigma, with shape (*, N, N); 0 where masked."""
        return self.left * self.weight.sqrt()

    @property
    def sky(self) -> Float[Tensor, "*b"]:
        """Best-fitting constant sky, with shape (*,)."""
        return self.amplitudes.best[..., 0] * self._sky_sigma

    def sky_spread(self, floor: float = 0.0) -> Float[Tensor, "*b"]:
        """Returns the standard deviation of the best sky if its prior is correct, shape (*,).

        Args:
            floor: Lower limit of the sky's prior standard deviation.
        """
        known = 1.0 - self.amplitudes.covariance[..., 0, 0]
        return self._sky_sigma.clamp_min(floor) * known.clamp_min(0.0).sqrt()

    @property
    def _sky_sigma(self) -> Float[Tensor, "*#b"]:
        return self.templates.images[..., 0, 0, 0]

    @property
    def p_value(self) -> Float[Tensor, "*b"]:
        """Probability of a larger chi-square if the model is the truth, with shape (*,)."""
        return torch.special.gammaincc(0.5 * self.count.expand_as(self.chi2), 0.5 * self.chi2)

    def whiten(self, images: Float[Tensor, "*b f n n"]) -> Float[Tensor, "*b f n n"]:
        """Returns whitened images, in units of independent unit noise; 0 where masked."""
        scaled = self.weight.sqrt().to(images)[..., None, :, :] * images
        return scaled if self.whitening is None else self.whitening(scaled)

    def apply_inverse(self, images: Float[Tensor, "*b f n n"]) -> Float[Tensor, "*b f n n"]:
        """Returns images multiplied by the inverse of the pixel covariance C, without templates."""
        if self.whitening is None:
            return self.weight.to(images)[..., None, :, :] * images
        root = self.weight.sqrt().to(images)[..., None, :, :]
        return root * self.whitening.transposed(self.whitening(root * images))

    def inner(
        self, vectors: Float[Tensor, "*b f p"], extra: Float[Tensor, "*b p"] | None = None
    ) -> Float[Tensor, "*b f f"]:
        r"""Returns inner products under the noise, with the templates' amplitudes marginalised.

        For the model's derivatives this is the Fisher information at fixed variance. The projection
        of the vectors on the templates, :math:`A = M^{-1} T C^{-1} J^T`, is subtracted first, so
        that the result is a sum of squares and positive in floating point too.

        Args:
            vectors: J, with shape (*, F, N * N).
            extra: Additional pixel weights, which are not projected on the templates, with shape
                (*, N * N).
        """
        size = self.weight.shape[-1]
        templates = self.whiten(self.templates.images.to(vectors)).flatten(-2)
        white = self.whiten(vectors.unflatten(-1, (size, size))).flatten(-2)
        amplitude = (white @ templates.mT).double() @ self.amplitudes.covariance
        left = white - amplitude.to(white) @ templates
        products = (left @ left.mT).double() + amplitude @ amplitude.mT
        if extra is None:
            return products
        return products + ((vectors * extra.to(vectors)[..., None, :]) @ vectors.mT).double()


def residual(
    data: Float[Tensor, "*#b n n"],
    model: Float[Tensor, "*b n n"],
    sigma: Float[Tensor, "*#b n n"],
    mask: Bool[Tensor, "*#b n n"],
    gain: Float[Tensor, "*#b"],
    templates: Templates,
    whitening: Whitening | None = None,
    model_error: float = 0.0,
) -> Residual:
    """Returns the residual of models under the noise; arguments as in :func:`log_likelihood`.

    The whitening has one row for all models, or one row per model.
    """
    good = ~mask
    # Replaced rather than multiplied by zero: masked pixels may hold NaN.
    variance = torch.where(good, model_variance(model, sigma, gain, model_error), 1.0)
    weight = good / variance
    difference = torch.where(good, data - model, 0.0)
    if whitening is None:
        weighted = weight * difference
        squares = (weighted * difference).sum((-2, -1), dtype=torch.float64)
        projection, information = templates.project(weighted), templates.products(weight)
    else:
        root = weight.sqrt()
        white = whitening(root * difference).flatten(-2).double()
        unknown = whitening(root[..., None, :, :] * templates.images.to(root)).flatten(-2).double()
        squares = (white**2).sum(-1)
        projection = (unknown @ white[..., None])[..., 0]
        information = unknown @ unknown.mT
    amplitudes = marginalise(projection, information)
    return Residual(
        variance,
        weight,
        difference,
        good.sum((-2, -1), dtype=torch.float64),
        whitening,
        templates,
        amplitudes,
        squares - amplitudes.squares,
    )


def log_likelihood(
    data: Float[Tensor, "*#b n n"],
    model: Float[Tensor, "*b n n"],
    sigma: Float[Tensor, "*#b n n"],
    mask: Bool[Tensor, "*#b n n"],
    gain: Float[Tensor, "*#b"],
    sky_sigma: Float[Tensor, "*#b"],
    noise_correlation: float | Float[Tensor, "*#b"] = 1.0,
    model_error: float = 0.0,
    psf_change: Float[Tensor, "*#b n n"] | None = None,
) -> Float[Tensor, "*b"]:
    r"""Computes the Gaussian log-likelihood with a constant sky offset marginalised.

    With :math:`w = 1/V` and :math:`r = d - I` over unmasked pixels, and the sky's prior
    :math:`N(0, \tau^2)`,

    .. math:: \ln L = -\tfrac12 \sum (w r^2 + \ln 2 \pi V)
        + \tfrac12 \frac{(\sum w r)^2}{\sum w + \tau^{-2}} - \tfrac12 \ln(1 + \tau^2 \sum w).

    For correlated noise, residual and sky are whitened first (masked pixels are marginalised) and
    the determinant of the correlation is included: see `scene.whitening`. An uncertain PSF adds one
    more template of unknown amplitude, see `scene.templates`.

    Sums are computed in float64 for any input dtype. `data`, `sigma` and `mask` broadcast against
    `model`, so that many models of one galaxy need no copies of it.

    Args:
        data: Images, with shape (*, N, N).
        model: Noiseless images, with shape (*, N, N).
        sigma: Background or total noise, see `gain`.
        mask: True for pixels to ignore.
        gain: Electrons per unit; inf for fixed variance. Shape (*,).
        sky_sigma: Prior standard deviation tau of the sky, with shape (*,); 0 for a known sky.
        noise_correlation: Variance of sums over many pixels relative to independent pixels, for
            noise smoothed by a Gaussian; a number, or with shape (B,).
        model_error: f.
        psf_change: Change of the image per standard deviation of the PSF's width, with shape
            (*, N, N); None if the PSF is known.

    Returns:
        ln L, with shape (*,), float64.
    """
    templates = Templates.of(sky_sigma, model.shape[-1], psf_change)
    total = torch.as_tensor(noise_correlation, dtype=torch.float64).flatten()
    whitening = None
    if bool((total != 1.0).any()):
        good = ~mask.flatten(0, -3)
        rows = max(len(total), len(good))
        lags, good = lags_of(total).expand(rows, -1, -1), good.expand(rows, -1, -1)
        whitening = Whitening.of(lags, good)
    r = residual(data, model, sigma, mask, gain, templates, whitening, model_error)
    return r.log_likelihood


def draw_noise(
    model: Float[Tensor, "b n n"],
    sigma: Float[Tensor, "b n n"],
    gain: Float[Tensor, " b"],
    *,
    read_fraction: Float[Tensor, " b"] | float = 0.0,
    noise_correlation: float | Float[Tensor, " b"] = 1.0,
    lags: Float[Tensor, "b 17 17"] | None = None,
    model_error: float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b n n"]:
    """Draws noisy images: Poisson counts of source and sky, and Gaussian read noise.

    The background variance sigma^2 is split between sky counts and read noise. Where more than
    100 electrons are expected, a Cornish-Fisher expansion with the Poisson skewness replaces
    Poisson draws (ten times faster); where the gain is infinite the noise is Gaussian.

    Args:
        model: Noiseless images, with shape (B, N, N).
        sigma: Background noise (total where the gain is infinite), with shape (B, N, N).
        gain: Electrons per unit, with shape (B,), or inf.
        read_fraction: Fraction of the background variance that is read noise, in [0, 1].
        noise_correlation: Variance of sums over many pixels relative to independent pixels, 1 to
            50, a number or with shape (B,); the variance of each pixel is unchanged.
        lags: Correlation at lags (y, x), with shape (B, 17, 17); if None, the Gaussian family with
            that total.
        model_error: Model error as a fraction of the image, independent from pixel to pixel.
        generator: Random generator on the images' device.

    Returns:
        Noisy images, with shape (B, N, N).
    """
    normal = torch.randn(model.shape, generator=generator, device=model.device, dtype=model.dtype)
    variance = model_variance(model, sigma, gain)
    read = torch.as_tensor(read_fraction, dtype=model.dtype, device=model.device)
    read = read.expand(len(model))[:, None, None]
    g = gain[:, None, None]
    sky = (1.0 - read) * (g * sigma) ** 2
    expected = sky + g * model.clamp_min(0.0)
    counted = torch.isfinite(g)
    skewness = torch.where(counted, expected / (g * variance.sqrt()) ** 3, 0.0)
    noisy = model + variance.sqrt() * (normal + skewness / 6.0 * (normal**2 - 1.0))
    few = expected < POISSON_LIMIT  # False wherever the gain is infinite
    if bool(few.any()):
        counts = torch.poisson(expected[few], generator=generator)
        g_few = g.expand_as(model)[few]
        electrons = (
            counts - sky[few] + read.sqrt().expand_as(model)[few] * ((g * sigma)[few] * normal[few])
        )
        noisy[few] = electrons / g_few + model[few].clamp_max(0.0)
    if model_error:
        more = torch.randn(model.shape, generator=generator, device=model.device, dtype=model.dtype)
        noisy = noisy + model_error * model * more
    c = torch.as_tensor(noise_correlation, device=model.device, dtype=model.dtype)
    rows = (c.expand(len(model)) != 1.0).nonzero()[:, 0]
    if lags is None and not len(rows):
        return noisy
    if lags is None:
        lags = lags_of(c.expand(len(model))[rows])
    else:
        rows = torch.arange(len(model), device=model.device)
    total = model_variance(model, sigma, gain, model_error).sqrt()[rows]
    white = (noisy[rows] - model[rows]) / total
    return noisy.index_copy(0, rows, model[rows] + total * correlate(white, lags, generator))
