"""Configurations: defaults, files, overrides, errors, and no field without a reader."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from deeplegato_pp.config import schema as module
from deeplegato_pp.config.schema import CONFIG_DIR, ConditionsConfig, Config, load_config
from deeplegato_pp.errors import ConfigError

PACKAGE = Path(module.__file__).parents[1]
SHIPPED = sorted(CONFIG_DIR.glob("*.yaml"))


def schemas() -> list[type]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and dataclasses.is_dataclass(value)
    ]


def test_defaults_are_the_dataclasses():
    assert load_config() == Config()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_files_load_by_path_and_by_name(path):
    assert load_config(path) == load_config(path.stem) == load_config(path.name)


def test_some_files_ship():
    assert {"default"} <= {p.stem for p in SHIPPED}


def test_dictionaries_round_trip():
    changed = load_config({"training": {"batch_size": 7}})
    assert changed.training.batch_size == 7
    assert load_config(changed.to_dict()) == changed


def test_ranges_say_what_training_met():
    met = ConditionsConfig(noise_correlation=(2.0, 4.0), correlated_noise=0.1).ranges()
    assert met["noise_correlation"] == [2.0, 4.0]
    assert met["psf_fwhm"] == [1.0, 6.0]
    assert ConditionsConfig(correlated_noise=0.0).ranges()["noise_correlation"] == [1.0, 1.0]


def test_overrides_come_last(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {batch_size: 3, seed: 5}\n")
    loaded = load_config(path, ["training.batch_size=9", "data.conditions.gain=[2.0,50.0]"])
    assert (loaded.training.batch_size, loaded.training.seed) == (9, 5)
    assert list(loaded.data.conditions.gain) == [2.0, 50.0]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["training.batchsize=3"], "training.batchsize"),
        (["data.conditions.fog=1"], "data.conditions.fog"),
        (["training.batch_size=many"], "training.batch_size"),
        (["nonsense=1"], "nonsense"),
    ],
)
def test_wrong_keys_and_types_are_named(overrides, name):
    with pytest.raises(ConfigError, match=name):
        load_config(None, overrides)


def test_unknown_key_in_a_file_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("model: {backbone: {depth: 3}}\n")
    with pytest.raises(ConfigError, match=r"model\.backbone\.depth"):
        load_config(path)


def test_missing_file_lists_the_packaged_ones():
    with pytest.raises(ConfigError, match=r"No configuration file nowhere.*default"):
        load_config("nowhere")


def test_clean_conditions_keep_instruments_and_drop_clutter():
    dirty = ConditionsConfig(psf_fwhm=(2.0, 3.0), gain=(5.0, 6.0), fixed_variance=0.25)
    clean = dirty.clean()
    for kept in ("psf_fwhm", "gain", "fixed_variance", "read_fraction", "sky_sigma"):
        assert getattr(clean, kept) == getattr(dirty, kept)
    for dropped in ("small_stamps", "bad_pixels", "masked_regions", "neighbours", "uneven_noise"):
        assert getattr(clean, dropped) == 0.0
    assert dirty.neighbours > 0.0


def test_every_field_is_read_somewhere():
    """A setting that is not used cannot be set."""
    read = set()
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "config" and path.name in {"schema.py", "training.py"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)
    fields = {f.name for schema in schemas() for f in dataclasses.fields(schema)}
    assert not fields - read


def test_every_field_is_documented():
    for schema in schemas():
        if schema in (module.ModelConfig, Config):
            continue
        for field in dataclasses.fields(schema):
            assert f"{field.name}: " in (schema.__doc__ or ""), f"{schema.__name__}.{field.name}"


def test_a_configuration_is_taken_as_it_is_and_changed_in_a_copy():
    config = load_config({"training": {"batch_size": 3}})
    assert load_config(config) is config
    changed = load_config(config, ["training.seed=5"])
    assert (changed.training.batch_size, changed.training.seed) == (3, 5)
    assert config.training.seed == 0


def test_a_mapping_of_omegaconf_is_taken():
    from omegaconf import OmegaConf

    given = OmegaConf.create({"training": {"max_steps": 8, "decay_steps": "${training.max_steps}"}})
    assert load_config(given).training.decay_steps == 8


@pytest.mark.parametrize("source", [3, ["default"], 1.5])
def test_what_is_no_configuration_is_refused(source):
    with pytest.raises(ConfigError, match=f"Config, got {type(source).__name__}"):
        load_config(source)
