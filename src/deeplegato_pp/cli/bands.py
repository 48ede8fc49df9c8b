"""``deeplegato predict --bands``: the files are one galaxy in several bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deeplegato_pp.cli.measuring import Measuring, Outputs, printable
from deeplegato_pp.errors import ConfigError, InputError

if TYPE_CHECKING:
    from deeplegato_pp.inference import Predictor
    from deeplegato_pp.observation.bands import Bands

EACH = " With --bands once for all, or once for each, in order."
"""What is said of options that may differ between bands."""


def per_band(names: list[str] | None, **given: list[Any] | None) -> dict[str, Any]:
    """Returns options that may be given once per band: a list of several, one value, or None.

    Args:
        names: Of the bands; None where the files are not one galaxy.
        given: Values by option.

    Raises:
        InputError: If one is given several times and there are no bands.
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
    """Returns which bands are fitted together and how; None if none are.

    Args:
        bands: Names, separated by commas.
        structure: None where the option was not given.
        wavelengths: Numbers, separated by commas.
        other: Options that do not go with bands, by name; those not given are false.

    Raises:
        ConfigError: If options do not go together, or a wavelength is no number.
        InputError: If the names cannot be.
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
    """Fits one galaxy in several bands, writes what was asked for, and returns its row.

    Args:
        predictor: The network.
        files: One per band.
        options: How they are read; lists hold one value per band.
        bands: The bands.
        how: How galaxies are measured.
        outputs: Where results go.
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
