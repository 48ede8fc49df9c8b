"""The sandwich on linear problems whose answer is known, and against the likelihood."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deeplegato_pp.inference.fit.blocks import polar_blocks
from deeplegato_pp.inference.fit.sandwich import affine_map, larger, sandwich
from deeplegato_pp.inference.fit.scores import (
    ModeImages,
    block_scores,
    leverage_corrected,
    shrunk_scatter,
)
from deeplegato_pp.scene.correlated_noise import lags_of
from deeplegato_pp.scene.noise import model_variance, residual
from deeplegato_pp.scene.templates import Templates
from deeplegato_pp.scene.whitening import Whitening
from linear_problems import SIZE, LinearFits, light_and_basis, one_ellipse

FITS = 200


def naive_covariance(fits: LinearFits) -> Tensor:
    """H^-1 (J + 1) H^-1 with J as it comes: no correction, no shrinkage, no floor."""
    scores = block_scores(fits.images, fits.blocks)
    blocks = scores.blocks[..., :7]
    j = blocks.mT @ blocks + torch.eye(7).double()
    inverse = torch.linalg.inv(fits.precision)
    return inverse @ j @ inverse


def test_right_model_costs_a_few_per_cent_of_width():
    fits = LinearFits(FITS, 50.0)
    found = sandwich(fits.images, fits.blocks)
    assert 0.66 < fits.coverage(found.noise_covariance) < 0.71
    assert 0.67 < fits.coverage(found.covariance) < 0.74
    assert float(found.inflation.median()) < 1.06
    assert bool((found.inflation >= 1.0 - 1e-9).all())
    # Without shrinkage and floor the widths follow the scatter of forty blocks.
    spread = naive_covariance(fits).diagonal(dim1=-2, dim2=-1).sqrt()
    spread = spread / found.noise_covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert float(spread.std()) > 1.5 * float(found.inflation.std())
    assert fits.coverage(naive_covariance(fits)) < 0.66


@pytest.mark.parametrize("correlation", [2.4, 3.9])
def test_untold_correlated_noise_is_mended_in_part(correlation):
    fits = LinearFits(FITS, 50.0, noise_correlation=correlation)
    found = sandwich(fits.images, fits.blocks)
    noise = fits.coverage(found.noise_covariance)
    assert noise < 0.53
    assert noise + 0.09 < fits.coverage(found.covariance) < 0.71


def test_spiral_arms_are_in_the_error_bars():
    fits = LinearFits(FITS, 300.0, contrast=0.1, model_error=0.03)
    found = sandwich(fits.images, fits.blocks)
    assert fits.coverage(found.noise_covariance) < 0.40
    assert fits.coverage(torch.linalg.inv(found.precision)) < 0.55
    assert fits.coverage(found.covariance) > 0.66
    assert float(found.inflation.median()) > 3.0


def test_with_a_model_error_the_noise_decides_the_width_of_a_right_model():
    fits = LinearFits(FITS, 300.0, model_error=0.03)
    found = sandwich(fits.images, fits.blocks)
    # The weights' own covariance is far too wide where the model is right.
    assert fits.coverage(torch.linalg.inv(found.precision)) > 0.80
    assert 0.64 < fits.coverage(found.noise_covariance) < 0.71
    assert 0.66 < fits.coverage(found.covariance) < 0.75
    # Moved draws have the honest width: A H^-1 A^T is S, narrower than H^-1.
    moved = found.transform @ torch.linalg.inv(found.precision) @ found.transform.mT
    torch.testing.assert_close(moved, found.covariance, rtol=1e-8, atol=1e-14)


def test_draws_stay_where_the_scatter_is_the_noise_s_own():
    fits = LinearFits(3, 50.0)
    found = sandwich(fits.images, fits.blocks, shrinkage=1e12)
    identity = torch.eye(7).double().expand(3, 7, 7)
    torch.testing.assert_close(found.transform, identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.covariance, found.noise_covariance, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gain", [math.inf, 3.0])
@pytest.mark.parametrize(("correlation", "error", "sky"), [(1.0, 0.0, 0.02), (2.5, 0.05, 0.3)])
def test_scores_are_the_likelihood_s_gradient(gain, correlation, error, sky):
    generator = torch.Generator().manual_seed(3)
    model = 20.0 * torch.rand(2, 12, 12, generator=generator, dtype=torch.float64)
    data = model + torch.randn(2, 12, 12, generator=generator, dtype=torch.float64)
    g = torch.randn(2, 3, 12, 12, generator=generator, dtype=torch.float64)
    mask = torch.rand(2, 12, 12, generator=generator, dtype=torch.float64) < 0.2
    sigma = torch.ones_like(model)
    column = torch.ones(2).double()
    templates = Templates.of(sky * column, 12)
    whitening = None
    if correlation > 1.0:
        whitening = Whitening.of(lags_of(correlation * column), ~mask)
    leaf = model.clone().requires_grad_()
    found = residual(data, leaf, sigma, mask, gain * column, templates, whitening, error)
    (slope,) = torch.autograd.grad(found.log_likelihood.sum(), leaf)
    expected = torch.einsum("bdxy,bxy->bd", g, slope)

    variance = model_variance(model, sigma, gain * column, error)
    images = ModeImages(
        g,
        torch.where(mask, torch.nan, found.left.detach()),
        torch.where(mask, torch.nan, variance),
        model_variance(model, sigma, gain * column),
        1.0 / (gain * column)[:, None, None] + 2.0 * error**2 * model,
        mask,
        templates,
        whitening,
    )
    blocks = torch.arange(144).reshape(12, 12).expand(2, 12, 12) % 7
    scores = block_scores(images, blocks)
    # The sky's own determinant moves with the variance: a term of order 1/pixels is left out.
    tolerance = 0.0 if math.isinf(gain) and error == 0 else 0.05 * float(expected.abs().max())
    found = scores.blocks.sum(1)[:, : expected.shape[1]]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=tolerance + 1e-9)
    assert scores.used.sum(1).tolist() == [7, 7]
    torch.testing.assert_close(scores.block_fisher.sum(1), scores.fisher)
    of_all = scores.fisher + torch.eye(scores.fisher.shape[-1]).double()
    dim = expected.shape[1]
    without_sky = of_all[:, :dim, :dim] - scores.marginal(of_all)
    value = torch.linalg.eigvalsh(without_sky)  # the sky takes information of rank one
    assert bool((value[:, :-1].abs() < 1e-9 * value[:, -1:]).all())


def test_noise_scatter_is_the_variance_of_the_score():
    # One fixed model, many draws of noise and sky: the score's scatter is J_0.
    generator = torch.Generator().manual_seed(1)
    g = light_and_basis(20.0)[1][:3, 14:26, 14:26]
    sky, error = 0.4, 0.2
    light = g[0] + 1.0
    variance = 1.0 + (error * light) ** 2
    shape = (4000, 12, 12)
    data = torch.randn(shape, generator=generator).double()
    data = data + sky * torch.randn(4000, 1, 1, generator=generator).double()
    fitted = sky**2 * (data / variance).sum((-2, -1), keepdim=True)
    fitted = fitted / (1.0 + sky**2 * (1.0 / variance).sum())
    every = torch.ones(4000).double()
    images = ModeImages(
        g.expand(4000, 3, 12, 12),
        data - fitted,
        variance.expand(shape),
        torch.ones(shape).double(),
        torch.zeros(shape).double(),
        torch.zeros(shape, dtype=torch.bool),
        Templates.of(sky * every, 12),
    )
    scores = block_scores(images, torch.zeros(shape, dtype=torch.long))
    of_all = scores.fisher[:1] + torch.eye(4).double()
    noise = scores.scatter_of_coordinates(scores.noise[:1], of_all)[0]
    inverse = torch.linalg.inv(torch.linalg.cholesky(noise))
    white = inverse @ torch.cov(scores.blocks[:, 0, :3].T) @ inverse.T
    torch.testing.assert_close(white, torch.eye(3).double(), rtol=0, atol=0.1)


def test_a_template_that_mimics_a_parameter_does_not_widen_a_right_model():
    """What a template explains is no scatter of the score, nor does it lend a block leverage."""
    fits = LinearFits(FITS, 50.0)
    g = fits.images.derivatives[:1]
    mimic = 0.9 * g[:, 1] + 0.3 * g[:, 2]  # of the size, nearly
    sky = torch.zeros(FITS, dtype=torch.float64)
    templates = Templates.of(sky, SIZE, 2.0 * mimic.expand(FITS, SIZE, SIZE))
    found = sandwich(replace(fits.images, templates=templates), fits.blocks)
    known = sandwich(fits.images, fits.blocks)
    assert float(found.noise_covariance[0, 1, 1]) > 3.0 * float(known.noise_covariance[0, 1, 1])
    assert float(found.inflation.median()) < 1.1


def test_leverage_correction_gives_back_the_scores_of_the_true_parameters():
    fits = LinearFits(FITS, 50.0)
    scores = block_scores(fits.images, fits.blocks)
    h = torch.eye(8).double().expand(FITS, 8, 8).clone()  # of the sky nothing is to be learnt
    h[:, :7, :7] = fits.precision
    expected = scores.fisher.diagonal(dim1=-2, dim2=-1).mean(0)[:7]

    def scatter(blocks: Tensor) -> Tensor:
        return (blocks[..., :7] ** 2).sum(1).mean(0) / expected

    raw, corrected = scatter(scores.blocks), scatter(leverage_corrected(scores, h))
    assert float(raw.max()) < 0.92
    assert float((corrected - 1.0).abs().max()) < 0.08


def test_shrinkage_yields_where_the_scores_speak():
    noise = torch.eye(4).double()[None]
    generator = torch.Generator().manual_seed(0)
    quiet = 0.15 * torch.randn(1, 50, 4, generator=generator, dtype=torch.float64)
    loud = 10.0 * quiet
    near = shrunk_scatter(quiet, noise)
    assert float((near - noise).abs().max()) < float((quiet.mT @ quiet - noise).abs().max())
    torch.testing.assert_close(shrunk_scatter(loud, noise), loud.mT @ loud, rtol=0.01, atol=0.1)


def test_the_larger_of_two_covariances_is_so_in_every_direction():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 6, 6, generator=generator, dtype=torch.float64)
    first, second = a @ a.mT, b @ b.mT
    found = larger(first, second)
    assert float(torch.linalg.eigvalsh(first - second).min()) < -1.0  # neither is the larger
    assert float(torch.linalg.eigvalsh(second - first).min()) < -1.0
    assert float(torch.linalg.eigvalsh(found - second).min()) > -1e-9
    assert float(torch.linalg.eigvalsh(found - first).min()) > -1e-9
    torch.testing.assert_close(larger(0.5 * second, second), second)


def test_affine_map_moves_one_covariance_to_another():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64)
    old, new = a @ a.mT + 0.1 * torch.eye(3), b @ b.mT
    moved = affine_map(old, new)
    torch.testing.assert_close(moved @ old @ moved.mT, new, rtol=1e-9, atol=1e-9)
    identity = torch.eye(3).double().expand(4, 3, 3)
    torch.testing.assert_close(affine_map(old, old), identity, rtol=0, atol=1e-9)


def test_galaxies_do_not_mix_and_masked_pixels_do_not_count():
    fits = LinearFits(3, 50.0, contrast=0.1)
    mask = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    mask[1, :, :12] = True
    spoilt = torch.where(mask, torch.nan, fits.images.residual)
    images = replace(fits.images, mask=mask, residual=spoilt)
    together = sandwich(images, fits.blocks)
    assert bool(torch.isfinite(together.covariance).all())
    for i in range(3):
        row = torch.tensor([i])
        fields = {f: getattr(images, f) for f in images.__dataclass_fields__}
        templates = fields.pop("templates").at(row)
        assert fields.pop("whitening") is None
        assert fields.pop("amplitude_variance") is None
        one = ModeImages(templates=templates, **{f: x[row] for f, x in fields.items()})
        alone = sandwich(one, fits.blocks[i : i + 1])
        torch.testing.assert_close(alone.covariance[0], together.covariance[i])
        assert int(alone.blocks[0]) == int(together.blocks[i])
    assert int(together.blocks[1]) < int(together.blocks[0])


def test_too_few_blocks_or_pixels_leave_the_noise_s_widths():
    fits = LinearFits(2, 50.0, contrast=0.2)
    mask = torch.ones(2, SIZE, SIZE, dtype=torch.bool)
    mask[:, 16:24, 16:24] = False  # a few blocks in the galaxy's core
    few = sandwich(replace(fits.images, mask=mask), fits.blocks)
    assert few.judged.tolist() == [False, False]
    torch.testing.assert_close(few.covariance, few.noise_covariance)
    torch.testing.assert_close(few.transform, torch.eye(7).double().expand(2, 7, 7))
    enough = sandwich(fits.images, fits.blocks)
    assert enough.judged.tolist() == [True, True]
    one_block = sandwich(fits.images, torch.zeros_like(fits.blocks))
    assert one_block.judged.tolist() == [False, False]


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_any_number_of_parameters(dim):
    fits = LinearFits(4, 50.0)
    images = replace(fits.images, derivatives=fits.images.derivatives[:, :dim])
    found = sandwich(images, polar_blocks(one_ellipse(4), SIZE, torch.full((4,), 3.0).double()))
    assert found.transform.shape == (4, dim, dim)
    assert bool((found.inflation >= 1.0 - 1e-9).all())


def test_a_direction_without_information_keeps_the_prior_s_width():
    fits = LinearFits(2, 50.0, contrast=0.1)
    g = fits.images.derivatives.clone()
    g[:, 3] = 0.0
    found = sandwich(replace(fits.images, derivatives=g), fits.blocks)
    torch.testing.assert_close(found.covariance[:, 3, 3], torch.ones(2).double())
    torch.testing.assert_close(found.inflation[:, 3], torch.ones(2).double())


def test_rescaled_widths_are_those_of_other_coordinates():
    fits = LinearFits(5, 50.0)
    scale = torch.linspace(0.5, 2.0, 7).double()
    found = sandwich(fits.images, fits.blocks)
    rescaled = found.rescaled(scale)
    widths = rescaled.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    expected = scale * found.covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    assert torch.allclose(widths, expected)
    own = torch.linalg.inv(rescaled.precision)
    moved = rescaled.transform @ own @ rescaled.transform.mT
    assert torch.allclose(moved, rescaled.covariance, rtol=1e-6, atol=1e-12)
    assert torch.equal(rescaled.inflation, found.inflation)


def test_what_a_template_explains_is_no_structure():
    """A template like the light itself, whose amplitude scatters as its prior says."""
    fits = LinearFits(FITS, 50.0)
    light, basis = light_and_basis(50.0)
    change = 0.05 * light  # brighter by 5 %, a direction that the parameters have too
    amplitude = torch.randn(FITS, generator=torch.Generator().manual_seed(4)).double()
    templates = Templates.of(torch.zeros(FITS).double(), SIZE, change.expand(FITS, SIZE, SIZE))
    g = torch.cat([basis.flatten(1), change.flatten()[None]])
    precision = g / fits.images.variance[0].flatten() @ g.T + torch.eye(8).double()
    data = fits.images.residual + amplitude[:, None, None] * change
    data = data + (fits.offset @ basis.flatten(1)).reshape(data.shape)
    fitted = (data / fits.images.variance).flatten(1) @ g.T @ torch.linalg.inv(precision)
    left = data - (fitted @ g).reshape(data.shape)
    found = sandwich(replace(fits.images, templates=templates, residual=left), fits.blocks)
    covariance = torch.linalg.inv(precision)[:7, :7]
    torch.testing.assert_close(found.noise_covariance[0], covariance, rtol=1e-6, atol=1e-9)
    assert float(found.inflation.median()) < 1.15
    inside = (fitted[:, :7].abs() < found.covariance.diagonal(dim1=1, dim2=2).sqrt()).double()
    assert 0.6 < float(inside.mean()) < 0.78
