"""Noise and its likelihood: moments, and a dense multivariate Gaussian as the reference."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from deeplegato_pp.scene.correlated_noise import lags_of
from deeplegato_pp.scene.noise import (
    draw_noise,
    log_likelihood,
    model_variance,
)

N = 6


def scene(seed: int = 0, gain: float = 3.0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=g)

    return {
        "data": 4 * rand(2, N, N) - 1,
        "model": 5 * rand(2, N, N) - 0.5,
        "sigma": 0.5 + rand(2, N, N),
        "mask": rand(2, N, N) < 0.3,
        "gain": torch.full((2,), gain, dtype=torch.float64),
        "sky_sigma": torch.tensor([0.0, 0.7], dtype=torch.float64),
    }


@pytest.mark.parametrize("gain", [0.7, 50.0, math.inf])
def test_likelihood_is_the_dense_gaussians(gain):
    s = scene(gain=gain)
    found = log_likelihood(**s)
    variance = model_variance(s["model"], s["sigma"], s["gain"])
    for b in range(2):
        good = ~s["mask"][b]
        covariance = torch.diag(variance[b][good]) + s["sky_sigma"][b] ** 2
        direct = stats.multivariate_normal(s["model"][b][good].numpy(), covariance.numpy())
        expected = direct.logpdf(s["data"][b][good].numpy())
        assert float(found[b]) == pytest.approx(expected, rel=1e-10)


def test_infinite_gain_is_the_limit_of_large_ones():
    assert torch.allclose(
        log_likelihood(**scene(gain=1e12)), log_likelihood(**scene(gain=math.inf))
    )


@pytest.mark.parametrize("filling", [math.nan, math.inf, 1e30, 0.0])
@pytest.mark.parametrize("name", ["data", "sigma"])
def test_what_lies_under_a_mask_does_not_matter(name, filling):
    s = scene()
    expected = log_likelihood(**s)
    s[name] = torch.where(s["mask"], filling, s[name])
    s["model"].requires_grad_()
    found = log_likelihood(**s)
    assert torch.allclose(found, expected)
    found.sum().backward()
    assert bool(s["model"].grad.isfinite().all())
    assert bool((s["model"].grad[s["mask"]] == 0).all())


def test_many_models_of_one_galaxy_broadcast():
    s = scene()
    models = torch.stack([s["model"][0], s["model"][1], s["model"][0] + 1])
    one = {k: v[:1] for k, v in s.items() if k != "model"}
    together = log_likelihood(model=models, **one)
    alone = torch.cat([log_likelihood(model=m[None], **one) for m in models])
    assert together.shape == (3,)
    assert torch.allclose(together, alone)


def test_fully_masked_stamps_say_nothing():
    s = scene()
    s["mask"][:] = True
    assert torch.equal(log_likelihood(**s), torch.zeros(2, dtype=torch.float64))


def test_likelihood_differentiates_through_the_variance():
    s = scene(gain=2.0)
    s["model"] = s["model"].abs() + 0.1
    model = s.pop("model").requires_grad_()
    assert torch.autograd.gradcheck(lambda m: log_likelihood(model=m, **s), model)


def test_float32_sums_in_float64():
    s = scene()
    low = {k: v if v.dtype == torch.bool else v.float() for k, v in s.items()}
    found = log_likelihood(**low)
    assert found.dtype == torch.float64
    assert torch.allclose(found, log_likelihood(**s), rtol=1e-5)


@pytest.mark.parametrize("gain", [0.5, 20.0, 1e5, math.inf])
@pytest.mark.parametrize("read", [0.0, 0.5])
def test_noise_has_the_models_mean_and_variance(gain, read):
    """Counts of a few electrons, of many, and the Gaussian range."""
    number = 20_000
    model = torch.tensor([-0.5, 0.0, 2.0, 300.0], dtype=torch.float64)
    image = model.view(1, 2, 2).expand(number, 2, 2)
    sigma = torch.full_like(image, 1.5)
    gains = torch.full((number,), gain, dtype=torch.float64)
    drawn = draw_noise(
        image, sigma, gains, read_fraction=read, generator=torch.Generator().manual_seed(1)
    ).reshape(number, 4)
    variance = model_variance(image, sigma, gains)[0].reshape(4)
    error = (variance / number).sqrt()
    assert ((drawn.mean(0) - model).abs() < 4.5 * error).all()
    # The kurtosis of few counts widens the error of the variance.
    counts = 1.0 / (gain * variance) if math.isfinite(gain) else torch.zeros(4)
    spread = ((2.0 + counts) / number).sqrt()
    assert ((drawn.var(0) / variance - 1).abs() < 4.5 * spread).all()


def test_few_counts_are_skewed_as_poissons_are():
    number = 40_000
    image = torch.full((number, 1, 1), 4.0, dtype=torch.float64)
    sigma = torch.full_like(image, 0.5)
    drawn = draw_noise(image, sigma, torch.ones(number), generator=torch.Generator().manual_seed(2))
    expected = 1 / math.sqrt(4.0 + 0.25)
    assert float(stats.skew(drawn.numpy().ravel())) == pytest.approx(expected, abs=0.08)


def test_noise_repeats_with_its_generator():
    image, sigma = torch.ones(2, 3, 3), torch.ones(2, 3, 3)
    gain = torch.tensor([1.0, math.inf])
    one, two = (
        draw_noise(image, sigma, gain, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(one, two)


def test_a_model_error_adds_to_the_variance_and_its_logarithm():
    s = scene()
    s["mask"][:] = False
    s["sky_sigma"][:] = 0.0
    found = log_likelihood(**s, model_error=0.3)
    variance = s["sigma"] ** 2 + s["model"].clamp_min(0) / 3.0 + (0.3 * s["model"]) ** 2
    torch.testing.assert_close(model_variance(s["model"], s["sigma"], s["gain"], 0.3), variance)
    normal = torch.distributions.Normal(s["model"], variance.sqrt())
    torch.testing.assert_close(found, normal.log_prob(s["data"]).sum((1, 2)))


def test_correlated_noise_is_a_dense_gaussians_too():
    """With masked pixels, a sky, and a variance that follows the model."""
    s = scene()
    total = torch.tensor([1.6, 2.2], dtype=torch.float64)
    found = log_likelihood(**s, noise_correlation=total)
    lags = lags_of(total)
    apart = torch.cartesian_prod(torch.arange(N), torch.arange(N))
    apart = apart[:, None] - apart + 8
    for i in range(2):
        good = ~s["mask"][i].flatten()
        correlation = lags[i][apart[..., 0], apart[..., 1]]
        model = s["model"][i].flatten()
        spread = (s["sigma"][i].flatten() ** 2 + model.clamp_min(0) / 3.0).sqrt()
        covariance = correlation * spread * spread[:, None] + s["sky_sigma"][i] ** 2
        normal = torch.distributions.MultivariateNormal(model[good], covariance[good][:, good])
        expected = normal.log_prob(s["data"][i].flatten()[good])
        assert float(found[i]) == pytest.approx(float(expected), abs=1e-3)
    apart_one = log_likelihood(
        **{k: v[:1] for k, v in s.items()}, noise_correlation=float(total[0])
    )
    torch.testing.assert_close(apart_one, found[:1])


def test_drawn_noise_has_the_variance_of_the_likelihood():
    image = torch.full((400, 16, 16), 20.0, dtype=torch.float64)
    sigma, gain = torch.ones_like(image), torch.full((400,), 5.0, dtype=torch.float64)
    drawn = draw_noise(
        image,
        sigma,
        gain,
        noise_correlation=3.0,
        model_error=0.1,
        generator=torch.Generator().manual_seed(5),
    )
    variance = float(model_variance(image, sigma, gain, 0.1)[0, 0, 0])
    assert float((drawn - image).var()) == pytest.approx(variance, rel=0.05)
    sums = (drawn - image).sum((1, 2)).var() / 256
    assert float(sums) == pytest.approx(3.0 * variance, rel=0.25)  # 400 sums: 7 %
