"""Noise and the likelihood under it, side by side: whoever changes one changes the other.

Two modes, as `gain` says, per galaxy:

* finite gain: `sigma` is the background's, and the model adds its own shot noise,
  V = sigma^2 + max(I, 0)/gain;
* infinite gain: `sigma` is the total, V = sigma^2.

Reality's floor, off by default, holds in both modes: a `model_error` f, V += (f I)^2, for galaxies
that are not what the model says; and a `noise_correlation` c, the variance of sums over many pixels
over what independent pixels would have, as drizzling leaves behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, pad

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.templates import Amplitudes, Templates, marginalise

POISSON_LIMIT = 100.0
"""Expected electrons above which counts are drawn by their first three cumulants.

There the fourth, which is then missing, is below 1 % of the squared variance.
"""

MODEL_ERROR = 0.03
"""Error of the model, as a fraction of itself, with which galaxies are refined unless told.

No galaxy is a Sérsic profile: without it a few bright pixels decide where the optimum lies.
"""


def model_variance(
    model: Float[Tensor, "*b n n"],
    sigma: Float[Tensor, "*#b n n"],
    gain: Float[Tensor, "*#b"],
    model_error: float = 0.0,
) -> Float[Tensor, "*b n n"]:
    """Returns the variance per pixel under a model image.

    Args:
        model: Noiseless images, with shape (*, N, N). [units]
        sigma: Background noise, or total where the gain is infinite. [units]
        gain: Electrons per unit, with shape (*,); inf for the fixed-variance mode.
        model_error: Error of the model as a fraction of itself.
    """
    variance = sigma**2 + model.clamp_min(0.0) / gain[..., None, None]
    return variance + (model_error * model) ** 2 if model_error else variance


@dataclass(frozen=True, eq=False)
class Residual:
    r"""Data less model under the noise, the amplitudes of templates marginalised.

    With :math:`w = 1/V` and :math:`r = d - I` over unmasked pixels, the pixels' noise is
    :math:`C = c V` in what follows, c the noise correlation; templates are the constant sky and,
    where the PSF is known imperfectly, what another width of it changes: see `scene.templates`.

    Attributes:
        variance: V, with shape (*, N, N); 1 where masked.
        weight: w, with shape (*, N, N); 0 where masked.
        difference: r, with shape (*, N, N); 0 where masked.
        count: Unmasked pixels, with shape (*,), float64.
        noise_correlation: c; a number, or with shape (*,).
        templates: Templates.
        amplitudes: What the data say of theirs.
        chi2: Chi-square of independent pixels with the templates at their best,
            :math:`\sum w r^2 - c\, b^T M^{-1} b`, with shape (*,), float64. Its expectation at the
            truth is the number of unmasked pixels, be they correlated or not.
    """

    variance: Float[Tensor, "*b n n"]
    weight: Float[Tensor, "*b n n"]
    difference: Float[Tensor, "*b n n"]
    count: Float[Tensor, "*#b"]
    noise_correlation: float | Float[Tensor, "*#b"]
    templates: Templates
    amplitudes: Amplitudes
    chi2: Float[Tensor, "*b"]

    @property
    def log_determinant(self) -> Float[Tensor, "*b"]:
        """Logarithm of the determinant of 2 pi times the covariance, templates included, (*,)."""
        log_v = self.variance.log().sum((-2, -1), dtype=torch.float64)
        pixels = (log_v + self.count * math.log(2.0 * math.pi)) / self.noise_correlation
        return pixels + self.amplitudes.log_determinant

    @property
    def log_likelihood(self) -> Float[Tensor, "*b"]:
        """Gaussian ln L, with shape (*,), float64; see :func:`log_likelihood`."""
        return -0.5 * (self.chi2 / self.noise_correlation + self.log_determinant)

    @property
    def left(self) -> Float[Tensor, "*b n n"]:
        """Data less model less the best templates, with shape (*, N, N); 0 where masked."""
        found = self.templates.combine(self.amplitudes.best).to(self.difference)
        return self.difference - found * (self.weight > 0)

    @property
    def in_sigma(self) -> Float[Tensor, "*b n n"]:
        """(data - model - best templates) / sigma, with shape (*, N, N); 0 where masked."""
        return self.left * self.weight.sqrt()

    @property
    def sky(self) -> Float[Tensor, "*b"]:
        """The best constant sky, with shape (*,)."""
        return self.amplitudes.best[..., 0] * self._sky_sigma

    def sky_spread(self, floor: float = 0.0) -> Float[Tensor, "*b"]:
        """Returns the standard deviation of the best sky were its prior right, with shape (*,).

        Args:
            floor: Standard deviation that the sky has at least.
        """
        known = 1.0 - self.amplitudes.covariance[..., 0, 0]
        return self._sky_sigma.clamp_min(floor) * known.clamp_min(0.0).sqrt()

    @property
    def _sky_sigma(self) -> Float[Tensor, "*#b"]:
        return self.templates.images[..., 0, 0, 0]

    @property
    def p_value(self) -> Float[Tensor, "*b"]:
        """Chance of a larger chi-square if the model were the truth, with shape (*,).

        Under correlated noise the pixels count as 1/c of as many independent ones.
        """
        half = 0.5 / self.noise_correlation
        return torch.special.gammaincc(half * self.count.expand_as(self.chi2), half * self.chi2)

    def apply_inverse(self, vectors: Float[Tensor, "*b f p"]) -> Float[Tensor, "*b f p"]:
        """Returns the inverse of the pixels' noise C, without the templates, times images."""
        return (
            vectors
            * _divided(self.weight.flatten(-2), self.noise_correlation, 1).to(vectors)[..., None, :]
        )

    def inner(
        self, vectors: Float[Tensor, "*b f p"], extra: Float[Tensor, "*b p"] | None = None
    ) -> Float[Tensor, "*b f f"]:
        r"""Returns inner products in units of the noise, the templates' amplitudes marginalised.

        Of the model's derivatives it is their Fisher information for a fixed variance. With what
        templates make of the vectors subtracted, :math:`A = M^{-1} T C^{-1} J^T`, it is a sum of
        squares, and so positive however much of a vector a template takes away.

        Args:
            vectors: J, with shape (*, F, N * N).
            extra: Weight of the pixels beside the noise's own, of which the templates know
                nothing, with shape (*, N * N).
        """
        templates = self.templates.images.flatten(-2).to(vectors)
        shared = (vectors @ self.apply_inverse(templates).mT).double()
        amplitude = shared @ self.amplitudes.covariance
        left = vectors - amplitude.to(vectors) @ templates
        products = (self.apply_inverse(left) @ left.mT).double() + amplitude @ amplitude.mT
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
    noise_correlation: float | Float[Tensor, "*#b"] = 1.0,
    model_error: float = 0.0,
) -> Residual:
    """Returns data less model under the noise; arguments as for :func:`log_likelihood`."""
    good = ~mask
    # Replaced, not multiplied by zero: what lies under a mask may be NaN.
    variance = torch.where(good, model_variance(model, sigma, gain, model_error), 1.0)
    weight = good / variance
    difference = torch.where(good, data - model, 0.0)
    weighted = weight * difference
    squares = (weighted * difference).sum((-2, -1), dtype=torch.float64)
    amplitudes = marginalise(
        _divided(templates.project(weighted), noise_correlation, 1),
        _divided(templates.products(weight), noise_correlation, 2),
    )
    return Residual(
        variance,
        weight,
        difference,
        good.sum((-2, -1), dtype=torch.float64),
        noise_correlation,
        templates,
        amplitudes,
        squares - noise_correlation * amplitudes.squares,
    )


def _divided(value: Tensor, correlation: float | Tensor, dims: int) -> Tensor:
    """Values with some more dimensions than there are correlations, divided by those."""
    if isinstance(correlation, Tensor):
        return value / correlation[(..., *[None] * dims)]
    return value if correlation == 1.0 else value / correlation


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
    r"""Returns the Gaussian log-likelihood with a constant sky offset marginalised.

    With :math:`w = 1/V` and :math:`r = d - I` over unmasked pixels, and the sky's prior
    :math:`N(0, \tau^2)`,

    .. math:: \ln L = -\tfrac12 \sum (w r^2 + \ln 2 \pi V)
        + \tfrac12 \frac{(\sum w r)^2}{\sum w + \tau^{-2}} - \tfrac12 \ln(1 + \tau^2 \sum w).

    Under correlated noise every pixel counts as 1/c of one: all four sums are divided by c. That is
    right for structure wider than the noise's correlation and gives too wide posteriors for
    narrower structure; c of both are 1 where pixels are independent. An imperfect PSF adds one more
    template with an unknown amplitude, see `scene.templates`.

    Sums are taken in float64 whatever comes in. `data`, `sigma` and `mask` broadcast against
    `model`, so many models of one galaxy cost no copies of it.

    Args:
        data: Images, with shape (*, N, N).
        model: Noiseless images, with shape (*, N, N).
        sigma: Background or total noise, see `gain`.
        mask: True = ignore.
        gain: Electrons per unit; inf for fixed variance. Shape (*,).
        sky_sigma: tau, with shape (*,); 0 for a sky that is known.
        noise_correlation: c, at least 1; a number, or with shape (*,).
        model_error: f.
        psf_change: What one standard deviation of the PSF's width changes, with shape (*, N, N);
            None: the PSF is known.

    Returns:
        ln L, with shape (*,), float64.

    References:
        | WFPC2 observations of the Hubble Deep Field South (Casertano et al., 2000)
        | https://arxiv.org/abs/astro-ph/0010245
    """
    templates = Templates.of(sky_sigma, model.shape[-1], psf_change)
    r = residual(data, model, sigma, mask, gain, templates, noise_correlation, model_error)
    return r.log_likelihood


def draw_noise(
    model: Float[Tensor, "b n n"],
    sigma: Float[Tensor, "b n n"],
    gain: Float[Tensor, " b"],
    *,
    read_fraction: Float[Tensor, " b"] | float = 0.0,
    noise_correlation: float | Float[Tensor, " b"] = 1.0,
    model_error: float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "b n n"]:
    """Draws noisy images: Poisson counts of source and sky, and Gaussian read noise.

    The background's variance sigma^2 is split between sky counts and read noise. Where more than
    100 electrons are expected, a Gaussian draw is bent to the right skewness instead of counting
    (a Cornish-Fisher expansion: ten times faster); where the gain is infinite it is Gaussian.

    Args:
        model: Noiseless images, with shape (B, N, N).
        sigma: Background noise (total where the gain is infinite), with shape (B, N, N).
        gain: Electrons per unit, with shape (B,), or inf.
        read_fraction: Part of the background's variance that is read noise, in [0, 1].
        noise_correlation: Variance of sums over many pixels over the independent one's, 1 to 50,
            a number or with shape (B,); the noise of each pixel stays as it is.
        model_error: Error of the model as a fraction of itself, independent from pixel to pixel.
        generator: Source of randomness on the images' device.

    Returns:
        Images with noise, with shape (B, N, N).
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
    c = torch.as_tensor(noise_correlation, device=model.device).expand(len(model))
    rows = (c != 1.0).nonzero()[:, 0]
    if not len(rows):
        return noisy
    total = model_variance(model, sigma, gain, model_error).sqrt()[rows]
    white = (noisy[rows] - model[rows]) / total
    return noisy.index_copy(0, rows, model[rows] + total * correlate(white, c[rows]))


def correlate(
    white: Float[Tensor, "b n n"], noise_correlation: float | Float[Tensor, " b"]
) -> Float[Tensor, "b n n"]:
    """Returns independent noise of variance one as noise correlated over neighbouring pixels.

    Smoothed, with periodic edges, by a Gaussian that leaves each pixel's variance at one and makes
    that of sums over many pixels `noise_correlation` times as large.

    Args:
        white: Noise, with shape (B, N, N).
        noise_correlation: c, from 1 to 50; a number, or with shape (B,).

    Raises:
        RangeError: If a correlation lies outside.
    """
    c = torch.as_tensor(noise_correlation, dtype=torch.float64, device=white.device)
    if not bool(((c >= 1.0) & (c <= 50.0)).all()):
        raise RangeError(
            f"noise_correlation must lie in [1, 50], got {c.min():g} to {c.max():g}: it is the "
            "variance of sums over many pixels over that of independent ones."
        )
    half = min(12, (min(white.shape[-2:]) - 1) // 2)
    lines = _smoothing_lines(c.expand(len(white)), half).to(white)
    along_x, along_y = lines[:, None, None, :], lines[:, None, :, None]
    rows = white[None]
    for weights, edges in ((along_x, (half, half, 0, 0)), (along_y, (0, 0, half, half))):
        rows = conv2d(pad(rows, edges, mode="circular"), weights, groups=len(white))
    return rows[0]


def block_scatter(noise_correlation: float, side: int) -> float:
    """Returns the standard deviation of sums over square blocks, over that of independent pixels.

    Args:
        noise_correlation: c of noise as :func:`correlate` makes it.
        side: Of the blocks. [px]

    Example:
        >>> block_scatter(1.0, 4), round(block_scatter(4.0, 1000), 2)
        (1.0, 2.0)
    """
    if noise_correlation == 1.0:
        return 1.0
    line = _smoothing_lines(torch.tensor([noise_correlation], dtype=torch.float64), 12)
    reach = line.shape[1] - 1
    correlation = conv1d(line[None], line[None], padding=reach)[0, 0]
    lag = torch.arange(-reach, reach + 1).abs()
    return float((correlation * (1.0 - lag / side).clamp_min(0.0)).sum())


def _smoothing_lines(c: Float[Tensor, " b"], half: int) -> Float[Tensor, "b k"]:
    """Gaussian weights of unit square sum whose sum is the fourth root of c: one axis' share."""
    k = torch.arange(-half, half + 1, dtype=torch.float64, device=c.device)
    low, high = torch.full_like(c, 1e-3), torch.full_like(c, max(half, 1))
    for _ in range(60):  # bisection
        width = 0.5 * (low + high)
        lines = torch.exp(-0.5 * (k / width[:, None]) ** 2)
        lines = lines / lines.norm(dim=1, keepdim=True)
        narrow = lines.sum(1) ** 4 < c
        low, high = torch.where(narrow, width, low), torch.where(narrow, high, width)
    return lines
