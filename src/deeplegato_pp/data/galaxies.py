"""Real galaxies: FITS cutouts, with or without reference parameters."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplegato_pp.checks import check_positive_integer
from deeplegato_pp.data.datasets import (
    ALONE,
    DEFAULT_BATCH,
    Batch,
    BatchDataset,
    Share,
    stream_generator,
)
from deeplegato_pp.data.mirroring import is_symmetric, mirrored_at_random
from deeplegato_pp.errors import DeepLegatoError, FormatError, InputError
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import PreparedStamp, prepare
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    NAMES,
    NUM_PARAMETERS,
    PARAMETERS,
    POSITION_ANGLE,
    RADIUS,
)
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch
from deeplegato_pp.scene.units import stamp_batch, user_box

logger = logging.getLogger(__name__)

SUFFIXES = (".fits", ".fits.gz", ".fits.fz", ".fit")

TRUTH = "truth.ecsv"
"""Table of reference parameters in a folder of cutouts, as by ``deeplegato simulate``."""

LARGEST_RADIUS = 16.0
"""Reference radius above which a stamp is binned, as in a measurement. [px]"""


@dataclass(frozen=True)
class Cutout:
    """Training cutout of one galaxy.

    Attributes:
        path: FITS file.
        params: Reference parameters in the units of the file's image, NaN if unknown.
    """

    path: Path
    params: tuple[float, ...]


class GalaxyDataset(BatchDataset):
    """Batches of real galaxies, drawn with replacement; item i is reproducible.

    All cutouts are read when the data set is made, and kept in memory: about 150 kB each at 128 px.
    Reference parameters follow the project's conventions in the file's own units (arcsec, its zero
    point, pixels from its centre); unknown ones are NaN, or have no column. Galaxies that cannot be
    read, or whose reference lies outside the prior, are omitted with a warning. Mirrored and
    rotated copies are included.

    Args:
        source: A folder of FITS files, with or without ``truth.ecsv``; or a table whose column
            ``file`` has their names (relative to the table) and whose other columns are parameters.
        prior: Prior box at the reference instrument; None for the default one.
        batch_size: Number of galaxies per item.
        num_batches: Length of the data set; None for a length at which each galaxy is drawn once on
            average.
        image_size: Side of the stamps. [px]
        seed: Random seed of the order.
        share: Batches of this process.
        labelled: Use only galaxies with reference parameters.
        augment: Mirror and rotate galaxies.

    Raises:
        FormatError: If the folder or table does not exist.
        InputError: If no galaxy remains.
    """

    def __init__(
        self,
        source: str | Path,
        prior: PriorBox | None = None,
        batch_size: int = DEFAULT_BATCH,
        num_batches: int | None = None,
        *,
        image_size: int = 128,
        seed: int = 0,
        share: Share = ALONE,
        labelled: bool = True,
        augment: bool = True,
    ) -> None:
        prior = prior or PriorBox()
        self.batch_size = check_positive_integer(batch_size, "batch_size")
        self.seed, self.share = seed, share
        self.augment = augment and is_symmetric(prior)
        kept: list[StampBatch] = []
        labels: list[Tensor] = []
        self.paths: list[Path] = []
        for cutout in find_cutouts(source):
            if labelled and all(math.isnan(value) for value in cutout.params):
                continue
            try:
                stamp, w = read_galaxy(cutout, prior, image_size)
            except DeepLegatoError as error:
                logger.warning("%s is left out: %s", cutout.path, error)
                continue
            kept.append(stamp)
            labels.append(w)
            self.paths.append(cutout.path)
        if not kept:
            kind = "galaxy with reference parameters" if labelled else "galaxy"
            raise InputError(
                f"No usable {kind} in {source}. Reference parameters come from {TRUTH} beside the "
                "files, or from a table with the column file and columns named after parameters; "
                "labelled=False takes galaxies without."
            )
        self.stamps = StampBatch.concatenate(kept)
        self.w = torch.stack(labels)
        once = math.ceil(len(labels) / self.batch_size)
        number = once if num_batches is None else num_batches
        self.num_batches = check_positive_integer(number, "num_batches")

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, step: int) -> Batch:
        """Returns the stamps of a step and their coordinates w, (B, 7) float64, NaN if unknown."""
        if not 0 <= step < self.num_batches:
            raise IndexError(f"Step {step} of a stream of {self.num_batches} batches.")
        generator = stream_generator(self.seed, *self.share.step_and_shard(step))
        rows = torch.randint(len(self.w), (self.batch_size,), generator=generator)
        stamps, w = self.stamps[rows], self.w[rows]
        return mirrored_at_random(stamps, w, generator) if self.augment else (stamps, w)


def find_cutouts(source: str | Path) -> list[Cutout]:
    """Returns the cutouts of a folder or table, in the order of names or rows.

    Raises:
        FormatError: If the folder or table does not exist, or the table has no column ``file``.
    """
    path = Path(source)
    if path.is_dir():
        table = path / TRUTH
        if table.is_file():
            return _from_table(table)
        files = sorted(p for p in path.iterdir() if p.name.lower().endswith(SUFFIXES))
        return [Cutout(p, (math.nan,) * NUM_PARAMETERS) for p in files]
    if path.is_file():
        return _from_table(path)
    raise FormatError(f"{path} is neither a folder of FITS files nor a table.")


def read_galaxy(cutout: Cutout, prior: PriorBox, image_size: int) -> tuple[StampBatch, Tensor]:
    """Reads one galaxy in detector units.

    Returns:
        A batch of one stamp, and its coordinates w, (7,) float64, NaN if unknown.

    Raises:
        InputError: If the file cannot be used, or a reference lies outside the prior.
    """
    observation = Observation.from_fits(cutout.path)
    radius = cutout.params[RADIUS] / observation.pixel_scale
    bins = 1 if math.isnan(radius) else max(1, math.ceil(radius / LARGEST_RADIUS))
    prepared = prepare(observation, image_size, bins)
    return stamp_batch([prepared]), coordinates(cutout.params, prepared, prior)


def coordinates(params: tuple[float, ...], prepared: PreparedStamp, prior: PriorBox) -> Tensor:
    """Returns coordinates w of partly known parameters, (7,) float64, NaN if unknown.

    The two coordinates of the shape require both axis ratio and position angle.

    Args:
        params: Parameters in the units of the user's image, NaN if unknown.
        prepared: The stamp.
        prior: Prior box at the reference instrument.

    Raises:
        RangeError: If a known parameter lies outside the box.
    """
    box = user_box(prior, prepared)
    known = [not math.isnan(value) for value in params]
    known[AXIS_RATIO] = known[POSITION_ANGLE] = known[AXIS_RATIO] and known[POSITION_ANGLE]
    middle = box.to_physical(torch.full((1, NUM_PARAMETERS), 0.5, dtype=torch.float64))
    filled = torch.where(torch.tensor(known), torch.tensor(params).double(), middle[0])
    return torch.where(torch.tensor(known), box.to_normal(filled[None])[0], math.nan)


def _from_table(path: Path) -> list[Cutout]:
    from astropy.table import Table

    try:
        table: Any = Table.read(path)
    except (OSError, ValueError) as error:  # astropy's reading errors are subclasses
        raise FormatError(f"{path} cannot be read as a table: {error}") from error
    if "file" not in table.colnames:
        raise FormatError(f"{path} has no column file, but {', '.join(table.colnames)}.")
    columns = [
        _numbers(table[p.name], p.unit) if p.name in table.colnames else np.full(len(table), np.nan)
        for p in PARAMETERS
    ]
    rows = np.stack(columns, 1)
    if not any(name in table.colnames for name in NAMES):
        logger.warning("%s has no column named after a parameter: %s.", path, ", ".join(NAMES))
    return [
        Cutout(path.parent / str(file), tuple(float(v) for v in row))
        for file, row in zip(table["file"], rows, strict=True)
    ]


def _numbers(column: Any, unit: str) -> np.ndarray:
    """Returns a column in a unit, with NaN for masked entries."""
    factor = column.unit.to(unit) if column.unit is not None and unit else 1.0
    values = np.ma.filled(np.ma.masked_array(column, dtype=float), np.nan)
    return np.asarray(values * factor)
