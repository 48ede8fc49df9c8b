"""Streams from a configuration: mixed, shared among processes, the same from any workers."""

from __future__ import annotations

import itertools
from dataclasses import fields

import pytest
import torch

from deeplegato_pp.config.schema import load_config
from deeplegato_pp.data import create_dataloaders
from deeplegato_pp.data.chunks import write_chunks
from deeplegato_pp.data.datasets import Share
from deeplegato_pp.data.loaders import training_set
from deeplegato_pp.data.simulated_files import file_simulator, write_simulation
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.stamps import StampBatch

SMALL = [
    "data.image_size=32",
    "data.conditions.neighbours=0",
    "data.conditions.smallest_stamp=16",
    "training.batch_size=4",
    "training.max_steps=6",
    "training.steps_per_epoch=3",
    "validation.num_images=8",
    "validation.batch_size=4",
]


def config(*overrides: str):
    return load_config(None, [*SMALL, *overrides])


def first_batches(workers: int) -> list[torch.Tensor]:
    train, _ = create_dataloaders(config(f"training.num_workers={workers}"))
    return [stamps.image for stamps, _ in train]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_the_stream_is_the_same_from_any_number_of_workers():
    expected = first_batches(0)
    assert len(expected) == 3
    for workers in (2, 4):
        for ours, theirs in zip(expected, first_batches(workers), strict=True):
            assert torch.equal(ours, theirs)


def test_an_epoch_goes_on_where_the_run_stands():
    train, _ = create_dataloaders(config(), position=lambda: 3)
    whole = training_set(config(), 6)
    for step, (_, w) in enumerate(train, start=3):
        assert torch.equal(w, whole[step][1])


def test_processes_see_different_images_and_accumulation_the_same():
    ranks = [training_set(config(), 4, Share(rank, 2)) for rank in (0, 1)]
    alone = training_set(config(), 8, Share(accumulation=2))
    for step in range(4):
        a, b = (rank[step][1] for rank in ranks)
        assert not torch.equal(a, b)
        assert torch.equal(alone[2 * step][1], a)
        assert torch.equal(alone[2 * step + 1][1], b)


def test_validation_batches_are_shared_out_or_all_taken():
    def truths(share: Share) -> list[torch.Tensor]:
        _, loaders = create_dataloaders(config(), share=share)
        assert list(loaders) == ["clean", "full"]
        return [w for _, w in loaders["full"]]

    whole = truths(Share())
    assert len(whole) == 2
    assert torch.equal(truths(Share(1, 2))[0], whole[1])
    assert len(truths(Share(1, 3))) == 2


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_chunks(config().data, root / "chunks", 8, seed=5, chunk_size=8)
    simulator = file_simulator(load_config(None, ["data.image_size=64"]).data, clean=True)
    write_simulation(simulator, 2, 1, root / "real")
    return {"chunks": root / "chunks", "real": root / "real"}


def test_batches_are_mixed_as_told(sources):
    mixed = config(
        f"data.train_data_path={sources['chunks']}",
        f"data.real_data_path={sources['real']}",
        "data.drive_share=0.5",
        "data.real_share=0.25",
    )
    dataset = training_set(mixed, 6)
    stamps, w = dataset[0]
    fresh, stored, real = (part[0][1] for part in dataset.parts)
    assert [len(part) for part in (fresh, stored, real)] == [1, 2, 1]
    assert torch.equal(w, torch.cat([fresh, stored, real]))
    assert len(stamps) == 4


def test_stored_simulations_alone_and_for_validation(sources):
    stored = config(
        "data.generate_on_the_fly=false",
        f"data.train_data_path={sources['chunks']}",
        f"data.val_data_path={sources['chunks']}",
    )
    train, validation = create_dataloaders(stored)
    assert [len(w) for _, w in train] == [4, 4, 4]
    assert list(validation) == ["clean", "full", "drive"]
    assert len(list(itertools.chain(validation["drive"]))) == 2


def test_batches_are_pinned_where_there_is_a_gpu(monkeypatch):
    from torch.utils.data._utils.pin_memory import pin_memory  # what a loader does to a batch

    batch = training_set(config(), 1)[0]
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: (pinned.append(1), self)[1])
    stamps, w = pin_memory(batch)
    given = [f for f in fields(StampBatch) if getattr(batch[0], f.name) is not None]
    assert len(pinned) == len(given) + 1
    assert torch.equal(stamps.image, batch[0].image)
    assert torch.equal(w, batch[1])
    wanted = config("data.pin_memory=true", "training.num_workers=1")
    for gpu in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert create_dataloaders(wanted)[0].pin_memory is gpu
        assert not create_dataloaders(config("training.num_workers=1"))[0].pin_memory


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.real_share=1.5"], r"data\.real_share must be in \[0, 1\]"),
        (["data.real_share=0.6", "data.drive_share=0.6"], "more than 1"),
        (["data.generate_on_the_fly=false"], r"data\.train_data_path is empty"),
        (["data.real_share=0.5"], r"data\.real_data_path is empty"),
    ],
)
def test_shares_that_cannot_be(overrides, message):
    with pytest.raises(ConfigError, match=message):
        create_dataloaders(config(*overrides))


def test_loaders_of_a_mapping_are_those_of_its_configuration():
    ours, _ = create_dataloaders(config())
    theirs, validation = create_dataloaders(config().to_dict())
    assert sorted(validation) == ["clean", "full"]
    assert torch.equal(next(iter(ours))[0].image, next(iter(theirs))[0].image)
