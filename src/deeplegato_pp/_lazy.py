"""Lazy imports of exported names, and deprecated import paths."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


class _Window(ModuleType):
    """Package in which an exported name takes precedence over a submodule of the same name.

    Importing ``package.train`` makes Python set ``package.train`` to the module, which would hide
    the exported function ``train``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        is_submodule = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        if is_submodule and name in self.__dict__.get("__all__", ()):
            value = getattr(value, name)
        super().__setattr__(name, value)


def lazy_exports(
    module_name: str, exports: Mapping[str, str], *, moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes the module attributes with which a package exports names without importing them.

    Args:
        module_name: The package's ``__name__``.
        exports: Module that defines each exported name, relative to the package (``".predictor"``,
            ``"..parameters"``).
        moved: Full names of the packages that export moved names: these names still work, with a
            ``DeprecationWarning``, and are not listed.

    Returns:
        The package's ``__getattr__``, ``__dir__`` (PEP 562) and ``__all__``.

    Example:
        >>> getter, _, names = lazy_exports("collections", {"Mapping": ".abc"})
        >>> names, getter("Mapping").__name__
        (['Mapping'], 'Mapping')
    """
    names = sorted(exports)
    if any(target.rpartition(".")[2] == name for name, target in exports.items()):
        sys.modules[module_name].__class__ = _Window

    def __getattr__(name: str) -> Any:
        if moved and name in moved:
            return moved_name(module_name, name, moved[name])
        if name not in exports:
            raise AttributeError(f"module {module_name!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(exports[name], module_name), name)
        setattr(sys.modules[module_name], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[module_name]), *names})

    return __getattr__, __dir__, names


def moved_module(old: str, new: str) -> Callable[[str], Any]:
    """Makes the ``__getattr__`` of a module that remains under the old name of a moved one.

    Args:
        old: The old module's full name.
        new: The full name of the module that contains its names now.

    Returns:
        A function that returns the new module's names with a ``DeprecationWarning``.
    """

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        return moved_name(old, name, new)

    return __getattr__


def moved_name(old: str, name: str, new: str) -> Any:
    """Returns a name that has moved to another module, with a ``DeprecationWarning``.

    Args:
        old: Full name of the module or class in which it was.
        name: The name.
        new: Full name of the module in which it is.

    Raises:
        AttributeError: If the new module has no such name.
    """
    target = importlib.import_module(new)
    if not hasattr(target, name):
        raise AttributeError(f"module {old!r} has no attribute {name!r}")
    warnings.warn(
        f"{old}.{name} has moved: import it from {new}. The old name goes with version 0.3.",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(target, name)
