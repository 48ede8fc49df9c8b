"""Odd arrays, files, lists, settings and calls: a clear error, a failed row, or the right answer.

Some seconds by default; `make test-slow` draws for about an hour, and ``count.py`` tells how often
each came out.
"""

from __future__ import annotations

from pathlib import Path

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


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "input"


@LENGTHS
def test_arrays(length):
    length(given(strategies.IMAGES, strategies.NOISES, strategies.OPTIONS)(outcomes.of_arrays))()


@LENGTHS
def test_damaged_files(path, length):
    parts = strategies.DAMAGE, strategies.ENDS, strategies.CARDS, strategies.NUMBERS
    length(given(st.just(path), *parts)(outcomes.of_damaged_file))()


@LENGTHS
def test_lists_of_sources(path, length):
    length(given(strategies.LISTS)(outcomes.of_columns))()
    length(given(st.just(path.with_suffix(".csv")), strategies.TABLES)(outcomes.of_list))()


@LENGTHS
def test_configurations(path, length):
    length(given(st.lists(strategies.SETTINGS, max_size=3))(outcomes.of_overrides))()
    length(given(st.just(path), strategies.SOURCES)(outcomes.of_configuration))()


@LENGTHS
def test_calls(tmp_path, length, monkeypatch):
    monkeypatch.setattr(storage, "find", lambda name: tmp_path)
    monkeypatch.setattr(Predictor, "from_pretrained", outcomes.predictor)
    length(given(st.just(tmp_path), strategies.CALLS)(outcomes.of_call))()
