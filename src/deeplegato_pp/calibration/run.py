"""Run of a calibration, in batches with part files, so that a stopped run can be continued."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from deeplegato_pp.calibration.galaxies import MeasuredGalaxies, read_part, write_part
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
"""Folder of the part files in the output folder."""


def check_folder(folder: Path) -> None:
    """Checks before any work that the output can be a folder.

    Raises:
        InputError: If it is a file, or the parent folder is missing.
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
) -> MeasuredGalaxies:
    """Measures simulated galaxies, or reads them from the part files of an earlier run.

    Each batch depends only on its number and the seed, and is written atomically when it is
    finished: a stopped run can be continued, also with more galaxies. One batch and the compact
    results of all are in memory.

    Args:
        predictor: The network.
        simulations: Source of the scenes.
        settings: Settings of the run.
        folder: Output folder; part files are in its folder ``parts``.
        resume: Whether existing batches are used; otherwise they are deleted first.
        advance: Called with the number of galaxies since the last call.

    Raises:
        InputError: If part files belong to another run.
        FormatError: If a part file is damaged.
    """
    check_folder(folder)
    parts = folder / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    for left in parts.glob(".*"):  # temporary files of a killed run
        left.unlink()
    if not resume:
        for path in parts.glob("part-*.npz"):
            path.unlink()
    digest = fingerprint(predictor.model, simulations, settings)
    found = list(_batches(predictor, simulations, settings, parts, digest, advance))
    return MeasuredGalaxies.concatenate(found)[: settings.number]


def _batches(
    predictor: Predictor,
    simulations: Simulations,
    settings: Settings,
    parts: Path,
    digest: str,
    advance: Callable[[int], None],
) -> Iterator[MeasuredGalaxies]:
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
