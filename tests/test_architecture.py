"""The rooms of the package: which way imports point, and where each heavy library lives."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from arrows import Import, find_cycle, imports_of, modules_of

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "deeplegato_pp"
NAME = PACKAGE.name

RANKS = {"": 0, "data": 1, "models": 1, "training": 2, "inference": 2, "cli": 3}
"""A room imports from itself and from lower ranks. The modules at the top are room ""."""

RESOURCES = {"examples", "pretrained", "configs"}
"""Folders of files that ship: nothing to run."""

HOMES = {
    "timm": ["models/swin_backbone.py", "training/optimizer.py"],
    "zuko": ["models/*"],
    "pytorch_lightning": ["training/*"],
    "astropy": ["*.py", "data/galaxies.py", "inference/*", "inference/catalog/*"],
    "pyarrow": ["inference/*", "inference/catalog/*"],
    "photutils": ["inference/catalog/detect.py"],
    "skimage": ["inference/catalog/detect.py"],
    "distributed": ["inference/catalog/workers.py"],
    "matplotlib": [
        "inference/plots.py",
        "inference/calibration/figures.py",
        "inference/catalog/plots.py",
    ],
    "corner": ["inference/plots.py"],
    "emcee": ["inference/*"],
    "omegaconf": ["config_layers.py", "cli/*"],
    "huggingface_hub": ["models/*"],
    "safetensors": ["data/chunks.py", "models/*"],
    "typer": ["cli/*"],
    "rich": ["cli/*"],
}
"""Where each library may be imported, as patterns of paths in the package."""

HEAVY = ["torch", "timm", "zuko", "pytorch_lightning", "astropy", "matplotlib", "scipy", "numpy"]

DISTRIBUTIONS = {
    "pytorch-lightning": "pytorch_lightning",
    "dask": "distributed",
    "scikit-image": "skimage",
}
"""Import names of the distributions that are not called like what they hold."""


def wrong_arrows(imports: list[Import], rooms: dict[str, int]) -> list[str]:
    """The imports inside the package that point up or sideways."""
    wrong = []
    for arrow in imports:
        parts = arrow.importer.split("."), arrow.target.split(".")
        if parts[1][0] != parts[0][0] or len(parts[0]) == 1:  # not ours, or the shop window
            continue
        here, there = (p[1] if len(p) > 1 and p[1] in rooms else "" for p in parts)
        if here != there and rooms[there] >= rooms[here]:
            wrong.append(str(arrow))
    return wrong


def strangers(imports: list[Import], homes: dict[str, list[str]], package: Path) -> list[str]:
    """The imports of a library outside its home."""
    paths = {m: p.relative_to(package).as_posix() for m, p in modules_of(package).items()}
    return [
        str(arrow)
        for arrow in imports
        if (patterns := homes.get(arrow.target.split(".")[0]))
        and not any(_matches(paths[arrow.importer], pattern) for pattern in patterns)
    ]


def _matches(path: str, pattern: str) -> bool:
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return imports_of(PACKAGE)


def test_every_folder_is_a_room():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders <= set(RANKS) | RESOURCES


def test_imports_point_one_way(imports):
    assert imports, "found nothing to check"
    assert not wrong_arrows(imports, RANKS)


def test_no_cycles(imports):
    assert not find_cycle(imports)


def test_each_library_has_one_home(imports):
    assert not strangers(imports, HOMES, PACKAGE)


def test_imported_libraries_are_declared_and_the_other_way_round(imports):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["survey"]]
    names = [re.match(r"[\w-]+", line).group() for line in lines]
    declared = {DISTRIBUTIONS.get(name, name) for name in names}
    roots = {arrow.target.split(".")[0] for arrow in imports}
    assert roots - {NAME} - set(sys.stdlib_module_names) == declared


BAD_TREE = {
    "__init__.py": "",
    "errors.py": "from .data import noise",
    "data/__init__.py": "",
    "data/noise.py": "def f():\n    from ..models.head import g",
    "data/psf.py": "from . import noise\nfrom ..errors import E",
    "data/cycle_a.py": "import pkg.data.cycle_b",
    "data/cycle_b.py": "from .cycle_a import x",
    "data/not_a_cycle.py": "from typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    from .cycle_b import y\n",
    "models/__init__.py": "",
    "models/head.py": "import zuko.flows",
    "training/__init__.py": "",
    "training/loop.py": "from ..models import head\nfrom pkg.inference import posterior\n"
    "import zuko",
    "inference/__init__.py": "",
    "inference/posterior.py": "from .. import errors",
}


@pytest.fixture
def bad_tree(tmp_path) -> Path:
    for name, text in BAD_TREE.items():
        path = tmp_path / "pkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "pkg"


def test_the_checkers_catch_a_bad_tree(bad_tree):
    found = imports_of(bad_tree)
    assert wrong_arrows(found, RANKS) == [
        "pkg.data.noise:2 imports pkg.models.head",
        "pkg.errors:1 imports pkg.data.noise",
        "pkg.training.loop:2 imports pkg.inference.posterior",
    ]
    assert find_cycle(found) == ["pkg.data.cycle_a", "pkg.data.cycle_b", "pkg.data.cycle_a"]
    assert strangers(found, {"zuko": ["models/*"]}, bad_tree) == [
        "pkg.training.loop:3 imports zuko"
    ]


def run_python(code: str) -> str:
    """Runs code in a fresh interpreter and returns what it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_importing_the_package_loads_nothing_heavy():
    code = "import json, sys, deeplegato_pp; print(json.dumps(sorted(sys.modules)))"
    assert not set(HEAVY) & set(json.loads(run_python(code)))


def test_importing_every_module_leaves_torch_as_it_was():
    names = [name for name in modules_of(PACKAGE) if not name.endswith("__main__")]
    code = f"""
import importlib, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from conftest import changed_torch_globals, torch_globals
before = torch_globals()
for name in {names!r}:
    importlib.import_module(name)
print(changed_torch_globals(before))
"""
    assert run_python(code) == "[]"


WINDOWS = [
    name
    for name, path in modules_of(PACKAGE).items()
    if path.name == "__init__.py" and "lazy_exports" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("package", WINDOWS)
def test_the_window_shows_type_checkers_what_it_shows_python(package):
    path = modules_of(PACKAGE)[package]
    exported = importlib.import_module(package).__all__
    shown = [
        alias.asname
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    ]
    assert sorted(shown) == exported
    assert len(exported) <= 20


@pytest.mark.parametrize("package", WINDOWS)
def test_every_exported_name_is_there(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert type(getattr(module, name)).__name__ != "module", name
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        module.nonsense  # noqa: B018
