"""Pages made from the code: command line, columns, configuration, API; and copies of files."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

COPIES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "license.md",
    "src/deeplegato_pp/pretrained/default/README.md": "model_card.md",
}
"""Files elsewhere in the repository that are pages of the site too."""

NOTEBOOKS = {
    "notebooks/01_First_Galaxy.ipynb": "first_galaxy_notebook.md",
    "notebooks/03_Training.ipynb": "training_notebook.md",
}
"""Notebooks that are pages of the site as text and code, not run."""

WINDOWS = (
    "deeplegato_pp",
    "deeplegato_pp.data",
    "deeplegato_pp.models",
    "deeplegato_pp.training",
    "deeplegato_pp.inference",
    "deeplegato_pp.export",
    "deeplegato_pp.diagnostics",
    "deeplegato_pp.errors",
)
"""Packages whose public names the API reference lists; a name stands where it is met first."""


def write(folder: Path) -> None:
    """Writes all generated pages into a folder, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pages = {
        "command_line.md": command_line(),
        "columns.md": columns(),
        "configuration.md": configuration(),
        "api.md": api(),
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    for source, name in COPIES.items():
        (folder / name).write_text(copy_of(ROOT / source), encoding="utf-8")
    for source, name in NOTEBOOKS.items():
        (folder / name).write_text(_as_page(ROOT / source), encoding="utf-8")


def copy_of(path: Path) -> str:
    """Returns a file of the repository as a page of the site.

    Raises:
        ValueError: If it links to a file of which no page is made.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".md":
        return f"# {path.name.capitalize()}\n\n```text\n{text}```\n"
    return _links(text, path.parent)


def command_line() -> str:
    """Returns the help of every command."""
    from deeplegato_pp.cli.app import app, main

    names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    parts = ["# Command line\n"]
    for words in ([], *([name] for name in names)):
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            main([*words, "--help"])
        parts.append(
            f"## deeplegato {' '.join(words)}\n\n```text\n{text.getvalue().strip()}\n```\n"
        )
    return "\n".join(parts)


def columns() -> str:
    """Returns the table of all columns."""
    from deeplegato_pp.catalog.columns import descriptions, units

    known = units()
    about = (
        "Those of a catalogue; a table of `deeplegato predict` has `file` in place of a position.\n"
    )
    lines = ["# Columns\n", about, "| column | unit | meaning |", "|---|---|---|"]
    lines += [f"| `{n}` | {known[n]} | {_cell(text)} |" for n, text in descriptions().items()]
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """Returns the tables of all configuration keys with their defaults."""
    from deeplegato_pp.config import Config

    lines = ["# Configuration\n", "Keys of the YAML files and of `key=value` overrides.\n"]
    _section(Config(), "", lines)
    return "\n".join(lines) + "\n"


def _section(values: Any, prefix: str, lines: list[str]) -> None:
    meanings = _attributes(type(values))
    fields = [(f.name, getattr(values, f.name)) for f in dataclasses.fields(values)]
    plain = [(name, value) for name, value in fields if not dataclasses.is_dataclass(value)]
    if plain:
        lines.append(f"\n## {prefix.rstrip('.') or 'top'}\n")
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for name, value in plain:
            shown = list(value) if isinstance(value, tuple) else value
            lines.append(f"| `{prefix}{name}` | `{shown}` | {_cell(meanings.get(name, ''))} |")
    for name, value in fields:
        if dataclasses.is_dataclass(value):
            _section(value, f"{prefix}{name}.", lines)


def _attributes(kind: type) -> dict[str, str]:
    """Returns what a class's docstring says of its attributes."""
    text = inspect.getdoc(kind) or ""
    found = re.search(r"^(?:Attributes|Args):\n((?:(?: .*)?\n?)*)", text, re.MULTILINE)
    if found is None:
        return {}
    entries = re.split(r"\n(?= {4}\w+:)", found[1])
    pairs = (entry.strip().split(":", 1) for entry in entries if ":" in entry)
    return {name.strip(): " ".join(meaning.split()) for name, meaning in pairs}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def api() -> str:
    """Returns the API reference: every public name once."""
    seen: set[int] = set()
    parts = ["# Python\n"]
    for window in WINDOWS:
        module = importlib.import_module(window)
        public = [n for n, v in vars(module).items() if inspect.isclass(v)]
        names = getattr(module, "__all__", public)
        directives = [_directive(window, name, getattr(module, name), seen) for name in names]
        if any(directives):
            parts += [f"## {window}\n", *filter(None, directives)]
    return "\n".join(parts)


def _directive(window: str, name: str, thing: Any, seen: set[int]) -> str:
    if (
        id(thing) in seen
        or inspect.ismodule(thing)
        or not (inspect.isclass(thing) or callable(thing))
    ):
        return ""
    seen.add(id(thing))
    kind, options = ("autofunction", "")
    if inspect.isclass(thing):
        kind, options = "autoclass", "   :members:\n   :show-inheritance:\n"
    return f"```{{eval-rst}}\n.. {kind}:: {window}.{name}\n{options}```\n"


def _links(text: str, folder: Path) -> str:
    """Leads the links of a file of the repository to the site's pages."""

    def lead(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if target.startswith(("http", "mailto:")):
            return match[0]
        path = (folder / target).resolve().relative_to(ROOT).as_posix()
        if path in COPIES:
            return f"]({COPIES[path]}{anchor})"
        if path.startswith("docs/"):
            return f"](/{path.removeprefix('docs/')}{anchor})"
        raise ValueError(f"{path} is linked to, and no page of the site is made of it")

    return re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", lead, text)


def _as_page(path: Path) -> str:
    """Returns a notebook as a page: its text and code, not run."""
    import json

    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"
