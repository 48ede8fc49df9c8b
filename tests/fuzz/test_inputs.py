"""Odd arrays, files, lists, settings and calls: a clear error, a failed row, or the right answer.

Some seconds by default; `make test-slow` draws for about an hour, and
``benchmarks/fuzz_counts.py`` tells how often each came out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deeplegato_pp.inference.predictor import Predictor
from deeplegato_pp.models import storage
from fuzz import outcomes, strategies

pytestmark = pytest.mark.filterwarnings("ignore")  # numpy and astropy warn of odd numbers

QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,  # the same draws in every run: what they find is kept as a plain test
    suppress_health_check=list(HealthCheck),
)
LONG = settings(QUICK, max_examples=20_000, derandomize=False)
LENGTHS = pytest.mark.parametrize(
    "length", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"]
)


def hold(length: settings, judge: Callable[..., str], *parts: Any) -> None:
    """Judges inputs drawn; the judge raises what is none of the outcomes."""

    @length
    @given(st.tuples(*parts))
    def check(drawn: tuple[Any, ...]) -> None:
        assert judge(*drawn) in outcomes.ALL

    check()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "input"


@LENGTHS
def test_arrays(length):
    hold(length, outcomes.of_arrays, strategies.IMAGES, strategies.NOISES, strategies.OPTIONS)


@LENGTHS
def test_damaged_files(path, length):
    parts = strategies.DAMAGE, strategies.ENDS, strategies.CARDS, strategies.NUMBERS
    hold(length, outcomes.of_damaged_file, st.just(path), *parts)


@LENGTHS
def test_lists_of_sources(path, length):
    hold(length, outcomes.of_columns, strategies.LISTS)
    hold(length, outcomes.of_list, st.just(path.with_suffix(".csv")), strategies.TABLES)


@LENGTHS
def test_configurations(path, length):
    hold(length, outcomes.of_overrides, st.lists(strategies.SETTINGS, max_size=3))
    hold(length, outcomes.of_configuration, st.just(path), strategies.SOURCES)


@LENGTHS
def test_calls(tmp_path, length, monkeypatch):
    monkeypatch.setattr(storage, "find", lambda name: tmp_path)
    monkeypatch.setattr(Predictor, "from_pretrained", outcomes.predictor)
    hold(length, outcomes.of_call, st.just(tmp_path), strategies.CALLS)
