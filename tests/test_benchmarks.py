"""Benchmarks, which no test runs, import only what the package has."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def missing(source: str) -> list[str]:
    """Returns the names that a module imports from this package in vain."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("deeplegato"):
            continue
        module = importlib.import_module(node.module)
        for name in (alias.name for alias in node.names):
            whole = f"{node.module}.{name}"
            is_module = hasattr(module, "__path__") and importlib.util.find_spec(whole)
            if not is_module and not hasattr(module, name):
                found.append(whole)
    return found


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_imports_what_there_is(path):
    assert not missing(path.read_text())


def test_a_name_that_is_gone_is_found():
    source = "from deeplegato_pp.data.mirroring import mirrored, gone\nfrom deeplegato_pp import io"
    assert missing(source) == ["deeplegato_pp.data.mirroring.gone"]
