"""Keyword arguments of network components as settings of a configuration section."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from deeplegato_pp.errors import ConfigError

C = TypeVar("C")


def with_options(
    settings: C, options: Mapping[str, Any], what: str, foreign: Collection[str] = ()
) -> C:
    """Returns a section of the configuration with some settings replaced.

    Args:
        settings: Dataclass of settings.
        options: New values by name.
        what: Name of the component, for the message.
        foreign: Settings of the section that do not apply to the component.

    Raises:
        ConfigError: If a setting does not exist; the message lists the existing ones.

    Example:
        >>> from deeplegato_pp.config import NPEConfig
        >>> with_options(NPEConfig(), {"hidden_dim": 256}, "NPEHead").hidden_dim
        256
    """
    known = sorted({f.name for f in fields(settings)} - set(foreign))  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{what} has no option {name!r}{guess}. It takes {', '.join(known)}.")
    return replace(settings, **options)  # type: ignore[type-var]
