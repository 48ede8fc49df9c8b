"""Streams of simulations for training and validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from deeplegato_pp.data.sersic_simulator import Scene, SersicSimulator
from deeplegato_pp.stamps import StampBatch


def stream_generator(
    seed: int, step: int, rank: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Returns the generator that belongs to one step of one process.

    Streams are independent for different (seed, step, rank), so a run can be resumed anywhere
    and cut among workers in any way without changing what is drawn.
    """
    state = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class SimulatedGalaxyDataset(Dataset[tuple[StampBatch, Tensor]]):
    """Batches of simulations, made on the fly; item i is the batch of step i, always the same.

    Use it with ``DataLoader(dataset, batch_size=None, ...)``: workers deliver whole batches, and
    the stream is the same whatever their number.

    Args:
        simulator: What makes the scenes.
        batch_size: Galaxies per item.
        num_batches: Length of the data set.
        seed: Of the stream.
        rank: Of the process, where several train together.
        device: Where images are made; a GPU only without workers.
    """

    def __init__(
        self,
        simulator: SersicSimulator,
        batch_size: int,
        num_batches: int,
        *,
        seed: int = 0,
        rank: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.simulator = simulator
        self.batch_size = batch_size
        self.num_batches = num_batches
        self.seed = seed
        self.rank = rank
        self.device = device

    def __len__(self) -> int:
        return self.num_batches

    def scene(self, step: int) -> Scene:
        """Returns the whole scene of a step, with PSFs and noiseless images."""
        if not 0 <= step < self.num_batches:
            raise IndexError(f"Step {step} of a stream of {self.num_batches} batches.")
        generator = stream_generator(self.seed, step, self.rank, self.device)
        return self.simulator.sample_scene(self.batch_size, generator)

    def __getitem__(self, step: int) -> tuple[StampBatch, Tensor]:
        """Returns the stamps of a step and their true coordinates w, (B, 7) float64."""
        scene = self.scene(step)
        return scene.stamps, self.simulator.prior.to_normal(scene.params)


class EpochSampler(Sampler[int]):
    """Walks through a stream epoch by epoch, so that no batch is seen twice and none left out.

    Each epoch starts where the run stands, whatever number the trainer gives it: a resumed run
    goes on with the step after its checkpoint's.

    Args:
        steps_per_epoch: Batches per epoch.
        position: Returns the number of steps taken so far.
    """

    def __init__(self, steps_per_epoch: int, position: Callable[[], int]) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.position = position

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[int]:
        start = self.position()
        return iter(range(start, start + self.steps_per_epoch))
