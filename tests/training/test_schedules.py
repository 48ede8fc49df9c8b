"""Learning-rate schedules."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.config.schema import TrainingConfig
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.training.schedules import learning_rate_factor


def curve(**settings) -> list[float]:
    config = TrainingConfig(**{"max_steps": 100, "warmup_steps": 10, "decay_steps": 20} | settings)
    return [learning_rate_factor(step, config) for step in range(101)]


@pytest.mark.parametrize("scheduler", ["wsd", "cosine", "one_cycle"])
def test_it_warms_up_never_exceeds_one_and_ends_at_zero(scheduler):
    factors = curve(scheduler=scheduler)
    assert factors[:9] == sorted(factors[:9])
    assert 0.0 < factors[0] <= 0.1
    assert max(factors) <= 1.0
    assert factors[-1] == pytest.approx(0.0, abs=1e-12)
    assert factors[15:] == sorted(factors[15:], reverse=True)


def test_wsd_is_flat_between_warm_up_and_decay():
    factors = curve(scheduler="wsd")
    assert set(factors[9:81]) == {1.0}
    assert factors[90] == pytest.approx(0.5)


def test_a_wsd_run_may_be_lengthened_before_its_decay():
    assert curve(scheduler="wsd")[:80] == curve(scheduler="wsd", max_steps=200)[:80]


def test_cosine_is_at_half_height_half_way():
    assert curve(scheduler="cosine")[50] == pytest.approx(0.5)


def torchs(make, steps: int, **options) -> list[float]:
    """A scheduler of torch, as shares of the peak."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer, **options)
    factors = []
    for _ in range(steps):
        factors.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return factors


def test_warm_restarts_are_torchs():
    ours = curve(
        scheduler="cosine_restarts",
        warmup_steps=0,
        restart_epochs=2,
        steps_per_epoch=7,
        restart_factor=2,
        learning_rate=1.0,
        min_learning_rate=0.1,
    )
    make = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
    assert ours == pytest.approx(torchs(make, 101, T_0=14, T_mult=2, eta_min=0.1))


def test_one_cycle_rises_and_falls_as_torchs_does():
    ours = curve(scheduler="one_cycle", warmup_steps=30, max_steps=100)
    make = torch.optim.lr_scheduler.OneCycleLR
    # torch's rise ends a step early, its fall a step before the run's end, at 1e-4 / 25.
    theirs = torchs(make, 101, max_lr=1.0, total_steps=102, pct_start=31 / 102)
    assert ours == pytest.approx(theirs, abs=0.02)
    assert ours[0] == pytest.approx(1 / 25)
    assert max(ours) == ours[30] == 1.0


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle"])
def test_the_cosines_end_where_they_are_told(scheduler):
    ours = curve(scheduler=scheduler, learning_rate=1.0, min_learning_rate=0.2)
    assert ours[-1] == pytest.approx(0.2)


def test_no_warm_up_and_no_decay():
    assert set(curve(scheduler="wsd", warmup_steps=0, decay_steps=0)[:100]) == {1.0}


def test_an_unknown_schedule_is_named():
    with pytest.raises(ConfigError, match="wsd, cosine, one_cycle, cosine_restarts, got 'linear'"):
        curve(scheduler="linear")
