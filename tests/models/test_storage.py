"""Models on disk, and the ways in which they are not there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from deeplegato_pp.errors import FormatError, ModelNotFoundError
from deeplegato_pp.models import storage
from deeplegato_pp.models.card import CALIBRATION
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP


@pytest.fixture
def folder(model, tmp_path):
    return model.save_pretrained(tmp_path / "mine", {"training": {"steps": 3}})


@torch.no_grad()
def test_a_loaded_model_gives_the_same_numbers(any_model, stamps, tmp_path):
    loaded = DeepLeGAToPP.from_pretrained(any_model.save_pretrained(tmp_path / "m"))
    assert not loaded.training
    assert loaded.config == any_model.config
    seeds = torch.arange(len(stamps))
    for ours, theirs in zip(
        any_model.sample(any_model.encode(stamps), 10, seeds),
        loaded.sample(loaded.encode(stamps), 10, seeds),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_a_backbone_that_began_with_timms_weights_does_not_fetch_them_again(make_model, tmp_path):
    made = make_model()
    made.config.model.backbone.pretrained = True
    folder = made.save_pretrained(tmp_path / "m")
    assert json.loads((folder / "config.json").read_text())["config"]["model"]["backbone"][
        "pretrained"
    ]
    assert not DeepLeGAToPP.from_pretrained(folder).config.model.backbone.pretrained


def test_the_folder_tells_where_the_weights_come_from(folder):
    content = json.loads((folder / "config.json").read_text())
    assert content["card"] == {"training": {"steps": 3}}
    assert content["config"]["model"]["npe"]["type"] == "coupling_nsf"
    assert content["prior"]["sersic_index"] == [0.3, 8.0]
    assert content["reference_instrument"] == {"pixel_scale": 0.25, "zero_point": 30.5}
    files = ["README.md", "config.json", "model.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == files
    loaded = DeepLeGAToPP.from_pretrained(str(folder))
    assert loaded.card == {
        "name": "mine",
        "version": content["version"],
        "training": {"steps": 3},
    }


def edit(folder, **changes):
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_weights_of_another_network_are_refused(make_model, folder):
    other = make_model("maf").config.to_dict()
    edit(folder, config=other)
    with pytest.raises(FormatError, match="do not fit the configuration: missing"):
        DeepLeGAToPP.from_pretrained(folder)


def test_weights_of_another_size_are_named(model, folder):
    config = model.config.to_dict()
    config["model"]["npe"]["context_dim"] = 9
    edit(folder, config=config)
    with pytest.raises(FormatError, match=r"other shapes .*head\.feature_embedding"):
        DeepLeGAToPP.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"card": None}, "no entry 'card'"),
        ({"config": {"model": {"nose": 1}}}, "another version"),
        ({"config": 3}, "cannot be read"),
    ],
)
def test_a_configuration_that_is_not_ours(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(FormatError, match=message):
        DeepLeGAToPP.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:50])
    with pytest.raises(FormatError, match="cannot be read"):
        DeepLeGAToPP.from_pretrained(folder)


def test_missing_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        DeepLeGAToPP.from_pretrained(folder)


@pytest.mark.parametrize("name", ["nonsense", "./nobody/there", "/nobody", "a/b/c"])
def test_an_unknown_name_asks_nobody(monkeypatch, name):
    def ask(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(storage, "_from_hub", ask)
    start = time.monotonic()
    with pytest.raises(ModelNotFoundError, match=r"neither a folder with config\.json"):
        DeepLeGAToPP.from_pretrained(name)
    assert time.monotonic() - start < 1.0


def ask_for_hub_model(**environment: str) -> tuple[str, float]:
    code = """
import time
from deeplegato_pp.errors import ModelNotFoundError
from deeplegato_pp.models import storage
from deeplegato_pp.models.card import CALIBRATION
start = time.monotonic()
try:
    storage.find("nobody/nothing")
except ModelNotFoundError as error:
    print(time.monotonic() - start)
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    seconds, message = done.stdout.split("\n", 1)
    return message, float(seconds)


def test_a_hub_id_offline(tmp_path):
    message, seconds = ask_for_hub_model(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert message.startswith("No folder 'nobody/nothing', and the hub did not give")
    assert seconds < 10.0


@pytest.mark.slow
def test_a_hub_that_never_answers(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        message, seconds = ask_for_hub_model(
            HF_ENDPOINT=f"http://127.0.0.1:{server.getsockname()[1]}",
            HF_HOME=str(tmp_path),
            NO_PROXY="127.0.0.1",
            no_proxy="127.0.0.1",
        )
    assert "the hub did not give" in message
    assert seconds < 10.0


COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = COMMIT[::-1]


@pytest.fixture
def hub_cache(tmp_path, monkeypatch, folder):
    """A cache of the hub's client that holds one model, tagged v1; returns its snapshot."""
    cache = tmp_path / "hub"
    repository = cache / "models--someone--model"
    (repository / "refs").mkdir(parents=True)
    for name in ("main", "v1"):
        (repository / "refs" / name).write_text(COMMIT)
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return repository / "snapshots" / COMMIT


@pytest.fixture
def silent_hub(monkeypatch):
    """A hub that is not there; returns the questions that it was asked."""
    questions = []

    def answer(self, repository, revision=None, **_):
        questions.append((repository, revision))
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
    return questions


@pytest.mark.parametrize(
    ("name", "revision"), [("someone/model", None), ("someone/model@v1", "v1")]
)
def test_offline_a_model_fetched_before_is_used_and_said_to_be(
    hub_cache, silent_hub, caplog, name, revision
):
    loaded = DeepLeGAToPP.from_pretrained(name)
    assert silent_hub == [("someone/model", revision)]
    assert f"did not give {name} (no network): using commit {COMMIT}" in caplog.text
    assert loaded.card["name"] == f"someone/model@{COMMIT[:8]}"


def test_a_commit_that_is_there_is_used_without_asking(hub_cache, silent_hub, caplog):
    assert storage.find(f"someone/model@{COMMIT}") == hub_cache
    assert silent_hub == []
    assert caplog.text == ""


@pytest.mark.parametrize("name", [f"someone/model@{OTHER}", "someone/model@v2", "someone/other"])
def test_offline_another_revision_is_not_given_in_its_place(hub_cache, silent_hub, name):
    with pytest.raises(ModelNotFoundError, match=rf"No folder '{name}', .*\(no network\)"):
        storage.find(name)


def test_half_a_model_in_the_cache_is_none(hub_cache, silent_hub):
    (hub_cache / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="no network"):
        storage.find("someone/model")


def test_online_the_commit_of_a_revision_is_asked_for_and_fetched(monkeypatch, folder):
    def answer(self, repository, revision, timeout):
        assert (repository, revision, timeout) == ("someone/model", "v1", storage.HUB_TIMEOUT)
        return SimpleNamespace(sha=COMMIT)

    def fetch(repository, *, revision, local_files_only, allow_patterns):
        assert (repository, revision, local_files_only) == ("someone/model", COMMIT, False)
        assert {"model.safetensors", "config.json", "README.md"} <= set(allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", answer)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert storage.find("someone/model@v1") == folder


def test_the_card_says_prior_and_record_and_is_renewed(model, folder):
    path = folder / "README.md"
    text = path.read_text()
    assert text.startswith("---\nlibrary_name: deeplegato-pp\n")
    assert "# The model `mine`" in text
    assert "| sersic_index |  | 0.3 | 8 | log-uniform |" in text
    assert "| steps | 3 |" in text
    assert "| psf_fwhm | 1.0 to 6.0 |" in text
    path.write_text(text + "\nWritten by hand.\n")
    model.save_pretrained(folder, {"training": {"steps": 4}})
    renewed = path.read_text()
    assert "| steps | 4 |" in renewed
    assert "| steps | 3 |" not in renewed
    assert renewed.endswith("\nWritten by hand.\n")


def test_a_card_written_by_hand_stays(model, folder):
    (folder / "README.md").write_text("# Mine\n")
    model.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "# Mine\n"
    assert not list(folder.glob("*.part"))


def test_measurements_of_other_weights_go(model, make_model, folder):
    """What tells familiar images, moves quantiles and heads the card belongs to its weights."""
    measured = [storage.REFERENCE, storage.RECALIBRATION, storage.FIGURES]
    for name in measured:
        (folder / name).write_text("{}")
    begin, end = CALIBRATION
    (folder / "README.md").write_text(f"# Mine\n{begin}\nold figures\n{end}\n")
    model.save_pretrained(folder)
    assert all((folder / name).is_file() for name in measured)
    assert "old figures" in (folder / "README.md").read_text()
    make_model(spread=0.5).save_pretrained(folder)
    assert not any((folder / name).exists() for name in measured)
    text = (folder / "README.md").read_text()
    assert text.startswith("# Mine\n")
    assert "old figures" not in text


def test_weights_can_be_read_by_whoever_reads_the_rest(model, folder):
    modes = {(folder / name).stat().st_mode for name in (storage.WEIGHTS, storage.CONFIG)}
    assert len(modes) == 1
