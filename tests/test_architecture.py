"""The folders of the package: which way imports point, and where each heavy library lives."""

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

RANKS = {
    "": 0,
    "flags": 1,
    "stats": 2,
    "config": 2,
    "io": 2,
    "observation": 3,
    "scene.render": 4,
    "scene": 5,
    "diagnostics": 6,
    "data": 6,
    "models": 6,
    "training": 7,
    "inference.sampling": 7,
    "inference.fit": 8,
    "inference.verdict": 9,
    "inference.posterior": 10,
    "inference.refine": 11,
    "inference": 12,
    "calibration": 13,
    "catalog": 13,
    "export": 13,
    "report": 14,
    "view": 15,
    "cli": 16,
}
"""A folder imports from itself and from lower ranks; the modules at the top are folder "".

Rooms that do not know each other although their ranks would allow it stand in STRANGERS.
"""

STRANGERS = [("inference", "data"), ("inference", "training"), ("training", "diagnostics")]
"""Rooms that do not know each other although their ranks would allow it."""

LARGEST_SHARE = 0.30
"""Part of the package's lines that one folder may hold, its sub-folders included."""

FLAT = {"": 9, "inference": 10}
"""Modules that may stand loose in a folder; those that only point to a new place do not count."""

RESOURCES = {"examples", "pretrained", "configs"}
"""Folders of files that ship: nothing to run."""

HOMES = {
    "timm": ["models/swin_backbone.py", "training/optimizer.py"],
    "zuko": ["models/*"],
    "pytorch_lightning": ["training/*"],
    "astropy": [
        "io/*",
        "observation/*",
        "data/*",
        "inference/posterior/*",
        "catalog/*",
        "export/*",
        "view/*",
    ],
    "pyarrow": ["inference/posterior/*", "catalog/*"],
    "photutils": ["catalog/segmentation.py"],
    "skimage": ["catalog/segmentation.py"],
    "distributed": ["catalog/workers.py"],
    "matplotlib": ["inference/posterior/*plot*.py", "calibration/figures.py", "catalog/plots.py"],
    "corner": ["inference/posterior/plots.py"],
    "emcee": ["inference/sampling/*"],
    "omegaconf": ["config/layers.py", "cli/*"],
    "huggingface_hub": ["models/*"],
    "safetensors": ["data/chunks.py", "models/*"],
    "panel": ["view/*"],
    "bokeh": ["view/*"],
    "pandas": ["view/app.py"],
    "pyvo": ["view/samp.py"],
    "jinja2": ["report/details.py"],
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


def folder_of(module: str, folders: dict[str, int]) -> str:
    """The innermost folder in which a module stands."""
    parts = module.split(".")[1:]
    names = (".".join(parts[:depth]) for depth in (2, 1))
    return next((name for name in names if name in folders), "")


def wrong_arrows(imports: list[Import], folders: dict[str, int]) -> list[str]:
    """The imports inside the package that point up or sideways."""
    wrong = []
    for arrow in imports:
        parts = arrow.importer.split("."), arrow.target.split(".")
        if parts[1][0] != parts[0][0] or parts[0][1:] in ([], ["__main__"]):
            continue  # not ours, or an entrance: the package itself, and `python -m`
        here, there = folder_of(arrow.importer, folders), folder_of(arrow.target, folders)
        if here != there and folders[there] >= folders[here]:
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


def test_every_folder_has_a_rank():
    folders = {p.parent.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py")} - {Path()}
    assert {".".join(folder.parts) for folder in folders} == set(RANKS) - {""}
    other = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert other <= {name.partition(".")[0] for name in RANKS} | RESOURCES


def test_imports_point_one_way(imports):
    assert imports, "found nothing to check"
    assert not wrong_arrows(imports, RANKS)


def test_no_cycles(imports):
    assert not find_cycle(imports)


@pytest.mark.parametrize(("folder", "other"), STRANGERS)
def test_these_folders_do_not_import_each_other(imports, folder, other):
    prefix, target = f"{NAME}.{folder}.", f"{NAME}.{other}"
    assert not [str(a) for a in imports if a.importer.startswith(prefix) and target in a.target]


def is_shim(path: Path) -> bool:
    return "moved_module(" in path.read_text(encoding="utf-8") and path.name != "_lazy.py"


def test_no_folder_is_crowded():
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    folders: dict[str, int] = {}
    for path, number in lines.items():
        folder = path.relative_to(PACKAGE).parts[0]
        folders[folder] = folders.get(folder, 0) + number
    largest = max(folders, key=folders.__getitem__)
    assert folders[largest] <= LARGEST_SHARE * sum(lines.values()), largest
    for folder, most in FLAT.items():
        loose = [p for p in (PACKAGE / folder).glob("*.py") if not is_shim(p)]
        assert len([p for p in loose if p.name != "__init__.py"]) <= most, folder


SHIMS = [name for name, path in modules_of(PACKAGE).items() if is_shim(path)]


@pytest.mark.parametrize("name", SHIMS)
def test_a_moved_module_still_hands_out_its_names(name):
    old = importlib.import_module(name)
    new = importlib.import_module(re.search(r"``([\w.]+)``", old.__doc__).group(1))
    public = [
        n
        for n, v in vars(new).items()
        if str(getattr(v, "__module__", "")).startswith(new.__name__)
    ]
    with pytest.warns(DeprecationWarning, match="has moved"):
        assert getattr(old, public[0]) is getattr(new, public[0])
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        old.nonsense  # noqa: B018


def test_moved_names_of_a_window_still_work():
    inference, export = (importlib.import_module(f"{NAME}.{n}") for n in ("inference", "export"))
    with pytest.warns(DeprecationWarning, match="has moved"):
        assert inference.export_onnx is export.export_onnx
    assert "export_onnx" not in inference.__all__


def test_each_library_has_one_home(imports):
    assert not strangers(imports, HOMES, PACKAGE)


def test_imported_libraries_are_declared_and_the_other_way_round(imports):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["survey"], *extras["view"]]
    names = [re.match(r"[\w-]+", line).group() for line in lines]
    declared = {DISTRIBUTIONS.get(name, name) for name in names}
    roots = {arrow.target.split(".")[0] for arrow in imports}
    assert roots - {NAME} - set(sys.stdlib_module_names) == declared


ONCE = {
    "Array": "arrays.py",
    "MAD_TO_SIGMA": "observation/noise_maps.py",
    "GOOD_KHAT": "stats/pareto.py",
}
"""Names that are defined in one module only, from which the others import them."""


def repeated(path: Path) -> list[str]:
    """Definitions and literal values of the names in ONCE in a module that is not their home."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign):
            found |= {t.id for t in node.targets if isinstance(t, ast.Name)} & set(ONCE)
        elif isinstance(node, ast.Constant) and isinstance(node.value, float):
            found |= {"MAD_TO_SIGMA as a number"} if abs(node.value - 1.4826) < 1e-3 else set()
        elif isinstance(node, ast.Compare) and "khat" in ast.unparse(node):
            values = {n.value for n in node.comparators if isinstance(n, ast.Constant)}
            found |= {"GOOD_KHAT as a number"} if 0.7 in values else set()
    return sorted(f"{path.name}: {name}" for name in found)


def test_shared_constants_are_defined_once():
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).as_posix()
        homes = {f"{path.name}: {name}" for name, home in ONCE.items() if home == here}
        assert {f.removesuffix(" as a number") for f in repeated(path)} == homes, here


def test_repeated_constants_are_found(tmp_path):
    (tmp_path / "m.py").write_text("Array = int\nx = 1.4826 * y\ngood = row.khat < 0.7\n")
    assert repeated(tmp_path / "m.py") == [
        "m.py: Array",
        "m.py: GOOD_KHAT as a number",
        "m.py: MAD_TO_SIGMA as a number",
    ]


BAD_TREE = {
    "__init__.py": "",
    "errors.py": "from .data import noise",
    "data/__init__.py": "",
    "data/noise.py": "def f():\n    from ..models.head import g",
    "data/psf.py": "from . import noise\nfrom ..errors import E",
    "data/cycle_a.py": "import pkg.data.cycle_b",
    "data/cycle_b.py": "from typing import TYPE_CHECKING\n"
    "if TYPE_CHECKING:\n    def f():\n        from .cycle_a import x",
    "models/__init__.py": "",
    "models/head.py": "import zuko.flows",
    "training/__init__.py": "",
    "training/loop.py": "from ..models import head\nfrom pkg.inference import posterior\n"
    "import zuko",
    "inference/__init__.py": "",
    "inference/posterior.py": "from .. import errors",
    "inference/fit/__init__.py": "",
    "inference/fit/fit.py": "from ..posterior import P",
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
        "pkg.inference.fit.fit:1 imports pkg.inference.posterior",
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
        if alias.asname and not alias.asname.startswith("__")
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
