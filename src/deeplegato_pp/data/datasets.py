"""Streams of batches for training and validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.config.schema import ConfigLike, load_config
from deeplegato_pp.data.sersic_simulator import Scene, SersicSimulator
from deeplegato_pp.errors import InputError
from deeplegato_pp.scene.stamps import StampBatch

Batch = tuple[StampBatch, Tensor]
"""Stamps and their true coordinates w, (B, 7) float64; NaN where a truth is not known."""


def stream_generator(
    seed: int, step: int, rank: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Returns the generator that belongs to one step of one process.

    Streams are independent for different (seed, step, rank), so a run can be resumed anywhere
    and cut among workers in any way without changing what is drawn.
    """
    return torch.Generator(device).manual_seed(stream_seed(seed, step, rank))


def stream_seed(*key: int) -> int:
    """Returns the seed that belongs to a tuple of numbers, all streams independent."""
    state = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


@dataclass(frozen=True)
class Share:
    """Which part of each step's images a process makes.

    A step's images come in shards: one for each forward pass of each process. What a shard holds
    depends on its number within the step only, so that a process that accumulates two batches sees
    the very images that two processes see with one each.

    Attributes:
        rank: Number of the process.
        world_size: Processes that train together.
        accumulation: Forward passes per step.
    """

    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    def step_and_shard(self, index: int) -> tuple[int, int]:
        """Returns step and shard of this process's forward pass number `index`."""
        step, forward = divmod(index, self.accumulation)
        return step, forward * self.world_size + self.rank

    def global_batch(self, index: int) -> int:
        """Returns the number of a batch among those of all processes and steps."""
        step, shard = self.step_and_shard(index)
        return step * self.accumulation * self.world_size + shard


ALONE = Share()

DEFAULT_BATCH = 64
"""Galaxies per item of a data set that is not told how many."""


class BatchDataset(Dataset[Batch], ABC):
    """A data set whose items are whole batches: a loader of it has ``batch_size=None``.

    Raises:
        InputError: If a loader is about to batch the batches.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of batches."""

    def __getitems__(self, _: list[int]) -> list[Batch]:
        """Refuses to have batches batched: a loader with `batch_size=None` never asks for it."""
        raise InputError(
            f"the items of a {type(self).__name__} are whole batches already. Use "
            "DataLoader(dataset, batch_size=None), and give the batch_size to the data set."
        )


class SimulatedGalaxyDataset(BatchDataset):
    """Batches of simulations, made on the fly; item i is the batch of pass i, always the same.

    Use it with ``DataLoader(dataset, batch_size=None, ...)``: workers deliver whole batches, and
    the stream is the same whatever their number.

    Args:
        simulator: What makes the scenes; or a configuration (or what one is read from, see
            :func:`~deeplegato_pp.config.load_config`) that describes it, or None for the defaults.
        batch_size: Galaxies per item.
        num_batches: Length of the data set.
        seed: Of the stream.
        rank: Of the process, where several train together.
        device: Where images are made; a GPU only without workers.
        share: Rank and more, for processes that accumulate; in the place of `rank`.

    Raises:
        ConfigError: If there is no such configuration.
        RangeError: If a number of galaxies or batches is not positive.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> dataset = SimulatedGalaxyDataset("cpu.yaml", batch_size=2, num_batches=1)
        >>> for stamps, w in DataLoader(dataset, batch_size=None):
        ...     print(len(stamps), w.shape)
        2 torch.Size([2, 7])
    """

    def __init__(
        self,
        simulator: SersicSimulator | ConfigLike = None,
        batch_size: int = DEFAULT_BATCH,
        num_batches: int = 100,
        *,
        seed: int = 0,
        rank: int = 0,
        device: torch.device | str = "cpu",
        share: Share | None = None,
    ) -> None:
        if not isinstance(simulator, SersicSimulator):
            simulator = SersicSimulator.from_config(load_config(simulator).data)
        self.simulator = simulator
        self.batch_size = check_positive_integer(batch_size, "batch_size")
        self.num_batches = check_positive_integer(num_batches, "num_batches")
        self.seed = seed
        self.share = share or Share(rank)
        self.device = device

    def __len__(self) -> int:
        return self.num_batches

    def scene(self, step: int) -> Scene:
        """Returns the whole scene of a step, with PSFs and noiseless images."""
        if not 0 <= step < self.num_batches:
            raise IndexError(f"Step {step} of a stream of {self.num_batches} batches.")
        generator = stream_generator(self.seed, *self.share.step_and_shard(step), self.device)
        return self.simulator.sample_scene(self.batch_size, generator)

    def __getitem__(self, step: int) -> Batch:
        """Returns the stamps of a step and their true coordinates w, (B, 7) float64."""
        scene = self.scene(step)
        return scene.stamps, self.simulator.prior.to_normal(scene.params)


class MixedDataset(BatchDataset):
    """Batches that are put together from several streams.

    Args:
        parts: The streams, of the same length; each gives as many rows as its batches have.
        device: Where the parts are brought together.
    """

    def __init__(self, parts: Sequence[Dataset[Batch]], device: torch.device | str = "cpu") -> None:
        self.parts = list(parts)
        self.device = device

    def __len__(self) -> int:
        return min(len(part) for part in self.parts)  # type: ignore[arg-type]

    def __getitem__(self, step: int) -> Batch:
        """Returns the joint batch of a step."""
        batches = [part[step] for part in self.parts]
        stamps = StampBatch.concatenate([b[0].to(self.device) for b in batches])
        return stamps, torch.cat([b[1].to(self.device) for b in batches])


class EpochSampler(Sampler[int]):
    """Walks through a stream epoch by epoch, so that no batch is seen twice and none left out.

    Each epoch starts where the run stands, whatever number the trainer gives it: a resumed run
    goes on with the step after its checkpoint's.

    Args:
        steps_per_epoch: Batches per epoch.
        position: Returns the number of batches taken so far.
    """

    def __init__(self, steps_per_epoch: int, position: Callable[[], int]) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.position = position

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[int]:
        start = self.position()
        return iter(range(start, start + self.steps_per_epoch))
