from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp.diagnostics import rows
from deeplegato_pp.errors import InputError, NumericalError, RangeError, ShapeError
from deeplegato_pp.stats import weighted as statistics
from deeplegato_pp.stats.circular import circular_mean

RNG = np.random.default_rng(3)


def test_rows_agree_with_the_statistics_of_one_galaxy():
    draws, log_weights = RNG.normal(size=(20, 31)), RNG.normal(size=(20, 31))
    log_weights[:, ::7] = -np.inf
    weights = rows.row_weights(log_weights, draws.shape)
    probabilities = (0.0, 0.025, 0.5, 0.84, 1.0)
    for w in (None, weights):
        found = rows.row_quantiles(draws, probabilities, w)
        centers = circular_mean(50.0 * draws, 180.0, w)
        for i, row in enumerate(draws):
            one = None if w is None else w[i]
            expected = statistics.quantiles(row, probabilities, one)
            np.testing.assert_allclose(found[i], expected, atol=1e-9)
            center = circular_mean(50.0 * row, 180.0, one)
            assert centers[i] == pytest.approx(center, abs=1e-9)


def test_searching_rows_is_searching_each_row():
    edges, values = np.sort(RNG.normal(size=(50, 12)), axis=1), RNG.normal(size=(50, 7))
    expected = [np.searchsorted(e, v) for e, v in zip(edges, values, strict=True)]
    np.testing.assert_array_equal(rows.search_rows(edges, values), expected)


def test_positions_are_uniform_and_belong_to_the_numbers():
    a, b = RNG.normal(size=(2, 40_000))
    found = rows.positions(a, b)
    assert abs(found.mean() - 0.5) < 4 / np.sqrt(12 * found.size)
    assert abs(np.corrcoef(found, a)[0, 1]) < 4 / np.sqrt(found.size)
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 4 / np.sqrt(found.size)
    np.testing.assert_array_equal(rows.positions(a[5:9], b[5:9]), found[5:9])
    assert (rows.positions(np.zeros(3), np.arange(3.0)) != 0.0).all()


def test_angles_are_unwrapped_about_the_draws():
    samples = np.zeros((1, 4, 7))
    samples[0, :, 4] = [178.0, 179.0, 1.0, 2.0]
    truth = np.zeros((1, 7))
    turned, value = rows.unwrapped(samples, truth, None)
    assert np.ptp(turned[0, :, 4]) == pytest.approx(4.0)
    assert abs(value[0, 4] - turned[0, :, 4].mean()) < 1e-9
    assert samples[0, 0, 4] == 178.0, "the arguments stay as they were"


def test_log_scaled_takes_radius_and_index():
    values = np.full((2, 7), np.e)
    np.testing.assert_allclose(rows.log_scaled(values)[0], [np.e, 1, 1, np.e, np.e, np.e, np.e])


def test_blocks_hold_every_row_once(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 3 * 7 * 4)
    checked = rows.checked(RNG.normal(size=(10, 4, 7)), RNG.normal(size=(10, 7)), np.zeros((10, 4)))
    parts = list(checked.blocks())
    assert [len(p.truth) for p in parts] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([p.samples for p in parts]), checked.samples)
    assert parts[-1].weights.shape == (1, 4)


@pytest.mark.parametrize(
    ("samples", "truth", "log_weights", "error"),
    [
        (np.zeros((2, 5, 7)), np.zeros((3, 7)), None, ShapeError),
        (np.zeros((2, 5, 6)), np.zeros((2, 7)), None, ShapeError),
        (np.zeros((2, 0, 7)), np.zeros((2, 7)), None, InputError),
        (np.full((2, 5, 7), np.nan), np.zeros((2, 7)), None, InputError),
        (np.zeros((2, 5, 7)), np.full((2, 7), np.inf), None, InputError),
        (np.zeros((2, 5, 7)), np.zeros((2, 7)), np.zeros((2, 4)), ShapeError),
        (np.zeros((2, 5, 7)), np.zeros((2, 7)), np.full((2, 5), np.nan), NumericalError),
        (np.zeros((2, 5, 7)), np.zeros((2, 7)), np.full((2, 5), -np.inf), NumericalError),
    ],
)
def test_what_cannot_be_diagnosed_is_refused(samples, truth, log_weights, error):
    with pytest.raises(error):
        rows.checked(samples, truth, log_weights)


def test_the_row_with_a_nan_is_named():
    samples = np.zeros((4, 5, 7))
    samples[2, 1, 3] = np.nan
    with pytest.raises(InputError, match="row 2"):
        rows.checked(samples, np.zeros((4, 7)))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 68.0])
def test_a_level_is_a_probability(level):
    with pytest.raises(RangeError, match="between 0 and 1"):
        rows.check_level(level)
