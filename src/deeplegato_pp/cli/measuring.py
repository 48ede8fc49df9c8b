"""Steps of ``deeplegato predict``: reading, measuring, writing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplegato_pp._version import __version__
from deeplegato_pp.cli.journal import Journal
from deeplegato_pp.errors import InputError

if TYPE_CHECKING:
    from deeplegato_pp.inference import Posterior, Predictor
    from deeplegato_pp.inference.refine.policy import Refining
    from deeplegato_pp.observation.observation import Observation

CHUNK = 64
"""Number of galaxies read and measured together."""

REFINE_CHUNK = 8
"""Number of galaxies refined together, small enough for frequent progress."""


DRAWS_TOGETHER = 4_000_000
"""Maximum number of draws in memory, of all galaxies processed together: about 1 GB."""


@dataclass(frozen=True)
class Measuring:
    """Settings of the measurement.

    Attributes:
        samples: Number of the network's draws per galaxy.
        seed: Random seed.
        refining: Settings of the refinement, or None for the network's posterior.
        widths: Widths of unrefined posteriors, ``honest`` or ``noise``.
        covariance: Whether rows contain the covariances of all pairs of parameters.
    """

    samples: int
    seed: int
    refining: Refining | None = None
    widths: str = "honest"
    covariance: bool = False

    @property
    def chunk(self) -> int:
        """Number of galaxies processed together."""
        most = CHUNK if self.refining is None else REFINE_CHUNK
        return max(1, min(most, DRAWS_TOGETHER // self.samples))

    def measure(self, predictor: Predictor, observations: list[Observation]) -> Posterior:
        """Returns the posteriors of observations."""
        if self.refining is None:
            return predictor.posterior(observations, self.samples, self.seed, widths=self.widths)
        network = predictor.posterior(observations, self.samples, self.seed, widths="noise")
        return self.refining.apply(predictor, network, self.seed)


@dataclass(frozen=True)
class Outputs:
    """Output paths and settings.

    Attributes:
        table: Table with a row per image.
        samples: File of draws.
        plot: File of figures.
        imgblock: File of image, model and residual with GALFIT's keywords.
        fixed: Names of fixed parameters, which are marked in image blocks.
        plot_columns: Columns of the corner plots; None for those that fit.
    """

    table: Path | None
    samples: Path | None
    plot: Path | None
    imgblock: Path | None = None
    fixed: tuple[str, ...] = ()
    plot_columns: tuple[str, ...] | None = None

    def check(self) -> None:
        """Checks before any work that the outputs can be written."""
        from deeplegato_pp.inference.posterior.tables import SAMPLE_SUFFIXES, TABLE_SUFFIXES
        from deeplegato_pp.io.files import check_output

        if self.plot_columns is not None:
            check_plot_columns(self.plot_columns, self.plot is not None)
        figures = (".png", ".pdf", ".svg", ".jpg")
        for path, suffixes, what in (
            (self.table, TABLE_SUFFIXES, "table"),
            (self.samples, SAMPLE_SUFFIXES, "samples"),
            (self.plot, figures, "plot"),
        ):
            if path is not None:
                check_output(path, suffixes, what)

    def check_apart(self, images: list[str], given: dict[str, Any]) -> None:
        """Checks before any work that outputs differ from inputs and from each other.

        Args:
            images: The images, from which figures are named.
            given: Input files, by their description.
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

    def journal(self, configuration: dict[str, Any], resume: bool) -> Journal | None:
        """Returns the journal of rows until the table is written; None without a table.

        Raises:
            InputError: If a run without table is to be resumed.
        """
        if resume and (self.table is None or self.samples is not None):
            raise InputError(
                "--resume goes on with the rows of a table: it needs --output, and draws "
                "(--samples-output) are not kept. Add the one and leave the other out."
            )
        return None if self.table is None else Journal(self.table, configuration, resume)

    def draw(
        self, posterior: Posterior, numbers: list[int], names: list[str], frame: Any = None
    ) -> None:
        """Writes figures and image blocks of measured galaxies; failures are reported.

        Args:
            posterior: Posteriors of some galaxies.
            numbers: Their indices among all galaxies.
            names: Names of all galaxies.
            frame: Frame of a GALFIT input file, or None.
        """
        from deeplegato_pp.isolation import reason_of

        for i, row in zip(numbers, posterior, strict=True):
            if not row.measurements[0].measured:
                continue
            try:
                self._draw(row, i, names, frame)
            except OSError:  # an error of the disk, not of the galaxy
                raise
            except Exception as error:
                _complain(names[i], f"no figure or image block: {reason_of(error)}")

    def _draw(self, row: Posterior, i: int, names: list[str], frame: Any) -> None:
        if self.plot is not None:
            from deeplegato_pp.inference.posterior.plots import plot_posterior

            path = plot_path(self.plot, i, names)
            plot_posterior(row, path, close=True, columns=self.plot_columns)
        if self.imgblock is not None:
            from deeplegato_pp.export.imgblock import write_imgblock

            write_imgblock(row, plot_path(self.imgblock, i, names), frame, self.fixed)

    def write(self, posteriors: list[Posterior], rows: list[dict[str, Any]]) -> None:
        """Writes table and draws."""
        from deeplegato_pp.inference import Posterior
        from deeplegato_pp.inference.posterior.tables import write_samples, write_table

        if self.table is not None:
            write_table(rows, self.table)
        if self.samples is not None:
            write_samples(Posterior.concatenate(posteriors), self.samples)


def plot_columns_from(text: str | None) -> tuple[str, ...] | None:
    """Returns the columns in a comma-separated list; None without list.

    Example:
        >>> plot_columns_from("magnitude, bulge_to_total")
        ('magnitude', 'bulge_to_total')
    """
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def check_plot_columns(columns: tuple[str, ...], plotted: bool) -> None:
    """Checks the columns of a corner plot.

    Raises:
        InputError: If the list is empty, a column is unknown, or nothing is plotted.
    """
    from deeplegato_pp.inference.posterior.scene_record import parameter_columns
    from deeplegato_pp.scene.galaxy_scene import SCENES
    from deeplegato_pp.scene.parameters import NAMES

    known = [*NAMES, *parameter_columns(SCENES)]
    unknown = [name for name in columns if name not in known]
    if unknown or not columns:
        raise InputError(
            f"--plot-columns takes names with commas between them, got "
            f"{unknown[0] if unknown else 'none'!r}, expected some of {', '.join(known)}."
        )
    if not plotted:
        raise InputError("--plot-columns chooses columns of a figure. Add --plot FILE.")


def as_number(text: str | None) -> str | float | None:
    """Returns a number if the text is one, else the text, which is a file name.

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


def configuration_of(options: dict[str, Any], how: Measuring, model: str) -> dict[str, Any]:
    """Returns all settings on which rows depend, as plain values.

    Args:
        options: Options for reading images.
        how: Settings of the measurement.
        model: Identifier of the network.
    """
    from deeplegato_pp.catalog.plan import file_mark

    files = {k: file_mark(v) if isinstance(v, str) else v for k, v in options.items()}
    return files | asdict(how) | {"version": __version__, "model": model}


def measure_files(
    predictor: Predictor,
    images: list[str],
    options: dict[str, Any],
    how: Measuring,
    outputs: Outputs,
    journal: Journal | None = None,
) -> list[dict[str, Any]]:
    """Measures images, writes the outputs, and returns the rows in input order.

    Args:
        predictor: The network.
        images: Image files.
        options: Options for reading them.
        how: Settings of the measurement.
        outputs: Output paths; figures are written as galaxies finish.
        journal: Journal of finished rows, which are not measured again.
    """
    from deeplegato_pp.catalog.plan import file_mark
    from deeplegato_pp.cli.display import progress

    if how.refining is not None:
        how.refining.check(predictor.prior)
    marks = [f"{path}: {file_mark(path)}" for path in images] if journal is not None else []
    kept = [None if journal is None else journal.row(marks[i]) for i in range(len(images))]
    rows: dict[int, dict[str, Any]] = {i: row for i, row in enumerate(kept) if row is not None}
    left = [i for i in range(len(images)) if i not in rows]
    posteriors: list[Posterior] = []
    with progress("measuring", len(left)) as advance:
        for start in range(0, len(left), how.chunk):
            numbers = left[start : start + how.chunk]
            part = _measure_chunk(predictor, [images[i] for i in numbers], options, how)
            made = [
                {"file": printable(images[i])} | {k: printable(v) for k, v in row.items()}
                for i, row in zip(numbers, part.rows(how.covariance), strict=True)
            ]
            if journal is not None:
                journal.add([marks[i] for i in numbers], made)
            rows |= zip(numbers, made, strict=True)
            for i, measurement in zip(numbers, part.measurements, strict=True):
                if not measurement.measured:
                    _complain(images[i], measurement.reason)
            outputs.draw(part, numbers, images)
            if outputs.samples is not None:
                posteriors.append(part)
            advance(len(numbers))
    found = [rows[i] for i in range(len(images))]
    outputs.write(posteriors, found)
    if journal is not None:
        journal.remove()
    return found


def printable(value: Any) -> Any:
    r"""Escapes bytes of a text that are not UTF-8, as in file names; other values are unchanged.

    Example:
        >>> printable(b"galaxy-\xe9.fits".decode("utf-8", "surrogateescape"))
        'galaxy-\\xe9.fits'
    """
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _measure_chunk(
    predictor: Predictor, paths: list[str], options: dict[str, Any], how: Measuring
) -> Posterior:
    """Reads and measures files; a file that fails keeps its place."""
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
        except Exception as error:  # any error becomes this file's reason
            raise_if_of_the_machine(error)
            rows[i] = failed(i, error)

    def together(chosen: Sequence[int]) -> list[Posterior]:
        posterior = how.measure(predictor, [read[i] for i in chosen])
        posterior.rows(how.covariance)  # errors in building a row are raised here
        return [posterior[[k]] for k in range(len(chosen))]

    if read:
        rows |= zip(read, isolated(list(read), together, failed), strict=True)
    return Posterior.concatenate([rows[i] for i in range(len(paths))])


def plot_path(path: Path, index: int, images: list[str]) -> Path:
    """Returns the path of one image's figure.

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
    """Prints the values taken from a file, with their origin."""
    from deeplegato_pp.cli.display import provenance_line

    print(provenance_line(path, observation.provenance, observation.flags))


def _complain(path: str, reason: str) -> None:
    name, text = (" ".join(t.split()) for t in (path, reason))  # names may contain line breaks
    sys.stderr.write(f"deeplegato: {'' if name in text else f'{name}: '}{text}\n")
