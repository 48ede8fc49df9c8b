"""Fit of one galaxy in several bands, for ``deeplegato predict --bands``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deeplegato_pp.cli.measuring import Measuring, Outputs, printable
from deeplegato_pp.errors import ConfigError, InputError

if TYPE_CHECKING:
    from deeplegato_pp.inference import Predictor
    from deeplegato_pp.observation.bands import Bands

EACH = " With --bands once for all, or once for each, in order."
"""Remark for options that may differ between bands."""


def per_band(names: list[str] | None, **given: list[Any] | None) -> dict[str, Any]:
    """Returns options that may be given per band: a list for several values, one value, or None.

    Args:
        names: Names of the bands; None if the files are not one galaxy.
        given: Values by option.

    Raises:
        InputError: If an option is given several times without bands.
    """
    found: dict[str, Any] = {}
    for name, values in given.items():
        if names is None and values and len(values) > 1:
            raise InputError(
                f"--{name.replace('_', '-')} was given {len(values)} times, expected once: it "
                "serves all images. It repeats with --bands only, in their order."
            )
        found[name] = None if not values else values[0] if len(values) == 1 else values
    return found


def bands_from(
    bands: str | None,
    structure: str | None,
    wavelengths: str | None,
    other: Mapping[str, Any],
) -> Bands | None:
    """Returns the bands that are fitted together and their structure; None without bands.

    Args:
        bands: Names, separated by commas.
        structure: Structure of the bands, or None if not given.
        wavelengths: Wavelengths, separated by commas.
        other: Options that are incompatible with bands, by name; false if not given.

    Raises:
        ConfigError: If options are incompatible, or a wavelength is not a number.
        InputError: If the names are invalid.
    """
    if bands is None:
        for name, value in (("--band-structure", structure), ("--wavelengths", wavelengths)):
            if value is not None:
                raise ConfigError(f"{name} belongs to several bands. Name them with --bands.")
        return None
    from deeplegato_pp.observation.bands import Bands
    from deeplegato_pp.scene.bands import log_positions

    waves = None if wavelengths is None else _numbers(wavelengths)
    names = tuple(name.strip() for name in bands.split(","))
    found = Bands(names, "shared" if structure is None else structure, waves)
    for name, value in other.items():
        if value:
            raise ConfigError(
                f"{name} does not go with --bands, which fits one Sérsic profile in all bands. "
                "Leave one of them out."
            )
    if found.structure == "linear" or waves is not None:
        log_positions(waves, len(names))
    return found


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--wavelengths takes numbers separated by commas, in micrometres, got {text!r}."
        ) from None


def measure_bands(
    predictor: Predictor,
    files: list[str],
    options: dict[str, Any],
    bands: Bands,
    how: Measuring,
    outputs: Outputs,
) -> list[dict[str, Any]]:
    """Fits one galaxy in several bands, writes the outputs, and returns its row.

    Args:
        predictor: The network.
        files: Files, one per band.
        options: Options for reading; lists have one value per band.
        bands: The bands.
        how: Settings of the measurement.
        outputs: Output paths.
    """
    from deeplegato_pp.cli.display import provenance_line
    from deeplegato_pp.observation.bands import MultiBandObservation

    galaxy = MultiBandObservation.from_fits(files, bands.names, bands.wavelengths, **options)
    for path, seen in zip(files, galaxy.observations.values(), strict=True):
        print(provenance_line(path, seen.provenance, seen.flags))
    assert how.refining is not None  # noqa: S101  # bands are always refined
    posterior = predictor.fit_bands(
        galaxy,
        bands.structure,
        seed=how.seed,
        model_error=how.refining.model_error,
        widths=how.widths,
        num_samples=how.samples,
        method=how.refining.method,
    )
    (row,) = posterior.rows(how.covariance)
    rows = [{"file": printable(",".join(files))} | {name: printable(v) for name, v in row.items()}]
    outputs.draw(posterior[[0]], [0], [files[0]])
    outputs.write([posterior[[0]]], rows)
    return rows
