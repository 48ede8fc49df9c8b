"""Moved to ``deeplegato_pp.inference.fit.modes``; this name goes with version 0.3."""

from .._lazy import moved_module

__getattr__ = moved_module(__name__, "deeplegato_pp.inference.fit.modes")
