"""Training and validation streams of a configuration."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, Dataset

from deeplegato_pp.config.schema import Config, ConfigLike, load_config
from deeplegato_pp.data.chunks import DriveDataset
from deeplegato_pp.data.datasets import (
    ALONE,
    Batch,
    EpochSampler,
    MixedDataset,
    Share,
    SimulatedGalaxyDataset,
)
from deeplegato_pp.data.galaxies import GalaxyDataset
from deeplegato_pp.data.mirroring import is_symmetric
from deeplegato_pp.data.sersic_simulator import SersicSimulator, Truth
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.prior import PriorBox

VALIDATION_SEED = 2**31
"""Random seed of the validation stream, different from any training seed."""

Loader = DataLoader[Batch]


def create_dataloaders(
    config: ConfigLike = None,
    *,
    share: Share = ALONE,
    device: torch.device | str = "cpu",
    position: Callable[[], int] = lambda: 0,
    truth: Truth | None = None,
) -> tuple[Loader, dict[str, Loader]]:
    """Returns the training and validation streams of a run.

    Each training batch is composed of new simulations, stored ones (`data.drive_share`) and real
    galaxies (`data.real_share`). There are two fixed validation sets of simulations, ``clean``
    (isolated, unmasked) and ``full`` (as in training), and a third of stored ones if
    `data.val_data_path` is given.

    Args:
        config: The configuration or its source: a YAML file, the name of a packaged one, nested
            dictionaries.
        share: Part of each step for this process.
        device: Device of the training; images are made on it, unless workers make them.
        position: Function that returns the number of batches so far, for resumed runs.
        truth: Function that finds the best-fitting profiles of galaxies with structure, if any.

    Returns:
        The training loader, one epoch per iteration, and the validation loaders by name.

    Raises:
        ConfigError: If the fractions are invalid, or stored simulations have another prior.
    """
    config = load_config(config)
    training = config.training
    device = torch.device("cpu") if training.num_workers else torch.device(device)
    length = training.max_steps * training.accumulation_steps
    dataset = training_set(config, length, share, device, truth)
    steps = min(training.steps_per_epoch, training.max_steps) * training.accumulation_steps
    train: Loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=EpochSampler(steps, position),
        num_workers=training.num_workers,
        persistent_workers=training.num_workers > 0,
        prefetch_factor=config.data.prefetch_factor if training.num_workers else None,
        pin_memory=_pinned(config, device),
    )
    return train, validation_loaders(config, share, device, truth)


def training_set(
    config: Config,
    num_batches: int,
    share: Share = ALONE,
    device: torch.device | str = "cpu",
    truth: Truth | None = None,
) -> Dataset[Batch]:
    """Returns the stream of training batches, composed as configured."""
    data, training = config.data, config.training
    real, drive, fresh = _rows(config)
    parts: list[Dataset[Batch]] = []
    if fresh:
        simulator = SersicSimulator.from_config(data, truth=truth)
        parts.append(
            SimulatedGalaxyDataset(
                simulator, fresh, num_batches, seed=training.seed, share=share, device=device
            )
        )
    if drive:
        path = _required(data.train_data_path, "data.train_data_path")
        stored = DriveDataset(
            path,
            drive,
            num_batches,
            seed=training.seed,
            share=share,
            cache=data.cache_dir or None,
            mirror=is_symmetric(reference_box(config)),
        )
        stored.check_fits(data)
        parts.append(stored)
    if real:
        parts.append(
            GalaxyDataset(
                _required(data.real_data_path, "data.real_data_path"),
                reference_box(config),
                real,
                num_batches,
                image_size=data.image_size,
                seed=training.seed,
                share=share,
                labelled=training.task == "posterior",
            )
        )
    return parts[0] if len(parts) == 1 else MixedDataset(parts, device)


def validation_set(
    config: Config, name: str, device: torch.device | str = "cpu", truth: Truth | None = None
) -> SimulatedGalaxyDataset:
    """Returns a fixed set of simulations, ``"clean"`` or ``"full"``."""
    validation = config.validation
    return SimulatedGalaxyDataset(
        SersicSimulator.from_config(config.data, clean=name == "clean", truth=truth),
        min(validation.batch_size, validation.num_images),
        max(1, validation.num_images // validation.batch_size),
        seed=VALIDATION_SEED + config.training.seed,
        device=device,
    )


def validation_loaders(
    config: Config,
    share: Share = ALONE,
    device: torch.device | str = "cpu",
    truth: Truth | None = None,
) -> dict[str, Loader]:
    """Returns the fixed validation sets by name, divided among processes.

    If the batches cannot be divided evenly, each process uses all of them.
    """
    data, validation = config.data, config.validation
    sets: dict[str, Dataset[Batch]] = {
        name: validation_set(config, name, device, truth) for name in ("clean", "full")
    }
    if data.val_data_path:
        size = min(validation.batch_size, validation.num_images)
        stored = DriveDataset(data.val_data_path, size, cache=data.cache_dir or None)
        stored.check_fits(data)
        stored.num_batches = min(
            len(stored), max(1, validation.num_images // validation.batch_size)
        )
        sets["drive"] = stored
    return {
        name: DataLoader(dataset, batch_size=None, sampler=_rows_of(dataset, share))
        for name, dataset in sets.items()
    }


def reference_box(config: Config) -> PriorBox:
    """Returns the prior box at the reference instrument, to which the coordinates w refer."""
    data = config.data
    return PriorBox.at_reference(data.priors, data.pixel_scale, data.zero_point)


def _rows_of(dataset: Dataset[Batch], share: Share) -> range:
    length = len(dataset)  # type: ignore[arg-type]
    if length % share.world_size:
        return range(length)
    return range(share.rank, length, share.world_size)


def _rows(config: Config) -> tuple[int, int, int]:
    """Returns the numbers of real, stored and newly simulated rows per batch."""
    data, size = config.data, config.training.batch_size
    for name in ("real_share", "drive_share"):
        if not 0.0 <= getattr(data, name) <= 1.0:
            raise ConfigError(f"data.{name} is a share from 0 to 1, got {getattr(data, name)}.")
    if data.real_share + data.drive_share > 1.0:
        raise ConfigError(
            f"data.real_share and data.drive_share add up to more than 1: {data.real_share} and "
            f"{data.drive_share}."
        )
    real = round(data.real_share * size)
    drive = size - real
    if data.generate_on_the_fly:
        drive = min(drive, round(data.drive_share * size))
    return real, drive, size - real - drive


def _required(path: str, name: str) -> str:
    if not path:
        raise ConfigError(f"{name} is empty, and batches are to come from there. Give a path.")
    return path


def _pinned(config: Config, device: torch.device) -> bool:
    """Returns whether page-locked memory is used: only with a GPU."""
    return config.data.pin_memory and device.type == "cpu" and torch.cuda.is_available()
