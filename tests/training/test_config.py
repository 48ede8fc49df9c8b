"""Configuration: what may be set is read, and what is unknown is refused by its dotted name."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import deeplegato_pp
from deeplegato_pp import config as config_module
from deeplegato_pp.config import CONFIG_DIR, Config, load_config
from deeplegato_pp.errors import ConfigError

PACKAGE = Path(deeplegato_pp.__file__).parent
SCHEMA = [
    value
    for value in vars(config_module).values()
    if dataclasses.is_dataclass(value) and value.__module__ == config_module.__name__
]


def attributes_read() -> set[str]:
    """The names of all attributes that the package reads, the schema's own file left out."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        if path == Path(config_module.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return names


def test_every_setting_is_read_somewhere():
    settings = {f"{c.__name__}.{f.name}": f.name for c in SCHEMA for f in dataclasses.fields(c)}
    assert len(SCHEMA) == 9
    read = attributes_read()
    assert [dotted for dotted, name in settings.items() if name not in read] == []


def test_every_setting_is_described():
    for c in SCHEMA:
        if c.__name__ in {"Config", "ModelConfig"}:
            continue
        for field in dataclasses.fields(c):
            assert f"        {field.name}: " in f"    {c.__doc__}", f"{c.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("source", "overrides", "dotted"),
    [
        ({"training": {"lerning_rate": 1.0}}, [], "training.lerning_rate"),
        (None, ["model.backbone.nose=3"], "model.backbone.nose"),
        (None, ["nonsense=1"], "nonsense"),
        (None, ["training.batch_size=many"], "training.batch_size"),
        (None, ["data.conditions.gain=abc"], "data.conditions.gain"),
        (None, ["training.seed=${nowhere}"], "seed"),
    ],
)
def test_what_is_unknown_or_of_the_wrong_type_is_named(source, overrides, dotted):
    with pytest.raises(ConfigError, match=dotted.replace(".", r"\.")):
        load_config(source, overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "is not YAML"), ("- 1\n- 2", "holds a list"), ("just words", "just words")],
)
def test_a_file_that_is_no_configuration(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_lists_the_packaged_ones():
    with pytest.raises(ConfigError, match=r"No configuration file nowhere\.yaml.*cpu, default"):
        load_config("nowhere.yaml")


def test_interpolations_resolve_and_overrides_win(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training: {max_steps: 8, decay_steps: '${training.max_steps}'}")
    config = load_config(path, ["training.max_steps=16"])
    assert config.training.decay_steps == 16


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("# nothing\n")
    assert load_config(path).to_dict() == load_config().to_dict()


@pytest.mark.parametrize("name", sorted(p.stem for p in CONFIG_DIR.glob("*.yaml")))
def test_shipped_configurations_survive_the_way_through_a_file(name):
    config = load_config(name)
    assert isinstance(config, Config)
    assert load_config(config.to_dict()) == config
    assert load_config(CONFIG_DIR / f"{name}.yaml") == config
