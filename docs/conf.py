"""Configuration of the documentation site: ``make docs``, or Read the Docs."""

from __future__ import annotations

import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import reference  # noqa: E402

from deeplegato_pp import __version__  # noqa: E402

project = "DeepLeGATo++"
author = "The DeepLeGATo++ developers"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
suppress_warnings = ["mystnb.unknown_mime_type"]
default_role = "code"
html_theme = "furo"
html_title = f"{project} {version}"
html_extra_path = ["llms.txt"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_output_stderr = "remove"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings name shapes and units, which the types do not
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False

INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "astropy": "https://docs.astropy.org/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}


def reachable(address: str) -> bool:
    """Whether another project's inventory can be fetched: offline its links are left out."""
    try:
        with urllib.request.urlopen(f"{address}objects.inv", timeout=5):
            return True
    except OSError:
        return False


intersphinx_mapping = {name: (at, None) for name, at in INVENTORIES.items() if reachable(at)}
if intersphinx_mapping:
    extensions.append("sphinx.ext.intersphinx")


def read_source(app: Any, name: str, content: list[str]) -> None:
    """Leads links out of ``docs`` to the pages made of their files; graphs are shown as text."""
    text = content[0]
    for file, page in (reference.COPIES | reference.NOTEBOOKS).items():
        text = text.replace(f"](../{file}", f"](/_generated/{page}")
    content[0] = text.replace("```mermaid", "```text")


def process_docstring(
    app: Any, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Keeps a lone asterisk of a shape, as in (*,), from beginning an emphasis."""
    lines[:] = [re.sub(r"(?<![\\*\w`:])\*(?=[,)\w ])(?![^`]*`)", r"\\*", line) for line in lines]


def setup(app: Any) -> None:
    """Writes the generated pages before anything is read."""
    reference.write(HERE / "_generated")
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", process_docstring)
