"""The run: batch after batch into part files, so that a run that was killed goes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from deeplegato_pp.calibration.galaxies import Galaxies, read_part, write_part
from deeplegato_pp.calibration.measure import measure_batch
from deeplegato_pp.calibration.settings import (
    BATCH,
    Settings,
    Simulations,
    fingerprint,
)
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.predictor import Predictor

logger = logging.getLogger(__name__)

PARTS = "parts"
"""Folder of the part files, inside the output."""


def check_folder(folder: Path) -> None:
    """Refuses, before any work, an output that cannot be a folder.

    Raises:
        InputError: If a file stands in the way, or the folder above is missing.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"calibration {folder} is a file, expected a folder. Give another name.")
    if not folder.is_dir() and not folder.parent.is_dir():
        raise InputError(
            f"calibration {folder}: folder {folder.parent} does not exist. Make it first."
        )


def measure(
    predictor: Predictor,
    simulations: Simulations,
    settings: Settings,
    folder: Path,
    *,
    resume: bool = True,
    advance: Callable[[int], None] = lambda number: None,
) -> Galaxies:
    """Measures simulated galaxies, or takes them from the part files of an earlier run.

    Each batch depends on its number and the seed alone, and is written whole as soon as it is
    done: what was killed goes on where it was, and more galaxies can be asked for later. Memory
    holds one batch, and the compact results of all.

    Args:
        predictor: The network.
        simulations: Where scenes come from.
        settings: Numbers of the run.
        folder: Output; part files go to its folder ``parts``.
        resume: Take batches that are there; otherwise they are deleted first.
        advance: Called with the number of galaxies done since the last call.

    Raises:
        InputError: If part files are of another run.
        FormatError: If a part file is damaged.
    """
    check_folder(folder)
    parts = folder / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    for left in parts.glob(".*"):  # of a run killed while it wrote
        left.unlink()
    if not resume:
        for path in parts.glob("part-*.npz"):
            path.unlink()
    digest = fingerprint(predictor.model, simulations, settings)
    found = list(_batches(predictor, simulations, settings, parts, digest, advance))
    return Galaxies.concatenate(found)[: settings.number]


def _batches(
    predictor: Predictor,
    simulations: Simulations,
    settings: Settings,
    parts: Path,
    digest: str,
    advance: Callable[[int], None],
) -> Iterator[Galaxies]:
    for step in range(math.ceil(settings.number / BATCH)):
        path = parts / f"part-{step:06d}.npz"
        if path.exists():
            galaxies, of = read_part(path)
            if of != digest:
                raise InputError(
                    f"{path} is of a run with another model, simulator, seed or number of draws. "
                    "Give another folder, or --no-resume to start afresh."
                )
        else:
            galaxies = measure_batch(predictor, simulations, step, settings)
            write_part(galaxies, path, digest)
            logger.info("batch %d measured", step)
        advance(min(BATCH, settings.number - step * BATCH))
        yield galaxies
