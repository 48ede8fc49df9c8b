"""Learning-rate schedules."""

from __future__ import annotations

import pytest

from deeplegato_pp.config import TrainingConfig
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.training.schedules import learning_rate_factor


def curve(**settings) -> list[float]:
    config = TrainingConfig(**{"max_steps": 100, "warmup_steps": 10, "decay_steps": 20} | settings)
    return [learning_rate_factor(step, config) for step in range(101)]


@pytest.mark.parametrize("scheduler", ["wsd", "cosine"])
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


def test_no_warm_up_and_no_decay():
    assert set(curve(scheduler="wsd", warmup_steps=0, decay_steps=0)[:100]) == {1.0}


def test_an_unknown_schedule_is_named():
    with pytest.raises(ConfigError, match="cosine or wsd, got 'linear'"):
        curve(scheduler="linear")
