"""Reads a package's imports from its syntax trees, without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import, wherever it stands: at the top, in a function, or for type checkers only."""

    importer: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def modules_of(package: Path) -> dict[str, Path]:
    """The dotted name of every module under a package's folder."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports_of(package: Path) -> list[Import]:
    """Every import of every module of a package, the names inside the package resolved."""
    modules = modules_of(package)
    return [
        Import(name, target, line)
        for name, path in modules.items()
        for target, line in _module_imports(name, path, set(modules))
    ]


def _module_imports(name: str, path: Path, modules: set[str]) -> Iterator[tuple[str, int]]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base]) if base else ".".join(parts)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in modules else base, node.lineno


def find_cycle(imports: list[Import]) -> list[str]:
    """A cycle among the imports, or an empty list."""
    graph: dict[str, set[str]] = {}
    for arrow in imports:
        if arrow.importer != arrow.target:
            graph.setdefault(arrow.importer, set()).add(arrow.target)
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if cycle := visit(target, [*trail, node]):
                return cycle
        done.add(node)
        return []

    return next((cycle for node in sorted(graph) if (cycle := visit(node, []))), [])
