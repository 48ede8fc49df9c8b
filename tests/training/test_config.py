"""Configuration: what may be set is read, and what is unknown is refused by its dotted name."""

from __future__ import annotations

import ast
import dataclasses
import math
from pathlib import Path

import pytest

import deeplegato_pp
from deeplegato_pp.config import schema as config_module
from deeplegato_pp.config import training as config_training
from deeplegato_pp.config.schema import CONFIG_DIR, Config, load_config
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.prior import PriorBox

PACKAGE = Path(deeplegato_pp.__file__).parent
SCHEMA = [
    value
    for value in vars(config_module).values()
    if dataclasses.is_dataclass(value)
    and value.__module__ in (config_module.__name__, config_training.__name__)
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
    assert len(SCHEMA) == 10
    read = attributes_read()
    assert [dotted for dotted, name in settings.items() if name not in read] == []


def test_every_setting_is_described():
    for c in SCHEMA:
        if c.__name__ == "Config":
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
    with pytest.raises(ConfigError, match=r"file nowhere\.yaml.*cpu, default.*sdss"):
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


ORIGINAL = """
model:
  name: Mine
  num_params: 7
  backbone: {type: swinv2_tiny_window8_256, pretrained: false, embed_dim: 96, depths: [2, 2, 6, 2],
             num_heads: [3, 6, 12, 24], gradient_checkpointing: true, drop_path_rate: 0.1}
  npe: {num_flow_layers: 8, hidden_dim: 256, num_blocks: 2, dropout: 0.1}
training:
  batch_size: 16
  accumulation_steps: 4
  max_epochs: 100
  optimizer: {type: AdamW, learning_rate: 1.0e-4, weight_decay: 0.05, betas: [0.9, 0.999]}
  scheduler: {type: CosineAnnealingWarmRestarts, T_0: 10, T_mult: 2, eta_min: 1.0e-6}
  precision: fp16
  save_to_drive: true
  resume_from_latest: false
  early_stopping_patience: 15
data:
  image_size: 128
  num_workers: 2
  pin_memory: true
  priors: {magnitude: [16.0, 27.0], center_offset: [-4.0, 4.0]}
  noise: {sky_background: 0.01, read_noise: 5.0, gain: 2.5}
  drive_base: /drive
  train_data_path: "${data.drive_base}/train"
  checkpoint_path: "${data.drive_base}/checkpoints"
  num_train_samples: 6400
  num_val_samples: 320
logging: {log_every_n_steps: 25, use_wandb: true, project_name: P, log_dir: "${data.drive_base}/l"}
validation: {val_check_interval: 0.5, num_posterior_samples: 20}
"""


def test_the_original_sections_and_keys_load_and_act(tmp_path):
    path = tmp_path / "original.yaml"
    path.write_text(ORIGINAL)
    config = load_config(path)
    training, data = config.training, config.data
    assert (config.model.name, config.model.backbone.drop_path) == ("Mine", 0.1)
    assert (training.optimizer, training.learning_rate, training.weight_decay) == (
        "adamw",
        1e-4,
        0.05,
    )
    assert tuple(training.betas) == (0.9, 0.999)
    assert (training.scheduler, training.restart_epochs, training.restart_factor) == (
        "cosine_restarts",
        10,
        2,
    )
    assert training.min_learning_rate == 1e-6
    assert (training.steps_per_epoch, training.max_steps) == (100, 10_000)
    assert (training.precision, training.num_workers) == ("16-mixed", 2)
    assert data.priors["center_x"] == data.priors["center_y"] == [-4.0, 4.0]
    assert data.train_data_path == "/drive/train"
    assert (config.logging.output_dir, config.logging.every_n_steps) == ("/drive/checkpoints", 25)
    assert config.validation.num_images == 320
    assert load_config(config.to_dict()) == config


def test_a_camera_gives_gain_and_depth():
    camera = {"sky_background": 100.0, "read_noise": 20.0, "gain": 4.0, "zero_point": 25.0}
    data = load_config({"data": {"noise": camera}}, ["data.noise.spread=1.0"]).data
    electrons = (4.0 * 100.0 + 20.0**2) ** 0.5
    assert tuple(data.conditions.gain) == pytest.approx((electrons, electrons))
    assert data.conditions.read_fraction == pytest.approx(0.5)
    assert data.zero_point == pytest.approx(25.0 - 2.5 * math.log10(electrons / 4.0))
    again = load_config({"data": dataclasses.asdict(data)}, ["data.conditions.gain=[3,4]"]).data
    assert again.zero_point == data.zero_point
    assert tuple(again.conditions.gain) == (3, 4)
    with pytest.raises(ConfigError, match=r"data\.noise needs gain > 0"):
        load_config({"data": {"noise": camera}}, ["data.noise.gain=-1"])


def test_steps_of_a_later_layer_win_over_epochs_of_an_earlier_one(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training: {max_epochs: 10, steps_per_epoch: 7}")
    assert load_config(path).training.max_steps == 70
    assert load_config(path, ["training.max_steps=14"]).training.max_steps == 14


def test_instruments_are_included_by_name(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("include: [cpu, euclid_vis]\ndata: {conditions: {psf_fwhm: [1.4, 1.5]}}")
    config = load_config(path)
    assert config.data.pixel_scale == 0.1
    assert config.model.backbone.embed_dim == 32
    assert tuple(config.data.conditions.psf_fwhm) == (1.4, 1.5)
    assert load_config("cpu", ["include=hsc"]).data.pixel_scale == 0.168
    path.write_text(f"include: {path}")
    with pytest.raises(ConfigError, match="circle"):
        load_config(path)


@pytest.mark.parametrize("name", ["euclid_vis", "hst_acs", "hsc", "lsst", "sdss", "roman"])
def test_the_box_of_an_instrument_is_the_default_one_moved(name):
    data = load_config(name).data
    box = PriorBox.at_reference(data.priors, data.pixel_scale, data.zero_point)
    for parameter in ("magnitude", "effective_radius"):
        assert getattr(box, parameter) == pytest.approx(
            getattr(PriorBox(), parameter), abs=0.01, rel=1e-3
        )
    text = (CONFIG_DIR / f"{name}.yaml").read_text()
    assert text.startswith("#"), "an instrument names its sources"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.npe.num_transforms=5", r"model\.npe\.num_transforms has no effect"),
        ("model.num_params=6", r"model\.num_params is 7, got 6"),
        ("training.optimizer.momentum=0.9", r"training\.optimizer\.momentum is unknown"),
        ("training.scheduler.gamma=0.9", r"training\.scheduler\.gamma is unknown"),
    ],
)
def test_keys_without_an_effect_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def test_two_names_of_one_setting_must_agree():
    both = {"training": {"num_workers": 1}, "data": {"num_workers": 2}}
    with pytest.raises(ConfigError, match=r"data\.num_workers and training\.num_workers"):
        load_config(both)
