"""Reads a package's imports from its syntax trees, without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One import: the module that does it, what it names, and when it happens."""

    importer: str
    target: str
    line: int
    at_import: bool
    """True if it runs when the importer is imported: not in a function, not for type checkers."""

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
        Import(name, target, line, at_import)
        for name, path in modules.items()
        for target, line, at_import in _module_imports(name, path, set(modules))
    ]


def _module_imports(name: str, path: Path, modules: set[str]) -> Iterator[tuple[str, int, bool]]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node, at_import in _walk(tree, True):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, at_import
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base]) if base else ".".join(parts)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in modules else base, node.lineno, at_import


def _walk(node: ast.AST, at_import: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, at_import
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, False)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield part, False
                yield from _walk(part, False)
            for part in child.orelse:
                yield part, at_import
                yield from _walk(part, at_import)
        else:
            yield from _walk(child, at_import)


def find_cycle(imports: list[Import]) -> list[str]:
    """A cycle among the imports that run at import time, or an empty list."""
    graph: dict[str, set[str]] = {}
    for arrow in imports:
        if arrow.at_import and arrow.importer != arrow.target:
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
