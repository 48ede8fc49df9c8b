"""Models may come from anyone: a folder can neither look anything up nor take all memory."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from deeplegato_pp.errors import FormatError
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.models.untrusted import LARGEST_TEXT, MOST, check_sizes


@pytest.fixture
def folder(model, tmp_path):
    return model.save_pretrained(tmp_path / "mine")


def edit(folder, key: str, value) -> None:
    """Sets one entry of the configuration by its dotted name."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    place = content
    *sections, name = key.split(".")
    for section in sections:
        place = place[section]
    place[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config.logging.output_dir", "${oc.env:SECRET}"),
        ("config.model.name", "a ${data.image_size} b"),
        ("config.training.betas", [0.9, "${oc.env:SECRET}"]),
        ("config.include", "/etc/passwd"),
        ("config.data.include", ["secret.yaml"]),
    ],
)
def test_a_models_configuration_looks_nothing_up(folder, tmp_path, monkeypatch, key, value):
    monkeypatch.setenv("SECRET", "hunter2")
    edit(folder, key, value)
    with pytest.raises(FormatError, match=r"unless you know its author") as caught:
        DeepLeGAToPP.from_pretrained(folder)
    assert key.split(".")[-1] in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("found", [99, 0, None, "1", True, [1]])
def test_other_formats_are_refused(folder, found):
    edit(folder, "format", found)
    with pytest.raises(FormatError, match="expected 1: it was written by"):
        DeepLeGAToPP.from_pretrained(folder)


def test_a_version_is_a_text(folder):
    edit(folder, "version", {"a": 1})
    with pytest.raises(FormatError, match="states no version"):
        DeepLeGAToPP.from_pretrained(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.backbone.embed_dim", 65536, "embed_dim is 65536, expected from 1 to 2048"),
        ("model.backbone.embed_dim", 2048, "asks for a network of some"),
        ("model.backbone.depths", [1] * 9, "expected at most 8 numbers from 1 to 48"),
        ("model.backbone.depths", [10**9, 1], "expected at most 8 numbers from 1 to 48"),
        ("model.npe.hidden_dim", 4096, "asks for a network of some"),
        ("model.npe.num_flow_layers", -1, "num_flow_layers must be at least 1, got -1"),
        ("data.image_size", 100_000, "image_size is 100000, expected from 1 to 1024"),
    ],
)
def test_sizes_are_bounded_before_memory_is_taken(folder, monkeypatch, key, value, message):
    edit(folder, f"config.{key}", value)
    if key == "model.npe.hidden_dim":
        edit(folder, "config.model.npe.num_flow_layers", 64)
    monkeypatch.setattr(DeepLeGAToPP, "__init__", lambda *_: pytest.fail("it was built"))
    with pytest.raises(FormatError, match=message):
        DeepLeGAToPP.from_pretrained(folder)


def test_every_bound_is_of_a_setting(model, folder):
    check_sizes(model.config, folder / "model.safetensors")
    for key in MOST:
        value = model.config
        for name in key.split("."):
            value = getattr(value, name)
        assert value, key


def test_texts_are_bounded(folder):
    path = folder / "config.json"
    path.write_text(path.read_text() + " " * LARGEST_TEXT)
    with pytest.raises(FormatError, match="expected at most"):
        DeepLeGAToPP.from_pretrained(folder)
    path.write_text("[" * 100_000)
    with pytest.raises(FormatError, match="nested too deeply"):
        DeepLeGAToPP.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.masked_fill(torch.ones_like(t, dtype=torch.bool), torch.nan), "not finite"),
        (lambda t: t.double(), "of type torch.float64, expected torch.float32"),
    ],
)
def test_weights_are_finite_and_of_their_type(folder, change, message):
    path = folder / "model.safetensors"
    state = load_file(path)
    state["head.mean_head.weight"] = change(state["head.mean_head.weight"])
    save_file(state, path)
    with pytest.raises(FormatError, match=rf"head\.mean_head\.weight are .*{message}"):
        DeepLeGAToPP.from_pretrained(folder)
