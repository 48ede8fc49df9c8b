"""Angles: means and differences that know no seam, in arrays and tensors alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deeplegato_pp.stats.circular import circular_mean, tensor_circular_mean, unwrap

RNG = np.random.default_rng(0)


def test_weighted_circular_mean():
    angles, weights = np.array([170.0, 10.0]), np.array([0.25, 0.75])
    phase = 2 * np.deg2rad(angles)
    x, y = (weights * np.cos(phase)).sum(), (weights * np.sin(phase)).sum()
    expected = math.degrees(math.atan2(y, x)) / 2 % 180
    assert circular_mean(angles, 180.0, weights) == pytest.approx(expected)


def test_rows_are_averaged_one_by_one():
    angles = RNG.normal(178.0, 8.0, (5, 40)) % 180.0
    rows = circular_mean(angles, 180.0)
    assert rows == pytest.approx([float(circular_mean(row, 180.0)) for row in angles])
    assert circular_mean(angles.T, 180.0, axis=0) == pytest.approx(rows)


def test_a_mean_of_almost_a_period_is_zero():
    assert float(circular_mean(np.array([-1e-20]), 180.0)) == 0.0


def test_tensors_and_arrays_agree():
    angles = RNG.normal(178.0, 8.0, (5, 40)) % 180.0
    means = circular_mean(angles, 180.0)
    tensor = torch.from_numpy(angles)
    found = tensor_circular_mean(tensor, 180.0, 1)
    np.testing.assert_allclose(found.numpy(), means)
    turned = unwrap(tensor, found[:, None], 180.0)
    np.testing.assert_allclose(turned.numpy(), unwrap(angles, means[:, None], 180.0))
    assert float(turned.std(1).max()) < 15.0
