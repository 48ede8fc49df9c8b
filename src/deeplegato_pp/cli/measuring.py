"""What ``deeplegato predict`` does with its options: read, measure, write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplegato_pp.inference import Posterior, Predictor
    from deeplegato_pp.inference.refine.policy import Refining
    from deeplegato_pp.observation.observation import Observation

CHUNK = 64
"""Galaxies read and measured together."""

REFINE_CHUNK = 8
"""The same where each is refined, so that progress shows."""


@dataclass(frozen=True)
class Measuring:
    """How galaxies are measured.

    Attributes:
        samples: Draws of the network per galaxy.
        seed: Of all random numbers.
        refining: How they are refined, or None for the bare network.
        widths: Of what is not refined, ``honest`` or ``noise``.
    """

    samples: int
    seed: int
    refining: Refining | None = None
    widths: str = "honest"

    @property
    def chunk(self) -> int:
        """Galaxies worked on together."""
        return CHUNK if self.refining is None else REFINE_CHUNK

    def measure(self, predictor: Predictor, observations: list[Observation]) -> Posterior:
        """Returns the posteriors of some observations."""
        if self.refining is None:
            return predictor.posterior(observations, self.samples, self.seed, widths=self.widths)
        network = predictor.posterior(observations, self.samples, self.seed, widths="noise")
        return self.refining.apply(predictor, network, self.seed)


@dataclass(frozen=True)
class Outputs:
    """Where results go."""

    table: Path | None
    samples: Path | None
    plot: Path | None
    imgblock: Path | None = None

    def check(self) -> None:
        """Refuses, before any work, what could not be written after it."""
        from deeplegato_pp.inference.posterior.tables import SAMPLE_SUFFIXES, TABLE_SUFFIXES
        from deeplegato_pp.io.files import check_output

        figures = (".png", ".pdf", ".svg", ".jpg")
        for path, suffixes, what in (
            (self.table, TABLE_SUFFIXES, "table"),
            (self.samples, SAMPLE_SUFFIXES, "samples"),
            (self.plot, figures, "plot"),
        ):
            if path is not None:
                check_output(path, suffixes, what)

    def check_apart(self, images: list[str], given: dict[str, Any]) -> None:
        """Refuses, before any work, outputs that are an input or each other.

        Args:
            images: The images, after which several figures are named.
            given: Files that are read, by what they are.
        """
        from deeplegato_pp.io.overwriting import check_outputs_apart

        plots, blocks = (
            path and [plot_path(path, i, images) for i in range(len(images))]
            for path in (self.plot, self.imgblock)
        )
        named = {
            "--output": self.table,
            "--samples-output": self.samples,
            "--plot": plots,
            "--imgblock": blocks,
        }
        check_outputs_apart(named, given)

    def write(self, posterior: Posterior, rows: list[dict[str, Any]], images: list[str]) -> None:
        """Writes what was asked for."""
        from deeplegato_pp.inference.posterior.tables import write_samples, write_table

        if self.table is not None:
            write_table(rows, self.table)
        if self.samples is not None:
            write_samples(posterior, self.samples)
        if self.plot is None:
            return
        from deeplegato_pp.inference.posterior.plots import plot_posterior

        for i, row in enumerate(posterior):
            if row.measurements[0].measured:
                plot_posterior(row, plot_path(self.plot, i, images), close=True)


def as_number(text: str | None) -> str | float | None:
    """Returns a number if the text is one, else the text, which names a file.

    Example:
        >>> as_number("0.5"), as_number("sigma.fits")
        (0.5, 'sigma.fits')
    """
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def measure_files(
    predictor: Predictor, images: list[str], options: dict[str, Any], how: Measuring
) -> tuple[Posterior, list[dict[str, Any]]]:
    """Returns the posteriors of all images and their rows, in input order."""
    from deeplegato_pp.cli.display import progress
    from deeplegato_pp.inference import Posterior

    if how.refining is not None:
        how.refining.check(predictor.prior)
    parts: list[Posterior] = []
    rows: list[dict[str, Any]] = []
    with progress("measuring", len(images)) as advance:
        for start in range(0, len(images), how.chunk):
            paths = images[start : start + how.chunk]
            part = _measure_chunk(predictor, paths, options, how)
            for path, row, measurement in zip(paths, part.rows(), part.measurements, strict=True):
                if not measurement.measured:
                    _complain(path, measurement.reason)
                rows.append({"file": path} | row)
            parts.append(part)
            advance(len(paths))
    return Posterior.concatenate(parts), rows


def _measure_chunk(
    predictor: Predictor, paths: list[str], options: dict[str, Any], how: Measuring
) -> Posterior:
    """Reads and measures some files; one that fails keeps its place."""
    from deeplegato_pp.inference import Posterior
    from deeplegato_pp.inference.posterior.posterior import Measurement
    from deeplegato_pp.isolation import (
        isolated,
        raise_if_of_the_machine,
        reason_of,
    )
    from deeplegato_pp.observation.observation import Observation

    def failed(i: int, error: Exception) -> Posterior:
        lost = Measurement(name=Path(paths[i]).stem, reason=reason_of(error), model=predictor.name)
        return Posterior.failed(lost, how.samples, predictor.model.image_size)

    read: dict[int, Observation] = {}
    rows: dict[int, Posterior] = {}
    for i, path in enumerate(paths):
        try:
            read[i] = Observation.from_fits(path, **options)
            _tell(path, read[i])
        except Exception as error:  # whatever it is, it is this file's reason
            raise_if_of_the_machine(error)
            rows[i] = failed(i, error)

    def together(chosen: Sequence[int]) -> list[Posterior]:
        posterior = how.measure(predictor, [read[i] for i in chosen])
        posterior.rows()  # what breaks while a row is made breaks here
        return [posterior[[k]] for k in range(len(chosen))]

    if read:
        rows |= zip(read, isolated(list(read), together, failed), strict=True)
    return Posterior.concatenate([rows[i] for i in range(len(paths))])


def plot_path(path: Path, index: int, images: list[str]) -> Path:
    """Returns where one image's figure goes.

    Example:
        >>> plot_path(Path("f.png"), 0, ["a.fits"]).name
        'f.png'
        >>> plot_path(Path("f.png"), 1, ["a.fits", "b.fits"]).name
        'f-2-b.png'
    """
    if len(images) == 1:
        return path
    return path.with_name(f"{path.stem}-{index + 1}-{Path(images[index]).stem}{path.suffix}")


def _tell(path: str, observation: Observation) -> None:
    """Says what was taken from a file, and from where."""
    from deeplegato_pp.cli.display import provenance_line

    print(provenance_line(path, observation.provenance, observation.flags))


def _complain(path: str, reason: str) -> None:
    text = " ".join(reason.split())
    sys.stderr.write(f"deeplegato: {'' if path in text else f'{path}: '}{text}\n")
