"""Table rows from posteriors: columns, units, descriptions and their order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior import band_record, covariance, scene_record
from deeplegato_pp.inference.posterior.derived import DERIVED, derive
from deeplegato_pp.inference.posterior.draw_columns import lines_on, names_of
from deeplegato_pp.inference.posterior.measurement import HYPOTHESES, Measured
from deeplegato_pp.scene.parameters import PARAMETERS
from deeplegato_pp.stats import weighted as statistics

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.base import PosteriorBase
    from deeplegato_pp.inference.posterior.measurement import Measurement

NUMBERS: dict[str, str] = {
    "ess": "effective sample size of the weighted draws",
    "khat": "Pareto k-hat of the importance weights",
    "log_evidence": "natural logarithm of the evidence",
    "log_evidence_error": "its standard error",
    "chi2": "chi-square per degree of freedom: at the mean, or once refined at the best draw",
    "chi2_p": "probability of a misfit as large as that of the best model within the posterior",
    "ood": "distance of the network's features from those of training images, about 1 for those",
    "ood_p": "fraction of training images with a larger distance",
    "p_value": "probability of a larger chi-square under the exact posterior",
    "structure": "median ratio of honest to noise widths; about 1 for a Sérsic profile",
    "num_modes": "number of modes found by refinement, 0 if no search was needed",
}
"""Dimensionless diagnostics."""

QUALITY = (
    "good, caution or bad: the worst level among the flags set, each flag's level standing in "
    "docs/flags.md; bad are failed, gross_misfit, mean_off, saturated, no_contrast, high_khat, "
    "and unless refined unfamiliar; with honest widths poor_fit is no reason for caution, and "
    "gross_misfit of a galaxy that is seen no more than that"
)

INSTRUMENT: dict[str, tuple[str, str]] = {
    "pixel_scale": ("arcsec / pix", "of the image as given"),
    "zero_point": ("mag", "AB magnitude of one image unit"),
    "background": ("", "median noise per pixel of the stamp [image units]"),
    "sky_sigma": ("", "standard deviation of the constant sky offset [image units]"),
    "psf_fwhm": ("pix", "full width at half maximum of the PSF, in pixels of the image as given"),
    "psf_error": ("", "relative error of the PSF's width in the likelihood, one sigma"),
    "bin": ("", "binning: image pixels per stamp pixel along each axis"),
}
"""Instrument and settings of a measurement."""

TEXTS = (
    "name",
    "quality",
    "flag_names",
    "reason",
    "notes",
    "method",
    "widths",
    "model",
    "best_scene",
    *band_record.TEXTS,
)
INTEGERS = ("flags", "bin")


def units() -> dict[str, str]:
    """Returns the unit of every column, in the order of the tables; "" for pure numbers."""
    columns = {"name": ""}
    for p in PARAMETERS:
        columns |= dict.fromkeys(names_of(p.name), p.unit)
    for d in DERIVED:
        width = _width_unit(d.unit)
        columns |= {d.name: d.unit, f"{d.name}_std": width, f"{d.name}_std_noise": width}
    texts = ("quality", "flags", "flag_names", "reason", "notes", "method", "widths")
    columns |= dict.fromkeys(texts, "")
    columns |= dict.fromkeys(NUMBERS, "")
    columns |= {name: unit for name, (unit, _) in HYPOTHESES.items()}
    columns["model"] = ""
    columns |= {name: unit for name, (unit, _) in INSTRUMENT.items()}
    for p in PARAMETERS:
        if p.period is None:
            columns |= {f"prior_{p.name}_lower": p.unit, f"prior_{p.name}_upper": p.unit}
    return columns


def descriptions() -> dict[str, str]:
    """Returns a one-line description of each column."""
    lines = {"name": "name of the galaxy", "flags": "sum of the flags' bits"}
    for p in PARAMETERS:
        lines |= lines_on(p.name, p.meaning, p.period)
        lines[f"prior_{p.name}_lower"] = f"lower bound of the prior of {p.name}"
        lines[f"prior_{p.name}_upper"] = f"upper bound of the prior of {p.name}"
    for d in DERIVED:
        lines[d.name] = d.meaning
        lines[f"{d.name}_std"] = f"standard deviation of {d.name}"
        lines[f"{d.name}_std_noise"] = f"standard deviation of {d.name} for the stated noise alone"
    lines |= {
        "quality": QUALITY,
        "flag_names": "names of the flags set, separated by commas",
        "reason": "why a galaxy was not measured",
        "notes": "assumptions, findings and replaced values",
        "method": "method by which the draws were obtained",
        "widths": "what errors and draws include: honest (noise and structure) or noise alone",
        "model": "network and version of the package",
    }
    lines |= NUMBERS | {name: text for name, (_, text) in INSTRUMENT.items()}
    lines |= {name: text for name, (_, text) in HYPOTHESES.items()}
    return {name: lines[name] for name in units()}


def every_unit(plain: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Returns the unit of every column that a table may have, scenes and covariances included.

    Args:
        plain: Rows of the table, which determine its bands.
    """
    return units() | covariance.units() | scene_record.units() | band_record.units(_bands(plain))


def every_description(plain: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Returns a description of every column that a table may have; see :func:`every_unit`."""
    more = scene_record.descriptions() | band_record.descriptions(_bands(plain))
    return descriptions() | covariance.descriptions() | more


def _bands(plain: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns the sets of bands in a table's rows."""
    found = dict.fromkeys(row.get("bands") for row in plain)
    return [tuple(text.split(",")) for text in found if text]


def rows(posterior: PosteriorBase, covariances: bool = False) -> list[dict[str, Any]]:
    """Returns one dictionary per galaxy, with None for values that are unknown or not finite.

    All rows have the same columns, including those of scenes if a scene was requested.

    Args:
        posterior: Of one galaxy or many.
        covariances: Whether to include the covariances of all pairs of parameters.
    """
    noise = posterior.under_noise()
    found = [_row(posterior, noise, i) for i in range(len(posterior))]
    if covariances:
        for i, row in enumerate(found):
            own = covariance.columns_of(posterior, i)
            row |= {name: _plain(value) for name, value in own.items()}
    columns = dict.fromkeys(name for row in found for name in row)
    return [columns | row for row in found]


def parameter_summaries(posterior: PosteriorBase, row: int = 0) -> list[statistics.Summary]:
    """Returns the seven parameters' summaries of one galaxy, in the table's order."""
    weights = posterior.weights(row)
    samples = posterior.batch_samples[row].numpy()
    return [
        statistics.summarise(samples[:, i], weights, p.period) for i, p in enumerate(PARAMETERS)
    ]


def to_qtable(plain: list[dict[str, Any]]) -> Any:
    """Converts rows to an ``astropy.table.QTable`` with units and descriptions.

    Args:
        plain: Rows from :func:`rows`; additional columns are kept, without unit.
    """
    from astropy.table import QTable

    known, described = every_unit(plain), every_description(plain)
    table = QTable()
    for name in plain[0] if plain else known:
        values = [row[name] for row in plain]
        unit = known.get(name, "")
        table[name] = _column(name, values, unit)
        table[name].info.description = described.get(name, "")
    table.meta["widths"] = kinds_of_widths(plain)
    table.meta["psferror"] = psf_errors(plain)
    return table


def kinds_of_widths(plain: list[dict[str, Any]]) -> str:
    """Returns the kinds of widths in rows: ``honest``, ``noise``, or both, comma-separated."""
    return ",".join(sorted({row["widths"] for row in plain if row.get("widths")}))


def psf_errors(plain: list[dict[str, Any]]) -> str:
    """Returns the relative PSF-width errors in rows, comma-separated."""
    found = {row["psf_error"] for row in plain if row.get("psf_error") is not None}
    return ",".join(f"{error:g}" for error in sorted(found))


def _column(name: str, values: list[Any], unit: str) -> Any:
    from astropy import units as u

    if name in INTEGERS:
        return np.array([0 if v is None else v for v in values], dtype=np.int64)
    if name in TEXTS or any(isinstance(v, str) for v in values):
        return np.array(["" if v is None else v for v in values], dtype=str)
    numbers = np.array([math.nan if v is None else v for v in values], dtype=np.float64)
    return u.Quantity(numbers, unit) if unit else numbers


def _width_unit(unit: str) -> str:
    """Returns the unit of a standard deviation; that of a surface brightness is a magnitude."""
    return "mag" if unit.startswith("mag") else unit


def _row(posterior: PosteriorBase, noise: PosteriorBase, index: int) -> dict[str, Any]:
    m = posterior.measurements[index]
    row: dict[str, Any] = dict.fromkeys(units())
    row |= {
        "name": m.name,
        "quality": m.quality,
        "flags": int(m.flags),
        "flag_names": ",".join(Flag.names(m.flags)),
        "reason": m.reason or None,
        "notes": _notes(m),
        "method": m.method or None,
        "widths": m.widths or None,
        "model": m.model or None,
    }
    row |= {name: getattr(m, name) for name in NUMBERS}
    if m.hypotheses is not None:
        row |= {name: getattr(m.hypotheses, name) for name in HYPOTHESES}
    if m.measured:
        _add_parameters(row, posterior, noise, index)
        _add_derived(row, posterior, noise, index)
    _add_instrument(row, m)
    if m.scene is not None:
        row |= scene_record.columns_of(m.scene)
    if m.bands is not None:
        row |= band_record.columns_of(m.bands)
    return {name: _plain(value) for name, value in row.items()}


def _notes(m: Measurement) -> str | None:
    own = m.observation is not None and m.bands is None  # columns of bands are already named
    notes = list(m.observation.notes) if own and m.observation is not None else []
    return "; ".join([*notes, *m.notes]) or None


def _add_parameters(
    row: dict[str, Any], posterior: PosteriorBase, noise: PosteriorBase, index: int
) -> None:
    found = parameter_summaries(posterior, index)
    own = found if noise is posterior else parameter_summaries(noise, index)
    for p, s, n in zip(PARAMETERS, found, own, strict=True):
        row |= dict(zip(names_of(p.name), (s.value, s.std, n.std, *s.quantiles), strict=True))


def _add_derived(
    row: dict[str, Any], posterior: PosteriorBase, noise: PosteriorBase, index: int
) -> None:
    m = posterior.measurements[index]
    if not isinstance(m, Measured):
        return
    found = _derived_summaries(posterior, m, index)
    own = found if noise is posterior else _derived_summaries(noise, m, index)
    for name, s in found.items():
        row |= {name: s.value, f"{name}_std": s.std, f"{name}_std_noise": own[name].std}


def _derived_summaries(
    posterior: PosteriorBase, m: Measured, index: int
) -> dict[str, statistics.Summary]:
    """Returns the summaries of derived quantities, by name."""
    weights = posterior.weights(index)
    samples = posterior.batch_samples[index].numpy()
    used = slice(None) if weights is None else weights > 0
    draws = derive(samples[used], m.observation, m.prepared, m.psf_fwhm)
    kept = None if weights is None else weights[used]
    return {d.name: statistics.summarise(draws[d.name], kept, d.period) for d in DERIVED}


def _add_instrument(row: dict[str, Any], m: Measurement) -> None:
    if m.observation is not None:
        row |= {name: getattr(m.observation, name) for name in ("pixel_scale", "zero_point")}
        row["sky_sigma"] = m.observation.sky_sigma
    if m.prepared is not None:
        row |= {"background": m.prepared.scale, "bin": m.prepared.bin}
        row["psf_fwhm"] = m.psf_fwhm * m.prepared.bin
        row["psf_error"] = m.prepared.psf_error if m.psf_error is None else m.psf_error
    if m.box is not None:
        for p in PARAMETERS:
            if p.period is None:
                lower, upper = getattr(m.box, p.name)
                row |= {f"prior_{p.name}_lower": lower, f"prior_{p.name}_upper": upper}


def _plain(value: Any) -> Any:
    """Converts a value to a built-in type; None for numbers that are not finite."""
    if isinstance(value, str | int) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None
