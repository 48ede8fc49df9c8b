"""Whitening of correlated noise against dense algebra, with masks and edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp.observation.correlation import NoiseCorrelation, independent_lags
from deeplegato_pp.scene.whitening import StampWhitening, Whitening

N = 21
DRIZZLED = NoiseCorrelation.drizzle(0.7, 0.9)


def good_pixels(seed: int = 0) -> np.ndarray:
    good = np.random.default_rng(seed).random((N, N)) > 0.03
    good[3:8, 10:16] = False
    return good


def dense(lags: np.ndarray, good: np.ndarray) -> torch.Tensor:
    """The correlation matrix of unmasked pixels."""
    pixels = np.argwhere(good)
    apart = pixels[:, None] - pixels
    inside = (np.abs(apart) <= 8).all(-1)
    y, x = np.moveaxis(np.clip(apart, -8, 8) + 8, -1, 0)
    return torch.from_numpy(np.where(inside, lags[y, x], 0.0))


def matrix(whitening: Whitening, good: np.ndarray) -> torch.Tensor:
    """W among unmasked pixels."""
    number = int(good.sum())
    images = torch.zeros(number, N, N, dtype=torch.float64)
    images[:, torch.from_numpy(good)] = torch.eye(number, dtype=torch.float64)
    return whitening(images[None])[0][:, torch.from_numpy(good)].T


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, Whitening, torch.Tensor, torch.Tensor]:
    good = good_pixels()
    whitening = Whitening([StampWhitening(DRIZZLED.padded_lags, good)])
    return good, whitening, matrix(whitening, good), dense(DRIZZLED.padded_lags, good)


def test_whitened_noise_is_white(case):
    _, _, w, correlation = case
    white = w @ correlation @ w.T
    # Each pixel's variance is one by construction; so the mean chi-square is right.
    torch.testing.assert_close(white.diagonal(), torch.ones(len(white)).double())
    assert float((white**2).sum() / len(white)) == pytest.approx(1.0, abs=1e-3)


def test_it_is_the_dense_inverse_and_determinant(case):
    good, whitening, w, correlation = case
    y, x = np.argwhere(good).T - (N - 1) / 2
    smooth = torch.from_numpy(np.stack([np.exp(-(x**2 + y**2) / 18), x * np.exp(-x * x / 9), y]))
    exact = smooth @ torch.linalg.solve(correlation, smooth.T)
    found = (smooth @ w.T) @ (smooth @ w.T).T
    scale = exact.diagonal().sqrt()
    torch.testing.assert_close(
        found / scale / scale[:, None], exact / scale / scale[:, None], rtol=0, atol=1e-3
    )
    expected = float(torch.linalg.slogdet(correlation).logabsdet)
    assert float(whitening.log_det) == pytest.approx(expected, abs=1e-3 * len(w))


def test_masked_pixels_do_not_matter_whatever_they_hold(case):
    good, whitening, *_ = case
    image = torch.randn(1, 2, N, N, generator=torch.Generator().manual_seed(0)).double()
    spoilt = torch.where(torch.from_numpy(good), image, 1e30)
    torch.testing.assert_close(whitening(spoilt), whitening(image))
    assert bool((whitening(image)[..., ~torch.from_numpy(good)] == 0).all())
    # Zero is no substitute for a mask: the pixels beside would be predicted from it.
    whole = Whitening([StampWhitening(DRIZZLED.padded_lags, np.ones((N, N), bool))])
    zeroed = whole(torch.where(torch.from_numpy(good), image, 0.0))
    assert float((zeroed - whitening(image)).abs().max()) > 0.1


def test_the_transpose_is_one_and_the_gradient_knows_it(case):
    _, whitening, *_ = case
    a, b = torch.randn(2, 1, 3, N, N, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close((whitening(a) * b).sum(), (a * whitening.transposed(b)).sum())
    a.requires_grad_()
    (slope,) = torch.autograd.grad((whitening(a) * b).sum(), a)
    torch.testing.assert_close(slope, whitening.transposed(b))


def test_columns_are_those_of_some_pixels_among_all_rows_they_reach(case):
    good, whitening, w, _ = case
    some = torch.arange(0, int(good.sum()), 3)
    (stamp,) = whitening.stamps
    columns = stamp.columns(torch.from_numpy(np.flatnonzero(good))[some]).to_dense()
    assert columns.shape[1] == len(some)
    assert bool((columns != 0).any(1).all())
    torch.testing.assert_close(columns.T @ columns, w[:, some].T @ w[:, some])


def test_rows_are_whitened_each_as_it_is(case):
    good = torch.from_numpy(np.stack([good_pixels(), np.ones((N, N), bool), good_pixels(3)]))
    lags = torch.stack([torch.from_numpy(x) for x in (DRIZZLED.padded_lags, independent_lags())])
    rows = Whitening.of(lags[[0, 1, 0]], good)
    images = torch.randn(3, 2, N, N, generator=torch.Generator().manual_seed(2)).double()
    together = rows(images)
    for i in range(3):
        torch.testing.assert_close(together[i], rows.at([i])(images[i : i + 1])[0])
    assert torch.equal(together[1], images[1])
    assert rows.at([1]).trivial
    assert not rows.trivial
    assert float(rows.log_det[1]) == 0.0
    torch.testing.assert_close(rows(images.float()).double(), together, rtol=0, atol=1e-5)
    again = rows.at([2, 2])
    assert len(again) == 2
    torch.testing.assert_close(again(images[[2, 2]])[1], together[2])
