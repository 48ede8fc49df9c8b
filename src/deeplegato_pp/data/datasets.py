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
from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.errors import InputError
from deeplegato_pp.scene.stamps import StampBatch

Batch = tuple[StampBatch, Tensor]
"""Stamps and their true coordinates w, (B, 7) float64; NaN for unknown values."""


def stream_generator(
    seed: int, step: int, rank: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Returns the random generator of one step of one process.

    Streams are independent for different (seed, step, rank), so that a run can be resumed at any
    step and divided among workers in any way without changes.
    """
    return torch.Generator(device).manual_seed(stream_seed(seed, step, rank))


def stream_seed(*key: int) -> int:
    """Returns the random seed of a tuple of numbers; all streams are independent."""
    state = np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


@dataclass(frozen=True)
class Share:
    """Part of each step's images that a process makes.

    A step's images consist of shards: one for each forward pass of each process. The contents of a
    shard depend only on its number within the step, so that one process that accumulates two
    batches has the same images as two processes with one batch each.

    Attributes:
        rank: Number of the process.
        world_size: Number of processes in distributed training.
        accumulation: Number of forward passes per step.
    """

    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    def step_and_shard(self, index: int) -> tuple[int, int]:
        """Returns step and shard of this process's forward pass `index`."""
        step, forward = divmod(index, self.accumulation)
        return step, forward * self.world_size + self.rank

    def global_batch(self, index: int) -> int:
        """Returns the index of a batch among those of all processes and steps."""
        step, shard = self.step_and_shard(index)
        return step * self.accumulation * self.world_size + shard


ALONE = Share()

DEFAULT_BATCH = 64
"""Default number of galaxies per item of a data set."""


class BatchDataset(Dataset[Batch], ABC):
    """Data set whose items are whole batches, to be loaded with ``batch_size=None``.

    Raises:
        InputError: If a loader would combine batches to batches.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of batches."""

    def __getitems__(self, _: list[int]) -> list[Batch]:
        """Raises an error for loaders that combine items, as with `batch_size` other than None."""
        raise InputError(
            f"the items of a {type(self).__name__} are whole batches already. Use "
            "DataLoader(dataset, batch_size=None), and give the batch_size to the data set."
        )


class SimulatedGalaxyDataset(BatchDataset):
    """Batches of new simulations; item i is the batch of pass i, and reproducible.

    Use it with ``DataLoader(dataset, batch_size=None, ...)``: workers return whole batches, and the
    stream is independent of their number.

    Args:
        simulator: Simulator of the scenes; or a configuration (or its source, see
            :func:`~deeplegato_pp.config.load_config`), or None for the defaults.
        batch_size: Number of galaxies per item.
        num_batches: Length of the data set.
        seed: Random seed of the stream.
        rank: Rank of the process in distributed training.
        device: Device on which images are made; a GPU only without workers.
        share: Rank and accumulation of the process; replaces `rank`.

    Raises:
        ConfigError: If the configuration does not exist.
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

    def scene(self, step: int) -> SimulatedScene:
        """Returns the scene of a step, with PSFs and noiseless images."""
        if not 0 <= step < self.num_batches:
            raise IndexError(f"Step {step} of a stream of {self.num_batches} batches.")
        generator = stream_generator(self.seed, *self.share.step_and_shard(step), self.device)
        return self.simulator.sample_scene(self.batch_size, generator)

    def __getitem__(self, step: int) -> Batch:
        """Returns the stamps of a step and their true coordinates w, (B, 7) float64."""
        scene = self.scene(step)
        return scene.stamps, self.simulator.prior.to_normal(scene.params)


class MixedDataset(BatchDataset):
    """Batches composed of several streams.

    Args:
        parts: Streams of the same length; each contributes all rows of its batches.
        device: Device of the composed batches.
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
    """Iterates over a stream epoch by epoch, without repetition or omission of batches.

    Each epoch starts at the current step, independently of the trainer's epoch number: a resumed
    run continues after the step of its checkpoint.

    Args:
        steps_per_epoch: Number of batches per epoch.
        position: Function that returns the number of batches so far.
    """

    def __init__(self, steps_per_epoch: int, position: Callable[[], int]) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.position = position

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[int]:
        start = self.position()
        return iter(range(start, start + self.steps_per_epoch))
