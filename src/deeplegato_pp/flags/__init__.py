"""Bit flags of results: one registry, from which ``docs/flags.md`` is written."""

from deeplegato_pp.flags.about import LEVELS, About
from deeplegato_pp.flags.flag import STATEMENTS, Flag
from deeplegato_pp.flags.page import flags_markdown

__all__ = ["LEVELS", "STATEMENTS", "About", "Flag", "flags_markdown"]
