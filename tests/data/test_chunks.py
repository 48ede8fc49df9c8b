"""Stored simulations: written once, checked, read ahead, cached, and always in the same order."""

from __future__ import annotations

import json
import pickle
import threading

import pytest
import torch

from deeplegato_pp.config.schema import load_config
from deeplegato_pp.data import chunks
from deeplegato_pp.data.chunks import DriveDataset, read_index, write_chunks
from deeplegato_pp.data.datasets import Share
from deeplegato_pp.errors import ConfigError, FormatError, RangeError

DATA = load_config(None, ["data.image_size=32", "data.conditions.neighbours=0"]).data


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Ten galaxies in chunks of four, four and two."""
    return write_chunks(DATA, tmp_path_factory.mktemp("chunks"), 10, seed=3, chunk_size=4)


@pytest.fixture
def copy(stored, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in stored.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def coordinates(dataset: DriveDataset, steps) -> torch.Tensor:
    return torch.cat([dataset[i][1] for i in steps])


def test_once_through_the_data_sees_every_galaxy_once(stored):
    ordered = coordinates(DriveDataset(stored, 2), range(5))
    shuffled = DriveDataset(stored, 2, 10, seed=1)
    first, second = coordinates(shuffled, range(5)), coordinates(shuffled, range(5, 10))
    assert not torch.equal(first, ordered)
    assert not torch.equal(first, second)
    for seen in (first, second):
        assert torch.equal(seen[:, 0].sort().values, ordered[:, 0].sort().values)
    stamps, w = shuffled[0]
    assert stamps.image.shape == (2, 32, 32)
    assert w.dtype == torch.float64
    assert torch.equal(shuffled[0][1], w)


def test_stamps_and_truths_stay_together(stored):
    stamps, w = DriveDataset(stored, 2)[1]
    content = chunks.load_file(stored / "chunk_00000.safetensors")
    assert torch.equal(stamps.image, content["image"][2:4])
    assert torch.equal(w, content["w"][2:4])


def test_mirrored_galaxies_are_others_at_every_pass(stored):
    plain = DriveDataset(stored, 2, 40, seed=1)
    mirrored = DriveDataset(stored, 2, 40, seed=1, mirror=True)
    moved = 0
    for step in range(0, 40, 5):
        (before, w_before), (after, w_after) = plain[step], mirrored[step]
        assert torch.equal(w_before[:, :3], w_after[:, :3])  # magnitude, radius and index stay
        for a, b in zip(before.image, after.image, strict=True):
            assert torch.equal(a.flatten().sort().values, b.flatten().sort().values)
            moved += not torch.equal(a, b)
        centres = torch.stack([w[:, -2:].abs().sort(1).values for w in (w_before, w_after)])
        assert torch.equal(centres[0], centres[1])
        assert torch.equal(mirrored[step][1], w_after)
    assert moved >= 8  # of 16, seven eighths are expected


def test_processes_share_the_batches_out(stored):
    alone = DriveDataset(stored, 2, 4, seed=1)
    pair = [DriveDataset(stored, 2, 2, seed=1, share=Share(rank, 2)) for rank in (0, 1)]
    together = torch.cat([part[step][1] for step in range(2) for part in pair])
    assert torch.equal(together, coordinates(alone, range(4)))


def test_writing_goes_on_where_it_stopped(copy, monkeypatch):
    before = read_index(copy)
    (copy / "chunk_00001.safetensors").unlink()
    made = []
    simulate = chunks._simulate_chunk
    monkeypatch.setattr(chunks, "_simulate_chunk", lambda *a: (made.append(a[2]), simulate(*a))[1])
    write_chunks(DATA, copy, 10, seed=3, chunk_size=4)
    assert made == [1, 2]
    assert read_index(copy) == before
    with pytest.raises(FormatError, match="another seed"):
        write_chunks(DATA, copy, 10, seed=4, chunk_size=4)


def test_a_damaged_chunk_is_named(copy):
    path = copy / "chunk_00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    dataset = DriveDataset(copy, 2)
    dataset[0]
    with pytest.raises(FormatError, match=r"chunk_00001\.safetensors is damaged"):
        dataset[2]
    path.unlink()
    with pytest.raises(FormatError, match=r"chunk_00001\.safetensors is missing"):
        DriveDataset(copy, 2)[2]


def test_the_next_chunk_is_read_while_one_is_used(stored, monkeypatch):
    wanted = threading.Event()
    load = DriveDataset._load

    def watch(self, entry):
        if entry["file"] == "chunk_00001.safetensors":
            wanted.set()
        return load(self, entry)

    monkeypatch.setattr(DriveDataset, "_load", watch)
    DriveDataset(stored, 2)[0]  # of chunk 0
    assert wanted.wait(timeout=60)


def test_chunks_are_copied_once_and_read_from_there(copy, tmp_path):
    cache = tmp_path / "cache"
    expected = coordinates(DriveDataset(copy, 2, cache=cache), range(5))
    assert len(list(cache.iterdir())) == 3
    index = (copy / "index.json").read_text()
    for path in copy.glob("*.safetensors"):
        path.write_bytes(b"gone slow")  # whoever reads it again fails
    (copy / "index.json").write_text(index)
    assert torch.equal(coordinates(DriveDataset(copy, 2, cache=cache), range(5)), expected)


def test_it_travels_to_worker_processes(stored):
    dataset = DriveDataset(stored, 2, 5, seed=1)
    first = dataset[0][1]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0][1], first)


def test_chunks_of_another_prior_are_refused(stored):
    other = load_config(None, ["data.image_size=32", "data.priors.sersic_index=[0.5,6.0]"]).data
    DriveDataset(stored, 2).check_fits(DATA)
    with pytest.raises(ConfigError, match=r"made with data\.priors=\{\}"):
        DriveDataset(stored, 2).check_fits(other)


def test_folders_that_are_none_of_chunks(tmp_path, stored):
    with pytest.raises(FormatError, match=r"index\.json cannot be read"):
        DriveDataset(tmp_path, 2)
    with pytest.raises(FormatError, match="as many as 5 galaxies"):
        DriveDataset(stored, 5)
    (tmp_path / "index.json").write_text(json.dumps({"format": 99, "chunks": [{}]}))
    with pytest.raises(FormatError, match="no chunks of format 2"):
        DriveDataset(tmp_path, 2)
    with pytest.raises(RangeError, match="at least 1"):
        write_chunks(DATA, tmp_path, 0, seed=0)


def test_the_folder_alone_is_enough(stored):
    made = DriveDataset(stored)
    assert (made.batch_size, len(made)) == (4, 2)  # the largest chunk holds four
    assert made[0][1].shape == (4, 7)
    with pytest.raises(RangeError, match="batch_size must be a whole number >= 1, got 0"):
        DriveDataset(stored, 0)
