"""The loss."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.training.losses import NPELoss


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 2.0), (1.0, 7.0), (0.1, 2.5)])
def test_it_is_the_weighted_mean_of_both_terms(weight, expected):
    terms = {"flow": torch.tensor([1.0, 3.0]), "gaussian": torch.tensor([4.0, 6.0])}
    assert float(NPELoss(weight)(terms)) == pytest.approx(expected)


def test_a_nan_is_not_hidden():
    terms = {"flow": torch.tensor([1.0, torch.nan]), "gaussian": torch.zeros(2)}
    assert bool(NPELoss()(terms).isnan())
