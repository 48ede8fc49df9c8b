"""Figures of a network whose posterior is known to be right, too narrow, or shifted."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.training.validation import validation_metrics


class Known:
    """A posterior N(centre, width^2) in w, whatever the stamps; truths are drawn with width 1."""

    def __init__(self, width: float, shift: float = 0.0) -> None:
        self.width, self.shift = width, shift
        generator = torch.Generator().manual_seed(0)
        self.centre = torch.randn(400, 7, generator=generator, dtype=torch.float64)
        self.truth = self.centre + torch.randn(400, 7, generator=generator, dtype=torch.float64)

    def encode(self, stamps):
        return self.centre

    def compute_loss(self, stamps, w, context):
        zero = torch.zeros(len(w))
        return {"flow": zero + 2.0, "gaussian": zero + 3.0, "error": w - context - 1.0}

    def sample(self, context, number, seeds):
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(len(context), number, 7, generator=generator, dtype=torch.float64)
        return context[:, None] + self.shift + self.width * noise, None


def figures(draws: int = 200, **options: float) -> dict[str, float]:
    model = Known(**options)
    made = validation_metrics(model, range(400), model.truth, draws)
    return {name: float(value) for name, value in made.items()}


def test_a_posterior_that_is_right():
    made = figures(width=1.0)
    assert made["coverage_68"] == pytest.approx(0.68, abs=0.03)
    assert made["coverage_95"] == pytest.approx(0.95, abs=0.02)
    assert (made["nll"], made["gaussian_nll"]) == (2.0, 3.0)
    # The mean absolute value of a standard normal number.
    assert made["mae_magnitude"] == pytest.approx(0.798, abs=0.08)
    assert {n for n in made if n.startswith("coverage_68_")} == {f"coverage_68_{p}" for p in NAMES}


def test_posteriors_that_are_wrong_are_told():
    assert figures(width=0.5)["coverage_68"] < 0.45
    assert figures(width=2.0)["coverage_68"] > 0.9
    shifted = figures(width=1.0, shift=1.5)
    assert shifted["coverage_68"] < 0.5
    assert shifted["mae_sersic_index"] > 1.2


def test_without_draws_the_error_is_the_whitenings():
    made = figures(draws=0, width=1.0)
    assert not any(name.startswith("coverage") for name in made)
    assert made["mae_magnitude"] == pytest.approx(1.17, abs=0.1)
