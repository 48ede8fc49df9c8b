"""Lazy exports, on packages made for the purpose."""

from __future__ import annotations

import importlib
import sys

import pytest

INIT = """
from deeplegato_pp._lazy import lazy_exports
__getattr__, __dir__, __all__ = lazy_exports(__name__, {"train": ".train", "loss": ".losses"})
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "train.py").write_text("def train(): return 'trained'\ndef helper(): return 1\n")
    (folder / "losses.py").write_text("loss = 'a loss'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("lazy_example")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lazy_example"]:
        del sys.modules[name]


def test_a_name_is_imported_when_first_used(package):
    assert "lazy_example.losses" not in sys.modules
    assert package.loss == "a loss"
    assert "loss" in vars(package)
    assert package.__all__ == ["loss", "train"]
    assert {"loss", "train"} <= set(dir(package))


def test_a_function_is_not_hidden_by_its_module(package):
    module = importlib.import_module("lazy_example.train")
    assert module.helper() == 1
    assert package.train() == "trained"


def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="'lazy_example' has no attribute 'lost'"):
        package.lost  # noqa: B018
