"""Reading and merging of configurations, with errors that name the key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from deeplegato_pp.config.ranges import check_ranges
from deeplegato_pp.config.spelling import Layer, normalise, settle
from deeplegato_pp.errors import ConfigError

CONFIG_DIR = Path(__file__).parents[1] / "configs"

INCLUDE = "include"
"""Key of a file, or of the overrides, that names the configurations below it."""

LOOKED_UP = "_looked_up"
"""Attribute of a configuration that lists values taken from the environment."""

Source = str | os.PathLike[str] | Mapping[str, Any] | None

_DEEPEST = 5
"""Maximum depth of nested includes; a greater depth indicates a circle."""


def merge(schema: type, sources: Sequence[Source], overrides: Sequence[str]) -> Any:
    """Returns an object of the schema, filled from layered sources.

    Args:
        schema: A dataclass with a ``data`` section, such as
            :class:`~deeplegato_pp.config.Config`.
        sources: YAML files, names of packaged ones, nested dictionaries, or None; later ones take
            precedence.
        overrides: ``"section.key=value"`` strings, applied last.

    Raises:
        ConfigError: If a file is missing or a key is unknown or has the wrong type; the message
            contains the dotted name.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        layers: list[Layer] = []
        for source in sources:
            layers += _with_includes(_layer(source))
        layers += _with_includes(_overrides(overrides))
        made = [OmegaConf.create(_with_float_priors(layer)) for layer in layers]
        merged = OmegaConf.merge(OmegaConf.structured(schema), *made)
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        key = getattr(error, "full_key", None) or "?"
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"Configuration key {key}: {first_line}") from error
    _lists_to_tuples(config)
    check_ranges(config)
    settle(config)
    setattr(config, LOOKED_UP, _looked_up(OmegaConf.to_container(merged)))
    return config


def _lists_to_tuples(config: Any) -> None:
    """Converts lists to the schema's tuples: OmegaConf 2.3 returns lists for them."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _lists_to_tuples(value)
        elif isinstance(value, list) and get_origin(hints[field.name]) is tuple:
            setattr(config, field.name, tuple(value))


def _with_float_priors(layer: Layer) -> Layer:
    """Converts integers of the priors to floats: OmegaConf 2.3 rejects integers in their lists."""
    data = layer.get("data")
    priors = data.get("priors") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(priors, dict):
        return layer
    floats = {
        name: [float(v) if type(v) is int else v for v in pair]
        if isinstance(pair, list | tuple)
        else pair
        for name, pair in priors.items()
    }
    return layer | {"data": data | {"priors": floats}}


def _layer(source: Source) -> Layer:
    """Returns the contents of a source as plain dictionaries."""
    from omegaconf import DictConfig

    if isinstance(source, DictConfig):
        plain: Layer = _plain(source)
        return plain
    return dict(source) if isinstance(source, Mapping) else _read(source)


def _looked_up(content: Any) -> tuple[str, ...]:
    """Returns the dotted keys of values that may contain environment variables."""
    raw = dict(_leaves(content))
    referring = tuple(key for key, text in raw.items() if "${" in text)
    return referring if any("${oc." in raw[key] for key in referring) else ()


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted keys of all values with their unresolved text; a list is one value."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(content)


def _with_includes(layer: Layer, depth: int = 0) -> list[Layer]:
    """Returns a layer preceded by those that it includes, all with the schema's spelling."""
    layer = dict(layer)
    names = layer.pop(INCLUDE, [])
    listed = [names] if isinstance(names, str) else names
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ConfigError(
            f"Configuration key {INCLUDE} names files, one or a list of them, got {names!r}."
        )
    if depth > _DEEPEST:
        raise ConfigError(f"Configuration key {INCLUDE}: {names} include one another in a circle.")
    layers: list[Layer] = []
    for name in listed:
        layers += _with_includes(_read(name), depth + 1)
    return [*layers, normalise(layer)]


def _overrides(texts: Sequence[str]) -> Layer:
    """Parses assignments of the command line."""
    from omegaconf import OmegaConf

    for text in texts:
        key, equals, _ = text.partition("=")
        if not (equals and all(name.isidentifier() for name in key.split("."))):
            raise ConfigError(
                f"{text!r} is no setting, expected section.key=value, e.g. training.batch_size=8."
            )
        try:
            OmegaConf.from_dotlist([text])
        except Exception as error:  # the YAML library's errors have no common builtin base
            raise ConfigError(
                f"Configuration key {key}: {text[len(key) + 1 :]!r} cannot be read as a value. "
                "Brackets and quotes come in pairs."
            ) from error
    found: Layer = _plain(OmegaConf.from_dotlist(list(texts)))
    return found


def _read(source: str | os.PathLike[str] | None) -> Layer:
    """Reads a YAML file without resolving interpolations."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if source is None:
        return {}
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(
            f"A configuration is a YAML file, the name of a packaged one, nested dictionaries or "
            f"a Config, got {type(source).__name__}."
        )
    path = _find(Path(source))
    try:
        content = _plain(OmegaConf.load(path))
    except OmegaConfBaseException:
        raise
    except Exception as error:  # the YAML library's errors have no common builtin base
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds a {type(content).__name__}, and a configuration is a mapping of "
            "sections: model, data, training, validation, logging."
        )
    return content


def _plain(content: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(content)


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    for name in (str(path), path.name):
        packaged = CONFIG_DIR / f"{name.removesuffix('.yaml')}.yaml"
        if packaged.is_file():
            return packaged
    known = ", ".join(
        sorted(str(p.relative_to(CONFIG_DIR).with_suffix("")) for p in CONFIG_DIR.rglob("*.yaml"))
    )
    raise ConfigError(f"No configuration file {path}. Give a YAML file or one of: {known}.")
