"""The graphs and the sizes in docs/architecture.md come from the code.

`python tests/test_module_graph.py` writes them anew.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # to run as a script

from arrows import imports_of

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "deeplegato_pp"
PAGE = ROOT / "docs" / "architecture.md"
ROOMS = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))
DRAWN = ("folders", "inference", "training")


def folder_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "base"


def folder_edges() -> set[tuple[str, str]]:
    """Which folders import from which; the entrance of `python -m` is left out."""
    arrows = [a for a in imports_of(PACKAGE) if a.target.startswith("deeplegato_pp")]
    arrows = [a for a in arrows if a.importer != "deeplegato_pp.__main__"]
    pairs = {(folder_of(a.importer), folder_of(a.target)) for a in arrows if "." in a.importer}
    return {(a, b) for a, b in pairs if a != b}


def subfolder_edges(folder: str) -> set[tuple[str, str]]:
    """Which sub-folders of a folder import from which; its own modules count as one."""
    prefix = f"deeplegato_pp.{folder}."

    def place(module: str) -> str:
        parts = module.removeprefix(prefix).split(".")
        return parts[0] if len(parts) > 1 or (PACKAGE / folder / parts[0]).is_dir() else folder

    arrows = imports_of(PACKAGE)
    own = [a for a in arrows if a.importer.startswith(prefix) and a.target.startswith(prefix)]
    pairs = {(place(a.importer), place(a.target)) for a in own}
    return {(a, b) for a, b in pairs if a != b}


def module_edges(folder: str) -> set[tuple[str, str]]:
    """Which modules of a folder import one another, the shop window left out."""
    prefix = f"deeplegato_pp.{folder}."
    return {
        (a.importer.removeprefix(prefix), a.target.removeprefix(prefix))
        for a in imports_of(PACKAGE)
        if a.importer.startswith(prefix) and a.target.startswith(prefix)
    }


def drawing(name: str) -> str:
    edges = {"folders": folder_edges, "inference": lambda: subfolder_edges("inference")}.get(
        name, lambda: module_edges(name)
    )()
    lines = [f"  {a} --> {b}" for a, b in sorted(edges)]
    return "\n".join(["```mermaid", "graph LR", *lines, "```"])


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def shares() -> dict[str, float]:
    """The share of the package's lines in each folder, in per cent."""
    lines: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).parts
        lines[parts[0] if len(parts) > 1 else "top"] += lines_of(path)
    return {folder: 100.0 * number / lines.total() for folder, number in lines.most_common()}


def sizes() -> str:
    """The page's table of sizes."""
    files = {path: lines_of(path) for path in PACKAGE.rglob("*.py")}
    functions = [
        node.end_lineno - node.lineno + 1
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    ]
    largest = max(files, key=files.__getitem__)
    return "\n".join(
        [
            f"{len(files)} files, {sum(files.values()):,} lines; a file has {files[largest]} lines "
            f"at most (`{largest.relative_to(PACKAGE).as_posix()}`) and "
            f"{statistics.median(files.values()):.0f} in the median, a function "
            f"{statistics.median(functions):.0f} in the median.",
            "",
            "| part | share of the lines |",
            "|---|---|",
            *(f"| `{folder}` | {share:.0f} % |" for folder, share in shares().items()),
        ]
    )


def marked(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- graph: {name} -->\n).*?(?=\n<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("name", DRAWN)
def test_the_page_shows_the_code(name):
    found = marked(name).search(PAGE.read_text(encoding="utf-8"))
    assert found, f"no graph {name} on the page"
    assert found.group() == drawing(name), "run: python tests/test_module_graph.py"


def test_the_page_tells_the_sizes():
    found = marked("sizes").search(PAGE.read_text(encoding="utf-8"))
    assert found, "no sizes on the page"
    told = {
        folder: float(share) for folder, share in re.findall(r"`(\w+)` \| (\d+) %", found.group())
    }
    assert told == pytest.approx(shares(), abs=2.5), "run: python tests/test_module_graph.py"


def test_the_graph_of_the_folders_points_one_way():
    edges = folder_edges()
    assert ("training", "inference") not in edges
    assert ("cli", "training") in edges
    assert not {(b, a) for a, b in edges} & edges


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for graph in DRAWN:
        text = marked(graph).sub(lambda _, g=graph: drawing(g), text, count=1)
    text = marked("sizes").sub(lambda _: sizes(), text, count=1)
    PAGE.write_text(text, encoding="utf-8")
