from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from deeplegato_pp.diagnostics import rank_test, truth_ranks
from deeplegato_pp.errors import InputError
from toy_posteriors import toy

RNG = np.random.default_rng(5)


def test_a_plain_rank_is_the_share_below_and_a_spread_one_stays_in_its_step():
    case = toy(300, 40)
    below = (case.samples < case.truth[:, None]).mean(1)
    straight = [0, 1, 2, 3, 5, 6]
    plain = truth_ranks(case.samples, case.truth, spread=False)
    np.testing.assert_allclose(plain[:, straight], below[:, straight], atol=1e-12)
    spread = truth_ranks(case.samples, case.truth)[:, straight]
    np.testing.assert_array_equal(np.floor(41 * spread), np.round(40 * below[:, straight]))


def test_ranks_belong_to_the_galaxy_not_to_its_place():
    case = toy(50, 40)
    order = RNG.permutation(50)
    whole = truth_ranks(case.samples, case.truth)
    found = truth_ranks(case.samples[order], case.truth[order])
    np.testing.assert_allclose(found, whole[order], rtol=0, atol=1e-9)


def test_draws_equal_to_the_truth_share_its_place():
    samples, truth = np.zeros((4000, 20, 7)), np.zeros((4000, 7))
    samples[:, 0] = RNG.normal(size=(4000, 7))  # so that galaxies differ
    truth[:, 4] = 0.0
    ranks = truth_ranks(samples, truth)[:, 0]
    assert rank_test(ranks).p_value > 1e-3


@pytest.mark.parametrize("where", [0.0, 90.0, 179.9])
def test_a_circle_has_no_seam(where):
    case = toy(2000, 50, angle=8.0, seed=2)
    samples, truth = case.samples.copy(), case.truth.copy()
    turn = where - truth[:, 4]
    samples[..., 4] = (samples[..., 4] + turn[:, None]) % 180.0
    truth[:, 4] = where
    assert rank_test(truth_ranks(samples, truth)[:, 4]).p_value > 1e-3
    np.testing.assert_allclose(
        truth_ranks(samples, truth, spread=False)[:, 4],
        truth_ranks(case.samples, case.truth, spread=False)[:, 4],
        atol=0.05,  # a draw on the cut may round to its other side
    )


def test_where_the_circle_is_cut_does_not_depend_on_the_truth():
    draws = np.full((1, 100, 7), 0.0)
    draws[0, :, 4] = np.random.default_rng(0).permutation(np.linspace(-1.0, 1.0, 100)) % 180.0
    for angle in (179.5, 359.5 - 180.0):
        truth = np.zeros((1, 7))
        truth[0, 4] = angle
        assert 0.15 < truth_ranks(draws, truth)[0, 4] < 0.35


def test_padding_and_lone_draws_take_no_part():
    case = toy(20, 30)
    log_weights = np.zeros((20, 30))
    padded = np.concatenate([case.samples, 1e3 + 0 * case.samples[:, :5]], axis=1)
    padding = np.concatenate([log_weights, np.full((20, 5), -np.inf)], axis=1)
    straight = [0, 1, 2, 3, 5, 6]
    np.testing.assert_allclose(
        truth_ranks(padded, case.truth, padding)[:, straight],
        truth_ranks(case.samples, case.truth)[:, straight],
        atol=1e-12,
    )
    alone = np.full((20, 30), -np.inf)
    alone[:, 10] = 0.0  # one of the draws that are set aside for the angle's cut
    ranks = truth_ranks(case.samples, case.truth, alone)
    assert ((ranks > 0) & (ranks < 1)).all()


def test_a_single_draw_has_a_rank():
    case = toy(3000, 1)
    assert rank_test(truth_ranks(case.samples, case.truth)).p_value.min() > 1e-3


def test_the_rank_test_is_that_of_scipy():
    ranks = RNG.uniform(size=(200, 3)) ** 1.1
    found = rank_test(ranks)
    for j in range(3):
        expected = stats.kstest(ranks[:, j], "uniform", method="exact")
        assert found.statistic[j] == pytest.approx(expected.statistic, rel=1e-12)
        assert found.p_value[j] == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize("bad", [[], [0.5, np.nan], [1.2], [-0.1]])
def test_ranks_lie_between_zero_and_one(bad):
    with pytest.raises(InputError, match="ranks must be"):
        rank_test(np.array(bad))
