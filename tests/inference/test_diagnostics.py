"""A diagnostic is first proven on posteriors known to be right, too wide and too narrow."""

import numpy as np
import pytest

from deeplegato_pp.errors import ShapeError
from deeplegato_pp.inference.diagnostics import binomial_error, central_coverage, truth_ranks

GALAXIES, DRAWS = 1500, 200


def gaussian_posteriors(width: float, shift: float = 0.0, seed: int = 0):
    """Truths, and draws about noisy estimates of them with `width` times the right spread."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, 10.0, (GALAXIES, 7))
    truth[:, 4] = rng.uniform(0.0, 180.0, GALAXIES)
    estimate = truth + rng.normal(0.0, 1.0, truth.shape)
    draws = estimate[:, None] + shift + width * rng.normal(0.0, 1.0, (GALAXIES, DRAWS, 7))
    draws[..., 4] %= 180.0
    return draws, truth


def coverage_error(width: float, level: float) -> np.ndarray:
    return central_coverage(truth_ranks(*gaussian_posteriors(width)), level) - level


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95])
def test_right_posteriors_pass(level):
    assert np.abs(coverage_error(1.0, level)).max() < 4 * binomial_error(level, GALAXIES)


def test_narrow_and_wide_posteriors_are_caught_in_every_parameter():
    error = binomial_error(0.68, GALAXIES)
    assert (coverage_error(0.8, 0.68) < -4 * error).all()
    assert (coverage_error(1.2, 0.68) > 4 * error).all()


def test_shift_moves_the_ranks():
    ranks = truth_ranks(*gaussian_posteriors(1.0, shift=0.3))
    assert (np.abs(ranks.mean(0) - 0.5) > 4 / np.sqrt(12 * GALAXIES)).all()


def test_weights_repair_a_wide_proposal():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(GALAXIES, 7))
    estimate = truth + rng.normal(size=truth.shape)
    draws = estimate[:, None] + 2.0 * rng.normal(size=(GALAXIES, 2000, 7))
    z = draws[..., 0] - estimate[:, None, 0]
    log_weights = -0.5 * z**2 + 0.5 * (z / 2.0) ** 2
    plain, weighted = (
        central_coverage(truth_ranks(draws, truth, w), 0.68)[0] for w in (None, log_weights)
    )
    assert plain > 0.9
    assert abs(weighted - 0.68) < 4 * binomial_error(0.68, GALAXIES)


def test_the_cut_of_the_circle_does_not_depend_on_the_truth():
    draws = np.full((1, 100, 7), 0.0)
    draws[0, :, 4] = np.linspace(-1.0, 1.0, 100) % 180.0
    for angle in (179.5, 359.5 - 180.0):
        truth = np.zeros((1, 7))
        truth[0, 4] = angle
        assert 0.2 < truth_ranks(draws, truth)[0, 4] < 0.3


def test_shapes_must_agree():
    with pytest.raises(ShapeError, match="must agree"):
        truth_ranks(np.zeros((2, 5, 7)), np.zeros((3, 7)))
