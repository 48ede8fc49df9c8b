"""Simulations stored in chunks, and their streaming from slow drives.

A folder contains ``index.json`` (description and checksums of the chunks) and one safetensors file
per chunk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.config.schema import DataConfig
from deeplegato_pp.data.datasets import (
    ALONE,
    DEFAULT_BATCH,
    Batch,
    BatchDataset,
    Share,
    stream_generator,
    stream_seed,
)
from deeplegato_pp.data.mirroring import mirrored_at_random
from deeplegato_pp.data.sersic_simulator import SersicSimulator, Truth
from deeplegato_pp.errors import ConfigError, FormatError, RangeError
from deeplegato_pp.scene.stamps import StampBatch

INDEX = "index.json"
FORMAT = 2
PART = 64
"""Number of galaxies simulated together while a chunk is written."""

_READ_BLOCK = 1 << 22

_IN_MEMORY = 2
"""Number of chunks in memory: the current and the next one."""


def write_chunks(
    config: DataConfig,
    folder: Path,
    number: int,
    seed: int,
    *,
    chunk_size: int = 1024,
    clean: bool = False,
    advance: Callable[[int], None] = lambda galaxies: None,
    truth: Truth | None = None,
) -> Path:
    """Simulates galaxies into chunks; an interrupted call is continued.

    Args:
        config: The data section of a configuration.
        folder: Output folder, created if necessary.
        number: Number of galaxies; the last chunk may be smaller than the others.
        seed: Random seed of the stream. Chunk k depends only on (seed, k) and its size.
        chunk_size: Number of galaxies per chunk.
        clean: Omit structure, masks, neighbours etc.
        advance: Called with the number of galaxies finished since the last call.
        truth: Function that finds the best-fitting profiles of galaxies with structure, if any.

    Returns:
        Path of the folder.

    Raises:
        RangeError: If a number is not positive.
        FormatError: If the folder contains chunks of other simulations.
    """
    if number < 1 or chunk_size < 1:
        raise RangeError(
            f"the numbers of galaxies and of galaxies per chunk must be at least 1, got {number} "
            f"and {chunk_size}."
        )
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        "format": FORMAT,
        "seed": seed,
        "clean": clean,
        "data": json.loads(json.dumps(asdict(config))),
        "chunks": _written(folder, seed, clean, config),
    }
    simulator = SersicSimulator.from_config(config, clean=clean, truth=truth)
    for k, start in enumerate(range(0, number, chunk_size)):
        size = min(chunk_size, number - start)
        known = index["chunks"][k] if k < len(index["chunks"]) else None
        if known is None or known["size"] != size:
            path = folder / f"chunk_{k:05d}.safetensors"
            save_file(_simulate_chunk(simulator, seed, k, size), folder / f"{path.name}.part")
            os.replace(folder / f"{path.name}.part", path)
            entry = {"file": path.name, "size": size, "sha256": checksum(path)}
            index["chunks"][k:] = [entry]
            _write_index(folder, index)
        advance(size)
    return folder


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_index(folder: Path) -> dict[str, Any]:
    """Returns the description of a folder of chunks.

    Raises:
        FormatError: If the folder does not exist, or is not a folder of chunks.
    """
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        complete = index["format"] == FORMAT and bool(index["chunks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{folder} is no folder of chunks: {INDEX} cannot be read ({error}). "
            "Write one with: deeplegato simulate --chunks -o FOLDER"
        ) from error
    if not complete:
        raise FormatError(f"{folder / INDEX} lists no chunks of format {FORMAT}. Write them anew.")
    return index


class DriveDataset(BatchDataset):
    """Batches from stored chunks, read ahead and optionally cached on a local disk.

    Item i is the batch of pass i, and reproducible. In each epoch, chunks and the galaxies in them
    have another order. A chunk is compared with its checksum when it is first read.

    Args:
        folder: Folder of the chunks.
        batch_size: Number of galaxies per item; None for 64, or the size of the largest chunk if
            smaller.
        num_batches: Length of the data set; None for one epoch.
        seed: Random seed of the order; None for the order on disk.
        share: Batches of this process.
        cache: Local folder to which chunks are copied, or None.
        mirror: Use each galaxy as one of its eight mirror images, different in every epoch;
            requires a seed, and a prior whose box of the centre is symmetric.

    Raises:
        FormatError: If the folder contains no chunks, or none as large as a batch.
    """

    def __init__(
        self,
        folder: str | Path,
        batch_size: int | None = None,
        num_batches: int | None = None,
        *,
        seed: int | None = None,
        share: Share = ALONE,
        cache: str | Path | None = None,
        mirror: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        if batch_size is None:
            batch_size = min(DEFAULT_BATCH, max(c["size"] for c in self.index["chunks"]))
        self.batch_size = check_positive_integer(batch_size, "batch_size")
        self.seed, self.share = seed, share
        self.cache = Path(cache) if cache else None
        self.mirror = mirror
        self.chunks = [c for c in self.index["chunks"] if c["size"] >= batch_size]
        self.batches_per_pass = sum(c["size"] // batch_size for c in self.chunks)
        if not self.chunks:
            raise FormatError(
                f"No chunk in {self.folder} holds as many as {batch_size} galaxies. Use smaller "
                "batches, or write larger chunks (--chunk-size)."
            )
        self.num_batches = self.batches_per_pass if num_batches is None else num_batches
        self._reader: ThreadPoolExecutor | None = None
        self._loaded: OrderedDict[int, Future[dict[str, Tensor]]] = OrderedDict()
        self._checked: set[str] = set()

    def check_fits(self, config: DataConfig) -> None:
        """Checks that the chunks were simulated for the network to be trained.

        Raises:
            ConfigError: If image size, instrument or prior differ.
        """
        ours = asdict(config)
        for name in ("image_size", "pixel_scale", "zero_point", "priors"):
            theirs = self.index["data"][name]
            if theirs != ours[name]:
                raise ConfigError(
                    f"The chunks in {self.folder} were made with data.{name}={theirs}, and the "
                    f"configuration says {ours[name]}. Write them anew with this configuration."
                )

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, step: int) -> Batch:
        """Returns the stamps of a step and their true coordinates w, (B, 7) float64.

        Raises:
            FormatError: If a chunk is damaged or missing.
        """
        if not 0 <= step < self.num_batches:
            raise IndexError(f"Step {step} of a stream of {self.num_batches} batches.")
        epoch, place = divmod(self.share.global_batch(step), self.batches_per_pass)
        order = self._order(epoch, -1, len(self.chunks))
        position, first = self._find(order, place)
        number = order[position]
        content = self._chunk(number)
        if position + 1 < len(order):
            self._read_ahead(order[position + 1])
        else:
            self._read_ahead(self._order(epoch + 1, -1, len(self.chunks))[0])
        rows = self._order(epoch, number, self.chunks[number]["size"])
        chosen = torch.tensor(rows[first : first + self.batch_size])
        names = [f.name for f in fields(StampBatch) if f.name in content]
        stamps = StampBatch(**{name: content[name][chosen] for name in names})
        w = content["w"][chosen]
        if not self.mirror or self.seed is None:
            return stamps, w
        generator = stream_generator(self.seed, *self.share.step_and_shard(step))
        return mirrored_at_random(stamps, w, generator)

    def _find(self, order: list[int], place: int) -> tuple[int, int]:
        """Returns the position of a batch's chunk in the order, and its first row in the chunk."""
        for position, number in enumerate(order):
            batches = self.chunks[number]["size"] // self.batch_size
            if place < batches:
                return position, place * self.batch_size
            place -= batches
        raise IndexError(place)

    def _order(self, epoch: int, chunk: int, size: int) -> list[int]:
        if self.seed is None:
            return list(range(size))
        key = stream_seed(self.seed, epoch, chunk + 1)
        generator = torch.Generator().manual_seed(key)
        order: list[int] = torch.randperm(size, generator=generator).tolist()
        return order

    def _chunk(self, number: int) -> dict[str, Tensor]:
        self._read_ahead(number)
        self._loaded.move_to_end(number)
        while len(self._loaded) > _IN_MEMORY:
            self._loaded.popitem(last=False)
        return self._loaded[number].result()

    def _read_ahead(self, number: int) -> None:
        """Starts to read a chunk, unless this has been started."""
        if number not in self._loaded:
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="chunks")
            self._loaded[number] = self._reader.submit(self._load, self.chunks[number])

    def _load(self, entry: dict[str, Any]) -> dict[str, Tensor]:
        path = self._local(entry)
        if entry["file"] not in self._checked:
            found = checksum(path)
            if found != entry["sha256"]:
                raise FormatError(
                    f"{path} is damaged: its checksum is {found[:12]}..., and {INDEX} says "
                    f"{entry['sha256'][:12]}.... Delete it and write the chunks again."
                )
            self._checked.add(entry["file"])
        content: dict[str, Tensor] = load_file(path)
        return content

    def _local(self, entry: dict[str, Any]) -> Path:
        """Returns the path of a chunk: its copy in the cache, if configured."""
        source = self.folder / entry["file"]
        if not source.is_file():
            raise FormatError(f"{source} is missing. Write the chunks again.")
        if self.cache is None:
            return source
        copy = self.cache / f"{entry['sha256'][:16]}_{entry['file']}"
        if not copy.is_file():
            self.cache.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
            shutil.copyfile(source, part)
            os.replace(part, copy)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        """Omits thread and chunks when the object is sent to a worker process."""
        return {**self.__dict__, "_reader": None, "_loaded": OrderedDict()}


def _simulate_chunk(
    simulator: SersicSimulator, seed: int, chunk: int, size: int
) -> dict[str, Tensor]:
    scenes, coordinates = [], []
    for k, start in enumerate(range(0, size, PART)):
        generator = stream_generator(seed, chunk, k)
        scene = simulator.sample_scene(min(PART, size - start), generator)
        scenes.append(scene.stamps)
        coordinates.append(simulator.prior.to_normal(scene.params))
    stamps = StampBatch.concatenate(scenes)
    parts = {f.name: getattr(stamps, f.name) for f in fields(stamps)}
    content = {name: part.contiguous() for name, part in parts.items() if part is not None}
    return {**content, "w": torch.cat(coordinates)}


def _written(folder: Path, seed: int, clean: bool, config: DataConfig) -> list[dict[str, Any]]:
    """Returns the chunks finished by an earlier call."""
    if not (folder / INDEX).is_file():
        return []
    index = read_index(folder)
    wanted = {"seed": seed, "clean": clean, "data": json.loads(json.dumps(asdict(config)))}
    for name, value in wanted.items():
        if index[name] != value:
            raise FormatError(
                f"{folder} holds chunks of another {name}. Choose another folder, or delete it."
            )
    chunks: list[dict[str, Any]] = index["chunks"]
    for k, entry in enumerate(chunks):
        path = folder / entry["file"]
        if not path.is_file() or checksum(path) != entry["sha256"]:
            return chunks[:k]
    return chunks


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    part = folder / f"{INDEX}.part"
    part.write_text(json.dumps(index, indent=1) + "\n")
    os.replace(part, folder / INDEX)
